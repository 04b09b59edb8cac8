//! Calls of kvern at one tier, each of them once in a function that a counter of instructions finds by its
//! name: `counted`. The cases and their names are those of `benches/icount`, whose counter knows x86-64 only.
//!
//! `kvern-counts TIER` prints the name of each case when it was called; `kvern-counts` the machine's tiers.

mod cases;

use kvern::Isa;
use std::hint::black_box;
use std::process::ExitCode;

/// The call to count: what this function takes, and all that it calls.
#[inline(never)]
fn counted(call: &mut dyn FnMut()) {
    call();
    black_box(()); // no tail call, which would not return here
}

fn main() -> ExitCode {
    let Some(tier) = std::env::args().nth(1) else {
        Isa::available().iter().for_each(|isa| println!("{isa}"));
        return ExitCode::SUCCESS;
    };
    match tier.parse::<Isa>() {
        Ok(isa) if isa.is_available() => {
            cases::all(isa, &mut |case, call| {
                counted(call);
                println!("{case}");
            });
            ExitCode::SUCCESS
        }
        Ok(isa) => {
            eprintln!("this machine lacks {isa}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
