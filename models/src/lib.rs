//! Small reference engines of model families, written on the public API of `kvern` only: which calls a layer
//! of each family takes, in code that runs. Speed is that of the library's calls; memory for activations is
//! allocated anew in each pass, so that a family reads like its paper.
//!
//! A checkpoint is a folder of `config.json` and safetensors, as published. The files, from the top down;
//! each imports only from files below it:
//!
//! ```text
//! families       the registry by model_type, and one file for each family
//! stack          layers of several kinds between an embedding and a head
//! mamba2, delta_net, latent_attention, self_attention
//!                parts of layers that move information between tokens
//! recurrence     what recurrent parts share: the short convolution, rates of decay
//! experts        a router and its experts
//! encoder_layer  the layer of pre-norm encoders
//! feed_forward   the gated feed-forward layer
//! multi_head     attention of whole sequences, without a cache
//! convolution    convolutions along the time and of patches
//! embedding, layer_norm   tables of vectors, norms with a bias
//! loader         tensors of a checkpoint as layers: linear maps, gains, embedding tables
//! rope           rotation tables from config.json
//! attention      keys, values and queries of a layer: caches, and the call that attends
//! linear         a linear map with packed weights
//! engine, encoder   the runtime of a pass, and the traits that families implement
//! checkpoint     config.json and named tensors
//! rows, error    an owned matrix, the one error type
//! ```
//!
//! ```no_run
//! use kvern_models::{Checkpoint, LoadOptions, Runtime, load_decoder};
//! let checkpoint = Checkpoint::open("checkpoint".as_ref())?;
//! let mut rt = Runtime::new(kvern::Context::serial())?;
//! let mut model = load_decoder(&rt, &checkpoint, &LoadOptions::new(2048))?;
//! let prompt = [1, 15, 42];
//! let logits = model.forward(&mut rt, &prompt)?; // (tokens, vocabulary), row after row
//! assert_eq!(logits.len(), prompt.len() * model.vocabulary());
//! # Ok::<(), kvern_models::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod attention;
mod checkpoint;
pub mod convolution;
pub mod delta_net;
pub mod embedding;
mod encoder;
pub mod encoder_layer;
mod engine;
mod error;
pub mod experts;
pub mod families;
mod feed_forward;
pub mod latent_attention;
mod layer_norm;
pub mod linear;
mod loader;
pub mod mamba2;
pub mod multi_head;
pub mod recurrence;
pub mod rope;
mod rows;
pub mod self_attention;
pub mod stack;

pub use checkpoint::Checkpoint;
pub use encoder::{DualEncoder, Encoding, ImageEncoder, SpeechDecoder, TextEncoder, unit_rows};
pub use engine::{Decoder, Runtime};
pub use error::{Error, Result};
pub use families::encoders::{load_dual_encoder, load_image_encoder, load_speech_decoder, load_text_encoder};
pub use families::load_decoder;
pub use feed_forward::{GatedFeedForward, activation};
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use loader::{LoadOptions, Loader};
pub use rows::Rows;
