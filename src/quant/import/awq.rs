//! Tensors of AWQ checkpoints (AutoAWQ, layout GEMM).

use super::group_wise::GroupWise;
use super::words::{unpack, words};
use crate::error::{Result, equal, product};
use crate::fp_mode;

/// Bits of a code.
const BITS: u32 = 4;

/// Codes of a word.
const PER_WORD: usize = 8;

/// The place in the word of each of its 8 columns: nibble p holds column `[0, 2, 4, 6, 1, 3, 5, 7][p]`.
const PLACE: [usize; PER_WORD] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The tensors of one AWQ layer: 4 bits, words hold 8 consecutive n in the order 0, 2, 4, 6, 1, 3, 5, 7 from
/// the lowest bits up.
#[derive(Debug, Clone, Copy)]
pub struct Awq<'a, S> {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Input features of a group: 16 or a multiple of 32, k for what checkpoints call -1. The last group may
    /// have fewer.
    pub group: usize,
    /// Codes. // (k, n / 8)
    pub qweight: &'a [i32],
    /// Zeros. // (ceil(k / group), n / 8)
    pub qzeros: &'a [i32],
    /// Scales in f16, bf16 or f32. // (ceil(k / group), n)
    pub scales: &'a [S],
}

impl GroupWise {
    /// Weights of an AWQ checkpoint: `W[i][j] = scales[g][i] * (qweight[j][i] - qzeros[g][i])`, `g = j /
    /// group`.
    ///
    /// **Shapes**: see [`Awq`]. **Numerics**: nothing is rounded. **Errors**: as
    /// [`symmetric`](GroupWise::symmetric); also `Option` for an n that is no multiple of 8. **Cost**: one
    /// pass.
    pub fn from_awq<S: Copy + Into<f32>>(t: &Awq<'_, S>) -> Result<GroupWise> {
        let _mode = fp_mode::default_mode();
        let (n, k) = (t.n, t.k);
        GroupWise::sizes((n, k), BITS, t.group)?;
        let (groups, words) = (k.div_ceil(t.group), words("n", n, BITS)?);
        equal("qweight.len", t.qweight.len(), "must equal k * (n / 8) =", product("qweight", &[k, words])?)?;
        let len = product("qzeros", &[groups, words])?;
        equal("qzeros.len", t.qzeros.len(), "must equal ceil(k / group) * (n / 8) =", len)?;
        let len = product("scales", &[groups, n])?;
        equal("scales.len", t.scales.len(), "must equal ceil(k / group) * n =", len)?;
        let mut w = GroupWise::zeroed((n, k), BITS, t.group)?;
        let code = |row: &[i32], i: usize| unpack(|_| row[i / PER_WORD], PLACE[i % PER_WORD], BITS);
        w.put_groups(t.scales, |g, i| code(&t.qzeros[g * words..], i));
        w.put_codes(|p, i| code(&t.qweight[p * words..], i));
        Ok(w)
    }
}
