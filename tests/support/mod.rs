//! What every integration test uses: tiers, inputs, comparisons.
#![allow(dead_code)] // each test binary uses its own part

use kvern::buffer::MappedFile;
use kvern::quant::{Compute, PackedWeights};
use kvern::{Context, ContextOptions, Epilogue, Isa, MatMut, MatRef, Workspace};
use std::path::{Path, PathBuf};

/// Runs `test` with a context of each tier of the machine and says which tiers are missing.
pub fn for_each_isa(mut test: impl FnMut(&Context)) {
    for isa in Isa::ALL {
        if isa.is_available() {
            test(&context(isa, 1));
        } else {
            eprintln!("skipped: this machine has no {isa}");
        }
    }
}

/// A context at `isa` with `threads` threads.
pub fn context(isa: Isa, threads: usize) -> Context {
    Context::new(&ContextOptions::default().isa_cap(isa).threads(threads)).unwrap()
}

/// A small generator (xorshift64*): seeded inputs that are the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// Uniform in [-1, 1).
    pub fn f32(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.f32()).collect()
    }
}

/// Bits of a slice: what "the same" means here. NaN payloads are not part of the promise.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Asserts equal bits and names the first difference.
#[track_caller]
pub fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    if let Some(i) = (0..got.len()).find(|&i| bits(&got[i..=i]) != bits(&want[i..=i])) {
        panic!("{what}: element {i}: {} != {}", got[i], want[i]);
    }
}

/// `c = act(alpha * a * w^T + bias)` with a workspace of just the bytes that the query names.
pub fn product(
    ctx: &Context,
    w: &PackedWeights,
    compute: Compute,
    a: MatRef<'_>,
    e: &Epilogue<'_>,
    c: &mut [f32],
) {
    let mut ws = Workspace::new(w.workspace_bytes(ctx, a.rows(), compute).unwrap()).unwrap();
    w.multiply(ctx, &mut ws, compute, a, MatMut::dense(c, a.rows(), w.n()).unwrap(), e).unwrap();
}

/// A file name of its own for each test.
pub fn temp(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

/// Maps a file that this test alone has.
pub fn map(path: &Path) -> MappedFile {
    // SAFETY: nobody else knows the file.
    unsafe { MappedFile::open(path) }.unwrap()
}
