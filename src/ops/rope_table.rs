//! Tables of cosines and sines, and the ways in which frequencies are stretched for longer contexts.

use crate::buffer::AlignedBuf;
use crate::error::{Error, Result, at_least, option, positive, product};
use crate::fp_mode;
use std::f64::consts::PI;

/// How the frequencies `f_i = base^(-2i / rotary_dim)` of a model are changed so that it reaches beyond the
/// positions that it was trained on.
///
/// `factor` is the ratio of the new context to the trained one. Numbers are f64 and are checked by
/// [`RopeTable::scaled`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum RopeScaling {
    /// The frequencies as they are.
    #[default]
    None,
    /// `f_i / factor`: position interpolation (Chen et al. 2023).
    Linear {
        /// The ratio of contexts.
        factor: f64,
    },
    /// `base * factor^(d / (d - 2))` instead of `base`, with `d = rotary_dim`: NTK-aware interpolation
    /// (bloc97 2023). The highest frequency stays, the lowest is divided by `factor`.
    Ntk {
        /// The ratio of contexts.
        factor: f64,
    },
    /// High frequencies stay, low ones are divided by `factor`, with a ramp between, and cosines and sines
    /// are multiplied by an attention factor (Peng et al. 2023).
    Yarn {
        /// The ratio of contexts.
        factor: f64,
        /// Positions of the trained context.
        original_positions: usize,
        /// Pairs that turn more often than this over the trained context stay; usually 32.
        beta_fast: f64,
        /// Pairs that turn less often than this are divided; usually 1.
        beta_slow: f64,
        /// Factor of cosines and sines; `None` for `0.1 * ln(factor) + 1` (1 for a factor up to 1).
        attention_factor: Option<f64>,
        /// Whether the ends of the ramp are rounded outwards to whole pairs: usually true; false for gpt-oss
        /// (`truncate` of model configurations).
        round_ramp: bool,
    },
    /// Wavelengths below `original_positions / high_frequency` stay, those above
    /// `original_positions / low_frequency` are divided by `factor`, with a ramp between: Llama 3.1. Two
    /// equal frequencies make a step instead of a ramp: Llama 4 Scout.
    Llama3 {
        /// The ratio of contexts.
        factor: f64,
        /// Positions of the trained context.
        original_positions: usize,
        /// Usually 1.
        low_frequency: f64,
        /// Usually 4.
        high_frequency: f64,
    },
}

impl RopeScaling {
    /// YaRN with the paper's ramp (32 and 1, its ends rounded) and attention factor.
    pub fn yarn(factor: f64, original_positions: usize) -> RopeScaling {
        RopeScaling::Yarn {
            factor,
            original_positions,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: None,
            round_ramp: true,
        }
    }

    /// Llama 3.1 with its ramp (1 and 4).
    pub fn llama3(factor: f64, original_positions: usize) -> RopeScaling {
        let (low_frequency, high_frequency) = (1.0, 4.0);
        RopeScaling::Llama3 { factor, original_positions, low_frequency, high_frequency }
    }

    fn check(&self, rotary_dim: usize) -> Result<()> {
        match *self {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::Ntk { factor } => {
                positive("factor", factor)?;
                option(rotary_dim > 2, "rotary_dim", rotary_dim, "more than 2 for NTK scaling")
            }
            RopeScaling::Yarn {
                factor, original_positions, beta_fast, beta_slow, attention_factor, ..
            } => {
                positive("factor", factor)?;
                positive("beta_fast", beta_fast)?;
                positive("beta_slow", beta_slow)?;
                positive("attention_factor", attention_factor.unwrap_or(1.0))?;
                option(beta_fast > beta_slow, "beta_fast", beta_fast, "more than beta_slow")?;
                option(original_positions > 0, "original_positions", 0, "at least 1")
            }
            RopeScaling::Llama3 { factor, original_positions, low_frequency, high_frequency } => {
                positive("factor", factor)?;
                positive("low_frequency", low_frequency)?;
                positive("high_frequency", high_frequency)?;
                let ordered = high_frequency >= low_frequency;
                option(ordered, "high_frequency", high_frequency, "at least low_frequency")?;
                option(original_positions > 0, "original_positions", 0, "at least 1")
            }
        }
    }

    /// Frequency of pair `i`, in radians a position.
    fn frequency(&self, i: usize, dim: usize, base: f64) -> f64 {
        let plain = |base| libm::pow(base, -2.0 * i as f64 / dim as f64);
        let f = plain(base);
        match *self {
            RopeScaling::None => f,
            RopeScaling::Linear { factor } => f / factor,
            RopeScaling::Ntk { factor } => plain(base * libm::pow(factor, dim as f64 / (dim as f64 - 2.0))),
            RopeScaling::Yarn { factor, original_positions, beta_fast, beta_slow, round_ramp, .. } => {
                // The pair that turns `turns` times over the trained context, as a fractional index.
                let pair = |turns: f64| {
                    let ratio = original_positions as f64 / (turns * 2.0 * PI);
                    dim as f64 * libm::log(ratio) / (2.0 * libm::log(base))
                };
                let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
                if round_ramp {
                    (low, high) = (libm::floor(low), libm::ceil(high));
                }
                (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
                if low == high {
                    high += 0.001; // a step, without a division by zero
                }
                let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                f / factor * ramp + f * (1.0 - ramp)
            }
            RopeScaling::Llama3 { factor, original_positions, low_frequency, high_frequency } => {
                let turns = original_positions as f64 * f / (2.0 * PI);
                if turns < low_frequency {
                    f / factor
                } else if turns >= high_frequency {
                    f
                } else {
                    let smooth = (turns - low_frequency) / (high_frequency - low_frequency);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            }
        }
    }

    /// Factor of cosines and sines.
    fn amplitude(&self) -> f64 {
        match *self {
            RopeScaling::Yarn { attention_factor: Some(by), .. } => by,
            RopeScaling::Yarn { factor, .. } if factor > 1.0 => 0.1 * libm::log(factor) + 1.0,
            _ => 1.0,
        }
    }
}

/// Cosines and sines of `position * f_i` for each position and each pair `i` of a head.
///
/// A table covers some positions in a row, from 0 on where it is new. [`RopeTable::move_to`] moves them on,
/// so that positions have no bound: a table as long as the longest call is enough for a stream of any length.
#[derive(Debug, Clone)]
pub struct RopeTable {
    frequencies: AlignedBuf<f64>, // (rotary_dim / 2)
    amplitude: f64,
    /// The first position.
    first: usize,
    cos: AlignedBuf<f32>, // (positions, rotary_dim / 2)
    sin: AlignedBuf<f32>, // (positions, rotary_dim / 2)
    positions: usize,
    rotary_dim: usize,
}

impl RopeTable {
    /// Tables of `f_i = base^(-2i / rotary_dim)` for positions `0..positions`; `rotary_dim` is the rotated
    /// part of a head (even), usually all of it, and `base` usually 10000.
    ///
    /// - **Numerics**: computed in f64 by `libm` (the same on every platform) and rounded once.
    /// - **Errors**: `Option` for an odd or zero `rotary_dim` or a base that is not positive and finite;
    ///   `Overflow`; `Resource`.
    /// - **Cost**: allocates `4 * positions * rotary_dim` bytes.
    pub fn new(rotary_dim: usize, positions: usize, base: f64) -> Result<RopeTable> {
        RopeTable::scaled(rotary_dim, positions, base, &RopeScaling::None)
    }

    /// [`RopeTable::new`] with frequencies for a longer context.
    ///
    /// - **Errors**: as [`RopeTable::new`]; `Option` for a number of `scaling` that is out of its range, and
    ///   for a base of 1 with YaRN, whose ramp it leaves undefined.
    pub fn scaled(
        rotary_dim: usize,
        positions: usize,
        base: f64,
        scaling: &RopeScaling,
    ) -> Result<RopeTable> {
        let _mode = fp_mode::default_mode();
        let even = rotary_dim > 0 && rotary_dim.is_multiple_of(2);
        option(even, "rotary_dim", rotary_dim, "even and at least 2")?;
        positive("base", base)?;
        scaling.check(rotary_dim)?;
        if matches!(scaling, RopeScaling::Yarn { .. }) {
            option(base > 1.0, "base", base, "more than 1 for YaRN")?;
        }
        let frequency = |i| scaling.frequency(i, rotary_dim, base);
        RopeTable::fill(rotary_dim, positions, scaling.amplitude(), frequency)
    }

    /// Tables of given frequencies (radians a position, one for each pair), with cosines and sines multiplied
    /// by `amplitude`: for models that store theirs.
    ///
    /// - **Numerics**: as [`RopeTable::new`].
    /// - **Errors**: `Option` for no frequencies, or a frequency or amplitude that is not finite; `Overflow`;
    ///   `Resource`.
    pub fn from_frequencies(frequencies: &[f64], positions: usize, amplitude: f64) -> Result<RopeTable> {
        let _mode = fp_mode::default_mode();
        option(!frequencies.is_empty(), "frequencies.len", 0, "at least 1")?;
        for &f in frequencies {
            option(f.is_finite(), "frequencies", f, "finite")?;
        }
        option(amplitude.is_finite(), "amplitude", amplitude, "finite")?;
        let rotary_dim = product("rotary_dim", &[2, frequencies.len()])?;
        RopeTable::fill(rotary_dim, positions, amplitude, |i| frequencies[i])
    }

    /// Tables of `base^(-2i / rotary_dim) / factors[i]`, one factor for each pair, with cosines and sines
    /// multiplied by `amplitude`: LongRoPE, whose short or long factors a model stores.
    ///
    /// - **Numerics**: as [`RopeTable::new`]. An infinite factor leaves a pair as it is.
    /// - **Errors**: as [`RopeTable::new`]; `Option` for no factors, for one that is not positive, and for an
    ///   amplitude that is not finite.
    /// - **Source**: Ding et al. 2024.
    pub fn with_factors(factors: &[f64], positions: usize, base: f64, amplitude: f64) -> Result<RopeTable> {
        let _mode = fp_mode::default_mode();
        option(!factors.is_empty(), "factors.len", 0, "at least 1")?;
        for &f in factors {
            option(f > 0.0, "factors", f, "positive")?;
        }
        option(amplitude.is_finite(), "amplitude", amplitude, "finite")?;
        positive("base", base)?;
        let dim = product("rotary_dim", &[2, factors.len()])?;
        let plain = RopeScaling::None;
        RopeTable::fill(dim, positions, amplitude, |i| plain.frequency(i, dim, base) / factors[i])
    }

    fn fill(
        rotary_dim: usize,
        positions: usize,
        amplitude: f64,
        frequency: impl Fn(usize) -> f64,
    ) -> Result<RopeTable> {
        let pairs = rotary_dim / 2;
        let len = product("rope table", &[positions, pairs])?;
        let (cos, sin) = (AlignedBuf::zeroed(len)?, AlignedBuf::zeroed(len)?);
        // Without positions there is nothing to compute, however many pairs the table has.
        let mut frequencies = AlignedBuf::zeroed(if positions == 0 { 0 } else { pairs })?;
        for (i, f) in frequencies.as_mut_slice().iter_mut().enumerate() {
            *f = frequency(i);
        }
        let mut table = RopeTable { frequencies, amplitude, first: 0, cos, sin, positions, rotary_dim };
        table.compute();
        Ok(table)
    }

    /// The angles of all positions.
    fn compute(&mut self) {
        let pairs = self.rotary_dim / 2;
        let rows = self.cos.as_mut_slice().chunks_exact_mut(pairs.max(1));
        for (i, (cos, sin)) in rows.zip(self.sin.as_mut_slice().chunks_exact_mut(pairs.max(1))).enumerate() {
            let position = (self.first + i) as f64;
            for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(self.frequencies.as_slice()) {
                let angle = position * frequency;
                *cos = (self.amplitude * libm::cos(angle)) as f32;
                *sin = (self.amplitude * libm::sin(angle)) as f32;
            }
        }
    }

    /// Moves the table to as many positions from `first` on.
    ///
    /// - **Numerics**: as [`RopeTable::new`]; positions are exact in f64 up to 2^53.
    /// - **Errors**: `Overflow` where they do not end below 2^53; nothing is changed then.
    /// - **Cost**: as a new table; allocates nothing.
    pub fn move_to(&mut self, first: usize) -> Result<()> {
        let _mode = fp_mode::default_mode();
        let end = first.checked_add(self.positions).filter(|&end| end as u64 <= 1 << 53);
        if end.is_none() {
            return Err(Error::Overflow { what: "first + positions" });
        }
        self.first = first;
        self.compute();
        Ok(())
    }

    /// The first position that the table covers.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Positions that the table covers.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Checks that the table covers a position.
    pub(crate) fn check(&self, what: &'static str, got: usize) -> Result<()> {
        let end = self.first + self.positions;
        if got >= end {
            let relation = match self.first {
                0 => "must be below the table's positions =",
                _ => "must be below the end of the table's positions =",
            };
            return Err(Error::Shape { what, got, relation, want: end });
        }
        at_least(what, got, self.first)
    }

    /// Elements of a head that are rotated.
    pub fn rotary_dim(&self) -> usize {
        self.rotary_dim
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.cos.bytes() + self.sin.bytes()
    }

    /// Cosines and sines of a position that the table covers, one for each pair.
    pub(crate) fn angles(&self, position: usize) -> (&[f32], &[f32]) {
        let (position, pairs) = (position - self.first, self.rotary_dim / 2);
        let row = position * pairs..(position + 1) * pairs;
        (&self.cos.as_slice()[row.clone()], &self.sin.as_slice()[row])
    }

    /// [`RopeTable::row`], with the reason why there is none.
    #[cfg(feature = "capi")]
    pub(crate) fn checked_row(&self, position: usize) -> Result<(&[f32], &[f32])> {
        self.check("position", position)?;
        Ok(self.angles(position))
    }

    /// Cosines and sines of a position, `(rotary_dim / 2)` each; `None` beyond the table.
    pub fn row(&self, position: usize) -> Option<(&[f32], &[f32])> {
        self.check("position", position).is_ok().then(|| self.angles(position))
    }
}
