//! Random calls of every operation: shapes, formats, options and cache histories. The scalar tier on the
//! calling thread is the definition, and every tier with 1, 2, 3 or 7 workers gives its bits. An oracle in
//! f64 bounds the definition itself.
//!
//! The case of a seed is the same everywhere. The environment says how many there are:
//! - `KVERN_DIFFERENTIAL_SECONDS`: for how long new cases are begun, 4 by default;
//! - `KVERN_DIFFERENTIAL_SEED`: the seed of the first case, 0 by default;
//! - `KVERN_DIFFERENTIAL_CASE`: the seed of the only case, to repeat one.

#[path = "../support/mod.rs"]
mod support;

mod attention;
mod machines;
mod oracle;
mod prepared;
mod products;
mod quantized;
mod rows;

use machines::Machines;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};
use support::Random;

/// One random call, compared.
type Case = fn(&Machines, &mut Random);

/// Seed s is a case of kind s modulo their number.
const KINDS: [(&str, Case); 6] = [
    ("attention", attention::case),
    ("a product", products::case),
    ("a quantised product", quantized::case),
    ("a row operation", rows::case),
    ("attention", attention::case),
    ("a prepared append", prepared::case),
];

/// Cases that run however slow the machine is.
const AT_LEAST: u64 = 10 * KINDS.len() as u64;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} = {value} must be a number")))
}

fn run(machines: &Machines, seed: u64) {
    let (kind, case) = KINDS[(seed % KINDS.len() as u64) as usize];
    let outcome = catch_unwind(AssertUnwindSafe(|| case(machines, &mut Random::new(seed + 1))));
    if let Err(panic) = outcome {
        eprintln!(
            "case {seed}, {kind}: KVERN_DIFFERENTIAL_CASE={seed} cargo test --test differential repeats it"
        );
        resume_unwind(panic);
    }
}

#[test]
fn every_operation_has_the_bits_of_its_definition_and_stays_within_its_bound() {
    let machines = Machines::new();
    if let Some(seed) = variable("KVERN_DIFFERENTIAL_CASE") {
        return run(&machines, seed);
    }
    let first = variable("KVERN_DIFFERENTIAL_SEED").unwrap_or(0);
    let budget = Duration::from_secs(variable("KVERN_DIFFERENTIAL_SECONDS").unwrap_or(4));
    let (start, mut seed) = (Instant::now(), first);
    while seed < first + AT_LEAST || start.elapsed() < budget {
        run(&machines, seed);
        seed += 1;
    }
    println!("seeds {first}..{seed}: {} cases on {machines}", seed - first);
}
