//! Cost of entering and leaving an empty parallel region: kvern's own team beside rayon's
//! entry points, interleaved.

use crate::timing::{Candidate, interleave};
use anyhow::Result;
use kvern::{Context, ContextOptions};
use rayon::prelude::*;
use std::time::Duration;

/// Prints microseconds a region for `threads` threads, each of which gets one empty item.
pub fn print(threads: usize) -> Result<()> {
    let ctx = Context::new(&ContextOptions::default().threads(threads))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let empty = |item: usize| {
        std::hint::black_box(item);
    };
    let mut candidates: [Candidate<'_>; 5] = [
        Box::new(|| ctx.parallel_for(threads, &|_, item| empty(item))),
        Box::new(|| pool.install(|| (0..threads).into_par_iter().for_each(empty))),
        Box::new(|| {
            pool.broadcast(|worker| empty(worker.index()));
        }),
        Box::new(|| {
            pool.scope(|scope| (0..threads).for_each(|item| scope.spawn(move |_| empty(item))));
        }),
        Box::new(|| {
            std::thread::scope(|scope| {
                (1..threads).for_each(|item| {
                    scope.spawn(move || empty(item));
                });
            });
        }),
    ];
    let times = interleave(&mut candidates, Duration::from_millis(500));
    println!("{:<44}{:>10}", format!("an empty region of {threads} threads"), "us");
    let names = [
        "kvern, resident team",
        "rayon, par_iter from outside",
        "rayon, broadcast from outside",
        "rayon, scope from outside",
        "std::thread::scope",
    ];
    for (name, times) in names.iter().zip(&times) {
        println!("{name:<44}{:>10.2}", times.median() * 1e6);
    }
    Ok(())
}
