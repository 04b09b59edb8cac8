//! Weights in groups along k, in one neutral form.

use crate::buffer::AlignedBuf;
use crate::error::{Error, Result, equal, option, product, text};
use crate::fp_mode;

/// A weight matrix W (n output features, k input features) as integers with a scale and a zero for each
/// group of input features: `W[i][order[p]] = scale[i][p / group] * (code[i][p] - zero[i][p / group])`.
///
/// Scales are held in f32, to which f16 and bf16 widen exactly.
#[derive(Debug, Clone)]
pub struct GroupWise {
    n: usize,
    k: usize,
    bits: u32,
    group: usize,
    codes: AlignedBuf<u8>,              // (n, k), k in stored order
    scales: AlignedBuf<f32>,            // (n, k / group)
    zeros: AlignedBuf<u8>,              // (n, k / group)
    pub(super) order: Option<Vec<u32>>, // (k): the input feature at each stored position
}

/// One row (output feature) of a [`GroupWise`] matrix.
#[derive(Debug, Clone, Copy)]
pub struct GroupRow<'a> {
    /// One code a byte, in stored order. // (k)
    pub codes: &'a [u8],
    /// The scale of each group. // (k / group)
    pub scales: &'a [f32],
    /// The code that stands for 0 in each group. // (k / group)
    pub zeros: &'a [u8],
}

impl GroupWise {
    /// Signed codes around zero: `w = scale * code`, code in -8..=7 (4 bits) or -128..=127 (8 bits).
    ///
    /// **Shapes**: `codes`: (n, k); `scales`: (n, k / group), f32, f16 or bf16. **Numerics**: scales are kept
    /// as they are, NaN and infinity too. **Errors**: `Option` for `bits` other than 4 and 8, `group` other
    /// than 32, 64 and 128, a k that groups do not divide, or a code out of range; `Shape` for a wrong
    /// length, `Overflow`, `Resource`. **Cost**: one pass; allocates n * k bytes, and 5 for each group.
    pub fn symmetric<S: Copy + Into<f32>>(
        (n, k): (usize, usize),
        bits: u32,
        group: usize,
        codes: &[i8],
        scales: &[S],
    ) -> Result<GroupWise> {
        let _mode = fp_mode::default_mode();
        let (elements, groups) = GroupWise::sizes((n, k), bits, group)?;
        equal("codes.len", codes.len(), "must equal n * k =", elements)?;
        equal("scales.len", scales.len(), "must equal n * (k / group) =", groups)?;
        let zero = 1i16 << (bits - 1);
        if let Some(&code) = codes.iter().find(|&&code| !(-zero..zero).contains(&i16::from(code))) {
            return Err(refused_code(bits, i64::from(code), "-8..=7"));
        }
        let mut w = GroupWise::zeroed((n, k), bits, group)?;
        let unsigned = codes.iter().map(|&code| (i16::from(code) + zero) as u8);
        w.codes.as_mut_slice().iter_mut().zip(unsigned).for_each(|(out, code)| *out = code);
        w.scales.as_mut_slice().iter_mut().zip(scales).for_each(|(out, &scale)| *out = scale.into());
        w.zeros.as_mut_slice().fill(zero as u8);
        Ok(w)
    }

    /// Unsigned codes with a zero for each group: `w = scale * (code - zero)`, both in 0..=15 (4 bits) or
    /// 0..=255 (8 bits).
    ///
    /// **Shapes**: `codes`: (n, k); `scales` and `zeros`: (n, k / group). **Numerics**, **Errors**, **Cost**:
    /// as [`symmetric`](GroupWise::symmetric).
    pub fn with_zeros<S: Copy + Into<f32>>(
        (n, k): (usize, usize),
        bits: u32,
        group: usize,
        codes: &[u8],
        scales: &[S],
        zeros: &[u8],
    ) -> Result<GroupWise> {
        let _mode = fp_mode::default_mode();
        let (elements, groups) = GroupWise::sizes((n, k), bits, group)?;
        equal("codes.len", codes.len(), "must equal n * k =", elements)?;
        equal("scales.len", scales.len(), "must equal n * (k / group) =", groups)?;
        equal("zeros.len", zeros.len(), "must equal n * (k / group) =", groups)?;
        if let Some(&code) = codes.iter().chain(zeros).find(|&&code| u32::from(code) >> bits != 0) {
            return Err(refused_code(bits, i64::from(code), "0..=15"));
        }
        let mut w = GroupWise::zeroed((n, k), bits, group)?;
        w.codes.as_mut_slice().copy_from_slice(codes);
        w.scales.as_mut_slice().iter_mut().zip(scales).for_each(|(out, &scale)| *out = scale.into());
        w.zeros.as_mut_slice().copy_from_slice(zeros);
        Ok(w)
    }

    /// Refuses an impossible shape; `(n * k, n * (k / group))` of a possible one.
    pub(crate) fn sizes((n, k): (usize, usize), bits: u32, group: usize) -> Result<(usize, usize)> {
        if !matches!(bits, 4 | 8) {
            return Err(Error::Option { what: "bits", got: text(bits), allowed: "4 or 8" });
        }
        if !matches!(group, 32 | 64 | 128) {
            return Err(Error::Option { what: "group", got: text(group), allowed: "32, 64 or 128" });
        }
        if !k.is_multiple_of(group) {
            let allowed = match group {
                32 => "a multiple of the group of 32",
                64 => "a multiple of the group of 64",
                _ => "a multiple of the group of 128",
            };
            return Err(Error::Option { what: "k", got: text(k), allowed });
        }
        // Orders are held in 32 bits.
        u32::try_from(k).map_err(|_| Error::Overflow { what: "k" })?;
        Ok((product("codes", &[n, k])?, product("groups", &[n, k / group])?))
    }

    /// All codes, scales and zeros 0. The shape was checked, and the lengths of the inputs against it, so
    /// that no more is allocated than the inputs account for.
    pub(super) fn zeroed((n, k): (usize, usize), bits: u32, group: usize) -> Result<GroupWise> {
        let (codes, groups) = GroupWise::sizes((n, k), bits, group)?;
        Ok(GroupWise {
            n,
            k,
            bits,
            group,
            codes: AlignedBuf::zeroed(codes)?,
            scales: AlignedBuf::zeroed(groups)?,
            zeros: AlignedBuf::zeroed(groups)?,
            order: None,
        })
    }

    /// Transposes the groups of a checkpoint. **Shapes**: `scales`: (k / group, n); `zero(g, i)`.
    pub(super) fn put_groups<S: Copy + Into<f32>>(
        &mut self,
        scales: &[S],
        zero: impl Fn(usize, usize) -> u8,
    ) {
        let groups = self.k / self.group;
        for (at, (scale, out)) in
            self.scales.as_mut_slice().iter_mut().zip(self.zeros.as_mut_slice()).enumerate()
        {
            let (i, g) = (at / groups, at % groups);
            (*scale, *out) = (scales[g * self.n + i].into(), zero(g, i));
        }
    }

    /// Transposes the codes of a checkpoint: `code(p, i)` is that of row i at stored position p.
    pub(super) fn put_codes(&mut self, code: impl Fn(usize, usize) -> u8) {
        if self.k == 0 {
            return;
        }
        // 16 rows at a time: a cache line of the checkpoint's words against 16 lines being written. Row by
        // row, each line of a large matrix would be fetched 16 times.
        for (panel, rows) in self.codes.as_mut_slice().chunks_mut(16 * self.k).enumerate() {
            for p in 0..self.k {
                for (i, row) in rows.chunks_exact_mut(self.k).enumerate() {
                    row[p] = code(p, 16 * panel + i);
                }
            }
        }
    }

    /// Output features (rows of W).
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features (columns of W).
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bits of a code: 4 or 8.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Input features of a group: 32, 64 or 128.
    pub fn group(&self) -> usize {
        self.group
    }

    /// The input feature at each stored position, (k), where that is not the position itself: activations
    /// are to be gathered in this order.
    pub fn order(&self) -> Option<&[u32]> {
        self.order.as_deref()
    }

    /// Whether the zero of every group is the middle, 8 or 128.
    pub fn is_symmetric(&self) -> bool {
        self.zeros.as_slice().iter().all(|&zero| u32::from(zero) == 1 << (self.bits - 1))
    }

    /// Row `i`: its codes in stored order, its scales and zeros. `None` for a row that is not there.
    pub fn row(&self, i: usize) -> Option<GroupRow<'_>> {
        if i >= self.n {
            return None;
        }
        let groups = self.k / self.group;
        Some(GroupRow {
            codes: &self.codes.as_slice()[i * self.k..(i + 1) * self.k],
            scales: &self.scales.as_slice()[i * groups..(i + 1) * groups],
            zeros: &self.zeros.as_slice()[i * groups..(i + 1) * groups],
        })
    }

    /// Row `i` of W in f32, in the order of input features.
    ///
    /// **Shapes**: `out`: (k). **Numerics**: `scale * (code - zero)`, one product in f32: exact for scales
    /// that were f16 or bf16. (Tools that compute it in f16 round to 11 bits.) A NaN or infinite scale gives
    /// what IEEE says. **Errors**: `Shape`. Allocates nothing.
    pub fn dequantize_row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        let _mode = fp_mode::default_mode();
        equal("out.len", out.len(), "must equal k =", self.k)?;
        let absent = Error::Shape { what: "row", got: i, relation: "must be below n =", want: self.n };
        let row = self.row(i).ok_or(absent)?;
        for (g, codes) in row.codes.chunks_exact(self.group).enumerate() {
            for (p, &code) in codes.iter().enumerate() {
                let position = g * self.group + p;
                let feature = self.order.as_ref().map_or(position, |order| order[position] as usize);
                out[feature] = row.scales[g] * (f32::from(code) - f32::from(row.zeros[g]));
            }
        }
        Ok(())
    }
}

fn refused_code(bits: u32, code: i64, four_bits: &'static str) -> Error {
    let allowed = if bits == 4 { four_bits } else { "a byte" };
    Error::Option { what: "code", got: text(code), allowed }
}

/// Integers of `bits` bits in words of 32, from the low end up.
pub(super) fn unpack(word: i32, position: usize, bits: u32) -> u8 {
    (word as u32 >> (position as u32 * bits)) as u8 & ((1u16 << bits) - 1) as u8
}

/// Refuses a dimension that words of `32 / bits` integers do not divide.
pub(super) fn whole_words(what: &'static str, got: usize, bits: u32) -> Result<()> {
    let (per_word, allowed) = match bits {
        4 => (8, "a multiple of the 8 codes of a word"),
        _ => (4, "a multiple of the 4 codes of a word"),
    };
    option(got.is_multiple_of(per_word), what, got, allowed)
}
