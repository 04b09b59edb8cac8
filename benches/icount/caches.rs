//! One token more in a cache: a ring that is written in place, and a cache that grows by copying
//! (`torch.cat` of the old tensor and the new token).

use crate::attention::filled;
use crate::inputs::{Mat, context};
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::attention::{KvCache, KvCacheOptions, KvType, Preparation};
use kvern::ops::{RopePairs, RopeTable};
use kvern::{Context, Isa};
use std::arch::x86_64::{_mm256_loadu_ps, _mm256_storeu_ps};

const KV_HEADS: usize = 8;
const DIM: usize = 64;

/// A ring with room for one token more, and the token.
pub struct Ring {
    cache: KvCache,
    k: Mat,
    v: Mat,
}

fn ring(tokens: usize, adding: usize) -> Ring {
    ring_of(KvType::F32, tokens, adding)
}

fn ring_of(kind: KvType, tokens: usize, adding: usize) -> Ring {
    let options = KvCacheOptions::new(KV_HEADS, DIM, tokens + adding).types(kind, kind);
    let (k, v) = (Mat::new(adding, KV_HEADS * DIM, 3), Mat::new(adding, KV_HEADS * DIM, 4));
    Ring { cache: filled(options, tokens), k, v }
}

#[library_benchmark(setup = ring)]
#[bench::any_512_plus_1(512, 1)]
#[bench::any_128_plus_128(128, 128)]
fn append(mut r: Ring) -> Ring {
    r.cache.append(r.k.view(), r.v.view()).expect("room");
    r
}

#[library_benchmark(setup = ring_of)]
#[bench::any_f16_512_plus_1(KvType::F16, 512, 1)]
#[bench::any_bf16_512_plus_1(KvType::Bf16, 512, 1)]
#[bench::any_int8_512_plus_1(KvType::Int8, 512, 1)]
#[bench::any_int4_512_plus_1(KvType::Int4, 512, 1)]
#[bench::any_f16_128_plus_128(KvType::F16, 128, 128)]
#[bench::any_bf16_128_plus_128(KvType::Bf16, 128, 128)]
#[bench::any_int8_128_plus_128(KvType::Int8, 128, 128)]
#[bench::any_int4_128_plus_128(KvType::Int4, 128, 128)]
fn append_type(mut r: Ring) -> Ring {
    r.cache.append(r.k.view(), r.v.view()).expect("room");
    r
}

/// A ring, and queries and keys to be normed and rotated first.
pub struct Prepared {
    ctx: Context,
    ring: Ring,
    q: Mat,
    gain: Vec<f32>,
    table: RopeTable,
}

fn prepared(isa: Isa, tokens: usize, adding: usize) -> Prepared {
    let table = RopeTable::new(DIM, tokens + adding, 10000.0).expect("memory");
    let q = Mat::new(adding, 4 * KV_HEADS * DIM, 5);
    Prepared { ctx: context(isa), ring: ring(tokens, adding), q, gain: vec![1.5; DIM], table }
}

#[library_benchmark(setup = prepared)]
#[bench::scalar_128_plus_16(Isa::Scalar, 128, 16)]
#[bench::avx2_512_plus_1(Isa::Avx2, 512, 1)]
#[bench::avx2_128_plus_128(Isa::Avx2, 128, 128)]
fn append_prepared(mut p: Prepared) -> Prepared {
    let with = Preparation::default().norms(&p.gain, &p.gain, 1e-5).rope(&p.table, RopePairs::Halves);
    let Ring { cache, k, v } = &mut p.ring;
    cache.append_prepared(&p.ctx, 0, &with, p.q.view_mut(), k.view_mut(), v.view()).expect("room");
    p
}

fn cache_of(kind: KvType, tokens: usize) -> KvCache {
    filled(KvCacheOptions::new(KV_HEADS, DIM, tokens).types(kind, kind), tokens)
}

#[library_benchmark(setup = cache_of)]
#[bench::any_f32_256(KvType::F32, 256)]
#[bench::any_int8_256(KvType::Int8, 256)]
fn remove_tokens(mut cache: KvCache) -> KvCache {
    cache.remove(16..32).expect("held");
    cache
}

/// A cache whose keys are rotated once more.
pub struct Turned {
    cache: KvCache,
    table: RopeTable,
}

fn turned(kind: KvType, tokens: usize) -> Turned {
    Turned { cache: cache_of(kind, tokens), table: RopeTable::new(DIM, 64, 10000.0).expect("memory") }
}

#[library_benchmark(setup = turned)]
#[bench::any_f32_128(KvType::F32, 128)]
#[bench::any_f16_128(KvType::F16, 128)]
fn rotate_keys(mut t: Turned) -> Turned {
    let tokens = t.cache.len();
    t.cache.rotate(0, 0..tokens, -16, &t.table, RopePairs::Halves).expect("floats");
    t
}

/// A fork that writes its first token: the copy of one page.
fn forked(kind: KvType, tokens: usize) -> Ring {
    let options = KvCacheOptions::new(KV_HEADS, DIM, tokens + 1).types(kind, kind).sequences(2);
    let (k, v) = (Mat::new(1, KV_HEADS * DIM, 3), Mat::new(1, KV_HEADS * DIM, 4));
    Ring { cache: filled(options, tokens), k, v }
}

#[library_benchmark(setup = forked)]
#[bench::any_int8_100(KvType::Int8, 100)]
fn fork_and_append(mut r: Ring) -> Ring {
    r.cache.fork(0, 1).expect("sequences");
    r.cache.append_to(1, r.k.view(), r.v.view()).expect("room");
    r
}

/// Keys and values, each `(tokens, KV_HEADS * DIM)`, as tensors that cannot grow.
pub struct Growing {
    keys: Vec<f32>,
    values: Vec<f32>,
    k: Mat,
    v: Mat,
}

fn growing(tokens: usize) -> Growing {
    let width = KV_HEADS * DIM;
    Growing {
        keys: Mat::new(tokens, width, 1).as_slice().to_vec(),
        values: Mat::new(tokens, width, 2).as_slice().to_vec(),
        k: Mat::new(1, width, 3),
        v: Mat::new(1, width, 4),
    }
}

/// A new tensor with the old rows and the new one, copied with the fewest instructions that AVX2 allows.
/// Not `memcpy`: for a megabyte it is one `rep movsb`, which Valgrind counts once for each byte.
#[inline(never)]
fn cat(old: &[f32], new: &[f32]) -> Vec<f32> {
    let len = old.len() + new.len();
    let mut grown = Vec::with_capacity(len);
    // SAFETY: the benches need a CPU with AVX2; both parts are whole groups of 64 floats, as asserted, and
    // fill the capacity from its start.
    unsafe {
        assert!(old.len().is_multiple_of(64) && new.len().is_multiple_of(64));
        copy(old.as_ptr(), grown.as_mut_ptr(), old.len());
        copy(new.as_ptr(), grown.as_mut_ptr().add(old.len()), new.len());
        grown.set_len(len);
    }
    grown
}

/// # Safety
/// - the CPU has AVX2; both pointers are valid for `len` floats, a multiple of 64.
#[target_feature(enable = "avx2")]
unsafe fn copy(from: *const f32, to: *mut f32, len: usize) {
    for group in (0..len).step_by(64) {
        for i in (group..group + 64).step_by(8) {
            // SAFETY: 8 floats below `len`.
            unsafe { _mm256_storeu_ps(to.add(i), _mm256_loadu_ps(from.add(i))) };
        }
    }
}

#[library_benchmark(setup = growing)]
#[bench::avx2_512_plus_1(512)]
fn append_by_copying(g: Growing) -> (Growing, Vec<f32>, Vec<f32>) {
    let keys = cat(&g.keys, g.k.as_slice());
    let values = cat(&g.values, g.v.as_slice());
    (g, keys, values)
}

library_benchmark_group!(name = caches_group; benchmarks =
    append, append_type, append_prepared, append_by_copying, remove_tokens, rotate_keys, fork_and_append);
