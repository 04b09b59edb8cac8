//! Common parts of the integration tests: tiers, inputs, comparisons.
#![allow(dead_code)] // each test binary uses its own part

mod random;
pub mod safetensors;

use kvern::buffer::MappedFile;
use kvern::quant::{Compute, PackedWeights};
use kvern::{Context, ContextOptions, Epilogue, Isa, MatMut, MatRef, Workspace};
pub use random::Random;
use std::path::{Path, PathBuf};

/// A size that overflows nothing alone, but times another large one: 2^40 with pointers of 64 bits.
pub const ABSURD: usize = 1 << (usize::BITS * 5 / 8);

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
