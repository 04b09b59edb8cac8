//! Tensors of GPTQ checkpoints (AutoGPTQ, GPTQModel).

use super::group_wise::{GroupWise, unpack, whole_words};
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

/// The tensors of one GPTQ layer. Words hold `32 / bits` integers, the first in the lowest bits.
#[derive(Debug, Clone, Copy)]
pub struct Gptq<'a, S> {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Bits of a code: 4 or 8.
    pub bits: u32,
    /// Input features of a group: 32, 64 or 128.
    pub group: usize,
    /// Codes; a word holds consecutive k. // (k * bits / 32, n)
    pub qweight: &'a [i32],
    /// Zeros; a word holds consecutive n. // (k / group, n * bits / 32)
    pub qzeros: &'a [i32],
    /// Scales in f16, bf16 or f32. // (k / group, n)
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
    /// names a group that is not there or does not give each group exactly `group` features. **Cost**: one
    /// pass.
    pub fn from_gptq<S: Copy + Into<f32>>(t: &Gptq<'_, S>) -> Result<GroupWise> {
        let _mode = fp_mode::default_mode();
        let (n, k) = (t.n, t.k);
        GroupWise::sizes((n, k), t.bits, t.group)?;
        whole_words("k", k, t.bits)?;
        whole_words("n", n, t.bits)?;
        let per_word = (32 / t.bits) as usize;
        let (groups, zero_words) = (k / t.group, n / per_word);
        let words = product("qweight", &[k / per_word, n])?;
        equal("qweight.len", t.qweight.len(), "must equal k * bits / 32 * n =", words)?;
        let words = product("qzeros", &[groups, zero_words])?;
        equal("qzeros.len", t.qzeros.len(), "must equal k / group * (n * bits / 32) =", words)?;
        equal("scales.len", t.scales.len(), "must equal k / group * n =", product("scales", &[groups, n])?)?;
        let order = t.g_idx.map(|g_idx| order_of(g_idx, k, t.group)).transpose()?.flatten();

        let mut w = GroupWise::zeroed((n, k), t.bits, t.group)?;
        let offset = match t.stored_zeros {
            StoredZeros::MinusOne => 1,
            StoredZeros::AsIs => 0,
        };
        let top = ((1u16 << t.bits) - 1) as u8;
        w.put_groups(t.scales, |g, i| {
            let stored = unpack(t.qzeros[g * zero_words + i / per_word], i % per_word, t.bits);
            stored.wrapping_add(offset) & top
        });
        w.put_codes(|p, i| {
            let feature = order.as_ref().map_or(p, |order| order[p] as usize);
            unpack(t.qweight[feature / per_word * n + i], feature % per_word, t.bits)
        });
        w.order = order;
        Ok(w)
    }
}

/// The features sorted by group, stably; `None` when they are already.
fn order_of(g_idx: &[i32], k: usize, group: usize) -> Result<Option<Vec<u32>>> {
    equal("g_idx.len", g_idx.len(), "must equal k =", k)?;
    let groups = k / group;
    let mut next: Vec<usize> = vector(groups)?;
    next.extend((0..groups).map(|g| g * group));
    let mut order = vector_of(0u32, k)?;
    for (feature, &g) in g_idx.iter().enumerate() {
        let place = usize::try_from(g).ok().and_then(|g| Some((g, next.get_mut(g)?)));
        let Some((g, place)) = place else {
            return Err(Error::Option { what: "g_idx", got: text(g), allowed: "below k / group" });
        };
        if *place == (g + 1) * group {
            let (what, got) = ("g_idx", text(format_args!("{g} more than {group} times")));
            return Err(Error::Option { what, got, allowed: "in each group exactly `group` times" });
        }
        order[*place] = feature as u32;
        *place += 1;
    }
    // k features in k places, none of which was taken twice: every group is full.
    let sorted = order.iter().enumerate().all(|(p, &feature)| p == feature as usize);
    Ok(if sorted { None } else { Some(order) })
}
