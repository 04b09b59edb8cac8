//! Traits of the families that read a whole input at once: texts and images as vectors, and speech.

use crate::engine::{Decoder, Runtime};
use crate::error::{Error, Result};
use crate::rows::Rows;
use kvern::MatRef;
use kvern::ops::{self, NormKind, NormOptions};

/// What an encoder gives for a batch: rows of the sequences one after the other, without padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoding {
    /// The last layer's rows (tokens or patches, width).
    pub hidden: Rows,
    /// Where each sequence begins in `hidden`, and the end of the last one: (sequences + 1).
    pub starts: Vec<usize>,
    /// One row for each sequence (sequences, n), as the family pools; `None` where a checkpoint has no
    /// weights for it.
    pub pooled: Option<Rows>,
}

impl Encoding {
    /// The mean of each sequence's rows, divided by its length: the vectors of sentence encoders.
    ///
    /// **Formula**: `m / max(|m|, 1e-12)`, m the mean. **Shapes**: (sequences, width).
    /// **Source**: Reimers & Gurevych 2019. **Errors**: those of the calls.
    pub fn mean(&self, rt: &Runtime) -> Result<Rows> {
        let mut mean = Rows::zeros(self.starts.len().saturating_sub(1), self.hidden.cols());
        ops::mean_pool(&rt.ctx, self.hidden.view()?, &self.starts, None, mean.view_mut()?)?;
        unit_rows(rt, &mean)
    }
}

/// `x / max(|x|, 1e-12)`, row by row.
///
/// **Errors**: as [`ops::norm`].
pub fn unit_rows(rt: &Runtime, x: &Rows) -> Result<Rows> {
    let mut y = Rows::zeros(x.rows(), x.cols());
    ops::norm(&rt.ctx, &NormOptions::new(NormKind::Unit, 1e-12), x.view()?, y.view_mut()?)?;
    Ok(y)
}

/// Refuses `got` where it is not `want`; `relation` ends with the name of what `want` is.
pub(crate) fn equal(what: &'static str, got: usize, relation: &'static str, want: usize) -> Result<()> {
    if got == want { Ok(()) } else { Err(kvern::Error::Shape { what, got, relation, want }.into()) }
}

/// A model that turns texts into vectors.
///
/// The sequences of a batch may have any lengths: each has the bits that it has alone.
pub trait TextEncoder {
    /// Tokens of the vocabulary.
    fn vocabulary(&self) -> usize;

    /// Tokens that a sequence may have.
    fn capacity(&self) -> usize;

    /// The stack: [`TextEncoder::encode`] of sequences that it has checked, one after the other, of which
    /// number s is `tokens[starts[s]..starts[s + 1]]`.
    ///
    /// **Errors**: those of the library's calls.
    fn run(&self, rt: &mut Runtime, tokens: &[u32], starts: Vec<usize>) -> Result<Encoding>;

    /// The vectors of a batch of sequences, each of at least one token.
    ///
    /// **Errors**: `Token` for one that is not in the vocabulary, `Full` for a sequence that is too long,
    /// `Kvern` for an empty one; those of the library's calls. **Panics**: never.
    fn encode(&self, rt: &mut Runtime, sequences: &[&[u32]]) -> Result<Encoding> {
        let (vocabulary, capacity) = (self.vocabulary(), self.capacity());
        let (mut tokens, mut starts) = (Vec::new(), vec![0]);
        for sequence in sequences {
            if sequence.is_empty() {
                let (what, relation) = ("tokens of a sequence", "must be at least");
                return Err(kvern::Error::Shape { what, got: 0, relation, want: 1 }.into());
            }
            if let Some(&id) = sequence.iter().find(|&&id| id as usize >= vocabulary) {
                return Err(Error::Token { id, vocabulary });
            }
            if sequence.len() > capacity {
                return Err(Error::Full { len: 0, adding: sequence.len(), capacity });
            }
            tokens.extend_from_slice(sequence);
            starts.push(tokens.len());
        }
        self.run(rt, &tokens, starts)
    }
}

/// A model that turns images into vectors.
///
/// Each image of a batch has the bits that it has alone.
pub trait ImageEncoder {
    /// Channels of an image, usually 3.
    fn channels(&self) -> usize;

    /// Pixels of a side: images are squares.
    fn size(&self) -> usize;

    /// The stack: [`ImageEncoder::encode`] of pixels whose number it has checked.
    ///
    /// **Errors**: those of the library's calls.
    fn run(&self, rt: &mut Runtime, pixels: &[f32]) -> Result<Encoding>;

    /// The vectors of a batch of images, scaled as the model wants them.
    ///
    /// **Shapes**: `pixels`: (images, channels, size, size). **Errors**: `Kvern` for pixels that are no
    /// whole number of images; those of the library's calls. **Panics**: never.
    fn encode(&self, rt: &mut Runtime, pixels: &[f32]) -> Result<Encoding> {
        let image = [self.channels(), self.size(), self.size()].into_iter().fold(1, usize::saturating_mul);
        let rest = pixels.len().checked_rem(image).unwrap_or(1);
        equal("pixels.len modulo channels * size^2", rest, "must equal", 0)?;
        self.run(rt, pixels)
    }
}

/// A text encoder and an image encoder whose vectors lie in one space.
pub trait DualEncoder {
    /// The encoder of texts; `pooled` are vectors of length 1.
    fn text(&self) -> &dyn TextEncoder;

    /// The encoder of images; `pooled` are vectors of length 1.
    fn image(&self) -> &dyn ImageEncoder;

    /// How well each text fits each image: scaled products of their vectors.
    ///
    /// **Shapes**: `texts`: (texts, n), `images`: (images, n); the result (texts, images). **Errors**: those
    /// of the product.
    fn logits(&self, rt: &mut Runtime, texts: &Rows, images: &Rows) -> Result<Rows>;
}

/// A decoder that writes what it hears: [`SpeechDecoder::listen`] first, then tokens.
pub trait SpeechDecoder: Decoder {
    /// Bands of the spectrogram.
    fn bands(&self) -> usize;

    /// Frames of the spectrogram that the encoder may take at once.
    fn frames(&self) -> usize;

    /// Encodes a spectrogram, to which all tokens attend from then on, and begins a new sequence. The result
    /// is what the encoder gives, one row for two frames. [`Decoder::reset`] keeps the spectrogram.
    ///
    /// **Shapes**: `spectrogram`: (bands, frames). **Errors**: `Kvern` for another number of bands, for more
    /// frames than fit, and for none; those of the library's calls, after which it has heard nothing.
    /// **Panics**: never.
    fn listen(&mut self, rt: &mut Runtime, spectrogram: MatRef<'_>) -> Result<Rows>;
}
