//! Weights in groups along k, in one neutral form.

use crate::buffer::AlignedBuf;
use crate::error::{Error, Result, equal, option, product, text};
use crate::fma::fma;
use crate::fp_mode;

/// The shorter of the two lengths below a block of 32 that divide it: half a block.
pub(in crate::quant) const HALF: usize = 16;

/// A weight matrix W (n output features, k input features) as integers with a scale and a zero, or a
/// minimum, for each group of input features:
/// ```text
/// W[i][order[p]] = scale[i][p / group] * (code[i][p] - zero[i][p / group])
/// W[i][order[p]] = scale[i][p / group] * code[i][p] + minimum[i][p / group]      (affine)
/// ```
/// The last group of a row may be shorter. Scales and minimums are held in f32, to which f16 and bf16 widen
/// exactly.
#[derive(Debug, Clone)]
pub struct GroupWise {
    n: usize,
    k: usize,
    bits: u32,
    group: usize,
    affine: bool,
    codes: AlignedBuf<u8>,              // (n, k), k in stored order
    scales: AlignedBuf<f32>,            // (n, groups)
    zeros: AlignedBuf<u8>,              // (n, groups), or none
    minimums: AlignedBuf<f32>,          // (n, groups), or none
    pub(super) order: Option<Vec<u32>>, // (k): the input feature at each stored position
}

/// One row (output feature) of a [`GroupWise`] matrix.
#[derive(Debug, Clone, Copy)]
pub struct GroupRow<'a> {
    /// One code a byte, in stored order. // (k)
    pub codes: &'a [u8],
    /// The scale of each group. // (ceil(k / group))
    pub scales: &'a [f32],
    /// The code that stands for 0 in each group; empty where there are minimums. // (ceil(k / group))
    pub zeros: &'a [u8],
    /// What is added in each group; empty where there are zeros. // (ceil(k / group))
    pub minimums: &'a [f32],
}

impl GroupRow<'_> {
    /// The minimum of group `g`: `-(scale * zero)`, rounded to f32, where the row has zeros.
    pub(in crate::quant) fn minimum(&self, g: usize) -> f32 {
        match self.zeros.get(g) {
            Some(&zero) => -(self.scales[g] * f32::from(zero)),
            None => self.minimums[g],
        }
    }
}

impl GroupWise {
    /// Signed codes around zero: `w = scale * code`, code in `-2^(bits - 1)..2^(bits - 1)`.
    ///
    /// **Shapes**: `codes`: (n, k); `scales`: (n, ceil(k / group)), f32, f16 or bf16. A `group` of k is one
    /// scale for each output feature. **Numerics**: scales are kept as they are, NaN and infinity too. In
    /// groups of 16 a weight is `fma(code, scale, -(scale * zero))`: the product is exact for scales that
    /// were f16 or bf16, else it is rounded to f32. **Errors**: `Option` for `bits` other than 2, 3, 4 and 8,
    /// a `group` that is neither 16 nor a multiple of 32, a k that is no multiple of 32, or a code out of
    /// range; `Shape` for a wrong length, `Overflow`, `Resource`. **Cost**: one pass; allocates n * k bytes,
    /// and 5 for each group.
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
        equal("scales.len", scales.len(), "must equal n * ceil(k / group) =", groups)?;
        let zero = 1i16 << (bits - 1);
        if let Some(&code) = codes.iter().find(|&&code| !(-zero..zero).contains(&i16::from(code))) {
            return Err(refused_code(bits, i64::from(code), ["-2..=1", "-4..=3", "-8..=7"]));
        }
        let mut w = GroupWise::zeroed((n, k), bits, group)?;
        let unsigned = codes.iter().map(|&code| (i16::from(code) + zero) as u8);
        w.codes.as_mut_slice().iter_mut().zip(unsigned).for_each(|(out, code)| *out = code);
        w.scales.as_mut_slice().iter_mut().zip(scales).for_each(|(out, &scale)| *out = scale.into());
        w.zeros.as_mut_slice().fill(zero as u8);
        Ok(w)
    }

    /// Unsigned codes with a zero for each group: `w = scale * (code - zero)`, both in `0..2^bits`.
    ///
    /// **Shapes**: `codes`: (n, k); `scales` and `zeros`: (n, ceil(k / group)). **Numerics**, **Errors**,
    /// **Cost**: as [`symmetric`](GroupWise::symmetric).
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
        equal("scales.len", scales.len(), "must equal n * ceil(k / group) =", groups)?;
        equal("zeros.len", zeros.len(), "must equal n * ceil(k / group) =", groups)?;
        in_range(bits, codes.iter().chain(zeros))?;
        let mut w = GroupWise::zeroed((n, k), bits, group)?;
        w.codes.as_mut_slice().copy_from_slice(codes);
        w.scales.as_mut_slice().iter_mut().zip(scales).for_each(|(out, &scale)| *out = scale.into());
        w.zeros.as_mut_slice().copy_from_slice(zeros);
        Ok(w)
    }

    /// Unsigned codes with a minimum for each group: `w = scale * code + minimum`, as the affine quantisation
    /// of MLX has them (where the minimum is called bias).
    ///
    /// **Shapes**: `codes`: (n, k); `scales` and `minimums`: (n, ceil(k / group)). **Numerics**:
    /// `fma(code, scale, minimum)`, one rounding. **Errors**: as [`symmetric`](GroupWise::symmetric); `bits`
    /// may be 5 and 6 too. **Cost**: one pass; allocates n * k bytes, and 8 for each group.
    pub fn affine<S: Copy + Into<f32>>(
        (n, k): (usize, usize),
        bits: u32,
        group: usize,
        codes: &[u8],
        scales: &[S],
        minimums: &[S],
    ) -> Result<GroupWise> {
        let _mode = fp_mode::default_mode();
        let (elements, groups) = GroupWise::affine_sizes((n, k), bits, group)?;
        equal("codes.len", codes.len(), "must equal n * k =", elements)?;
        equal("scales.len", scales.len(), "must equal n * ceil(k / group) =", groups)?;
        equal("minimums.len", minimums.len(), "must equal n * ceil(k / group) =", groups)?;
        in_range(bits, codes.iter())?;
        let floats = |from: &[S]| -> Result<AlignedBuf<f32>> {
            let mut to = AlignedBuf::zeroed(groups)?;
            to.as_mut_slice().iter_mut().zip(from).for_each(|(out, &x)| *out = x.into());
            Ok(to)
        };
        let (scales, minimums) = (floats(scales)?, floats(minimums)?);
        let mut w = GroupWise {
            n,
            k,
            bits,
            group,
            affine: true,
            codes: AlignedBuf::zeroed(elements)?,
            scales,
            zeros: AlignedBuf::zeroed(0)?,
            minimums,
            order: None,
        };
        w.codes.as_mut_slice().copy_from_slice(codes);
        Ok(w)
    }

    /// Refuses an impossible shape; `(n * k, n * ceil(k / group))` of a possible one.
    pub(crate) fn sizes((n, k): (usize, usize), bits: u32, group: usize) -> Result<(usize, usize)> {
        option(matches!(bits, 2 | 3 | 4 | 8), "bits", bits, "2, 3, 4 or 8")?;
        lengths((n, k), group)
    }

    /// [`GroupWise::sizes`] of affine weights.
    pub(crate) fn affine_sizes((n, k): (usize, usize), bits: u32, group: usize) -> Result<(usize, usize)> {
        option(matches!(bits, 2..=6 | 8), "bits", bits, "2, 3, 4, 5, 6 or 8")?;
        lengths((n, k), group)
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
            affine: false,
            codes: AlignedBuf::zeroed(codes)?,
            scales: AlignedBuf::zeroed(groups)?,
            zeros: AlignedBuf::zeroed(groups)?,
            minimums: AlignedBuf::zeroed(0)?,
            order: None,
        })
    }

    /// Transposes the groups of a checkpoint. **Shapes**: `scales`: (ceil(k / group), n); `zero(g, i)`.
    pub(super) fn put_groups<S: Copy + Into<f32>>(
        &mut self,
        scales: &[S],
        zero: impl Fn(usize, usize) -> u8,
    ) {
        let groups = self.groups();
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

    /// Bits of a code.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Input features of a group; those of the last group of a row may be fewer.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Groups of a row.
    fn groups(&self) -> usize {
        self.k.div_ceil(self.group)
    }

    /// The input feature at each stored position, (k), where that is not the position itself: activations
    /// are to be gathered in this order.
    pub fn order(&self) -> Option<&[u32]> {
        self.order.as_deref()
    }

    /// Whether groups have a minimum and no zero.
    pub fn is_affine(&self) -> bool {
        self.affine
    }

    /// Whether there are zeros, and that of every group is the middle, `2^(bits - 1)`.
    pub fn is_symmetric(&self) -> bool {
        !self.is_affine() && self.zeros.as_slice().iter().all(|&zero| u32::from(zero) == 1 << (self.bits - 1))
    }

    /// Whether f16 holds every scale and minimum as they are.
    pub(in crate::quant) fn fits_f16(&self) -> bool {
        let fits = |x: &f32| half::f16::from_f32(*x).to_f32().to_bits() == x.to_bits();
        self.scales.as_slice().iter().chain(self.minimums.as_slice()).all(fits)
    }

    /// Row `i`: its codes in stored order, its scales, zeros and minimums. `None` for a row that is not
    /// there.
    pub fn row(&self, i: usize) -> Option<GroupRow<'_>> {
        (i < self.n).then(|| self.row_of(i))
    }

    /// Row `i` below n.
    pub(in crate::quant) fn row_of(&self, i: usize) -> GroupRow<'_> {
        let groups = self.groups();
        let of_groups = i * groups..(i + 1) * groups;
        GroupRow {
            codes: self.codes_of(i),
            scales: &self.scales.as_slice()[of_groups.clone()],
            zeros: self.zeros.as_slice().get(of_groups.clone()).unwrap_or_default(),
            minimums: self.minimums.as_slice().get(of_groups).unwrap_or_default(),
        }
    }

    /// The codes of row `i` below n.
    pub(in crate::quant) fn codes_of(&self, i: usize) -> &[u8] {
        &self.codes.as_slice()[i * self.k..(i + 1) * self.k]
    }

    /// Row `i` of W in f32, in the order of input features.
    ///
    /// **Shapes**: `out`: (k). **Numerics**: `scale * (code - zero)`, one product in f32: exact for scales
    /// that were f16 or bf16. (Tools that compute it in f16 round to 11 bits.) Affine weights, and groups of
    /// 16: `fma(code, scale, minimum)`. A NaN or infinite scale gives what IEEE says. **Errors**: `Shape`.
    /// Allocates nothing.
    pub fn dequantize_row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        let _mode = fp_mode::default_mode();
        equal("out.len", out.len(), "must equal k =", self.k)?;
        let absent = Error::Shape { what: "row", got: i, relation: "must be below n =", want: self.n };
        let row = self.row(i).ok_or(absent)?;
        let sums = self.group == HALF || self.is_affine();
        for (g, codes) in row.codes.chunks(self.group).enumerate() {
            for (p, &code) in codes.iter().enumerate() {
                let position = g * self.group + p;
                let feature = self.order.as_ref().map_or(position, |order| order[position] as usize);
                out[feature] = match sums {
                    true => fma(f32::from(code), row.scales[g], row.minimum(g)),
                    false => row.scales[g] * (f32::from(code) - f32::from(row.zeros[g])),
                };
            }
        }
        Ok(())
    }
}

/// Refuses groups and a k that no layout holds; `(n * k, n * ceil(k / group))` of others.
fn lengths((n, k): (usize, usize), group: usize) -> Result<(usize, usize)> {
    let possible = group == HALF || group > 0 && group.is_multiple_of(32);
    option(possible, "group", group, "16 or a multiple of 32")?;
    option(k.is_multiple_of(32), "k", k, "a multiple of 32")?;
    // Orders are held in 32 bits.
    u32::try_from(k).map_err(|_| Error::Overflow { what: "k" })?;
    Ok((product("codes", &[n, k])?, product("groups", &[n, k.div_ceil(group)])?))
}

/// Refuses a code of more bits.
fn in_range<'a>(bits: u32, mut codes: impl Iterator<Item = &'a u8>) -> Result<()> {
    match codes.find(|&&code| u32::from(code) >> bits != 0) {
        Some(&code) => Err(refused_code(bits, i64::from(code), ["0..=3", "0..=7", "0..=15"])),
        None => Ok(()),
    }
}

/// `allowed`: codes of 2, 3 and 4 bits.
fn refused_code(bits: u32, code: i64, allowed: [&'static str; 3]) -> Error {
    let allowed = match bits {
        2..=4 => allowed[bits as usize - 2],
        5 => "0..=31",
        6 => "0..=63",
        _ => "a byte",
    };
    Error::Option { what: "code", got: text(code), allowed }
}
