//! Tensors of GPTQ checkpoints (AutoGPTQ, GPTQModel).

use super::group_wise::GroupWise;
use super::words::{unpack, words};
use crate::buffer::{vector, vector_of};
use crate::error::{Error, Result, equal, product, text};
use crate::fp_mode;

/// How GPTQ checkpoints store zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoredZeros {
    /// `zero - 1`, modulo `2^bits`: checkpoint format `gptq` (v1), which is what most files are.
    #[default]
    MinusOne,
    /// `zero`: checkpoint format `gptq_v2`.
    AsIs,
}

/// The tensors of one GPTQ layer. Words hold `32 / bits` integers, the first in the lowest bits; integers of
/// 3 bits go on in the next word.
#[derive(Debug, Clone, Copy)]
pub struct Gptq<'a, S> {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Bits of a code: 2, 3, 4 or 8.
    pub bits: u32,
    /// Input features of a group: 16 or a multiple of 32, k for what checkpoints call -1. The last group may
    /// have fewer.
    pub group: usize,
    /// Codes; a word holds consecutive k. // (k * bits / 32, n)
    pub qweight: &'a [i32],
    /// Zeros; a word holds consecutive n. // (ceil(k / group), n * bits / 32)
    pub qzeros: &'a [i32],
    /// Scales in f16, bf16 or f32. // (ceil(k / group), n)
    pub scales: &'a [S],
    /// The group of each input feature (act-order); `None`: feature i is in group `i / group`. // (k)
    pub g_idx: Option<&'a [i32]>,
    /// How zeros are stored.
    pub stored_zeros: StoredZeros,
}

impl GroupWise {
    /// Weights of a GPTQ checkpoint: `W[i][j] = scales[g][i] * (qweight[j][i] - zero[g][i])`, `g = g_idx[j]`.
    ///
    /// With act-order the input features are stored sorted by their group, those of one group in ascending
    /// order; see [`order`](GroupWise::order).
    ///
    /// **Shapes**: see [`Gptq`]. **Numerics**: nothing is rounded. **Errors**: as
    /// [`symmetric`](GroupWise::symmetric); also `Option` when k or n does not fill words, and when `g_idx`
    /// names a group that is not there or does not give each group exactly its features. **Cost**: one
    /// pass.
    pub fn from_gptq<S: Copy + Into<f32>>(t: &Gptq<'_, S>) -> Result<GroupWise> {
        let _mode = fp_mode::default_mode();
        let (n, k) = (t.n, t.k);
        GroupWise::sizes((n, k), t.bits, t.group)?;
        let [zero_words, code_words] = gptq_words((n, k), t.bits)?;
        let groups = k.div_ceil(t.group);
        let len = product("qweight", &[code_words, n])?;
        equal("qweight.len", t.qweight.len(), "must equal k * bits / 32 * n =", len)?;
        let len = product("qzeros", &[groups, zero_words])?;
        equal("qzeros.len", t.qzeros.len(), "must equal ceil(k / group) * (n * bits / 32) =", len)?;
        let len = product("scales", &[groups, n])?;
        equal("scales.len", t.scales.len(), "must equal ceil(k / group) * n =", len)?;
        let order = t.g_idx.map(|g_idx| order_of(g_idx, k, t.group)).transpose()?.flatten();

        let mut w = GroupWise::zeroed((n, k), t.bits, t.group)?;
        let offset = match t.stored_zeros {
            StoredZeros::MinusOne => 1,
            StoredZeros::AsIs => 0,
        };
        let top = ((1u16 << t.bits) - 1) as u8;
        w.put_groups(t.scales, |g, i| {
            let stored = unpack(|word| t.qzeros[g * zero_words + word], i, t.bits);
            stored.wrapping_add(offset) & top
        });
        w.put_codes(|p, i| {
            let feature = order.as_ref().map_or(p, |order| order[p] as usize);
            unpack(|word| t.qweight[word * n + i], feature, t.bits)
        });
        w.order = order;
        Ok(w)
    }
}

/// Words of n and of k integers.
pub(crate) fn gptq_words((n, k): (usize, usize), bits: u32) -> Result<[usize; 2]> {
    let down = words("k", k, bits)?;
    Ok([words("n", n, bits)?, down])
}

/// The features sorted by group, stably; `None` when they are already.
fn order_of(g_idx: &[i32], k: usize, group: usize) -> Result<Option<Vec<u32>>> {
    equal("g_idx.len", g_idx.len(), "must equal k =", k)?;
    let groups = k.div_ceil(group);
    let mut next: Vec<usize> = vector(groups)?;
    next.extend((0..groups).map(|g| g * group));
    let mut order = vector_of(0u32, k)?;
    for (feature, &g) in g_idx.iter().enumerate() {
        let place = usize::try_from(g).ok().and_then(|g| Some((g, next.get_mut(g)?)));
        let Some((g, place)) = place else {
            return Err(Error::Option { what: "g_idx", got: text(g), allowed: "below ceil(k / group)" });
        };
        let end = k.min((g + 1) * group);
        if *place == end {
            let features = end - g * group;
            let (what, got) = ("g_idx", text(format_args!("{g} more than {features} times")));
            return Err(Error::Option { what, got, allowed: "in each group as often as it has features" });
        }
        order[*place] = feature as u32;
        *place += 1;
    }
    // k features in k places, none of which was taken twice: every group is full.
    let sorted = order.iter().enumerate().all(|(p, &feature)| p == feature as usize);
    Ok(if sorted { None } else { Some(order) })
}
