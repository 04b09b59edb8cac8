//! Goldens: a SHA-256 of the output of every operation and case, the same at every tier and thread count.
//!
//! `KVERN_BLESS=1 cargo test --test numerics golden` rewrites `tests/fixtures/golden.tsv` from the scalar
//! tier. The bits are a promise: a change of this file is a change of results for every user.

mod attention;
mod imported;
mod products;
mod rows;

use crate::support::{Random, context};
use kvern::{Context, Isa};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Case and hash.
type Goldens = BTreeMap<String, String>;

/// Collects the outputs of one context.
pub struct Cases<'a> {
    ctx: &'a Context,
    hashes: Goldens,
}

impl Cases<'_> {
    /// Takes the output of a case: its bits, each NaN as the same one.
    fn take(&mut self, case: impl Into<String>, output: &[f32]) {
        let bytes: Vec<u8> = crate::support::bits(output).into_iter().flat_map(u32::to_le_bytes).collect();
        self.take_bytes(case, &bytes);
    }

    fn take_bytes(&mut self, case: impl Into<String>, bytes: &[u8]) {
        let case = case.into();
        let hash = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(self.hashes.insert(case.clone(), hash), None, "two cases are called {case}");
    }
}

/// Whole numbers in -64..64 over 16: exact in every format, with sums that still round.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut r = Random::new(seed);
    (0..n).map(|_| (r.below(128) as f32 - 64.0) / 16.0 + r.below(7) as f32 / 1024.0).collect()
}

fn hashes(ctx: &Context) -> Goldens {
    let mut cases = Cases { ctx, hashes: Goldens::new() };
    products::cases(&mut cases);
    imported::cases(&mut cases);
    attention::cases(&mut cases);
    rows::cases(&mut cases);
    cases.hashes
}

fn path() -> String {
    format!("{}/tests/fixtures/golden.tsv", env!("CARGO_MANIFEST_DIR"))
}

fn committed() -> Goldens {
    let text = std::fs::read_to_string(path()).expect("tests/fixtures/golden.tsv");
    let row = |line: &str| line.split_once('\t').map(|(case, hash)| (case.to_owned(), hash.to_owned()));
    text.lines().map(|line| row(line).expect("case and hash")).collect()
}

/// Compares the outputs of one context.
fn check(isa: Isa, threads: usize) {
    let (got, want) = (hashes(&context(isa, threads)), committed());
    let cases: Vec<&String> = got.keys().collect();
    assert_eq!(cases, want.keys().collect::<Vec<_>>(), "cases differ: KVERN_BLESS=1 rewrites them");
    for (case, hash) in &got {
        assert_eq!(hash, &want[case], "{case} at {isa} with {threads} threads");
    }
}

fn blessing() -> bool {
    std::env::var_os("KVERN_BLESS").is_some()
}

#[test]
fn every_tier_gives_the_committed_bits() {
    if blessing() {
        let rows = hashes(&context(Isa::Scalar, 1));
        let text: String = rows.iter().map(|(case, hash)| format!("{case}\t{hash}\n")).collect();
        std::fs::write(path(), text).unwrap();
    }
    Isa::available().iter().for_each(|&isa| check(isa, 2));
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        eprintln!("skipped: this machine has no {isa}");
    }
}

#[test]
fn any_number_of_threads_gives_the_committed_bits() {
    if blessing() {
        return; // the file is being rewritten
    }
    for &isa in Isa::available() {
        check(isa, 1);
        check(isa, 3);
    }
}
