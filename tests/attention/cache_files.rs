//! Caches as files: what comes back, and what is refused.

use crate::support::{Random, temp};
use kvern::attention::{KvCache, KvCacheOptions, KvType};
use kvern::{Error, MatRef};

fn options(kind: KvType) -> KvCacheOptions {
    KvCacheOptions::new(2, 24, 400).window(90).sinks(3).sequences(3).value_dim(40).types(kind, kind)
}

fn filled(kind: KvType) -> KvCache {
    let mut cache = KvCache::new(options(kind)).unwrap();
    let mut r = Random::new(9);
    for (s, n) in [(0, 350), (0, 300), (2, 7)] {
        let (k, v) = (r.vec(n * 48), r.vec(n * 80));
        cache.append_to(s, MatRef::dense(&k, n, 48).unwrap(), MatRef::dense(&v, n, 80).unwrap()).unwrap();
    }
    cache.fork(0, 1).unwrap();
    let (k, v) = (r.vec(48), r.vec(80));
    cache.append_to(1, MatRef::dense(&k, 1, 48).unwrap(), MatRef::dense(&v, 1, 80).unwrap()).unwrap();
    cache
}

/// Everything that can be read of a cache.
fn contents(cache: &KvCache) -> Vec<u32> {
    let mut all = Vec::new();
    let (mut k, mut v) = (vec![0.0; 48], vec![0.0; 80]);
    for s in 0..3 {
        all.extend([cache.len_of(s) as u32, cache.start_of(s) as u32]);
        for p in 0..cache.len_of(s) {
            if cache.token(s, p, &mut k, &mut v).is_ok() {
                all.extend(k.iter().chain(&v).map(|x| x.to_bits()));
            }
        }
    }
    all
}

#[test]
fn a_saved_cache_comes_back() {
    for kind in KvType::ALL {
        let (cache, file) = (filled(kind), temp(&format!("cache-{}", kind.name())));
        cache.save(&file).unwrap();
        let mut again = KvCache::load(options(kind), &file).unwrap();
        assert_eq!(contents(&again), contents(&cache));
        assert_eq!(again.bytes_used(), cache.bytes_used(), "shared pages stay shared");
        // Into a cache that holds something, with a larger pool; and saved again, the same bytes.
        let mut other = KvCache::new(options(kind).pages(20)).unwrap();
        let x = vec![1.0; 80 * 5];
        let rows = |w| MatRef::dense(&x[..5 * w], 5, w).unwrap();
        other.append_to(2, rows(48), rows(80)).unwrap();
        other.restore(&file).unwrap();
        assert_eq!(contents(&other), contents(&cache));
        let bytes = std::fs::read(&file).unwrap();
        other.save(&file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        // It goes on as the original does.
        for c in [&mut again, &mut other] {
            c.append_to(0, rows(48), rows(80)).unwrap();
            c.truncate_in(2, 3).unwrap();
        }
        assert_eq!(contents(&again), contents(&other));
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn damaged_and_foreign_files_are_refused_and_change_nothing() {
    let (cache, file) = (filled(KvType::Int8), temp("cache-hostile"));
    cache.save(&file).unwrap();
    let good = std::fs::read(&file).unwrap();
    let mut into = filled(KvType::Int8);
    into.truncate_in(0, 640).unwrap();
    let before = contents(&into);
    let mut refused = |bytes: &[u8], what: &str| {
        std::fs::write(&file, bytes).unwrap();
        let e = into.restore(&file).expect_err(what);
        assert!(matches!(e, Error::Blob { .. } | Error::Overflow { .. }), "{what}: {e}");
        assert_eq!(contents(&into), before, "{what}");
        e.to_string()
    };
    for len in [0, 1, 7, 191, 192, 200, 300, good.len() / 2, good.len() - 1] {
        assert!(refused(&good[..len], "truncated").contains("length"));
    }
    let longer: Vec<u8> = good.iter().copied().chain([0]).collect();
    assert!(refused(&longer, "too long").contains("length"));
    let mut r = Random::new(5);
    for i in (0..192).chain((0..60).map(|_| 192 + r.below(good.len() - 192))) {
        let mut bytes = good.clone();
        bytes[i] ^= 1 << (i % 8);
        refused(&bytes, &format!("bit of byte {i}"));
    }
    // Sizes that would overflow or exhaust memory.
    for at in (16..112).step_by(8) {
        let mut bytes = good.clone();
        bytes[at..at + 8].fill(0xff);
        refused(&bytes, &format!("all ones at {at}"));
    }
    refused(&vec![0xa5; 4096], "noise");
    std::fs::write(&file, &good).unwrap();
    for other in [
        options(KvType::Int4),
        options(KvType::Int8).sinks(2),
        options(KvType::Int8).value_dim(48),
        options(KvType::Int8).sequences(2),
        options(KvType::Int8).pages(1),
        options(KvType::Int8).window(89),
    ] {
        assert!(matches!(KvCache::load(other, &file), Err(Error::Blob { .. })), "{other:?}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(KvCache::load(options(KvType::Int8), &file), Err(Error::Io { .. })));
}

#[test]
fn tables_that_lie_are_refused_although_the_checksum_holds() {
    use sha2::{Digest, Sha256};
    let (cache, file) = (filled(KvType::F16), temp("cache-tables"));
    cache.save(&file).unwrap();
    let good = std::fs::read(&file).unwrap();
    let mut into = KvCache::new(options(KvType::F16)).unwrap();
    // A sequence's record: len, oldest, two entries of the ring and one of the sinks.
    let record = 16 + 4 * 3;
    for (at, bytes) in [
        (0, u64::MAX.to_le_bytes().to_vec()),
        (0, 5000u64.to_le_bytes().to_vec()),
        (8, 0u64.to_le_bytes().to_vec()),
        (8, 700u64.to_le_bytes().to_vec()),
        (16, 77u32.to_le_bytes().to_vec()),
        (16, u32::MAX.to_le_bytes().to_vec()),
        (record, 0u64.to_le_bytes().to_vec()),
        (2 * record, 300u64.to_le_bytes().to_vec()),
        (2 * record + 20, 0u32.to_le_bytes().to_vec()),
    ] {
        let mut file_bytes = good.clone();
        file_bytes[192 + at..192 + at + bytes.len()].copy_from_slice(&bytes);
        let mut sha = Sha256::new();
        sha.update(&file_bytes[..112]);
        sha.update(&file_bytes[192..]);
        let sum = sha.finalize();
        file_bytes[112..144].copy_from_slice(&sum);
        std::fs::write(&file, &file_bytes).unwrap();
        let e = into.restore(&file).expect_err(&format!("{bytes:?} at {at}"));
        assert!(matches!(e, Error::Blob { .. }), "{e}");
        assert_eq!(into.bytes_used(), 0);
    }
    std::fs::write(&file, &good).unwrap();
    into.restore(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
}
