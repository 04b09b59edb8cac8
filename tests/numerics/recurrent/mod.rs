//! The delta rule and the selective scan: against their definitions at every size, tier and cut. `reference`:
//! against values that were computed elsewhere; `life`: sequences, and bad input; `files`: states as files.

mod files;
mod life;
mod reference;

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::ops::{TimeStepOptions, time_step};
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
