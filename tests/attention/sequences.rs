//! Several sequences in one call: every row is written, and has the bits that its sequence gives alone.

use crate::call::Call;
use crate::support::{Random, assert_same_bits, context};
use kvern::attention::*;
use kvern::{Context, Isa, MatMut, MatRef, Workspace};

/// What an output holds before a call: a NaN with a payload that no computation makes.
const UNWRITTEN: f32 = f32::from_bits(0x7fc0_dead);

/// One call over some sequences of a cache: `calls[s]` is what sequence s is asked, with one q_len and one
/// set of options for all.
struct Batch {
    calls: Vec<Call>,
    kind: KvType,
    /// The sequences of the call, in its order; a sequence may stand in it twice.
    order: Vec<usize>,
}

impl Batch {
    fn random(r: &mut Random) -> Batch {
        let kv_heads = [1, 1, 2, 3][r.below(4)];
        let group = [3, 4, 5, 7, 8, 16, 48, 400][r.below(8)];
        let (key_dim, value_dim) = (8 * (1 + r.below(2)), 8 * (1 + r.below(3)));
        // A work item takes 384 / group tokens, or fewer where a call is cut finer: all around those numbers.
        let most = (384 / group).max(1);
        let q_len = match r.below(8) {
            0 => 1,
            1 => 2 + r.below(4),
            2 => (24 / group).max(1) + r.below(3),
            3 => (most - 1).max(1),
            4 => most,
            5 => most + 1,
            6 => 2 * most + 1,
            _ => 1 + r.below(2 * most),
        };
        let wild = |keep: usize, shift: usize| {
            move |row: usize, key: usize| !(row * 7 + key * 13 + row * key + shift).is_multiple_of(keep)
        };
        let drawn: [usize; 9] = std::array::from_fn(|_| r.below(4));
        let (window, sinks) = (1 + r.below(300), r.below(9));
        let count = 1 + r.below(6);
        let calls = (0..count).map(|s| {
            let kv_len = q_len + [0, 1, r.below(40), r.below(600)][r.below(4)];
            let mut call =
                Call::new("batch", [kv_heads * group, kv_heads, key_dim, value_dim, q_len, kv_len]).options(
                    |mut o| {
                        o.causal = drawn[0] > 0;
                        o.window = (drawn[1] == 0).then_some(window);
                        o.sinks = if drawn[1] == 0 { sinks } else { 0 };
                        o.softcap = (drawn[2] == 0).then_some(3.0);
                        o
                    },
                );
            call.q = r.vec(call.q.len());
            call.k = r.vec(call.k.len());
            call.v = r.vec(call.v.len());
            if drawn[3] == 0 {
                call = call.alibi();
            }
            if drawn[4] == 0 {
                call = call.mask(drawn[5] == 0, 5 + s);
            }
            if drawn[6] == 0 {
                call = call.seen(drawn[5] == 1, wild(3, s));
            }
            if drawn[7] == 0 {
                call = call.tree();
            }
            if drawn[8] == 0 {
                call = call.sink_logits();
            }
            call
        });
        let calls: Vec<Call> = calls.collect();
        let order = (0..1 + r.below(6)).map(|_| r.below(count)).collect();
        Batch { calls, kind: KvType::ALL[r.below(5)], order }
    }

    fn cache(&self) -> KvCache {
        let one = &self.calls[0];
        let capacity = self.calls.iter().map(|call| call.kv_len).max().unwrap();
        let options = KvCacheOptions::new(one.kv_heads, one.key_dim, capacity)
            .value_dim(one.value_dim)
            .types(self.kind, self.kind)
            .sequences(self.calls.len());
        let mut cache = KvCache::new(options).unwrap();
        for (s, call) in self.calls.iter().enumerate() {
            let k = MatRef::dense(&call.k, call.kv_len, call.kv_heads * call.key_dim).unwrap();
            let v = MatRef::dense(&call.v, call.kv_len, call.kv_heads * call.value_dim).unwrap();
            cache.append_to(s, k, v).unwrap();
        }
        cache
    }

    /// Rows of a mask for the sequences `order`, as many columns as the longest one has keys.
    fn joined<T: Copy>(
        &self,
        order: &[usize],
        fill: T,
        of: impl Fn(&Call) -> Option<&(usize, Vec<T>)>,
    ) -> Option<(usize, Vec<T>)> {
        let longest = order.iter().map(|&s| self.calls[s].kv_len).max().unwrap();
        let q_len = self.calls[0].q_len;
        let heads = of(&self.calls[0])?.0 / q_len;
        let mut rows = Vec::new();
        for h in 0..heads {
            for &s in order {
                let (call, mask) = (&self.calls[s], &of(&self.calls[s])?.1);
                for row in mask.chunks_exact(call.kv_len).skip(h * q_len).take(q_len) {
                    rows.extend_from_slice(row);
                    rows.extend(std::iter::repeat_n(fill, longest - call.kv_len));
                }
            }
        }
        Some((heads * order.len() * q_len, rows))
    }

    /// Outputs, and log-sum-exps where they are asked for, of a call over the sequences `order`.
    fn run(&self, ctx: &Context, cache: &KvCache, order: &[usize], lse: bool, split: bool) -> [Vec<f32>; 2] {
        let one = &self.calls[0];
        let (rows, heads) = (order.len() * one.q_len, one.heads);
        let longest = order.iter().map(|&s| self.calls[s].kv_len).max().unwrap();
        let q: Vec<f32> = order.iter().flat_map(|&s| self.calls[s].q.iter().copied()).collect();
        let tree: Vec<bool> =
            order.iter().flat_map(|&s| self.calls[s].tree.clone().unwrap_or_default()).collect();
        // Beyond the keys of its sequence no element of a mask is looked at.
        let mask = self.joined(order, f32::NAN, |call| call.mask.as_ref());
        let seen = self.joined(order, true, |call| call.seen.as_ref());
        let mut bias = Bias::default();
        bias.alibi = one.alibi.as_deref();
        bias.sink_logits = one.sinks.as_deref();
        bias.mask = mask.as_ref().map(|(rows, m)| MatRef::dense(m, *rows, longest).unwrap());
        bias.seen = seen.as_ref().map(|(rows, m)| MatRef::dense(m, *rows, longest).unwrap());
        bias.tree = one.tree.as_ref().map(|_| MatRef::dense(&tree, rows, one.q_len).unwrap());

        let full = workspace_bytes(ctx, &one.options, cache, one.q_len).unwrap();
        let tiny = KvCacheOptions::new(one.kv_heads, one.key_dim, 1).value_dim(one.value_dim);
        let tiny = KvCache::new(tiny.types(self.kind, self.kind)).unwrap();
        // What a cache of one token takes has no room for a split over keys.
        let bytes = if split { full } else { workspace_bytes(ctx, &one.options, &tiny, one.q_len).unwrap() };
        let mut ws = Workspace::new(bytes).unwrap();
        let width = heads * one.value_dim;
        // Rows further apart than they are long: what lies between must stay.
        let mut out = vec![UNWRITTEN; rows * (width + 3)];
        let mut logs = vec![UNWRITTEN; rows * (heads + 1)];
        let mut outputs = Outputs::new(MatMut::new(&mut out, rows, width, width + 3).unwrap());
        if lse {
            outputs = outputs.lse(MatMut::new(&mut logs, rows, heads, heads + 1).unwrap());
        }
        let q = MatRef::dense(&q, rows, heads * one.key_dim).unwrap();
        attend_with(ctx, &mut ws, &one.options, &bias, q, Sequences::new(cache, order), outputs).unwrap();
        let dense = |x: Vec<f32>, width: usize, gap: usize| -> Vec<f32> {
            for row in x.chunks_exact(width + gap) {
                assert!(row[width..].iter().all(|x| x.to_bits() == UNWRITTEN.to_bits()), "a gap was written");
            }
            x.chunks_exact(width + gap).flat_map(|row| row[..width].to_vec()).collect()
        };
        [dense(out, width, 3), if lse { dense(logs, heads, 1) } else { logs }]
    }

    fn check(&self, contexts: &[(usize, Context)], r: &mut Random, what: &str) {
        let cache = self.cache();
        let alone: Vec<_> =
            (0..self.calls.len()).map(|s| self.run(&contexts[0].1, &cache, &[s], true, false)).collect();
        for [out, logs] in &alone {
            let left = |x: &[f32]| x.iter().any(|x| x.to_bits() == UNWRITTEN.to_bits());
            assert!(!left(out) && !left(logs), "{what}: a row of one sequence was not written");
        }
        let want: [Vec<f32>; 2] =
            std::array::from_fn(|i| self.order.iter().flat_map(|&s| alone[s][i].clone()).collect());
        for (threads, ctx) in contexts {
            let (lse, split) = [(true, true), (false, true), (true, false)][r.below(3)];
            let what = format!("{what} at {} by {threads}, lse {lse}, split {split}", ctx.isa());
            let [out, logs] = self.run(ctx, &cache, &self.order, lse, split);
            assert_same_bits(&out, &want[0], &what);
            assert!(out.iter().all(|x| x.to_bits() != UNWRITTEN.to_bits()), "{what}: rows unwritten");
            if lse {
                assert_same_bits(&logs, &want[1], &what);
            }
        }
    }
}

/// Contexts of every tier and of several numbers of threads, the definition's first.
fn contexts() -> Vec<(usize, Context)> {
    let all = [1, 3].map(|threads| (threads, context(Isa::Scalar, threads)));
    let mut all = Vec::from(all);
    for isa in Isa::ALL.into_iter().filter(|isa| *isa != Isa::Scalar) {
        if isa.is_available() {
            all.extend([1, 2, 3, 7].map(|threads| (threads, context(isa, threads))));
        } else {
            eprintln!("skipped: this machine has no {isa}");
        }
    }
    all
}

/// Two sequences of 97 tokens: work items of 96 tokens or fewer, one of which lies across the end of the
/// first.
#[test]
fn items_across_the_end_of_a_sequence_write_every_row() {
    let calls = [3u64, 4].map(|seed| {
        let mut call = Call::new("across", [4, 1, 16, 16, 97, 97]);
        let mut r = Random::new(seed);
        (call.q, call.k, call.v) = (r.vec(97 * 64), r.vec(97 * 16), r.vec(97 * 16));
        call
    });
    let batch = Batch { calls: calls.to_vec(), kind: KvType::F32, order: vec![0, 1] };
    batch.check(&contexts(), &mut Random::new(1), "two of 97");
    // The right values, from f64.
    let [out, _] = batch.run(&context(Isa::detect(), 2), &batch.cache(), &[0, 1], true, true);
    for (s, call) in calls.iter().enumerate() {
        for i in 0..97 {
            for h in 0..4 {
                let got = &out[((s * 97 + i) * 4 + h) * 16..][..16];
                let (want, _) = call.oracle(i, h);
                assert!(got.iter().zip(&want).all(|(g, w)| (f64::from(*g) - w).abs() < 1e-5));
            }
        }
    }
}

#[test]
fn random_batches_have_the_bits_of_each_sequence_alone() {
    let contexts = contexts();
    let mut r = Random::new(20);
    for case in 0..50 {
        Batch::random(&mut r).check(&contexts, &mut r, &format!("case {case}"));
    }
}
