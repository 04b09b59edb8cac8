//! Norm, rotation and append in one call against the three calls on their own.

use crate::machines::{Machines, Out, one_in};
use crate::support::{Random, assert_same_bits};
use kvern::MatRef;
use kvern::attention::{KvCache, KvCacheOptions, KvType, Preparation};
use kvern::ops::{RopePairs, RopeTable, rms_norm, rope_at};

const POSITIONS: usize = 400;

pub fn case(machines: &Machines, random: &mut Random) {
    let (kv_heads, group, dim) = (1 + random.below(3), 1 + random.below(4), 8 * (1 + random.below(8)));
    let (tokens, before) = (random.below(40), random.below(300));
    let heads = if one_in(random, 6) { 0 } else { kv_heads * group };
    let mut kind = || KvType::ALL[random.below(KvType::ALL.len())];
    let options = KvCacheOptions::new(kv_heads, dim, POSITIONS).types(kind(), kind());
    let table = RopeTable::new(2 * (1 + random.below(dim / 2)), POSITIONS, 10000.0).unwrap();
    let pairs = [RopePairs::Halves, RopePairs::Interleaved][random.below(2)];
    let gains = one_in(random, 2).then(|| (random.vec(dim), random.vec(dim)));
    let positions: Vec<usize> = (0..tokens).map(|_| random.below(POSITIONS)).collect();
    let (stated, rotated) = (one_in(random, 2), !one_in(random, 4));
    let width = kv_heads * dim;
    let old = (random.vec(before * width), random.vec(before * width));
    let (q, k, v) =
        (random.vec(tokens * heads * dim), random.vec(tokens * width), random.vec(tokens * width));
    let mut preparation = Preparation::default();
    if let Some((of_q, of_k)) = &gains {
        preparation = preparation.norms(of_q, of_k, 1e-6);
    }
    if rotated {
        preparation = preparation.rope(&table, pairs);
    }
    if stated {
        preparation = preparation.positions(&positions);
    }
    let at: Vec<usize> = if stated { positions.clone() } else { (before..before + tokens).collect() };
    let what = format!("{tokens} tokens after {before}, heads {heads} and {kv_heads} of {dim}, {options:?}");
    let filled = || {
        let mut cache = KvCache::new(options).unwrap();
        let old = [&old.0, &old.1].map(|x| MatRef::dense(x, before, width).unwrap());
        cache.append(old[0], old[1]).unwrap();
        cache
    };
    let view_of_v = MatRef::dense(&v, tokens, width).unwrap();

    // The definition: the calls on their own.
    let ctx = &machines.definition;
    let prepared = |x: &[f32], heads: usize, gain: Option<&[f32]>| -> Vec<f32> {
        let mut y = x.to_vec();
        if let Some(gain) = gain {
            let rows = tokens * heads;
            let to = kvern::MatMut::dense(&mut y, rows, dim).unwrap();
            rms_norm(ctx, MatRef::dense(x, rows, dim).unwrap(), gain, 1e-6, to).unwrap();
        }
        if rotated && heads > 0 {
            let to = kvern::MatMut::dense(&mut y, tokens, heads * dim).unwrap();
            rope_at(ctx, &table, pairs, dim, &at, to).unwrap();
        }
        y
    };
    let want_q = prepared(&q, heads, gains.as_ref().map(|gains| &gains.0[..]));
    let want_k = prepared(&k, kv_heads, gains.as_ref().map(|gains| &gains.1[..]));
    let mut want = filled();
    want.append(MatRef::dense(&want_k, tokens, width).unwrap(), view_of_v).unwrap();

    for (name, ctx) in machines.some(random) {
        let what = format!("{name}: {what}");
        let mut cache = filled();
        let gap = random.below(4);
        let mut of_q = Out::of_others(if heads == 0 { 0 } else { tokens }, heads * dim, gap).fill(&q);
        let mut of_k = Out::of_others(tokens, width, gap).fill(&k);
        cache.append_prepared(ctx, 0, &preparation, of_q.view(), of_k.view(), view_of_v).unwrap();
        if heads > 0 {
            of_q.assert_same(
                &Out::of_definition(tokens, heads * dim, gap).fill(&want_q),
                &format!("{what}, q"),
            );
        }
        of_k.assert_same(&Out::of_definition(tokens, width, gap).fill(&want_k), &format!("{what}, k"));
        assert_eq!(cache.len(), want.len(), "{what}");
        for position in [before, before + tokens].into_iter().filter_map(|end| end.checked_sub(1)) {
            let [mut got, mut wanted] = [(); 2].map(|()| [vec![f32::NAN; width], vec![f32::NAN; width]]);
            let [k, v] = &mut got;
            cache.token(0, position, k, v).unwrap();
            let [k, v] = &mut wanted;
            want.token(0, position, k, v).unwrap();
            assert_same_bits(&got[0], &wanted[0], &format!("{what}, key {position}"));
            assert_same_bits(&got[1], &wanted[1], &format!("{what}, value {position}"));
        }
    }
}
