//! The registries of text encoders, image encoders, pairs of both, and decoders of speech.

use super::{bert, clip, siglip, whisper};
use crate::checkpoint::Checkpoint;
use crate::encoder::{DualEncoder, ImageEncoder, SpeechDecoder, TextEncoder};
use crate::engine::Runtime;
use crate::error::{Error, Result};
use crate::loader::{LoadOptions, Loader};

/// The families of one kind of model by `model_type` of `config.json`: each makes a model from the root of a
/// checkpoint.
type Registry<T> = [(&'static str, fn(&Loader<'_>) -> Result<Box<T>>)];

const TEXT: &Registry<dyn TextEncoder> = &[("bert", bert::load), ("clip", clip::load_text)];

const IMAGE: &Registry<dyn ImageEncoder> =
    &[("clip", clip::load_image), ("siglip", siglip::load), ("siglip_vision_model", siglip::load)];

const DUAL: &Registry<dyn DualEncoder> = &[("clip", clip::load)];

const SPEECH: &Registry<dyn SpeechDecoder> = &[("whisper", whisper::load)];

/// Every `model_type` that a function of this file knows; some are in two of its registries.
pub fn encoder_types() -> impl Iterator<Item = &'static str> {
    let images_and_texts = names(TEXT).chain(names(IMAGE)).chain(names(DUAL));
    images_and_texts.chain(names(SPEECH))
}

fn names<T: ?Sized>(registry: &'static Registry<T>) -> impl Iterator<Item = &'static str> {
    registry.iter().map(|(name, _)| *name)
}

/// The text encoder of a checkpoint, by its `model_type`: bert or clip.
///
/// **Errors**, **Panics**, **Cost**: as [`load_decoder`](super::load_decoder).
pub fn load_text_encoder(
    rt: &Runtime,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Box<dyn TextEncoder>> {
    load(TEXT, rt, checkpoint, options)
}

/// The image encoder of a checkpoint, by its `model_type`: clip, siglip or siglip_vision_model.
///
/// **Errors**, **Panics**, **Cost**: as [`load_decoder`](super::load_decoder).
pub fn load_image_encoder(
    rt: &Runtime,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Box<dyn ImageEncoder>> {
    load(IMAGE, rt, checkpoint, options)
}

/// The text encoder and the image encoder of a checkpoint, by its `model_type`: clip.
///
/// **Errors**, **Panics**, **Cost**: as [`load_decoder`](super::load_decoder).
pub fn load_dual_encoder(
    rt: &Runtime,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Box<dyn DualEncoder>> {
    load(DUAL, rt, checkpoint, options)
}

/// The decoder of speech of a checkpoint, by its `model_type`: whisper.
///
/// **Errors**, **Panics**, **Cost**: as [`load_decoder`](super::load_decoder).
pub fn load_speech_decoder(
    rt: &Runtime,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Box<dyn SpeechDecoder>> {
    load(SPEECH, rt, checkpoint, options)
}

fn load<T: ?Sized>(
    registry: &'static Registry<T>,
    rt: &Runtime,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
) -> Result<Box<T>> {
    let model_type = checkpoint.model_type()?;
    let Some((_, load)) = registry.iter().find(|(name, _)| *name == model_type) else {
        let known = names(registry).collect::<Vec<_>>().join(", ");
        return Err(Error::UnknownModel { model_type: model_type.into(), known });
    };
    load(&Loader::new(rt, checkpoint, options))
}
