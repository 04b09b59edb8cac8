//! Files of caches: refused with an error that changes nothing, or a cache like any other.
#![no_main]

use kvern::attention::{self, AttentionOptions, KvCache, KvCacheOptions, KvType, attend_batch};
use kvern::ops::{RopePairs, RopeTable};
use kvern::{Context, MatMut, MatRef, Workspace};
use kvern_fuzz::{CACHE, Damage, assert_same, contexts, file_of, values, write};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::collections::HashMap;

const KV_HEADS: usize = 2;
const HEADS: usize = 4;
const KEY_DIM: usize = 16;
const VALUE_DIM: usize = 24;
const SEQUENCES: usize = 3;

#[derive(Arbitrary, Debug)]
struct Input {
    keys: u8,
    values: u8,
    geometry: u8,
    damage: Damage,
    edits: Vec<Edit>,
}

/// What happens to a cache that was loaded.
#[derive(Arbitrary, Debug)]
enum Edit {
    Append { sequence: u8, tokens: u8 },
    Truncate { sequence: u8, len: u16 },
    Remove { sequence: u8, start: u16, tokens: u8 },
    Rotate { sequence: u8, start: u16, tokens: u8, by: i8 },
    Fork { from: u8, to: u8 },
    Clear { sequence: u8 },
}

/// What a file is made from: types of keys and values, geometry.
type Kind = (usize, usize, usize);

thread_local! {
    static FILES: RefCell<HashMap<Kind, Vec<u8>>> = RefCell::new(HashMap::new());
}

/// Capacities of one page and more, with windows and sinks in one page and over several.
fn options((keys, values, geometry): Kind) -> KvCacheOptions {
    let new = |capacity| KvCacheOptions::new(KV_HEADS, KEY_DIM, capacity);
    let options = match geometry {
        0 => new(300),
        1 => new(40).window(24),
        2 => new(300).window(90).sinks(3),
        _ => new(600).window(300).sinks(260).pages(7),
    };
    options.value_dim(VALUE_DIM).sequences(SEQUENCES).types(KvType::ALL[keys], KvType::ALL[values])
}

fn append(cache: &mut KvCache, sequence: usize, tokens: usize, seed: u32) -> kvern::Result<()> {
    let k = values(tokens * KV_HEADS * KEY_DIM, seed);
    let v = values(tokens * KV_HEADS * VALUE_DIM, seed + 1);
    let k = MatRef::dense(&k, tokens, KV_HEADS * KEY_DIM).expect("shape");
    let v = MatRef::dense(&v, tokens, KV_HEADS * VALUE_DIM).expect("shape");
    cache.append_to(sequence, k, v)
}

fn good_file(kind: Kind) -> Vec<u8> {
    let make = || {
        let mut cache = KvCache::new(options(kind)).expect("a small cache");
        // Wrapped where there is a window; sequence 1 shares what it did not write itself.
        let tokens = if options(kind).window.is_some() { 40 } else { 20 };
        for _ in 0..12 {
            append(&mut cache, 0, tokens, 1).expect("room");
        }
        cache.fork(0, 1).expect("two sequences");
        append(&mut cache, 1, 1, 3).expect("room");
        append(&mut cache, 2, 7, 5).expect("room");
        file_of(|path| cache.save(path))
    };
    FILES.with_borrow_mut(|files| files.entry(kind).or_insert_with(make).clone())
}

/// Everything that can be read of a cache.
fn contents(cache: &KvCache) -> (Vec<usize>, Vec<f32>) {
    let (mut states, mut all) = (vec![cache.bytes_used(), cache.free_pages()], Vec::new());
    let (mut k, mut v) = (vec![0.0; KV_HEADS * KEY_DIM], vec![0.0; KV_HEADS * VALUE_DIM]);
    for s in 0..SEQUENCES {
        let (start, len) = (cache.start_of(s), cache.len_of(s));
        states.extend([start, len]);
        let sinks = cache.options().sinks.min(len);
        for position in (0..sinks).chain(start.max(sinks)..len) {
            cache.token(s, position, &mut k, &mut v).expect("a position that is held");
            all.extend(k.iter().chain(&v));
        }
    }
    (states, all)
}

#[track_caller]
fn assert_same_contents(got: &KvCache, want: &KvCache, what: &str) {
    let (got, want) = (contents(got), contents(want));
    assert_eq!(got.0, want.0, "{what}");
    assert_same(&got.1, &want.1, what);
}

/// The last token of all sequences over the cache.
fn attend(ctx: &Context, cache: &KvCache, sequences: &[usize]) -> Vec<f32> {
    let options = AttentionOptions::new(HEADS);
    let rows = sequences.len();
    let (q, mut out) = (values(rows * HEADS * KEY_DIM, 7), vec![0f32; rows * HEADS * VALUE_DIM]);
    let bytes = attention::workspace_bytes(ctx, &options, cache, 1).expect("a small call");
    let mut ws = Workspace::new(bytes).expect("memory");
    let q = MatRef::dense(&q, rows, HEADS * KEY_DIM).expect("shape");
    let y = MatMut::dense(&mut out, rows, HEADS * VALUE_DIM).expect("shape");
    attend_batch(ctx, &mut ws, &options, q, cache, sequences, y).expect("a valid call");
    out
}

fn check(cache: &KvCache) {
    let held: Vec<usize> = (0..SEQUENCES).filter(|&s| cache.len_of(s) > 0).collect();
    if held.is_empty() {
        return;
    }
    let want = attend(&contexts()[0], cache, &held);
    for ctx in &contexts()[1..] {
        assert_same(&attend(ctx, cache, &held), &want, ctx.isa().name());
    }
}

fn edit(cache: &mut KvCache, edit: &Edit) {
    // One sequence more than there are.
    let sequence = |s: u8| s as usize % (SEQUENCES + 1);
    let before = cache.clone();
    let range = |s: u8, start: u16, tokens: u8| {
        // Near the end where the sequence is long: `start` counts back from there.
        let start = before.len_of(sequence(s)).saturating_sub(start.into());
        start..start.saturating_add(tokens.into())
    };
    let done = match *edit {
        Edit::Append { sequence: s, tokens } => append(cache, sequence(s), tokens.into(), 9),
        Edit::Truncate { sequence: s, len } => {
            let len = cache.len_of(sequence(s)).saturating_sub(len.into());
            cache.truncate_in(sequence(s), len)
        }
        Edit::Remove { sequence: s, start, tokens } => cache.remove_in(sequence(s), range(s, start, tokens)),
        Edit::Rotate { sequence: s, start, tokens, by } => {
            let table = RopeTable::new(KEY_DIM, 200, 10_000.0).expect("a small table");
            cache.rotate(sequence(s), range(s, start, tokens), by.into(), &table, RopePairs::Halves)
        }
        Edit::Fork { from, to } => cache.fork(sequence(from), sequence(to)),
        Edit::Clear { sequence: s } => cache.clear_in(sequence(s)),
    };
    if done.is_err() {
        assert_same_contents(cache, &before, "a refused edit");
    }
}

fuzz_target!(|input: Input| {
    let kind = (input.keys as usize % 5, input.values as usize % 5, input.geometry as usize % 4);
    let good = good_file(kind);
    let damaged = input.damage.apply(&good, CACHE);
    let path = write(damaged.as_deref().unwrap_or(&good));
    let mut cache = KvCache::new(options(kind)).expect("a small cache");
    append(&mut cache, 2, 30, 11).expect("room");
    let before = cache.clone();
    if let Err(e) = cache.restore(&path) {
        assert!(damaged.is_some(), "a good file was refused: {e}");
        assert_same_contents(&cache, &before, "a refused file");
        assert!(KvCache::load(options(kind), &path).is_err());
        return;
    }
    assert!(damaged.is_none() || !input.damage.is_certain(), "a wrong checksum was accepted");
    check(&cache);
    for change in input.edits.iter().take(8) {
        edit(&mut cache, change);
        let _ = contents(&cache);
    }
    check(&cache);
    let saved = file_of(|path| cache.save(path));
    let again = KvCache::load(options(kind), &write(&saved)).expect("what was just saved");
    assert_same_contents(&again, &cache, "saved and loaded");
    cache.clear();
    assert_eq!(cache.free_pages(), cache.pages());
});
