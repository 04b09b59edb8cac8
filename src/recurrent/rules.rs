//! The recurrences: the gated delta rule and the selective scan.

use super::state::{RecurrentState, StateOptions};
use crate::context::Context;
use crate::error::{Result, equal, option};
use crate::fp_mode;
use crate::kernels::{LANES, RowsOf, Rule, TokenRows};
use crate::ops::executor;
use crate::tiles::{States, for_each_state};
use crate::view::{MatMut, MatRef};

/// Panels of 16 values of a work item: of keys of 128 elements, 32 KiB of the state, as much as an L1 cache
/// has.
const PANELS: usize = 4;

/// What tokens bring to [`delta_rule`]. Row `s * n + i` of each is token i of the call's sequence s, where n
/// is the number of rows divided by that of sequences.
#[derive(Debug, Clone, Copy)]
pub struct DeltaTokens<'a> {
    /// Queries and keys, (rows, key_heads * key_dim), after their norm. The number of heads divides that of
    /// the state: value head h has the queries and keys of head `h / (heads / key_heads)`.
    pub q: MatRef<'a>,
    /// As `q`.
    pub k: MatRef<'a>,
    /// (rows, heads * value_dim).
    pub v: MatRef<'a>,
    /// The logarithms of the decays, which are not positive: (rows, heads), or of each key element,
    /// (rows, heads * key_dim), as Kimi Linear has them.
    pub decay: MatRef<'a>,
    /// How much of what a key means is replaced, 0..=1: (rows, heads).
    pub beta: MatRef<'a>,
    /// What results are multiplied by: usually `key_dim^-0.5`.
    pub scale: f32,
}

/// What tokens bring to [`selective_scan`]; rows as in [`DeltaTokens`].
#[derive(Debug, Clone, Copy)]
pub struct ScanTokens<'a> {
    /// (rows, heads * value_dim).
    pub x: MatRef<'a>,
    /// The steps, after [`time_step`](crate::ops::time_step): (rows, heads).
    pub dt: MatRef<'a>,
    /// Input and output matrices, (rows, groups * key_dim), key_dim being `d_state`. The number of groups
    /// divides that of heads: head h has those of group `h / (heads / groups)`.
    pub b: MatRef<'a>,
    /// As `b`.
    pub c: MatRef<'a>,
    /// `-exp(A_log)`: (heads).
    pub a: &'a [f32],
    /// The factor of `x` in the results: (heads).
    pub d: &'a [f32],
}

/// The gated delta rule: linear attention that replaces what a key meant before.
///
/// - **Formula**: for each token and head, with the matrix S of (key_dim, value_dim) that the sequence has:
///   `S = S * exp(decay)`, `u = beta * (v - S^T k)`, `S = S + k u^T`, `y = scale * S^T q`.
/// - **Shapes**: `y`: (rows, heads * value_dim); the others as [`DeltaTokens`] says. `sequences`: which ones
///   of the state the rows belong to, none of them twice.
/// - **Numerics**: one token after the other. `S^T k` and `S^T q` are chains of fused multiply-adds over the
///   key elements ascending, from +0.0; S takes one rounding by the decay and one fused multiply-add. The
///   exponential as that of [`Activation::Exp`](crate::Activation::Exp). The bits do not depend on how many
///   tokens come in a call. NaN and infinity stay in the state: clear it.
/// - **Errors**: `Shape`; `Option` for a transposed view, a sequence that is not there or comes twice, heads
///   that key heads do not divide, a scale that is not finite; nothing is changed then.
/// - **Cost**: one token: the state is read and written once, from memory; more tokens: 4 operations for each
///   element of the state and token, from the L1 cache. Allocates nothing.
/// - **Source**: Yang, Kautz & Hatamizadeh 2024 (Gated Delta Networks); Kimi Team 2025.
pub fn delta_rule(
    ctx: &Context,
    state: &mut RecurrentState,
    sequences: &[usize],
    tokens: &DeltaTokens<'_>,
    y: MatMut<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let &DeltaTokens { q, k, v, decay, beta, scale } = tokens;
    let options = *state.options();
    let of_each = decay.cols() != options.heads;
    let decays = if of_each { options.heads * options.key_dim } else { options.heads };
    shape(["decay.rows", "decay.cols", "decay"], decay, y.rows(), decays)?;
    shape(["beta.rows", "beta.cols", "beta"], beta, y.rows(), options.heads)?;
    shape(["v.rows", "v.cols", "v"], v, y.rows(), options.heads * options.value_dim)?;
    let key_heads = heads_of(&options, ["q.rows", "q.cols", "q"], q, y.rows())?;
    shape(["k.rows", "k.cols", "k"], k, y.rows(), q.cols())?;
    option(scale.is_finite(), "scale", scale, "finite")?;
    let call = Call { q, k, v, decay, of_each, by: beta, shared: options.heads / key_heads };
    call.run(ctx, state, sequences, y, &|_| Rule::Delta { scale })
}

/// The selective scan of Mamba-2.
///
/// - **Formula**: for each token and head, with the matrix S of (key_dim, value_dim) that the sequence has,
///   the transpose of what checkpoints call (head_dim, d_state): `S = S * exp(dt * a) + b (dt * x)^T`, `y =
///   S^T c + d * x`.
/// - **Shapes**: `y`: (rows, heads * value_dim); the others as [`ScanTokens`] says; `sequences` as in
///   [`delta_rule`].
/// - **Numerics**: one token after the other, as [`delta_rule`]; `d * x` joins by one fused multiply-add at
///   the end.
/// - **Errors**: as [`delta_rule`].
/// - **Cost**: as [`delta_rule`], with 3 operations.
/// - **Source**: Dao & Gu 2024.
pub fn selective_scan(
    ctx: &Context,
    state: &mut RecurrentState,
    sequences: &[usize],
    tokens: &ScanTokens<'_>,
    y: MatMut<'_>,
) -> Result<()> {
    let _mode = fp_mode::default_mode();
    let &ScanTokens { x, dt, b, c, a, d } = tokens;
    let options = *state.options();
    shape(["x.rows", "x.cols", "x"], x, y.rows(), options.heads * options.value_dim)?;
    shape(["dt.rows", "dt.cols", "dt"], dt, y.rows(), options.heads)?;
    let groups = heads_of(&options, ["b.rows", "b.cols", "b"], b, y.rows())?;
    shape(["c.rows", "c.cols", "c"], c, y.rows(), b.cols())?;
    equal("a.len", a.len(), "must equal the state's heads =", options.heads)?;
    equal("d.len", d.len(), "must equal the state's heads =", options.heads)?;
    let call = Call { q: c, k: b, v: x, decay: dt, of_each: false, by: dt, shared: options.heads / groups };
    call.run(ctx, state, sequences, y, &|head| Rule::Scan { a: a[head], skip: d[head] })
}

/// Checks that `x` is a plain matrix of `rows` rows of `cols` columns.
fn shape(what: [&'static str; 3], x: MatRef<'_>, rows: usize, cols: usize) -> Result<()> {
    equal(what[0], x.rows(), "must equal y.rows =", rows)?;
    equal(what[1], x.cols(), "must equal what the state's options give =", cols)?;
    x.require_plain(what[2], "plain: tokens are rows")
}

/// How many heads of key_dim elements a row has: at least 1, and they divide those of the state.
fn heads_of(options: &StateOptions, what: [&'static str; 3], x: MatRef<'_>, rows: usize) -> Result<usize> {
    let heads = x.cols() / options.key_dim;
    let good = heads > 0 && heads * options.key_dim == x.cols() && options.heads.is_multiple_of(heads);
    option(good, what[1], x.cols(), "key_dim times a number that divides the state's heads")?;
    shape(what, x, rows, x.cols())?;
    Ok(heads)
}

/// The rows of a plain matrix from an element on.
fn rows_from(x: MatRef<'_>, row: usize, col: usize) -> RowsOf<'_> {
    RowsOf { data: x.from(row, col), stride: x.strides().0 }
}

/// Both rules, as the kernels see them.
struct Call<'a> {
    q: MatRef<'a>,
    k: MatRef<'a>,
    v: MatRef<'a>,
    decay: MatRef<'a>,
    of_each: bool,
    by: MatRef<'a>,
    /// Heads that share a query and a key.
    shared: usize,
}

impl Call<'_> {
    fn run(
        &self,
        ctx: &Context,
        state: &mut RecurrentState,
        sequences: &[usize],
        y: MatMut<'_>,
        rule: &(dyn Fn(usize) -> Rule + Sync),
    ) -> Result<()> {
        let StateOptions { heads, key_dim, value_dim, .. } = *state.options();
        equal("y.cols", y.cols(), "must equal heads * value_dim =", heads * value_dim)?;
        let (rows, count) = (y.rows(), sequences.len());
        let whole = if count == 0 { rows == 0 } else { rows.is_multiple_of(count) };
        option(whole, "y.rows", rows, "a multiple of the number of sequences")?;
        let tokens = rows.checked_div(count).unwrap_or(0);
        let (distinct, matrices) = state.of(sequences)?;
        let states = States {
            sequences: distinct,
            heads,
            cols: value_dim,
            part_cols: LANES,
            part_len: key_dim * LANES,
            item_parts: PANELS,
        };
        let kernels = ctx.kernels();
        let operations = rows.saturating_mul(heads * value_dim).saturating_mul(key_dim);
        for_each_state(executor(ctx, operations), y, matrices, states, &|at, y, state| {
            let of = |x, col| rows_from(x, at.row, col);
            let key = at.head / self.shared * key_dim;
            let decay = if self.of_each { at.head * key_dim } else { at.head };
            let rows = TokenRows {
                q: of(self.q, key),
                k: of(self.k, key),
                v: of(self.v, at.head * value_dim + at.col),
                decay: of(self.decay, decay),
                of_each: self.of_each,
                by: of(self.by, at.head),
            };
            kernels.recurrence(rule(at.head), key_dim, rows, state, y);
        });
        state.took(sequences, tokens);
        Ok(())
    }
}
