//! Rings: any number of tokens at once is stored, attention over what is left has the bits of plain rows, and
//! a refusal states the relation that it checked.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::attention::*;
use kvern::{Context, Error, Isa, MatMut, MatRef, Workspace};

const DIM: usize = 8;

/// Appends `n` random tokens and remembers them.
fn append(cache: &mut KvCache, kv: &mut [Vec<f32>; 2], n: usize, r: &mut Random) -> kvern::Result<()> {
    let new = [r.vec(n * DIM), r.vec(n * DIM)];
    cache.append(MatRef::dense(&new[0], n, DIM)?, MatRef::dense(&new[1], n, DIM)?)?;
    kv.iter_mut().zip(new).for_each(|(all, new)| all.extend(new));
    Ok(())
}

/// The last `n` queries over the cache.
fn over_cache(ctx: &Context, cache: &KvCache, q: &[f32]) -> kvern::Result<Vec<f32>> {
    let (options, n) = (AttentionOptions::new(2), q.len() / (2 * DIM));
    let mut ws = Workspace::new(workspace_bytes(ctx, &options, cache, n)?)?;
    let mut out = vec![f32::from_bits(0x7fc0_dead); q.len()];
    let q = MatRef::dense(q, n, 2 * DIM)?;
    let result = attend(ctx, &mut ws, &options, q, cache, MatMut::dense(&mut out, n, 2 * DIM)?);
    if result.is_err() {
        assert!(out.iter().all(|x| x.to_bits() == 0x7fc0_dead), "a refused call wrote");
    }
    result.map(|()| out)
}

/// The last `n` queries over all tokens in plain rows.
fn over_rows(window: usize, sinks: usize, [k, v]: &[Vec<f32>; 2], q: &[f32]) -> Vec<f32> {
    let ctx = context(Isa::Scalar, 1);
    let (options, n) = (AttentionOptions::new(2).window(window).sinks(sinks), q.len() / (2 * DIM));
    let rows = |x| MatRef::dense(x, k.len() / DIM, DIM).unwrap();
    let plain = Plain::new(rows(k), rows(v), 1).unwrap();
    let mut ws = Workspace::new(plain_workspace_bytes(&ctx, &options, &plain, n).unwrap()).unwrap();
    let mut out = vec![f32::NAN; q.len()];
    let outputs = Outputs::new(MatMut::dense(&mut out, n, 2 * DIM).unwrap());
    let q = MatRef::dense(q, n, 2 * DIM).unwrap();
    attend_plain(&ctx, &mut ws, &options, &Bias::default(), q, &plain, outputs).unwrap();
    out
}

/// 57 tokens into an empty ring of 64 with 8 sinks, which has room for them.
#[test]
fn a_prompt_that_fits_is_stored() {
    let mut r = Random::new(57);
    let mut cache = KvCache::new(KvCacheOptions::new(1, DIM, 64).window(32).sinks(8)).unwrap();
    let mut kv = [vec![], vec![]];
    append(&mut cache, &mut kv, 57, &mut r).unwrap();
    assert_eq!((cache.len(), cache.start()), (57, 0));
    let q = r.vec(57 * 2 * DIM);
    for_each_isa(|ctx| {
        let got = over_cache(ctx, &cache, &q).unwrap();
        assert_same_bits(&got, &over_rows(32, 8, &kv, &q), "all queries of the prompt");
    });
    append(&mut cache, &mut kv, 8, &mut r).unwrap();
    assert_eq!((cache.len(), cache.start()), (65, 9));
}

/// Rings of all proportions, chunks of all sizes up to several times the ring.
#[test]
fn any_chunk_is_stored_and_what_is_held_has_the_bits_of_plain_rows() {
    let mut r = Random::new(10);
    let contexts: Vec<Context> =
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(|isa| context(isa, 2)).collect();
    let (mut answered, mut refused) = (0, 0);
    for case in 0..60 {
        let (window, sinks) = (1 + r.below(300), [0, 0, 5, 256, 300][r.below(5)]);
        let spare = [0, 1, r.below(60), r.below(400)][r.below(4)];
        let capacity = window + sinks + spare;
        let mut cache =
            KvCache::new(KvCacheOptions::new(1, DIM, capacity).window(window).sinks(sinks)).unwrap();
        let mut kv = [vec![], vec![]];
        for step in 0..5 {
            let n = 1 + [0, r.below(40), r.below(capacity), r.below(3 * capacity)][r.below(4)];
            append(&mut cache, &mut kv, n, &mut r).unwrap();
            let len = kv[0].len() / DIM;
            let oldest = if len > capacity { len - (capacity - sinks) } else { 0 };
            assert_eq!((cache.len(), cache.start()), (len, oldest));
            // The newest query sees its window whatever was appended; n of them where all their windows are
            // held.
            for q_len in [1, n.min(spare + 1), n.min(spare + 2), n] {
                let q = r.vec(q_len * 2 * DIM);
                let ctx = &contexts[r.below(contexts.len())];
                let what =
                    format!("case {case} step {step}: {q_len} of {len} in {capacity}, {window}, {sinks}");
                let held = oldest == 0 || (len - q_len + 1).saturating_sub(window) >= oldest;
                assert!(held || q_len > spare + 1, "{what}: capacity >= sinks + window + n - 1 is enough");
                match over_cache(ctx, &cache, &q) {
                    Ok(got) => {
                        assert!(held, "{what}");
                        assert_same_bits(&got, &over_rows(window, sinks, &kv, &q), &what);
                        answered += 1;
                    }
                    Err(Error::Shape { what: "q.rows", got, want, .. }) => {
                        // The relation that the message states, and that one query less would have met.
                        assert!(!held && got == q_len && want == len - oldest - window + 1, "{what}: {want}");
                        assert!(over_cache(ctx, &cache, &q[..want * 2 * DIM]).is_ok());
                        refused += 1;
                    }
                    Err(e) => panic!("{what}: {e}"),
                }
            }
        }
    }
    assert!(answered > 500 && refused > 50, "{answered} {refused}");
}

/// A fork keeps what it had while its sibling takes a chunk of several rings, and a pool without room for the
/// copies refuses without a change. Norms, rotation and append in one call do the same.
#[test]
fn long_chunks_leave_forks_alone_and_are_refused_as_a_whole() {
    let mut r = Random::new(3);
    for case in 0..60 {
        let (window, sinks) = (1 + r.below(300), [0, 5, 256, 300][r.below(4)]);
        let capacity = window + sinks + r.below(300);
        let all =
            KvCache::new(KvCacheOptions::new(1, DIM, capacity).window(window).sinks(sinks)).unwrap().pages();
        let options = KvCacheOptions::new(1, DIM, capacity).window(window).sinks(sinks).sequences(2);
        let mut cache = KvCache::new(options.pages(all + r.below(all + 1))).unwrap();
        let n = 1 + r.below(capacity);
        let x = r.vec(4 * capacity * DIM);
        let rows = |n: usize| MatRef::dense(&x[..n * DIM], n, DIM).unwrap();
        cache.append(rows(n), rows(n)).unwrap();
        cache.fork(0, 1).unwrap();
        let contents = |cache: &KvCache, s: usize| {
            let (mut k, mut v) = (vec![0.0; DIM], vec![0.0; DIM]);
            let mut held = Vec::new();
            for p in 0..cache.len_of(s) {
                if cache.token(s, p, &mut k, &mut v).is_ok() {
                    held.push((p, k.clone(), v.clone()));
                }
            }
            (cache.start_of(s), held)
        };
        let before = contents(&cache, 1);
        let more = 1 + r.below(3 * capacity);
        let free = cache.free_pages();
        let result = if case % 2 == 0 {
            cache.append_to(0, rows(more), rows(more))
        } else {
            let mut k = x[..more * DIM].to_vec();
            let k = MatMut::dense(&mut k, more, DIM).unwrap();
            let none = MatMut::dense(&mut [], 0, 0).unwrap();
            cache.append_prepared(&Context::serial(), 0, &Preparation::default(), none, k, rows(more))
        };
        assert_eq!(contents(&cache, 1), before, "case {case}");
        match result {
            Ok(()) => {
                let (start, held) = contents(&cache, 0);
                assert_eq!(start, if n + more > capacity { n + more - (capacity - sinks) } else { 0 });
                for (p, k, v) in held {
                    let at = if p < n { p } else { p - n };
                    assert_eq!(
                        (&k[..], &v[..]),
                        (&x[at * DIM..][..DIM], &x[at * DIM..][..DIM]),
                        "case {case} {p}"
                    );
                }
            }
            Err(Error::PoolFull { need, free: left }) => {
                assert!(need > left && left == free);
                assert_eq!(contents(&cache, 0), before, "case {case}: a refused append changes nothing");
                assert_eq!(cache.free_pages(), free);
            }
            Err(e) => panic!("case {case}: {e}"),
        }
    }
}
