//! Norms, rotation and append in one call: the bits of the three on their own, and errors that change
//! nothing.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::attention::*;
use kvern::ops::*;
use kvern::{Context, Isa, MatMut, MatRef};

const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const DIM: usize = 24;

/// All keys and values that a cache holds, position after position.
fn contents(cache: &KvCache, sequence: usize) -> Vec<f32> {
    let width = KV_HEADS * DIM;
    let mut all = Vec::new();
    for position in cache.start_of(sequence)..cache.len_of(sequence) {
        let (mut k, mut v) = (vec![0.0; width], vec![0.0; width]);
        cache.token(sequence, position, &mut k, &mut v).unwrap();
        all.extend(k);
        all.extend(v);
    }
    all
}

#[test]
fn one_call_has_the_bits_of_norm_rotation_and_append() {
    let mut r = Random::new(1);
    let tokens = 37;
    let (q, k) = (r.vec(tokens * HEADS * DIM), r.vec(tokens * KV_HEADS * DIM));
    let (v, gains) = (r.vec(tokens * KV_HEADS * DIM), [r.vec(DIM), r.vec(DIM)]);
    let table = RopeTable::scaled(16, 400, 1e4, &RopeScaling::llama3(4.0, 64)).unwrap();
    let positions: Vec<usize> = (0..tokens).map(|i| 300 - 7 * i).collect();
    for kind in KvType::ALL {
        for (norms, pairs, placed) in [
            (false, None, false),
            (true, None, false),
            (false, Some(RopePairs::Halves), false),
            (true, Some(RopePairs::Interleaved), false),
            (true, Some(RopePairs::Halves), true),
        ] {
            let mut preparation = Preparation::default();
            if norms {
                preparation = preparation.norms(&gains[0], &gains[1], 1e-6);
            }
            if let Some(pairs) = pairs {
                preparation = preparation.rope(&table, pairs);
            }
            if placed {
                preparation = preparation.positions(&positions);
            }
            // The three on their own, on the definition; the cache already holds some tokens and will wrap.
            let options = KvCacheOptions::new(KV_HEADS, DIM, 40).window(3).types(kind, kind).sequences(2);
            let before = |cache: &mut KvCache| {
                let first = MatRef::dense(&v[..9 * KV_HEADS * DIM], 9, KV_HEADS * DIM).unwrap();
                cache.append_to(1, first, first).unwrap();
            };
            let scalar = context(Isa::Scalar, 1);
            let apart = |x: &[f32], heads: usize, gain: &[f32]| {
                let mut y = x.to_vec();
                if norms {
                    let x = MatRef::dense(x, tokens * heads, DIM).unwrap();
                    let y = MatMut::dense(&mut y, tokens * heads, DIM).unwrap();
                    rms_norm(&scalar, x, gain, 1e-6, y).unwrap();
                }
                if let Some(pairs) = pairs {
                    let y = MatMut::dense(&mut y, tokens, heads * DIM).unwrap();
                    match placed {
                        true => rope_at(&scalar, &table, pairs, DIM, &positions, y).unwrap(),
                        false => rope(&scalar, &table, pairs, DIM, 9, y).unwrap(),
                    }
                }
                y
            };
            let (want_q, want_k) = (apart(&q, HEADS, &gains[0]), apart(&k, KV_HEADS, &gains[1]));
            let dense = |x| MatRef::dense(x, tokens, KV_HEADS * DIM).unwrap();
            let mut want = KvCache::new(options).unwrap();
            before(&mut want);
            want.append_to(1, dense(&want_k), dense(&v)).unwrap();
            for_each_isa(|ctx| {
                for threads in [1, 2, 3, 8] {
                    let ctx = context(ctx.isa(), threads);
                    let (mut got_q, mut got_k) = (q.clone(), k.clone());
                    let mut cache = KvCache::new(options).unwrap();
                    before(&mut cache);
                    let q = MatMut::dense(&mut got_q, tokens, HEADS * DIM).unwrap();
                    let k = MatMut::dense(&mut got_k, tokens, KV_HEADS * DIM).unwrap();
                    cache.append_prepared(&ctx, 1, &preparation, q, k, dense(&v)).unwrap();
                    let what = format!("{} at {} by {threads}", kind.name(), ctx.isa());
                    assert_same_bits(&got_q, &want_q, &what);
                    assert_same_bits(&got_k, &want_k, &what);
                    assert_eq!((cache.len_of(1), cache.start_of(1)), (want.len_of(1), want.start_of(1)));
                    assert_same_bits(&contents(&cache, 1), &contents(&want, 1), &what);
                }
            });
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_changes() {
    let ctx = Context::serial();
    let table = RopeTable::new(8, 5, 1e4).unwrap();
    let wide = RopeTable::new(16, 5, 1e4).unwrap();
    let (gain, rows) = ([2.0f32; 8], [1.0f32; 64]);
    let mut cache = KvCache::new(KvCacheOptions::new(1, 8, 6)).unwrap();
    cache
        .append(MatRef::dense(&rows[..24], 3, 8).unwrap(), MatRef::dense(&rows[..24], 3, 8).unwrap())
        .unwrap();
    let (mut q, mut k) = ([1.0f32; 64], [1.0f32; 64]);
    let mut say =
        |p: &Preparation<'_>, [q_rows, q_cols]: [usize; 2], [rows_k, cols]: [usize; 2], v_rows: usize| {
            let q = MatMut::dense(&mut q[..q_rows * q_cols], q_rows, q_cols).unwrap();
            let k = MatMut::dense(&mut k[..rows_k * cols], rows_k, cols).unwrap();
            let v = MatRef::dense(&rows[..v_rows * 8], v_rows, 8).unwrap();
            cache.append_prepared(&ctx, 0, p, q, k, v).unwrap_err().to_string()
        };
    let none = Preparation::default().norms(&gain, &gain, 0.0);
    let two = [2, 8];
    assert_eq!(say(&none, two, [2, 7], 2), "k.cols = 7 must equal kv_heads * head_dim = 8");
    assert_eq!(say(&none, two, two, 1), "v.rows = 1 must equal k.rows = 2");
    assert_eq!(say(&none, [1, 8], two, 2), "q.rows = 1 must equal k.rows = 2");
    assert_eq!(say(&none, [2, 9], two, 2), "q.cols = 9 must be a multiple of head_dim = 8");
    assert_eq!(say(&none, [4, 8], [4, 8], 4), "cache holds 3 tokens, adding 4 exceeds capacity = 6");
    let short = none.norms(&gain, &gain[..7], 0.0);
    assert_eq!(say(&short, two, two, 2), "k_norm.len = 7 must equal head_dim = 8");
    let far = "positions = 5 must be below the table's positions = 5";
    assert_eq!(say(&none.rope(&table, RopePairs::Halves), [3, 8], [3, 8], 3), far);
    assert_eq!(say(&none.rope(&table, RopePairs::Halves).positions(&[5, 0]), two, two, 2), far);
    let few = none.positions(&[0]);
    assert_eq!(say(&few, two, two, 2), "positions.len = 1 must equal k.rows = 2");
    let e = say(&none.rope(&wide, RopePairs::Halves), two, two, 2);
    assert_eq!(e, "rotary_dim = 16 must be at most head_dim = 8");
    assert_eq!((cache.len(), q, k), (3, [1.0; 64], [1.0; 64]));
}
