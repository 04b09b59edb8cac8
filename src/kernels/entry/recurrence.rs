//! The entries of the recurrent states.

use super::bounds::reach;
use crate::kernels::generic::recurrence::Recurrence;
use crate::kernels::{KernelSet, LANES};
use crate::view::MatMut;

/// Which recurrence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    /// The gated delta rule, and the scale of its results.
    Delta { scale: f32 },
    /// The selective scan: the factor of its decays, and that of the values in the results.
    Scan { a: f32, skip: f32 },
}

/// A row of each token.
#[derive(Clone, Copy)]
pub(crate) struct RowsOf<'a> {
    pub data: &'a [f32], // (tokens, any), rows `stride` apart
    pub stride: usize,
}

/// What tokens bring to one head.
#[derive(Clone, Copy)]
pub(crate) struct TokenRows<'a> {
    pub q: RowsOf<'a>,     // (tokens, rows)
    pub k: RowsOf<'a>,     // (tokens, rows)
    pub v: RowsOf<'a>,     // (tokens, values)
    pub decay: RowsOf<'a>, // (tokens, 1), or (tokens, rows)
    pub of_each: bool,
    pub by: RowsOf<'a>, // (tokens, 1)
}

impl KernelSet {
    /// Takes the tokens of `y`, one after the other, into the state of a head, or into panels of it: `rows`
    /// key elements by the columns of `y`, in panels of 16.
    pub(crate) fn recurrence(
        &self,
        rule: Rule,
        rows: usize,
        of: TokenRows<'_>,
        state: &mut [f32],
        mut y: MatMut<'_>,
    ) {
        let (tokens, values) = (y.rows(), y.cols());
        if tokens == 0 || values == 0 {
            return;
        }
        let panels = values.div_ceil(LANES);
        assert!(state.len() == panels * rows * LANES);
        let holds =
            |of: RowsOf<'_>, width: usize| of.data.len() >= reach(tokens, of.stride).saturating_add(width);
        assert!(holds(of.q, rows) && holds(of.k, rows) && holds(of.v, values));
        assert!(holds(of.decay, if of.of_each { rows } else { 1 }) && holds(of.by, 1));
        let (kernel, a, factor) = match rule {
            Rule::Delta { scale } => (self.delta, 1.0, scale),
            Rule::Scan { a, skip } => (self.scan, a, skip),
        };
        let y_stride = y.row_stride();
        let call = Recurrence {
            tokens,
            rows,
            panels,
            tail: values - (panels - 1) * LANES,
            state: state.as_mut_ptr(),
            q: of.q.data.as_ptr(),
            q_stride: of.q.stride,
            k: of.k.data.as_ptr(),
            k_stride: of.k.stride,
            v: of.v.data.as_ptr(),
            v_stride: of.v.stride,
            y: y.as_mut_ptr(),
            y_stride,
            decay: of.decay.data.as_ptr(),
            decay_stride: of.decay.stride,
            of_each: of.of_each,
            by: of.by.data.as_ptr(),
            by_stride: of.by.stride,
            a,
            factor,
        };
        // SAFETY: CPU checked; every row of every token lies inside its slice; state and y are borrowed
        // exclusively.
        unsafe { kernel(&call) }
    }
}
