//! Sequences of different lengths in one call: the bits of each alone, and of queries that attend to another
//! sequence.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::attention::*;
use kvern::{Context, Isa, MatMut, MatRef, Workspace};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;

/// A batch: lengths of queries and keys of each sequence.
struct Batch {
    name: &'static str,
    options: AttentionOptions,
    lengths: Vec<(usize, usize)>,
    dims: (usize, usize),
    masked: bool,
    terms: bool,
}

impl Batch {
    fn starts(&self) -> [Vec<usize>; 2] {
        let sum = |of: &dyn Fn(&(usize, usize)) -> usize| {
            let mut starts = vec![0];
            for pair in &self.lengths {
                starts.push(starts[starts.len() - 1] + of(pair));
            }
            starts
        };
        [sum(&|pair| pair.0), sum(&|pair| pair.1)]
    }
}

fn batches() -> Vec<Batch> {
    let encoder = AttentionOptions::new(HEADS).causal(false);
    let own = |lengths: &[usize]| lengths.iter().map(|&n| (n, n)).collect::<Vec<_>>();
    let batch =
        |name, options, lengths, dims| Batch { name, options, lengths, dims, masked: false, terms: false };
    vec![
        batch("encoder", encoder, own(&[24, 13, 1, 300, 0, 7]), (16, 16)),
        batch("an odd head", encoder.softcap(5.0), own(&[3, 270, 2]), (13, 9)),
        batch("causal", AttentionOptions::new(HEADS), own(&[1, 40, 520, 5]), (32, 32)),
        batch("a window", AttentionOptions::new(HEADS).window(9).sinks(2), own(&[50, 3, 290]), (16, 24)),
        batch("cross", encoder, vec![(5, 40), (0, 3), (400, 7), (2, 0), (1, 300)], (16, 16)),
        Batch { masked: true, ..batch("masks", encoder, own(&[12, 260, 1]), (16, 16)) },
        Batch {
            terms: true,
            ..batch("alibi and sinks", AttentionOptions::new(HEADS), own(&[9, 33]), (8, 8))
        },
        batch("many short ones", encoder, own(&[2; 70]), (16, 16)),
        batch("nothing", encoder, own(&[0, 0]), (16, 16)),
        batch("no sequence", encoder, Vec::new(), (16, 16)),
    ]
}

#[test]
fn each_sequence_has_the_bits_that_it_has_alone() {
    let mut r = Random::new(31);
    let (slopes, logits) = (r.vec(HEADS).iter().map(|x| x.abs()).collect::<Vec<_>>(), r.vec(HEADS));
    for batch in batches() {
        let [query_starts, key_starts] = batch.starts();
        let (rows, keys) = (query_starts[batch.lengths.len()], key_starts[batch.lengths.len()]);
        let (kd, vd) = batch.dims;
        let widths = [HEADS * kd, KV_HEADS * kd, KV_HEADS * vd, HEADS * vd];
        let (q, k, v) = (r.vec(rows * widths[0]), r.vec(keys * widths[1]), r.vec(keys * widths[2]));
        let longest = batch.lengths.iter().map(|pair| pair.1).max().unwrap_or(0);
        let mask: Vec<f32> = r.vec(rows * longest).iter().map(|x| x / 2.0).collect();
        let seen: Vec<bool> = mask.iter().map(|x| *x > -0.3).collect();
        let plain = |range: std::ops::Range<usize>| {
            let n = range.len();
            let k = MatRef::dense(&k[range.start * widths[1]..range.end * widths[1]], n, widths[1]).unwrap();
            let v = MatRef::dense(&v[range.start * widths[2]..range.end * widths[2]], n, widths[2]).unwrap();
            Plain::new(k, v, KV_HEADS).unwrap()
        };
        // Each alone, with the columns of the masks that it has keys for.
        let (mut want, mut want_lse) = (vec![f32::NAN; rows * widths[3]], vec![f32::NAN; rows * HEADS]);
        for (s, &(n, keys)) in batch.lengths.iter().enumerate() {
            let (first, kv) = (query_starts[s], plain(key_starts[s]..key_starts[s + 1]));
            let part = |all: &[f32]| -> Vec<f32> {
                (first..first + n).flat_map(|i| all[i * longest..i * longest + keys].to_vec()).collect()
            };
            let own_mask = part(&mask);
            let own_seen: Vec<bool> = own_mask.iter().map(|x| *x > -0.3).collect();
            let mut bias = Bias::default();
            if batch.masked {
                bias = bias.mask(MatRef::dense(&own_mask, n, keys).unwrap());
                bias = bias.seen(MatRef::dense(&own_seen, n, keys).unwrap());
            }
            if batch.terms {
                bias = bias.alibi(&slopes).sink_logits(&logits);
            }
            let ctx = Context::serial();
            let bytes = plain_workspace_bytes(&ctx, &batch.options, &kv, n).unwrap();
            let mut ws = Workspace::new(bytes).unwrap();
            let q = MatRef::dense(&q[first * widths[0]..(first + n) * widths[0]], n, widths[0]).unwrap();
            let out = &mut want[first * widths[3]..(first + n) * widths[3]];
            let lse = &mut want_lse[first * HEADS..(first + n) * HEADS];
            let outputs = Outputs::new(MatMut::dense(out, n, widths[3]).unwrap());
            let outputs = outputs.lse(MatMut::dense(lse, n, HEADS).unwrap());
            attend_plain(&ctx, &mut ws, &batch.options, &bias, q, &kv, outputs).unwrap();
        }
        let kv = Ragged::new(plain(0..keys), &key_starts, &query_starts).unwrap();
        for_each_isa(|ctx| {
            for threads in [1, 2, 3, 8] {
                let ctx = context(ctx.isa(), threads);
                let mut bias = Bias::default();
                if batch.masked {
                    bias = bias.mask(MatRef::dense(&mask, rows, longest).unwrap());
                    bias = bias.seen(MatRef::dense(&seen, rows, longest).unwrap());
                }
                if batch.terms {
                    bias = bias.alibi(&slopes).sink_logits(&logits);
                }
                let (most, _) = kv.longest();
                let bytes = plain_workspace_bytes(&ctx, &batch.options, &plain(0..keys), most).unwrap();
                let mut ws = Workspace::new(bytes).unwrap();
                let (mut out, mut lse) = (vec![f32::NAN; rows * widths[3]], vec![f32::NAN; rows * HEADS]);
                let q = MatRef::dense(&q, rows, widths[0]).unwrap();
                let outputs = Outputs::new(MatMut::dense(&mut out, rows, widths[3]).unwrap());
                let outputs = outputs.lse(MatMut::dense(&mut lse, rows, HEADS).unwrap());
                attend_ragged(&ctx, &mut ws, &batch.options, &bias, q, &kv, outputs).unwrap();
                let what = format!("{} at {} by {threads}", batch.name, ctx.isa());
                assert_same_bits(&out, &want, &what);
                assert_same_bits(&lse, &want_lse, &what);
            }
        });
    }
}

/// A decoder's prompt may be longer than what it attends to: over a cache as over plain rows.
#[test]
fn a_fixed_cache_takes_any_number_of_queries() {
    let mut r = Random::new(32);
    for (keys, queries) in [(3, 1), (3, 40), (300, 301), (1, 9), (0, 4)] {
        let (k, v, q) = (r.vec(keys * 32), r.vec(keys * 32), r.vec(queries * 64));
        let (k, v) = (MatRef::dense(&k, keys, 32).unwrap(), MatRef::dense(&v, keys, 32).unwrap());
        let mut cache = KvCache::new(KvCacheOptions::new(KV_HEADS, 16, 300)).unwrap();
        cache.append(k, v).unwrap();
        let options = AttentionOptions::new(HEADS).causal(false);
        for threads in [1, 3] {
            let ctx = context(Isa::detect(), threads);
            let mut ws = Workspace::new(workspace_bytes(&ctx, &options, &cache, queries).unwrap()).unwrap();
            let (mut got, mut want) = (vec![f32::NAN; queries * 64], vec![f32::NAN; queries * 64]);
            let q = MatRef::dense(&q, queries, 64).unwrap();
            attend(&ctx, &mut ws, &options, q, &cache, MatMut::dense(&mut got, queries, 64).unwrap())
                .unwrap();
            let plain = Plain::new(k, v, KV_HEADS).unwrap();
            ws.reserve(plain_workspace_bytes(&ctx, &options, &plain, queries).unwrap()).unwrap();
            let out = Outputs::new(MatMut::dense(&mut want, queries, 64).unwrap());
            attend_plain(&ctx, &mut ws, &options, &Bias::default(), q, &plain, out).unwrap();
            assert_same_bits(&got, &want, &format!("{queries} queries, {keys} keys"));
        }
    }
}

#[test]
fn starts_that_make_no_sense_are_refused() {
    let x = vec![1.0; 10 * 32];
    let rows = |n: usize| MatRef::dense(&x[..n * 32], n, 32).unwrap();
    let kv = Plain::new(rows(10), rows(10), KV_HEADS).unwrap();
    let say = |keys: &[usize], queries: &[usize]| Ragged::new(kv, keys, queries).unwrap_err().to_string();
    assert_eq!(say(&[0, 10], &[0]), "query_starts.len = 1 must equal key_starts.len = 2");
    assert_eq!(say(&[], &[]), "key_starts = none must be 0 at first, then the end of each sequence");
    assert_eq!(say(&[1, 10], &[0, 10]), "key_starts = 1 must be 0 at first, then the end of each sequence");
    assert_eq!(say(&[0, 6, 5, 10], &[0, 1, 2, 3]), "key_starts = 5 must be at least the start before it = 6");
    assert_eq!(say(&[0, 5, 10], &[0, 7, 4]), "query_starts = 4 must be at least the start before it = 7");
    assert_eq!(say(&[0, 9], &[0, 10]), "key_starts.last = 9 must equal k.rows = 10");

    let (ctx, mut ws) = (Context::serial(), Workspace::new(1 << 20).unwrap());
    let mut out = vec![5.0; 640];
    let mut run = |options: &AttentionOptions, bias: &Bias<'_>, ends: (usize, usize), rows: usize| {
        let (keys, queries) = ([0, ends.0, 10], [0, ends.1, 10]);
        let kv = Ragged::new(kv, &keys, &queries).unwrap();
        let x = vec![1.0; rows * 64];
        let q = MatRef::dense(&x, rows, 64).unwrap();
        let outputs = Outputs::new(MatMut::dense(&mut out[..rows * 64], rows, 64).unwrap());
        let e = attend_ragged(&ctx, &mut ws, options, bias, q, &kv, outputs).unwrap_err().to_string();
        assert!(out.iter().all(|x| *x == 5.0), "an error changes nothing");
        e
    };
    let (causal, none) = (AttentionOptions::new(HEADS), Bias::default());
    assert_eq!(run(&causal, &none, (5, 5), 9), "query_starts.last = 10 must equal q.rows = 9");
    assert_eq!(run(&causal, &none, (2, 5), 10), "q.rows = 5 must be at most k.rows = 2");
    let flags = vec![true; 100];
    let tree = Bias::default().tree(MatRef::dense(&flags, 10, 10).unwrap());
    assert_eq!(run(&causal, &tree, (5, 5), 10), "tree = one must be none for sequences of different lengths");
}
