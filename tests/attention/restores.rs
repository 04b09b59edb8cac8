//! A saved cache in one of other capacity, sequences or pages: what fits comes back, token by token, and goes
//! on as if its tokens had been appended there.

use crate::support::{Random, temp};
use kvern::attention::{KvCache, KvCacheOptions, KvType};
use kvern::{Error, MatRef};

const DIM: usize = 8;

/// Key and value of a token from its number, exact in every type.
fn token(number: usize) -> [f32; DIM] {
    std::array::from_fn(|i| if i == 0 { 7.0 } else { (number >> (3 * (i - 1)) & 7) as f32 - 3.0 })
}

fn append(cache: &mut KvCache, s: usize, numbers: &[usize]) {
    let x: Vec<f32> = numbers.iter().flat_map(|&n| token(n)).collect();
    let rows = MatRef::dense(&x, numbers.len(), DIM).unwrap();
    cache.append_to(s, rows, rows).unwrap();
}

/// What a sequence holds, by position.
fn held(cache: &KvCache, s: usize) -> Vec<(usize, [f32; DIM], [f32; DIM])> {
    let (mut k, mut v) = ([0.0; DIM], [0.0; DIM]);
    let token = |p| cache.token(s, p, &mut k, &mut v).is_ok().then_some((p, k, v));
    (0..cache.len_of(s)).filter_map(token).collect()
}

/// A cache with some history: appends of all lengths, forks, truncations.
fn history(options: KvCacheOptions, r: &mut Random) -> KvCache {
    let mut cache = KvCache::new(options).unwrap();
    let mut next = 1;
    for _ in 0..2 + r.below(8) {
        let s = r.below(options.sequences);
        let len = cache.len_of(s);
        match r.below(6) {
            0 => cache.fork(s, r.below(options.sequences)).unwrap(),
            1 => {
                let _ = cache.truncate_in(s, len - r.below(len.min(20) + 1)); // refused where tokens are gone
            }
            _ => {
                let room =
                    if options.window.is_some() { 2 * options.capacity } else { options.capacity - len };
                let n = r.below(room + 1);
                append(&mut cache, s, &(next..next + n).collect::<Vec<_>>());
                next += n;
            }
        }
    }
    cache
}

#[test]
fn what_fits_comes_back_and_goes_on() {
    let mut r = Random::new(15);
    let file = temp("cache-restores");
    let (mut fitted, mut refused, mut shared) = (0, 0, 0);
    for case in 0..150 {
        let kind = KvType::ALL[case % 5];
        let window = (r.below(3) > 0).then(|| 1 + r.below(300));
        let sinks = if window.is_some() { [0, 0, 7, 256, 300][r.below(5)] } else { 0 };
        let options = |r: &mut Random| {
            let capacity = window.unwrap_or(0) + sinks + 2 + [r.below(50), r.below(900)][r.below(2)];
            let mut o = KvCacheOptions::new(1, DIM, capacity).sinks(sinks).types(kind, kind);
            o.window = window;
            o.sequences(1 + r.below(4))
        };
        let saved = history(options(&mut r), &mut r);
        saved.save(&file).unwrap();
        let made = options(&mut r);
        let mut cache = KvCache::new(made).unwrap();
        append(&mut cache, 0, &[5, 6]); // forgotten by the restore, or kept by one that is refused
        let before = held(&cache, 0);
        let from = saved.options();
        let fits = (0..from.sequences).all(|s| {
            let len = saved.len_of(s);
            len == 0 || s < made.sequences && (window.is_some() || len <= made.capacity)
        });
        match cache.restore(&file) {
            Ok(()) => {
                assert!(fits, "case {case}");
                fitted += 1;
            }
            Err(Error::Blob { what: "sequence", .. }) => {
                assert!(!fits, "case {case}");
                assert_eq!(held(&cache, 0), before);
                refused += 1;
                continue;
            }
            Err(e) => panic!("case {case}: {e}"),
        }
        let forgotten = |len: usize| if len > made.capacity { len - (made.capacity - sinks) } else { 0 };
        for s in 0..made.sequences {
            let there = if s < from.sequences { held(&saved, s) } else { vec![] };
            let len = if s < from.sequences { saved.len_of(s) } else { 0 };
            let start = if s < from.sequences { saved.start_of(s).max(forgotten(len)) } else { 0 };
            assert_eq!((cache.len_of(s), cache.start_of(s)), (len, start), "case {case}");
            let want: Vec<_> = there.into_iter().filter(|(p, ..)| *p < sinks || *p >= start).collect();
            assert_eq!(held(&cache, s), want, "case {case} sequence {s}");
        }
        if made.capacity == from.capacity {
            assert_eq!(cache.bytes_used(), saved.bytes_used());
        }
        // It takes tokens as any cache does, and each sequence keeps its own.
        let others: Vec<_> = (0..made.sequences).map(|s| held(&cache, s)).collect();
        let s = r.below(made.sequences);
        let room = if window.is_some() { 2 * made.capacity } else { made.capacity - cache.len_of(s) };
        let numbers: Vec<usize> = (0..r.below(room + 1)).map(|i| 100_000 + i).collect();
        let (old, old_start) = (cache.len_of(s), cache.start_of(s));
        append(&mut cache, s, &numbers);
        let start = old_start.max(forgotten(cache.len_of(s)));
        for (other, want) in others.iter().enumerate().filter(|(other, _)| *other != s) {
            assert_eq!(&held(&cache, other), want, "case {case}: sequence {other} changed");
        }
        let kept = others[s].iter().copied().filter(|(p, ..)| *p < sinks || *p >= start);
        let mut probe =
            KvCache::new(KvCacheOptions::new(1, DIM, numbers.len().max(1)).types(kind, kind)).unwrap();
        append(&mut probe, 0, &numbers);
        let new = held(&probe, 0).into_iter().map(|(p, k, v)| (old + p, k, v));
        let new = new.filter(|(p, ..)| *p < sinks || *p >= start);
        assert_eq!(held(&cache, s), kept.chain(new).collect::<Vec<_>>(), "case {case}");
        // And back into the cache that it came from, where that is possible.
        cache.save(&file).unwrap();
        let mut back = KvCache::new(*from).unwrap();
        if back.restore(&file).is_ok() {
            for s in 0..from.sequences.min(made.sequences) {
                let start = back.start_of(s);
                let want: Vec<_> =
                    held(&cache, s).into_iter().filter(|(p, ..)| *p < sinks || *p >= start).collect();
                assert_eq!(held(&back, s), want, "case {case} back");
                shared += 1;
            }
        }
    }
    assert!(fitted > 50 && refused > 10 && shared > 30, "{fitted} {refused} {shared}");
    std::fs::remove_file(file).unwrap();
}

/// Pages that forks share count once, in a ring of another length too.
#[test]
fn shared_pages_stay_shared() {
    let file = temp("cache-restores-shared");
    let make = |capacity: usize| KvCacheOptions::new(1, DIM, capacity).window(500).sequences(4);
    let mut saved = KvCache::new(make(600)).unwrap();
    append(&mut saved, 0, &(0..2000).collect::<Vec<_>>());
    for s in 1..4 {
        saved.fork(0, s).unwrap();
    }
    saved.save(&file).unwrap();
    for (capacity, pages) in [(600, 3), (700, 3), (800, 3), (510, 2), (5000, 3)] {
        let mut cache = KvCache::new(make(capacity).pages(pages)).unwrap();
        cache.restore(&file).unwrap();
        for s in 0..4 {
            assert_eq!(
                held(&cache, s),
                held(&saved, s).into_iter().filter(|(p, ..)| *p >= cache.start_of(s)).collect::<Vec<_>>()
            );
        }
        let e = KvCache::load(make(capacity).pages(pages - 1), &file).unwrap_err().to_string();
        assert_eq!(e, format!("stored pages = {pages} must be at most the pool's {}", pages - 1));
    }
    std::fs::remove_file(file).unwrap();
}
