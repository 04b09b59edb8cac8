//! One computation at every tier and on any number of threads.

use crate::folders::{model_type, models};
use crate::values::{Values, assert_same_bits, error};
use kvern::{Context, ContextOptions, Isa};
use kvern_models::{Checkpoint, Runtime};

/// The largest error that a result may have, relative to its largest right value: about three times the
/// error of an f32 implementation of it in another order of operations.
pub const TOLERANCE: f32 = 4e-6;

/// A folder of a model.
pub struct Model {
    pub name: String,
    pub checkpoint: Checkpoint,
    pub values: Values,
}

/// The folders whose `model_type` is this one, at least one.
pub fn models_of(wanted: &str) -> Vec<Model> {
    let dirs = models().into_iter().filter(|dir| model_type(dir) == wanted);
    let open = |dir: &std::path::PathBuf| Model {
        name: dir.display().to_string(),
        checkpoint: Checkpoint::open(dir).unwrap(),
        values: Values::open(dir),
    };
    let found: Vec<_> = dirs.map(|dir| open(&dir)).collect();
    assert!(!found.is_empty(), "no fixture of {wanted}");
    found
}

/// The results of `compute`, which are the same at every tier on 1, 2, 3 and 8 threads.
pub fn everywhere<const N: usize>(
    name: &str,
    mut compute: impl FnMut(&mut Runtime) -> [Vec<f32>; N],
) -> [Vec<f32>; N] {
    let mut first: Option<[Vec<f32>; N]> = None;
    for isa in Isa::ALL {
        if !isa.is_available() {
            eprintln!("skipped: this machine has no {isa}");
            continue;
        }
        for threads in [1, 2, 3, 8] {
            let options = ContextOptions::default().isa_cap(isa).threads(threads);
            let mut rt = Runtime::new(Context::new(&options).unwrap()).unwrap();
            let got = compute(&mut rt);
            let want = first.get_or_insert_with(|| got.clone());
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                assert_same_bits(got, want, &format!("{name}, result {i}, {isa}, {threads} threads"));
            }
        }
    }
    first.unwrap()
}

/// Asserts that a result is right.
#[track_caller]
pub fn assert_right(model: &Model, what: &str, got: &[f32], want: &[f32]) {
    let error = error(got, want);
    eprintln!("{}: {what}: relative error {error:e}", model.name);
    assert!(error <= TOLERANCE, "{}: {what}: relative error {error:e}", model.name);
}

/// What `forward` gives for a sequence that comes in chunks of these lengths.
pub fn in_chunks(tokens: &[u32], chunks: &[usize], mut forward: impl FnMut(&[u32]) -> Vec<f32>) -> Vec<f32> {
    let (mut all, mut rest) = (Vec::new(), tokens);
    for &len in chunks {
        let (chunk, after) = rest.split_at(len);
        all.extend(forward(chunk));
        rest = after;
    }
    assert!(rest.is_empty(), "chunks cover the tokens");
    all
}

/// 11 and 6 tokens, then one by one.
pub fn pieces(tokens: usize) -> Vec<usize> {
    let first = tokens.min(11);
    let second = (tokens - first).min(6);
    let mut pieces = vec![first, second];
    pieces.extend(vec![1; tokens - first - second]);
    pieces
}
