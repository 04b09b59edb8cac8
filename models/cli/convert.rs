//! Blocks of one format as blocks of another, on the threads of a context.
//!
//! ```text
//! tensor -> bands, one after the other -> items, in parallel -> pieces: dequantise, quantise
//! ```
//! Rows are whole blocks of both formats, so a tensor is one sequence of blocks, whatever its rows. It is cut
//! at multiples of every block, and each block is quantised from its own weights alone: no cut shows in a
//! result.

use kvern::buffer::AlignedBuf;
use kvern::quant::{WeightFormat, dequantize, quantize};
use kvern::{Context, Error, Result, f16};
use std::sync::{Mutex, PoisonError};

/// Weights that are in f32 at a time, on the stack of each worker: 16 KiB.
const PIECE: usize = 4096;

/// Weights of a work item: some 100 us of the fastest formats.
const ITEM: usize = 16 * PIECE;

/// Weights whose blocks are in memory before they are written: at most 16 MiB, in f32.
const BAND: usize = 64 * ITEM;

/// Bytes of `weights` weights, whole blocks.
fn bytes(format: WeightFormat, weights: usize) -> usize {
    weights / format.block_len() * format.block_bytes()
}

/// Converts `blocks` of the format `from` to the format `to`, and hands the new blocks to `write` in order.
///
/// **Formula**: `quantize(to, dequantize(from, blocks))`. **Shapes**: `blocks`: rows whose k is a multiple of
/// both blocks. **Errors**: `Option` for NaN and infinity where the format has none, and for weights beyond
/// f16 in f16, which would become infinite; `Resource`; those of `write`. **Cost**: one pass; allocates at
/// most 16 MiB.
pub fn convert(
    ctx: &Context,
    (from, blocks): (WeightFormat, &[u8]),
    to: WeightFormat,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let weights = |blocks: &[u8]| blocks.len() / from.block_bytes() * from.block_len();
    let mut band = AlignedBuf::<u8>::zeroed(bytes(to, weights(blocks).min(BAND)))?;
    for blocks in blocks.chunks(bytes(from, BAND)) {
        let out = &mut band.as_mut_slice()[..bytes(to, weights(blocks))];
        let parts = blocks.chunks(bytes(from, ITEM)).zip(out.chunks_mut(bytes(to, ITEM)));
        // Each lock is taken once, by the worker that the item is given to.
        let items: Vec<_> = parts.map(|(x, out)| Mutex::new(Item { x, out, done: Ok(()) })).collect();
        ctx.parallel_for(items.len(), &|_, i| {
            let mut item = items[i].lock().unwrap_or_else(PoisonError::into_inner);
            item.done = item.run(from, to);
        });
        for item in items {
            item.into_inner().unwrap_or_else(PoisonError::into_inner).done?;
        }
        write(out)?;
    }
    Ok(())
}

/// The blocks that one worker converts at a time.
struct Item<'a> {
    x: &'a [u8],
    out: &'a mut [u8],
    done: Result<()>,
}

impl Item<'_> {
    fn run(&mut self, from: WeightFormat, to: WeightFormat) -> Result<()> {
        let mut floats = [0.0; PIECE];
        let pieces = self.x.chunks(bytes(from, PIECE)).zip(self.out.chunks_mut(bytes(to, PIECE)));
        for (x, out) in pieces {
            let floats = &mut floats[..x.len() / from.block_bytes() * from.block_len()];
            dequantize(from, x, floats)?;
            if to == WeightFormat::F16 {
                fits_f16(floats)?;
            }
            quantize(to, floats, out)?;
        }
        Ok(())
    }
}

/// Refuses finite weights that f16 rounds to infinity.
fn fits_f16(x: &[f32]) -> Result<()> {
    match x.iter().find(|x| x.is_finite() && f16::from_f32(**x).is_infinite()) {
        None => Ok(()),
        Some(x) => {
            let (got, allowed) = (x.to_string(), "at most 65504 in magnitude, the largest of f16");
            Err(Error::Option { what: "weight", got, allowed })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvern::ContextOptions;

    #[test]
    fn cuts_lie_between_the_blocks_of_every_format() {
        for format in WeightFormat::ALL {
            for cut in [PIECE, ITEM, BAND] {
                assert!(cut.is_multiple_of(format.block_len()), "{format:?}, {cut}");
            }
            assert!(bytes(format, BAND) <= 16 << 20);
        }
    }

    /// Weights that no two blocks share.
    fn weights(len: usize) -> Vec<f32> {
        (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    #[test]
    fn no_cut_shows() {
        let (from, to) = (WeightFormat::F16, WeightFormat::Q8_0);
        for len in [32, PIECE + 32, ITEM - 32, BAND, BAND + 2 * ITEM + PIECE + 64] {
            let mut x = vec![0; bytes(from, len)];
            quantize(from, &weights(len), &mut x).unwrap();
            let (mut floats, mut want) = (vec![0.0; len], vec![0; bytes(to, len)]);
            dequantize(from, &x, &mut floats).unwrap();
            quantize(to, &floats, &mut want).unwrap();
            for threads in [1, 3] {
                let ctx = Context::new(&ContextOptions::default().threads(threads)).unwrap();
                let mut got = Vec::new();
                let write = |out: &[u8]| {
                    got.extend_from_slice(out);
                    Ok(())
                };
                convert(&ctx, (from, &x), to, write).unwrap();
                assert!(got == want, "{len} weights, {threads} threads");
            }
        }
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused_wherever_it_lies() {
        let (len, ctx) = (BAND + 64, Context::serial());
        for (bad, to, word) in [
            (f32::NAN, WeightFormat::Mxfp4, "finite"),
            (65536.0, WeightFormat::F16, "weight = 65536 must be at most 65504"),
        ] {
            for at in [0, ITEM + 1, len - 1] {
                let mut x = vec![0.5; len];
                x[at] = bad;
                let x: Vec<u8> = x.iter().flat_map(|x: &f32| x.to_le_bytes()).collect();
                let e = convert(&ctx, (WeightFormat::F32, &x), to, |_| Ok(())).unwrap_err().to_string();
                assert!(e.contains(word), "{to:?}, {at}: {e}");
            }
        }
    }
}
