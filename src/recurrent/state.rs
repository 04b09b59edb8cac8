//! The states themselves.

use crate::buffer::{AlignedBuf, vector_of};
use crate::context::Context;
use crate::error::{Error, Result, equal, option, product};
use crate::kernels::LANES;
use crate::tiles::Distinct;

/// What a state is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateOptions {
    /// Value heads: as many matrices a sequence.
    pub heads: usize,
    /// Elements of a key: rows of a matrix. `d_state` of Mamba-2.
    pub key_dim: usize,
    /// Elements of a value: columns of a matrix. The head size of Mamba-2.
    pub value_dim: usize,
    /// Channels of the short convolution before the recurrence; 0 for none.
    pub channels: usize,
    /// Taps of that convolution: 2..=8; 0 where there are no channels.
    pub taps: usize,
    /// Sequences side by side.
    pub sequences: usize,
}

impl StateOptions {
    /// One sequence without a convolution.
    pub fn new(heads: usize, key_dim: usize, value_dim: usize) -> StateOptions {
        StateOptions { heads, key_dim, value_dim, channels: 0, taps: 0, sequences: 1 }
    }

    /// Keeps the last `taps - 1` inputs of a convolution of so many channels too.
    pub fn convolution(mut self, channels: usize, taps: usize) -> StateOptions {
        (self.channels, self.taps) = (channels, taps);
        self
    }

    /// Sets the number of sequences.
    pub fn sequences(mut self, sequences: usize) -> StateOptions {
        self.sequences = sequences;
        self
    }

    /// Panels of 16 values of a head.
    pub(super) fn panels(&self) -> usize {
        self.value_dim.div_ceil(LANES)
    }

    /// Elements of a panel.
    pub(super) fn panel_len(&self) -> usize {
        self.key_dim * LANES
    }

    /// Elements of the matrices of a sequence.
    pub(super) fn matrices_len(&self) -> usize {
        self.heads * self.panels() * self.panel_len()
    }

    /// Elements of the inputs that a convolution keeps.
    pub(super) fn inputs_len(&self) -> usize {
        self.taps.saturating_sub(1) * self.channels
    }
}

/// The matrices of one layer, and the last inputs of its convolution, for some sequences.
///
/// A matrix of (key_dim, value_dim) lies in memory in panels of 16 values, in f32, at every tier.
/// [`RecurrentState::read`] and [`RecurrentState::write`] give and take it as rows.
#[derive(Debug, Clone)]
pub struct RecurrentState {
    options: StateOptions,
    matrices: AlignedBuf<f32>, // (sequences, heads, panels, key_dim, 16)
    inputs: AlignedBuf<f32>,   // (sequences, taps - 1, channels)
    lens: Vec<usize>,          // (sequences)
    seen: Vec<bool>,           // (sequences), false between calls
}

impl RecurrentState {
    /// States of zeros: those of empty sequences.
    ///
    /// - **Errors**: `Option` for a zero size, and for taps beyond 2..=8 of a convolution; `Overflow`;
    ///   `Resource`.
    /// - **Cost**: allocates everything at once: values rounded up to 16.
    pub fn new(options: StateOptions) -> Result<RecurrentState> {
        RecurrentState::new_on(&Context::serial(), options)
    }

    /// [`RecurrentState::new`] in the context's [`Memory`](crate::buffer::Memory).
    pub fn new_on(ctx: &Context, options: StateOptions) -> Result<RecurrentState> {
        let o = &options;
        for (what, size) in [
            ("heads", o.heads),
            ("key_dim", o.key_dim),
            ("value_dim", o.value_dim),
            ("sequences", o.sequences),
        ] {
            option(size > 0, what, size, "positive")?;
        }
        match o.channels {
            0 => option(o.taps == 0, "taps", o.taps, "0 without channels")?,
            _ => option((2..=crate::kernels::MAX_TAPS).contains(&o.taps), "taps", o.taps, "2..=8")?,
        }
        let panel = product("state", &[4, o.key_dim, LANES])? / 4;
        let matrices = product("state", &[4, o.sequences, o.heads, o.panels(), panel])? / 4;
        let inputs = product("state", &[4, o.sequences, o.taps.saturating_sub(1), o.channels])? / 4;
        Ok(RecurrentState {
            options,
            matrices: AlignedBuf::zeroed_in(ctx.memory(), matrices)?,
            inputs: AlignedBuf::zeroed_in(ctx.memory(), inputs)?,
            lens: vector_of(0, o.sequences)?,
            seen: vector_of(false, o.sequences)?,
        })
    }

    /// What the state was made from.
    pub fn options(&self) -> &StateOptions {
        &self.options
    }

    /// Tokens that a sequence took; 0 for one that is not there.
    pub fn len_of(&self, sequence: usize) -> usize {
        self.lens.get(sequence).copied().unwrap_or(0)
    }

    /// [`RecurrentState::len_of`] of sequence 0.
    pub fn len(&self) -> usize {
        self.len_of(0)
    }

    /// Whether sequence 0 took no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all sequences.
    pub fn bytes(&self) -> usize {
        self.matrices.bytes() + self.inputs.bytes()
    }

    /// Makes every sequence empty.
    pub fn clear(&mut self) {
        self.matrices.as_mut_slice().fill(0.0);
        self.inputs.as_mut_slice().fill(0.0);
        self.lens.fill(0);
    }

    /// Makes a sequence empty.
    ///
    /// - **Errors**: `Option` for a sequence that is not there.
    pub fn clear_in(&mut self, sequence: usize) -> Result<()> {
        self.check(sequence)?;
        let (matrices, inputs) = (self.range(sequence), self.inputs_range(sequence));
        self.matrices.as_mut_slice()[matrices].fill(0.0);
        self.inputs.as_mut_slice()[inputs].fill(0.0);
        self.lens[sequence] = 0;
        Ok(())
    }

    /// Makes `to` a copy of `from`: a second continuation, or a length that can be come back to.
    ///
    /// - **Errors**: `Option` for a sequence that is not there.
    /// - **Cost**: copies the state of a sequence.
    pub fn fork(&mut self, from: usize, to: usize) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        let (matrices, inputs) = (self.range(from), self.inputs_range(from));
        let (to_matrices, to_inputs) = (self.range(to).start, self.inputs_range(to).start);
        self.matrices.as_mut_slice().copy_within(matrices, to_matrices);
        self.inputs.as_mut_slice().copy_within(inputs, to_inputs);
        self.lens[to] = self.lens[from];
        Ok(())
    }

    /// Copies the matrix of a head out.
    ///
    /// - **Shapes**: `out`: (key_dim, value_dim).
    /// - **Errors**: `Option` for a sequence or head that is not there; `Shape`.
    pub fn read(&self, sequence: usize, head: usize, out: &mut [f32]) -> Result<()> {
        let o = &self.options;
        self.check_head(sequence, head, "out.len", out.len())?;
        let matrix = &self.matrices.as_slice()[self.range(sequence)];
        let matrix = &matrix[head * o.panels() * o.panel_len()..];
        for (i, row) in out.chunks_exact_mut(o.value_dim).enumerate() {
            for (p, part) in row.chunks_mut(LANES).enumerate() {
                part.copy_from_slice(&matrix[p * o.panel_len() + i * LANES..][..part.len()]);
            }
        }
        Ok(())
    }

    /// Sets the matrix of a head, of a state that others computed, say.
    ///
    /// - **Shapes**, **errors**: as [`RecurrentState::read`].
    pub fn write(&mut self, sequence: usize, head: usize, x: &[f32]) -> Result<()> {
        let o = self.options;
        self.check_head(sequence, head, "x.len", x.len())?;
        let range = self.range(sequence);
        let matrix = &mut self.matrices.as_mut_slice()[range][head * o.panels() * o.panel_len()..];
        for (i, row) in x.chunks_exact(o.value_dim).enumerate() {
            for (p, part) in row.chunks(LANES).enumerate() {
                matrix[p * o.panel_len() + i * LANES..][..part.len()].copy_from_slice(part);
            }
        }
        Ok(())
    }

    /// The last inputs of a sequence's convolution, (taps - 1, channels): the `state` of
    /// [`causal_conv`](crate::ops::causal_conv).
    ///
    /// - **Errors**: `Option` for a sequence that is not there.
    pub fn inputs(&mut self, sequence: usize) -> Result<&mut [f32]> {
        self.check(sequence)?;
        let range = self.inputs_range(sequence);
        Ok(&mut self.inputs.as_mut_slice()[range])
    }

    /// Checks that there are such sequences, and that none comes twice: (those, the matrices).
    pub(super) fn of<'s>(&mut self, sequences: &'s [usize]) -> Result<(Distinct<'s>, &mut [f32])> {
        for &sequence in sequences {
            self.check(sequence)?;
        }
        match Distinct::new(sequences, &mut self.seen) {
            Ok(sequences) => Ok((sequences, self.matrices.as_mut_slice())),
            Err(at) => {
                let (got, allowed) = (crate::error::text(sequences[at]), "another one than those before it");
                Err(Error::Option { what: "sequence", got, allowed })
            }
        }
    }

    /// All matrices and all inputs, as they lie in memory.
    pub(super) fn contents(&self) -> (&[f32], &[f32]) {
        (self.matrices.as_slice(), self.inputs.as_slice())
    }

    /// Sets the first sequences from what [`RecurrentState::contents`] gave, as bytes.
    pub(super) fn replace(&mut self, lens: impl Iterator<Item = usize>, (matrices, inputs): (&[u8], &[u8])) {
        for (to, from) in [(&mut self.matrices, matrices), (&mut self.inputs, inputs)] {
            bytemuck::cast_slice_mut::<f32, u8>(to.as_mut_slice())[..from.len()].copy_from_slice(from);
        }
        for (to, len) in self.lens.iter_mut().zip(lens) {
            *to = len;
        }
    }

    /// Counts tokens that sequences took.
    pub(super) fn took(&mut self, sequences: &[usize], tokens: usize) {
        for &sequence in sequences {
            self.lens[sequence] += tokens;
        }
    }

    fn check(&self, sequence: usize) -> Result<()> {
        option(
            sequence < self.options.sequences,
            "sequence",
            sequence,
            "below the state's number of sequences",
        )
    }

    fn check_head(&self, sequence: usize, head: usize, what: &'static str, len: usize) -> Result<()> {
        self.check(sequence)?;
        option(head < self.options.heads, "head", head, "below the state's number of heads")?;
        equal(what, len, "must equal key_dim * value_dim =", self.options.key_dim * self.options.value_dim)
    }

    /// Where the matrices of a sequence lie.
    fn range(&self, sequence: usize) -> std::ops::Range<usize> {
        let len = self.options.matrices_len();
        sequence * len..(sequence + 1) * len
    }

    fn inputs_range(&self, sequence: usize) -> std::ops::Range<usize> {
        let len = self.options.inputs_len();
        sequence * len..(sequence + 1) * len
    }
}
