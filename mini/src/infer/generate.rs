//! Greedy generation, with and without the cache, and the hash of the logits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kvern::ops;
use sha2::{Digest, Sha256};

use crate::hashes::hex;
use crate::model::Session;

/// The result of [`generate`].
#[derive(Clone, Debug)]
pub struct Generation {
    /// The chosen tokens, without the prompt.
    pub ids: Vec<u32>,
    /// Time of the forward passes and choices. The pass over the prompt counts, `observe` does not.
    pub elapsed: Duration,
}

/// Appends `count` tokens to `prompt`, each time the one with the greatest logit (the first of equals);
/// `observe` gets the logits that each token is chosen from. Otherwise as [`generate_with`].
///
/// # Errors
/// As [`generate_with`].
pub fn generate(
    session: &mut Session<'_>,
    prompt: &[u32],
    count: usize,
    cached: bool,
    mut observe: impl FnMut(&[f32]),
) -> Result<Generation> {
    let ctx = session.context();
    let greatest = |logits: &[f32]| Ok(ops::argmax(ctx, logits).context("every logit is NaN")? as u32);
    generate_with(session, prompt, count, cached, greatest, |logits, _| {
        observe(logits);
        Ok(true)
    })
}

/// Appends up to `count` tokens to `prompt`, each of which `choose` picks from the logits.
///
/// With `cached`, each pass computes the new tokens only. Without, each pass begins with empty caches and
/// recomputes the whole sequence, as a network without a KV cache does. `observe` gets the logits and the
/// token chosen from them; generation stops when it returns `false`.
///
/// # Errors
/// When the prompt is empty, the session has no room for the tokens, or one of the two functions fails.
pub fn generate_with(
    session: &mut Session<'_>,
    prompt: &[u32],
    count: usize,
    cached: bool,
    mut choose: impl FnMut(&[f32]) -> Result<u32>,
    mut observe: impl FnMut(&[f32], u32) -> Result<bool>,
) -> Result<Generation> {
    ensure!(!prompt.is_empty(), "the prompt has 0 tokens; at least 1 is needed");
    let vocabulary = session.model().shape().vocabulary;
    let mut ids = Vec::with_capacity(prompt.len() + count);
    ids.extend_from_slice(prompt);
    let mut elapsed = Duration::ZERO;

    session.clear();
    let mut seen = 0;
    for _ in 0..count {
        let start = Instant::now();
        if !cached {
            session.clear();
            seen = 0;
        }
        let logits = session.forward(&ids[seen..])?;
        let last = &logits[logits.len() - vocabulary..];
        let chosen = choose(last)?;
        elapsed += start.elapsed();

        seen = ids.len();
        ids.push(chosen);
        if !observe(last, chosen)? {
            break;
        }
    }
    ids.drain(..prompt.len());
    Ok(Generation { ids, elapsed })
}

/// SHA-256 over the bits of logits, as little-endian f32.
#[derive(Default)]
pub struct LogitsHash {
    hasher: Sha256,
    bytes: Vec<u8>,
}

impl LogitsHash {
    /// Adds the next logits.
    pub fn update(&mut self, logits: &[f32]) {
        self.bytes.clear();
        self.bytes.extend(logits.iter().flat_map(|x| x.to_le_bytes()));
        self.hasher.update(&self.bytes);
    }

    /// The digest in hexadecimal.
    pub fn finish(self) -> String {
        hex(&self.hasher.finalize())
    }
}

/// [`generate`] with the hash of all logits that a token was chosen from.
///
/// # Errors
/// As [`generate`].
pub fn generate_hashed(
    session: &mut Session<'_>,
    prompt: &[u32],
    count: usize,
    cached: bool,
) -> Result<(Generation, String)> {
    let mut hash = LogitsHash::default();
    let generation = generate(session, prompt, count, cached, |logits| hash.update(logits))?;
    Ok((generation, hash.finish()))
}
