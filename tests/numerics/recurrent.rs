//! The delta rule and the selective scan: against values that were computed elsewhere, against their
//! definitions at every size, tier and cut; sequences and their life; bad input.

use crate::support::safetensors::Tensors;
use crate::support::{ABSURD, Random, assert_same_bits, context, for_each_isa};
use kvern::ops::{NormKind, NormOptions, TimeStepOptions, norm, time_step};
use kvern::recurrent::{DeltaTokens, RecurrentState, ScanTokens, StateOptions, delta_rule, selective_scan};
use kvern::{Context, Isa, MatMut, MatRef};

const SENTINEL: f32 = 1.25e30;

/// What tokens bring: the inputs of both rules.
#[derive(Clone)]
struct Tokens {
    heads: usize,
    key_heads: usize,
    key_dim: usize,
    value_dim: usize,
    rows: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    decay: Vec<f32>,
    beta: Vec<f32>,
    a: Vec<f32>,
    d: Vec<f32>,
}

impl Tokens {
    fn random(
        r: &mut Random,
        [heads, key_heads, key_dim, value_dim, rows]: [usize; 5],
        of_each: bool,
    ) -> Tokens {
        let decays = if of_each { heads * key_dim } else { heads };
        let keys = rows * key_heads * key_dim;
        let size = (key_dim as f32).powf(-0.5);
        let mut unit = |n: usize| -> Vec<f32> { r.vec(n).iter().map(|x| x * size).collect() };
        let (q, k) = (unit(keys), unit(keys));
        let v = r.vec(rows * heads * value_dim);
        let decay = r.vec(rows * decays).iter().map(|x| -x.abs()).collect();
        let beta = r.vec(rows * heads).iter().map(|x| x.abs()).collect();
        let a = r.vec(heads).iter().map(|x| -x.abs()).collect();
        let d = r.vec(heads);
        Tokens { heads, key_heads, key_dim, value_dim, rows, q, k, v, decay, beta, a, d }
    }

    fn options(&self) -> StateOptions {
        StateOptions::new(self.heads, self.key_dim, self.value_dim)
    }

    /// Takes tokens `from..to` of each sequence, `each` tokens a sequence in the inputs.
    fn take(
        &self,
        ctx: &Context,
        state: &mut RecurrentState,
        scan: bool,
        sequences: &[usize],
        (from, to): (usize, usize),
    ) -> Vec<f32> {
        let each = self.rows / sequences.len();
        let pick = |x: &[f32]| -> Vec<f32> {
            let width = x.len() / self.rows;
            (0..sequences.len())
                .flat_map(|s| x[(s * each + from) * width..(s * each + to) * width].to_vec())
                .collect()
        };
        let rows = sequences.len() * (to - from);
        let [q, k, v, decay, beta] = [&self.q, &self.k, &self.v, &self.decay, &self.beta].map(|x| pick(x));
        let (keys, n) = (self.key_heads * self.key_dim, self.heads * self.value_dim);
        let decays = self.decay.len() / self.rows;
        let matrix = |x, width| MatRef::dense(x, rows, width).unwrap();
        let mut y = vec![SENTINEL; rows * (n + 5)];
        let out = MatMut::new(&mut y, rows, n, n + 5).unwrap();
        if scan {
            let (x, dt, b, c) =
                (matrix(&v, n), matrix(&beta, self.heads), matrix(&k, keys), matrix(&q, keys));
            let tokens = ScanTokens { x, dt, b, c, a: &self.a, d: &self.d };
            selective_scan(ctx, state, sequences, &tokens, out).unwrap();
        } else {
            let (q, k, v) = (matrix(&q, keys), matrix(&k, keys), matrix(&v, n));
            let (decay, beta) = (matrix(&decay, decays), matrix(&beta, self.heads));
            let tokens = DeltaTokens { q, k, v, decay, beta, scale: 0.3 };
            delta_rule(ctx, state, sequences, &tokens, out).unwrap();
        }
        assert!((0..y.len()).all(|i| (i % (n + 5) >= n) == (y[i] == SENTINEL)), "gaps");
        y.chunks_exact(n + 5).flat_map(|row| row[..n].to_vec()).collect()
    }

    /// The definition in f64: results, and the matrices.
    fn definition(&self, scan: bool) -> (Vec<f64>, Vec<f64>) {
        let &Tokens { heads, key_heads, key_dim, value_dim, rows, .. } = self;
        let mut s = vec![0f64; heads * key_dim * value_dim];
        let mut y = vec![0f64; rows * heads * value_dim];
        let each = self.decay.len() / rows / heads;
        for t in 0..rows {
            for h in 0..heads {
                let key = (t * key_heads + h / (heads / key_heads)) * key_dim;
                let s = &mut s[h * key_dim * value_dim..][..key_dim * value_dim];
                let beta = f64::from(self.beta[t * heads + h]);
                for i in 0..key_dim {
                    let g = if scan {
                        beta * f64::from(self.a[h])
                    } else {
                        f64::from(self.decay[(t * heads + h) * each + i % each])
                    };
                    s[i * value_dim..][..value_dim].iter_mut().for_each(|s| *s *= g.exp());
                }
                for j in 0..value_dim {
                    let at = (t * heads + h) * value_dim + j;
                    let (k, q) = (&self.k[key..], &self.q[key..]);
                    let v = f64::from(self.v[at]);
                    let seen: f64 = (0..key_dim).map(|i| f64::from(k[i]) * s[i * value_dim + j]).sum();
                    let u = beta * if scan { v } else { v - seen };
                    (0..key_dim).for_each(|i| s[i * value_dim + j] += f64::from(k[i]) * u);
                    let sum: f64 = (0..key_dim).map(|i| f64::from(q[i]) * s[i * value_dim + j]).sum();
                    y[at] = if scan { sum + f64::from(self.d[h]) * v } else { sum * f64::from(0.3f32) };
                }
            }
        }
        (y, s)
    }
}

/// All matrices of a sequence.
fn matrices(state: &RecurrentState, sequence: usize) -> Vec<f32> {
    let o = state.options();
    let mut out = vec![SENTINEL; o.heads * o.key_dim * o.value_dim];
    for (head, out) in out.chunks_exact_mut(o.key_dim * o.value_dim).enumerate() {
        state.read(sequence, head, out).unwrap();
    }
    out
}

fn near(got: &[f32], want: &[f32], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - f64::from(want)).abs();
        assert!(error <= bound * size, "{what}: element {i}: {got:e} for {want:e}");
    }
}

/// Rows of unit heads.
fn unit(ctx: &Context, x: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let mut y = vec![SENTINEL; x.len()];
    let n = x.len() / rows;
    let options = NormOptions::new(NormKind::L2, 1e-6).groups(heads);
    norm(ctx, &options, MatRef::dense(x, rows, n).unwrap(), MatMut::dense(&mut y, rows, n).unwrap()).unwrap();
    y
}

#[test]
fn delta_rules_match_the_reference() {
    for (file, cases) in [
        ("gated_delta_rule", &["step_state", "short", "plain_heads", "long_state", "extreme"][..]),
        ("kimi_delta_rule", &["short", "long_state"]),
    ] {
        let t = Tensors::of(file);
        for case in cases {
            let name = |x: &str| format!("{case}/{x}");
            let (keys, values) = (t.shape(&name("key")), t.shape(&name("value")));
            let (rows, heads, key_dim, value_dim) = (keys[0], values[1], keys[2], values[2]);
            for_each_isa(|ctx| {
                let mut state = RecurrentState::new(StateOptions::new(heads, key_dim, value_dim)).unwrap();
                if t.has(&name("state")) {
                    let from = t.f32(&name("state"));
                    for (head, x) in from.chunks_exact(key_dim * value_dim).enumerate() {
                        state.write(0, head, x).unwrap();
                    }
                }
                let [q, k] = ["query", "key"].map(|x| unit(ctx, &t.f32(&name(x)), keys[1], rows));
                let [v, decay, beta] = ["value", "g", "beta"].map(|x| t.f32(&name(x)));
                let matrix = |x| MatRef::dense(x, rows, <[f32]>::len(x) / rows).unwrap();
                let tokens = DeltaTokens {
                    q: matrix(&q),
                    k: matrix(&k),
                    v: matrix(&v),
                    decay: matrix(&decay),
                    beta: matrix(&beta),
                    scale: (key_dim as f32).powf(-0.5),
                };
                let mut y = vec![SENTINEL; rows * heads * value_dim];
                let out = MatMut::dense(&mut y, rows, heads * value_dim).unwrap();
                delta_rule(ctx, &mut state, &[0], &tokens, out).unwrap();
                near(&y, &t.f32(&name("y")), 2e-6, &format!("{file}/{case} at {}", ctx.isa()));
                near(
                    &matrices(&state, 0),
                    &t.f32(&name("final_state")),
                    2e-6,
                    &format!("{file}/{case} state"),
                );
                assert_eq!(state.len(), rows);
            });
        }
    }
}

/// `(p, n)` of each head as `(n, p)`.
fn transposed(x: &[f32], p: usize, n: usize) -> Vec<f32> {
    x.chunks_exact(p * n).flat_map(|x| (0..n * p).map(|i| x[i % p * n + i / p])).collect()
}

#[test]
fn selective_scans_match_the_reference() {
    let t = Tensors::of("ssd_scan");
    for case in ["step_state", "short", "dt_limit", "long_state", "extreme"] {
        let name = |x: &str| format!("{case}/{x}");
        let (x_shape, b_shape) = (t.shape(&name("x")), t.shape(&name("B")));
        let (rows, heads, p, n) = (x_shape[0], x_shape[1], x_shape[2], b_shape[2]);
        for_each_isa(|ctx| {
            let mut state = RecurrentState::new(StateOptions::new(heads, n, p)).unwrap();
            if t.has(&name("state")) {
                let from = transposed(&t.f32(&name("state")), p, n);
                for (head, x) in from.chunks_exact(n * p).enumerate() {
                    state.write(0, head, x).unwrap();
                }
            }
            let [x, raw, b, c, a, d, bias] =
                ["x", "dt", "B", "C", "A", "D", "dt_bias"].map(|x| t.f32(&name(x)));
            let matrix = |x| MatRef::dense(x, rows, <[f32]>::len(x) / rows).unwrap();
            let mut dt = vec![SENTINEL; raw.len()];
            let limits = if case == "dt_limit" { (0.125, 0.5) } else { (0.0, f32::INFINITY) };
            let options = TimeStepOptions::default().bias(&bias).limits(limits.0, limits.1);
            time_step(ctx, &options, matrix(&raw), MatMut::dense(&mut dt, rows, heads).unwrap()).unwrap();
            let (x, dt, b, c) = (matrix(&x), matrix(&dt), matrix(&b), matrix(&c));
            let mut y = vec![SENTINEL; rows * heads * p];
            let out = MatMut::dense(&mut y, rows, heads * p).unwrap();
            selective_scan(ctx, &mut state, &[0], &ScanTokens { x, dt, b, c, a: &a, d: &d }, out).unwrap();
            near(&y, &t.f32(&name("y")), 2e-6, &format!("{case} at {}", ctx.isa()));
            let want = transposed(&t.f32(&name("final_state")), p, n);
            near(&matrices(&state, 0), &want, 2e-6, &format!("{case} state"));
        });
    }
}

#[test]
fn recurrences_of_any_size_are_their_definition() {
    let mut r = Random::new(77);
    let sizes = (1..=130).map(|n| [1 + n % 3, 1, 1 + n * 7 % 40, n, 1 + n % 4]);
    for size in sizes.chain([[4, 2, 128, 128, 3], [6, 3, 17, 16, 9], [2, 2, 130, 33, 5], [2, 1, 256, 64, 2]])
    {
        for (scan, of_each) in [(false, false), (false, true), (true, false)] {
            let tokens = Tokens::random(&mut r, size, of_each);
            let run = |ctx: &Context| {
                let mut state = RecurrentState::new(tokens.options()).unwrap();
                let y = tokens.take(ctx, &mut state, scan, &[0], (0, tokens.rows));
                (y, matrices(&state, 0))
            };
            let what = format!("{size:?} scan {scan} of each {of_each}");
            let want = run(&context(Isa::Scalar, 1));
            for_each_isa(|ctx| {
                for threads in [1, 3] {
                    let got = run(&context(ctx.isa(), threads));
                    assert_same_bits(&got.0, &want.0, &format!("{what} at {}", ctx.isa()));
                    assert_same_bits(&got.1, &want.1, &format!("{what}, state at {}", ctx.isa()));
                }
            });
            let (y, s) = tokens.definition(scan);
            let bound = (size[2] * size[4]) as f64 * 2f64.powi(-22);
            for (got, want) in want.0.iter().zip(&y).chain(want.1.iter().zip(&s)) {
                assert!((f64::from(*got) - want).abs() <= bound, "{what}: {got:e} for {want:e}");
            }
        }
    }
}

#[test]
fn any_cut_any_batch_and_any_thread_count_give_the_same_bits() {
    let mut r = Random::new(78);
    for case in 0..24 {
        let (heads, shared) = (1 + r.below(4), 1 + r.below(2));
        let size = [heads * shared, heads, 1 + r.below(70), 1 + r.below(150), 12];
        let (scan, of_each) = (case % 3 == 0, case % 3 == 1);
        let alone: Vec<Tokens> = (0..3).map(|_| Tokens::random(&mut r, size, of_each)).collect();
        // Three sequences as one batch, in another order, with other sequences between.
        let mut batch = alone[0].clone();
        batch.rows = 36;
        for one in &alone[1..] {
            for (to, from) in [
                (&mut batch.q, &one.q),
                (&mut batch.k, &one.k),
                (&mut batch.v, &one.v),
                (&mut batch.decay, &one.decay),
                (&mut batch.beta, &one.beta),
            ] {
                to.extend(from);
            }
        }
        let alone: Vec<Tokens> =
            alone.iter().map(|t| Tokens { a: batch.a.clone(), d: batch.d.clone(), ..t.clone() }).collect();
        for_each_isa(|ctx| {
            let threads = [1, 2, 3, 8][case % 4];
            let ctx = context(ctx.isa(), threads);
            let mut together = RecurrentState::new(batch.options().sequences(5)).unwrap();
            let sequences = [4, 0, 2];
            let cut = case % 12;
            let first = batch.take(&ctx, &mut together, scan, &sequences, (0, cut));
            let second = batch.take(&ctx, &mut together, scan, &sequences, (cut, 12));
            for (slot, (tokens, &sequence)) in alone.iter().zip(&sequences).enumerate() {
                let mut state = RecurrentState::new(tokens.options()).unwrap();
                let n = size[0] * size[3];
                let mut y = Vec::new();
                for t in 0..12 {
                    y.extend(tokens.take(&ctx, &mut state, scan, &[0], (t, t + 1)));
                }
                let of = |x: &[f32], each: usize| x[slot * each * n..(slot + 1) * each * n].to_vec();
                let got = [of(&first, cut), of(&second, 12 - cut)].concat();
                let what = format!("case {case}, sequence {sequence}, cut {cut}");
                assert_same_bits(&got, &y, &what);
                assert_same_bits(&matrices(&together, sequence), &matrices(&state, 0), &what);
                assert_eq!(together.len_of(sequence), 12);
            }
            for other in [1, 3] {
                assert!(matrices(&together, other).iter().all(|x| *x == 0.0) && together.len_of(other) == 0);
            }
        });
    }
}

#[test]
fn a_fork_can_be_come_back_to() {
    let mut r = Random::new(79);
    let tokens = Tokens::random(&mut r, [2, 1, 20, 40, 10], false);
    let ctx = context(Isa::Scalar, 1);
    let mut state = RecurrentState::new(tokens.options().sequences(3).convolution(6, 4)).unwrap();
    tokens.take(&ctx, &mut state, false, &[0], (0, 4));
    state.inputs(0).unwrap().copy_from_slice(&r.vec(18));
    let (kept, inputs) = (matrices(&state, 0), state.inputs(0).unwrap().to_vec());
    state.fork(0, 2).unwrap();
    let once = tokens.take(&ctx, &mut state, false, &[0], (4, 10));
    state.inputs(0).unwrap().fill(7.0);
    assert_eq!((state.len_of(0), state.len_of(1), state.len_of(2)), (10, 0, 4));
    assert_same_bits(&matrices(&state, 2), &kept, "fork");
    state.fork(2, 0).unwrap();
    assert_eq!(state.inputs(0).unwrap(), inputs);
    assert_same_bits(&tokens.take(&ctx, &mut state, false, &[0], (4, 10)), &once, "again");
    state.fork(2, 2).unwrap();
    assert_same_bits(&matrices(&state, 2), &kept, "onto itself");
    state.clear_in(2).unwrap();
    assert!(matrices(&state, 2).iter().all(|x| *x == 0.0) && state.inputs(2).unwrap() == [0.0; 18]);
    assert_eq!((state.len_of(0), state.len_of(2)), (10, 0));
    // A copy of what was written is read.
    let x = r.vec(800);
    state.write(1, 1, &x).unwrap();
    let mut back = vec![SENTINEL; 800];
    state.read(1, 1, &mut back).unwrap();
    assert_same_bits(&back, &x, "read");
    state.clear();
    assert!((0..3).all(|s| matrices(&state, s).iter().all(|x| *x == 0.0)) && state.is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let bad = |o: StateOptions| RecurrentState::new(o).unwrap_err().to_string();
    assert_eq!(bad(StateOptions::new(0, 8, 8)), "heads = 0 must be positive");
    assert_eq!(bad(StateOptions::new(1, 8, 8).sequences(0)), "sequences = 0 must be positive");
    assert_eq!(bad(StateOptions::new(1, 8, 8).convolution(4, 9)), "taps = 9 must be 2..=8");
    assert_eq!(bad(StateOptions::new(1, 8, 8).convolution(0, 3)), "taps = 3 must be 0 without channels");
    assert!(bad(StateOptions::new(ABSURD, ABSURD, ABSURD)).contains("does not fit the address space"));
    RecurrentState::new(StateOptions::new(1, usize::MAX, 1)).unwrap_err();
    RecurrentState::new(StateOptions::new(1, 1, usize::MAX)).unwrap_err();

    let mut r = Random::new(80);
    let t = Tokens::random(&mut r, [4, 2, 8, 20, 6], false);
    let ctx = context(Isa::Scalar, 1);
    let mut state = RecurrentState::new(t.options().sequences(3)).unwrap();
    t.take(&ctx, &mut state, false, &[1], (0, 6));
    let before = matrices(&state, 1);
    let m = |x, cols| MatRef::dense(x, 6, cols).unwrap();
    let good = DeltaTokens {
        q: m(&t.q, 16),
        k: m(&t.k, 16),
        v: m(&t.v, 80),
        decay: m(&t.decay, 4),
        beta: m(&t.beta, 4),
        scale: 1.0,
    };
    let mut refused = |sequences: &[usize], tokens: DeltaTokens<'_>, cols: usize, want: &str| {
        let mut y = vec![SENTINEL; 6 * cols];
        let out = MatMut::dense(&mut y, 6, cols).unwrap();
        let error = delta_rule(&ctx, &mut state, sequences, &tokens, out).unwrap_err().to_string();
        assert_eq!(error, want);
        assert!(y.iter().all(|y| *y == SENTINEL));
        assert_same_bits(&matrices(&state, 1), &before, want);
        assert_eq!((state.len_of(0), state.len_of(1)), (0, 6));
    };
    refused(&[3], good, 80, "sequence = 3 must be below the state's number of sequences");
    refused(&[1, 0, 1], good, 80, "sequence = 1 must be another one than those before it");
    refused(&[0, 1, 2, 0], good, 80, "y.rows = 6 must be a multiple of the number of sequences");
    refused(&[], good, 80, "y.rows = 6 must be a multiple of the number of sequences");
    refused(&[0], good, 81, "y.cols = 81 must equal heads * value_dim = 80");
    refused(&[0], DeltaTokens { scale: f32::NAN, ..good }, 80, "scale = NaN must be finite");
    let three = vec![0.0; 6 * 24];
    let q = m(&three, 24);
    let want = "q.cols = 24 must be key_dim times a number that divides the state's heads";
    refused(&[0], DeltaTokens { q, k: q, ..good }, 80, want);
    let want = "k.cols = 24 must equal what the state's options give = 16";
    refused(&[0], DeltaTokens { k: q, ..good }, 80, want);
    let want = "decay.cols = 24 must equal what the state's options give = 32";
    refused(&[0], DeltaTokens { decay: q, ..good }, 80, want);
    let square = [0.0; 36];
    let decay = MatRef::dense(&square[..24], 4, 6).unwrap().t();
    refused(
        &[0],
        DeltaTokens { decay, ..good },
        80,
        "decay = a transposed view must be plain: tokens are rows",
    );

    let (x, dt) = (m(&t.v, 80), m(&t.beta, 4));
    let (b, c) = (m(&t.k, 16), m(&t.q, 16));
    let mut y = vec![SENTINEL; 480];
    for (a, d, want) in [
        (&t.a[..3], &t.d[..], "a.len = 3 must equal the state's heads = 4"),
        (&t.a[..], &t.d[..2], "d.len = 2 must equal the state's heads = 4"),
    ] {
        let out = MatMut::dense(&mut y, 6, 80).unwrap();
        let tokens = ScanTokens { x, dt, b, c, a, d };
        assert_eq!(selective_scan(&ctx, &mut state, &[0], &tokens, out).unwrap_err().to_string(), want);
    }
    let mut out = [SENTINEL; 160];
    assert!(state.read(3, 0, &mut out).is_err() && state.read(0, 4, &mut out).is_err());
    assert!(state.read(0, 0, &mut out[1..]).is_err() && state.write(0, 0, &out[1..]).is_err());
    assert!(state.fork(0, 3).is_err() && state.fork(3, 0).is_err() && state.clear_in(3).is_err());
    assert!(out.iter().all(|x| *x == SENTINEL) && y.iter().all(|x| *x == SENTINEL));
    let options = TimeStepOptions::default().limits(1.0, 0.5);
    let error = time_step(&ctx, &options, dt, MatMut::dense(&mut y[..24], 6, 4).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "limits = 1..=0.5 must be in ascending order");
}

#[test]
fn nothing_is_nothing() {
    let ctx = context(Isa::Scalar, 1);
    let mut state = RecurrentState::new(StateOptions::new(2, 3, 4)).unwrap();
    let none = |cols| MatRef::dense(&[], 0, cols).unwrap();
    let tokens =
        DeltaTokens { q: none(6), k: none(6), v: none(8), decay: none(2), beta: none(2), scale: 1.0 };
    for sequences in [&[][..], &[0]] {
        delta_rule(&ctx, &mut state, sequences, &tokens, MatMut::dense(&mut [], 0, 8).unwrap()).unwrap();
    }
    assert!(state.is_empty() && state.options().taps == 0 && state.inputs(0).unwrap().is_empty());
}

#[test]
fn time_steps_are_their_definition() {
    let mut r = Random::new(81);
    for n in 1..=70 {
        let (x, bias, factor) = (r.vec(3 * n), r.vec(n), r.vec(n));
        let run = |ctx: &Context| {
            let mut y = vec![SENTINEL; 3 * n];
            let options = TimeStepOptions::default().bias(&bias).factor(&factor).limits(0.1, 0.9);
            let x = MatRef::dense(&x, 3, n).unwrap();
            time_step(ctx, &options, x, MatMut::dense(&mut y, 3, n).unwrap()).unwrap();
            y
        };
        let want = run(&context(Isa::Scalar, 1));
        for_each_isa(|ctx| assert_same_bits(&run(ctx), &want, &format!("{n} at {}", ctx.isa())));
        for (i, got) in want.iter().enumerate() {
            let x = f64::from(x[i]) + f64::from(bias[i % n]);
            let exact =
                x.exp().ln_1p().clamp(f64::from(0.1f32), f64::from(0.9f32)) * f64::from(factor[i % n]);
            assert!((f64::from(*got) - exact).abs() <= 6e-7 * exact.abs(), "{got:e} for {exact:e}");
        }
    }
}
