//! Every family against results that another program computed in f64, at every tier, on any number of
//! threads, in any chunks and any batch.
//!
//! A folder of `tests/fixtures` holds `config.json`, `weights.safetensors` and `io.safetensors` (`input_ids`
//! and the results). `KVERN_MODELS_DIR` names a folder of more such folders; those of families that the
//! registry lacks are skipped with a message.

mod damaged;
mod decoders;
mod encoder_refusals;
mod encoders;
mod folders;
mod minilm;
mod refusals;
mod runs;
mod speech;
mod values;
