//! The families, one file each, and the registry by which a checkpoint finds its own.
//!
//! A new family is a file with a function of type [`LoadDecoder`], a row of the registry, and a fixture:
//! `config.json`, weights, and logits that another program computed. Encoders, and decoders of speech, have
//! registries of their own: [`encoders`].

mod altup;
mod bert;
mod clip;
mod deepseek_v3;
pub mod encoders;
mod gemma;
mod gemma3n;
mod gemma4;
mod gemma_attention;
mod gemma_inputs;
mod gpt_oss;
mod granite;
mod granite_moe_hybrid;
mod kimi_linear;
mod lfm2;
mod llama;
mod mistral;
mod mixtral;
mod nemotron_h;
mod olmo2;
mod phi3;
mod qwen;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;
mod siglip;
mod smollm3;
mod whisper;

use crate::checkpoint::Checkpoint;
use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::loader::{LoadOptions, Loader};

/// Makes a decoder from the root of a checkpoint.
pub type LoadDecoder = fn(&Loader<'_>) -> Result<Box<dyn Decoder>>;

/// The decoders by `model_type` of `config.json`.
const DECODERS: &[(&str, LoadDecoder)] = &[
    ("deepseek_v3", deepseek_v3::load),
    ("gemma2", gemma::load_2),
    ("gemma3_text", gemma::load_3),
    ("gemma3n_text", gemma3n::load),
    ("gemma4_text", gemma4::load),
    ("gpt_oss", gpt_oss::load),
    ("granite", granite::load),
    ("granitemoehybrid", granite_moe_hybrid::load),
    ("kimi_linear", kimi_linear::load),
    ("lfm2", lfm2::load),
    ("llama", llama::load),
    ("mistral", mistral::load),
    ("mixtral", mixtral::load),
    ("nemotron_h", nemotron_h::load),
    ("olmo2", olmo2::load),
    ("phi3", phi3::load),
    ("qwen2", qwen::load_2),
    ("qwen3", qwen::load_3),
    ("qwen3_5_text", qwen3_5::load),
    ("qwen3_moe", qwen3_moe::load),
    ("qwen3_next", qwen3_next::load),
    ("smollm3", smollm3::load),
];

/// Every `model_type` that [`load_decoder`] knows.
pub fn decoder_types() -> impl Iterator<Item = &'static str> {
    DECODERS.iter().map(|(name, _)| *name)
}

/// The decoder of a checkpoint, by its `model_type`.
///
/// **Errors**: `UnknownModel`; `Config` for a field that is missing or not known; `MissingTensor`,
/// `TensorShape`, `TensorType`; those of packing and of caches. **Panics**: never. **Cost**: one pass over
/// the weights.
pub fn load_decoder(
    rt: &Runtime,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Box<dyn Decoder>> {
    let model_type = checkpoint.model_type()?;
    let Some((_, load)) = DECODERS.iter().find(|(name, _)| *name == model_type) else {
        let known = decoder_types().collect::<Vec<_>>().join(", ");
        return Err(Error::UnknownModel { model_type: model_type.into(), known });
    };
    load(&Loader::new(rt, checkpoint, options))
}
