//! The cache against a model of plain vectors: random sequences of its operations, for every element type.

use crate::support::{ABSURD, Random};
use kvern::attention::{KvCache, KvCacheOptions, KvType};
use kvern::{Error, MatRef};

/// Model of a cache: every token that was appended, and which of them are evicted.
#[derive(Clone, Default)]
struct Model {
    tokens: Vec<u32>,
    oldest: usize,
}

/// Key and value of a token, from its number: small multiples of a power of two, exact in every type.
fn token(number: u32, width: usize, salt: u32) -> Vec<f32> {
    let mut state = u64::from(number) << 8 | u64::from(salt) | 1;
    let mut x: Vec<f32> = (0..width)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 15) as f32 - 7.0
        })
        .collect();
    // Each block of codes holds its largest number, so that scales are exact: 7/7, 127 * 2^-4 ...
    for (i, x) in x.iter_mut().enumerate() {
        if i % 8 == 0 {
            *x = if *x < 0.0 { -7.0 } else { 7.0 };
        }
    }
    x
}

/// A number of [`token`] after storing it in the type: exact, except for 8 bits, whose scale is 7 / 127
/// rounded up.
fn stored(kind: KvType, x: f32) -> f32 {
    if kind != KvType::Int8 {
        return x;
    }
    let near = half::f16::from_f32(7.0 / 127.0);
    let d = if near.to_f32() < 7.0 / 127.0 { half::f16::from_bits(near.to_bits() + 1) } else { near };
    (x / d.to_f32()).round_ties_even() * d.to_f32()
}

struct Run {
    options: KvCacheOptions,
    cache: KvCache,
    models: Vec<Model>,
    next: u32,
    random: Random,
}

impl Run {
    fn new(options: KvCacheOptions, seed: u64) -> Run {
        let models = vec![Model::default(); options.sequences];
        Run { options, cache: KvCache::new(options).unwrap(), models, next: 1, random: Random::new(seed) }
    }

    fn sliding(&self) -> usize {
        self.options.capacity - self.options.sinks
    }

    fn append(&mut self, s: usize, n: usize) {
        let o = self.options;
        let (kw, vw) = (o.kv_heads * o.head_dim, o.kv_heads * o.value_dim);
        let numbers: Vec<u32> = (0..n as u32).map(|i| self.next + i).collect();
        let rows =
            |width, salt| -> Vec<f32> { numbers.iter().flat_map(|t| token(*t, width, salt)).collect() };
        let (k, v) = (rows(kw, 1), rows(vw, 2));
        let len = self.models[s].tokens.len();
        let (k, v) = (MatRef::dense(&k, n, kw).unwrap(), MatRef::dense(&v, n, vw).unwrap());
        let got = self.cache.append_to(s, k, v);
        let full = o.window.is_none() && len + n > o.capacity;
        match got {
            Ok(()) => {
                assert!(!full);
                self.next += n as u32;
                let sliding = self.sliding();
                let model = &mut self.models[s];
                model.tokens.extend(numbers);
                if model.tokens.len() > o.capacity {
                    model.oldest = model.oldest.max(model.tokens.len() - sliding);
                }
            }
            Err(Error::CacheFull { len: l, adding, capacity }) => {
                assert!(full);
                assert_eq!((l, adding, capacity), (len, n, o.capacity));
            }
            Err(Error::PoolFull { need, free }) => {
                assert!(!full && need > free && o.pages.is_some(), "{need} {free}");
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// Returns whether a query at `len` sees only tokens that the cache holds.
    fn complete(&self, s: usize, len: usize) -> bool {
        let seen = self.options.window.map_or(len, |w| (w - 1).min(len));
        len <= self.options.sinks || len - seen >= self.models[s].oldest
    }

    fn step(&mut self) {
        let s = self.random.below(self.options.sequences);
        let len = self.models[s].tokens.len();
        match self.random.below(20) {
            0..=8 => {
                let n = 1 + self.random.below(3);
                self.append(s, n);
            }
            9..=10 => {
                // Sometimes several times what the cache holds: in a ring the last tokens stay.
                let times = if self.random.below(4) == 0 { 3 } else { 1 };
                let n = self.random.below(times * (self.options.capacity + 3));
                self.append(s, n);
            }
            11..=12 => {
                let to =
                    if self.random.below(8) == 0 { len + 1 } else { len - self.random.below(len.min(9) + 1) };
                let allowed = to <= len && (to == 0 || self.complete(s, to));
                assert_eq!(self.cache.truncate_in(s, to).is_ok(), allowed, "truncate {len} to {to}");
                if allowed {
                    self.models[s].tokens.truncate(to);
                    if to <= self.options.sinks {
                        self.models[s].oldest = 0;
                    }
                }
            }
            13..=15 => self.remove(s, len),
            16..=17 => {
                let to = self.random.below(self.options.sequences);
                self.cache.fork(s, to).unwrap();
                self.models[to] = self.models[s].clone();
            }
            18 => {
                self.cache.clear_in(s).unwrap();
                self.models[s] = Model::default();
            }
            _ if self.random.below(40) == 0 => {
                self.cache.clear();
                self.models.fill(Model::default());
            }
            _ => {}
        }
    }

    fn remove(&mut self, s: usize, len: usize) {
        let n = self.random.below(6).min(len);
        let most = if self.random.below(3) == 0 { len - n } else { (len - n).min(12) };
        let back = self.random.below(most + 1);
        let (a, b) = (len - n - back, len - back);
        let oldest = self.models[s].oldest;
        let left = len - n;
        let held = oldest <= self.options.sinks || a >= oldest;
        let allowed = held && (n == 0 || left == 0 || self.complete(s, left));
        match self.cache.remove_in(s, a..b) {
            Ok(()) => {
                assert!(allowed, "remove {a}..{b} of {oldest}..{len}");
                self.models[s].tokens.drain(a..b);
                if left == 0 {
                    self.models[s] = Model::default();
                }
            }
            Err(Error::PoolFull { .. }) => assert!(allowed && self.options.pages.is_some()),
            Err(e) => assert!(!allowed, "remove {a}..{b} of {oldest}..{len}: {e}"),
        }
    }

    /// Compares some positions of every sequence, or all of them.
    fn check(&mut self, all: bool) {
        let o = self.options;
        let (mut k, mut v) = (vec![0.0; o.kv_heads * o.head_dim], vec![0.0; o.kv_heads * o.value_dim]);
        for s in 0..o.sequences {
            let model = &self.models[s];
            let len = model.tokens.len();
            assert_eq!((self.cache.len_of(s), self.cache.start_of(s)), (len, model.oldest));
            let picks: Vec<usize> = if all { (0..len).collect() } else { vec![self.random.below(len + 1)] };
            for p in picks {
                let held = p < len && (p < o.sinks || p >= self.models[s].oldest);
                assert_eq!(self.cache.token(s, p, &mut k, &mut v).is_ok(), held, "position {p}");
                if held {
                    let number = self.models[s].tokens[p];
                    let want: Vec<f32> =
                        token(number, k.len(), 1).into_iter().map(|x| stored(o.keys, x)).collect();
                    assert_eq!(k, want, "key at {p}");
                    let want: Vec<f32> =
                        token(number, v.len(), 2).into_iter().map(|x| stored(o.values, x)).collect();
                    assert_eq!(v, want, "value at {p}");
                }
            }
        }
        if self.models.iter().all(|m| m.tokens.is_empty()) {
            assert_eq!((self.cache.bytes_used(), self.cache.free_pages()), (0, self.cache.pages()));
        }
    }
}

/// Shapes that reach every rule: rings, sinks, several pages, more sequences than pages.
fn shapes() -> Vec<KvCacheOptions> {
    let o = KvCacheOptions::new;
    vec![
        o(1, 8, 20),
        o(2, 16, 300).value_dim(8).sequences(3),
        o(1, 8, 20).window(12).sequences(2),
        o(1, 24, 600).window(300).sequences(2).value_dim(40),
        o(1, 8, 40).window(12).sinks(5).sequences(2),
        o(1, 8, 700).window(270).sinks(257).sequences(2),
        o(1, 8, 600).window(90).sinks(300).sequences(3).pages(7),
        o(1, 8, 500).sequences(4).pages(3),
        o(1, 8, 550).window(250).sequences(3).pages(4),
    ]
}

#[test]
fn a_hundred_thousand_random_operations_leave_what_the_model_holds() {
    for (i, shape) in shapes().into_iter().enumerate() {
        for (j, kind) in KvType::ALL.into_iter().enumerate() {
            // Keys and values of the same type, and of neighbouring ones.
            for (k, values) in [kind, KvType::ALL[(j + 1) % 5]].into_iter().enumerate() {
                let mut run = Run::new(shape.types(kind, values), (i * 10 + j * 2 + k) as u64);
                for step in 0..1300 {
                    run.step();
                    run.check(step % 130 == 129);
                }
            }
        }
    }
}

#[test]
fn forks_share_pages_until_they_write() {
    let o = KvCacheOptions::new(2, 8, 1000).sequences(3);
    let mut cache = KvCache::new(o).unwrap();
    let x: Vec<f32> = (0..600 * 16).map(|i| i as f32).collect();
    let rows = MatRef::dense(&x, 600, 16).unwrap();
    cache.append(rows, rows).unwrap();
    let page = cache.bytes() / cache.pages();
    assert_eq!((cache.pages(), cache.free_pages(), cache.bytes_used()), (12, 9, 3 * page));
    cache.fork(0, 1).unwrap();
    cache.fork(1, 2).unwrap();
    assert_eq!(cache.bytes_used(), 3 * page, "a prompt is stored once");
    let one = MatRef::dense(&x[..16], 1, 16).unwrap();
    cache.append_to(1, one, one).unwrap();
    assert_eq!(cache.bytes_used(), 4 * page, "the page that is written to is copied");
    cache.append_to(1, one, one).unwrap();
    assert_eq!(cache.bytes_used(), 4 * page);
    cache.truncate_in(1, 256).unwrap();
    assert_eq!(cache.bytes_used(), 3 * page);
    cache.clear_in(0).unwrap();
    cache.clear_in(2).unwrap();
    assert_eq!(cache.bytes_used(), page);
    assert_eq!((cache.len_of(0), cache.len_of(1), cache.len_of(2), cache.len_of(3)), (0, 256, 0, 0));
}

#[test]
fn a_pool_without_pages_refuses_and_changes_nothing() {
    let mut cache = KvCache::new(KvCacheOptions::new(1, 8, 600).sequences(2).pages(3)).unwrap();
    let x = vec![1.0; 600 * 8];
    let rows = |n| MatRef::dense(&x[..n * 8], n, 8).unwrap();
    cache.append(rows(500), rows(500)).unwrap();
    cache.fork(0, 1).unwrap();
    let e = cache.append_to(1, rows(100), rows(100)).unwrap_err();
    assert_eq!(e.to_string(), "the cache's pool has 1 free pages, 2 are needed");
    assert_eq!((cache.len_of(1), cache.free_pages()), (500, 1));
    cache.append_to(1, rows(12), rows(12)).unwrap();
    assert_eq!(cache.append_to(0, rows(100), rows(100)).unwrap_err(), Error::PoolFull { need: 1, free: 0 });
    assert!(matches!(cache.append(rows(101), rows(101)), Err(Error::CacheFull { .. })));
    assert_eq!(cache.len(), 500);
}

#[test]
fn quantized_numbers_keep_their_bound() {
    let mut r = Random::new(3);
    for kind in [KvType::Int8, KvType::Int4] {
        let top = if kind == KvType::Int8 { 127.0 } else { 7.0 };
        let (dim, tokens) = (72, 100);
        let options = KvCacheOptions::new(1, dim, tokens).types(kind, kind);
        let mut cache = KvCache::new(options).unwrap();
        let mut x = r.vec(tokens * dim);
        for (i, row) in x.chunks_exact_mut(dim).enumerate() {
            row.iter_mut().for_each(|x| *x *= 10f32.powi(i as i32 % 12 - 6));
        }
        x[5 * dim..6 * dim].fill(0.0);
        let rows = MatRef::dense(&x, tokens, dim).unwrap();
        cache.append(rows, rows).unwrap();
        let (mut k, mut v) = (vec![0.0; dim], vec![0.0; dim]);
        for (i, row) in x.chunks_exact(dim).enumerate() {
            cache.token(0, i, &mut k, &mut v).unwrap();
            assert_eq!(k, v);
            for (got, want) in k.chunks(32).zip(row.chunks(32)) {
                let absmax = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let d = absmax / top * (1.0 + 2f32.powi(-10)) + 2f32.powi(-24);
                for (got, want) in got.iter().zip(want) {
                    assert!((got - want).abs() <= d / 2.0 * (1.0 + 1e-6), "{got} {want} {d}");
                }
            }
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e10] {
            let mut y = vec![1.0; dim];
            y[33] = bad;
            cache.clear();
            let row = MatRef::dense(&y, 1, dim).unwrap();
            cache.append(row, row).unwrap();
            cache.token(0, 0, &mut k, &mut v).unwrap();
            for x in [&k, &v] {
                assert!(x[32..64].iter().all(|x| x.is_nan()), "{bad} makes its block NaN: {x:?}");
                assert!(x[..32].iter().chain(&x[64..]).all(|x| (x - 1.0).abs() < 0.01));
            }
        }
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let o = KvCacheOptions::new;
    let bad = |o: KvCacheOptions| KvCache::new(o).unwrap_err().to_string();
    assert_eq!(bad(o(1, 8, 4).value_dim(12)), "value_dim = 12 must be a multiple of 8, at least 8");
    assert_eq!(bad(o(1, 8, 4).sequences(0)), "sequences = 0 must be at least 1");
    assert_eq!(bad(o(1, 8, 4).pages(0)), "pages = 0 must be from 1 to 2^32 - 2");
    assert!(bad(o(1, 8, 4).sinks(1)).starts_with("sinks = 1 must be 0 for a cache without a window"));
    assert_eq!(bad(o(1, 8, 9).window(5).sinks(5)), "sinks = 5 must be at most capacity - window = 4");
    assert!(KvCache::new(o(1, 8, 4).sequences(usize::MAX)).is_err());
    assert!(KvCache::new(o(1, 8, ABSURD).sequences(1 << 30)).is_err());
    assert!(KvCache::new(o(ABSURD, ABSURD, 1)).is_err());

    let mut cache = KvCache::new(o(1, 8, 4)).unwrap();
    let x = MatRef::dense(&[1.0; 8], 1, 8).unwrap();
    let no_such = "sequence = 1 must be below the cache's number of sequences";
    assert_eq!(cache.append_to(1, x, x).unwrap_err().to_string(), no_such);
    assert_eq!(cache.fork(0, 1).unwrap_err().to_string(), no_such);
    assert_eq!(cache.fork(1, 0).unwrap_err().to_string(), no_such);
    assert_eq!(cache.clear_in(1).unwrap_err().to_string(), no_such);
    assert_eq!(cache.truncate_in(1, 0).unwrap_err().to_string(), no_such);
    cache.append(x, x).unwrap();
    let (start, end) = (1, 0);
    assert!(cache.remove(start..end).unwrap_err().to_string().starts_with("positions.start = 1 must be"));
    assert_eq!(
        cache.remove(0..2).unwrap_err().to_string(),
        "positions.end = 2 must be at most the cache's len = 1"
    );
    assert!(cache.token(0, 0, &mut [0.0; 7], &mut [0.0; 8]).is_err());
    assert!(cache.token(0, 1, &mut [0.0; 8], &mut [0.0; 8]).is_err());
}
