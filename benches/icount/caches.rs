//! One token more in a cache: a ring that is written in place, and a cache that grows by copying
//! (`torch.cat` of the old tensor and the new token).

use crate::attention::filled;
use crate::inputs::Mat;
use iai_callgrind::{library_benchmark, library_benchmark_group};
use kvern::attention::{KvCache, KvCacheOptions};
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
    let options = KvCacheOptions::new(KV_HEADS, DIM, tokens + adding);
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

library_benchmark_group!(name = caches_group; benchmarks = append, append_by_copying);
