//! The runtime of a pass, and the traits that families implement: a decoder gives logits. Encoders have
//! traits of their own, for their inputs and results differ from family to family.

use crate::error::{Error, Result};
use crate::rows::Rows;
use kvern::{Context, MatRef, Workspace, ops};

/// What a pass computes with: the context, and a workspace that grows to what the calls ask for.
#[derive(Debug)]
pub struct Runtime {
    /// Which kernels, which threads.
    pub ctx: Context,
    /// Scratch of the calls; see [`Runtime::reserve`].
    pub ws: Workspace,
}

impl Runtime {
    /// A runtime on `ctx`.
    ///
    /// **Errors**: as [`Workspace::new`].
    pub fn new(ctx: Context) -> Result<Runtime> {
        Ok(Runtime { ctx, ws: Workspace::new(0)? })
    }

    /// Grows the workspace to at least `bytes`.
    ///
    /// **Errors**: as [`Workspace::reserve`].
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        Ok(self.ws.reserve(bytes)?)
    }

    /// `x / sqrt(mean(x^2) + eps) * gain`, row by row.
    ///
    /// **Errors**: as [`ops::rms_norm`].
    pub fn rms_norm(&self, x: MatRef<'_>, gain: &[f32], eps: f32) -> Result<Rows> {
        let mut y = Rows::zeros(x.rows(), x.cols());
        ops::rms_norm(&self.ctx, x, gain, eps, y.view_mut()?)?;
        Ok(y)
    }

    /// `stream = stream + rms_norm(y)`: a part with a norm behind it.
    ///
    /// **Errors**: as [`ops::rms_norm`] and [`ops::add`].
    pub fn add_rms_norm(&self, y: MatRef<'_>, gain: &[f32], eps: f32, stream: &mut Rows) -> Result<()> {
        let normed = self.rms_norm(y, gain, eps)?;
        Ok(ops::add(&self.ctx, stream.view_mut()?, normed.view()?)?)
    }
}

/// A model that predicts the next token: a stack with caches or states, which hold one sequence.
///
/// A prompt may come whole, in pieces of any length or token by token: the logits have the same bits.
pub trait Decoder {
    /// Tokens of the vocabulary: the length of a row of logits.
    fn vocabulary(&self) -> usize;

    /// Tokens that a sequence may have.
    fn capacity(&self) -> usize;

    /// Tokens of the sequence so far.
    fn len(&self) -> usize;

    /// Whether the sequence has no tokens yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Empties caches and states: a new sequence.
    fn reset(&mut self);

    /// The stack: [`Decoder::forward`] of tokens that it has checked, at least one.
    ///
    /// **Errors**: those of the library's calls.
    fn run(&mut self, rt: &mut Runtime, tokens: &[u32]) -> Result<Rows>;

    /// Appends tokens to the sequence and gives the logits after each of them: (tokens, vocabulary), row
    /// after row.
    ///
    /// **Errors**: `Token` for one that is not in the vocabulary, `Full` when the sequence has no room; the
    /// sequence is unchanged then. After an error of a call in the stack (memory), call [`Decoder::reset`].
    /// **Panics**: never.
    fn forward(&mut self, rt: &mut Runtime, tokens: &[u32]) -> Result<Vec<f32>> {
        let (vocabulary, len, capacity) = (self.vocabulary(), self.len(), self.capacity());
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::Token { id, vocabulary });
        }
        if tokens.len() > capacity.saturating_sub(len) {
            return Err(Error::Full { len, adding: tokens.len(), capacity });
        }
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.run(rt, tokens)?.into_vec())
    }
}
