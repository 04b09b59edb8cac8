//! What more threads than CPUs cost: a row and a small product at many thread counts, on a few CPUs.

use crate::timing::{Candidate, interleave};
use anyhow::{Context as _, Result, ensure};
use kvern::{Context, ContextOptions, Epilogue, MatMut, MatRef, PackedB, Workspace};
use std::time::Duration;

const THREADS: [usize; 6] = [1, 2, 8, 32, 64, 256];

/// A product that is timed: rows of A, and the columns and rows of B.
struct Shape {
    m: usize,
    n: usize,
    k: usize,
}

const SHAPES: [Shape; 2] = [Shape { m: 1, n: 1024, k: 1024 }, Shape { m: 256, n: 256, k: 256 }];

/// What the process has used so far: seconds of CPU time, and context switches.
fn usage() -> (f64, f64) {
    // SAFETY: zeros are a value of this struct, and the call fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), (usage.ru_nvcsw + usage.ru_nivcsw) as f64)
}

/// Keeps this process, and the threads that it starts, to the first `cpus` of the CPUs that it may use.
#[cfg(target_os = "linux")]
fn pin(cpus: usize) -> Result<()> {
    // SAFETY: zeros are an empty set, and both calls get its size.
    unsafe {
        let (mut all, mut some): (libc::cpu_set_t, libc::cpu_set_t) =
            (std::mem::zeroed(), std::mem::zeroed());
        ensure!(libc::sched_getaffinity(0, size_of_val(&all), &mut all) == 0, "no affinity");
        let allowed = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &all));
        allowed.take(cpus).for_each(|cpu| libc::CPU_SET(cpu, &mut some));
        ensure!(libc::sched_setaffinity(0, size_of_val(&some), &some) == 0, "affinity was refused");
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn pin(_: usize) -> Result<()> {
    anyhow::bail!("--cpus is for Linux")
}

/// Prints microseconds, CPU time and context switches a call on `cpus` CPUs
/// (0: all that the process may use).
pub fn print(cpus: usize) -> Result<()> {
    if cpus > 0 {
        pin(cpus)?;
    }
    println!("on {} CPUs", std::thread::available_parallelism().context("number of CPUs")?);
    for Shape { m, n, k } in SHAPES {
        println!(
            "{:<22}{:>10}{:>12}{:>12}{:>16}",
            format!("{m} x {n} x {k}"),
            "us",
            "of serial",
            "CPU us",
            "switches/1000"
        );
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
        let (a, b) = (MatRef::dense(&a, m, k)?, MatRef::dense(&b, k, n)?);
        let mut serial = 0.0;
        for threads in THREADS {
            let ctx = Context::new(&ContextOptions::default().threads(threads))?;
            let packed = PackedB::pack(&ctx, b)?;
            let mut ws = Workspace::new(packed.workspace_bytes(&ctx, m)?)?;
            let (mut c, mut calls) = (vec![0.0f32; m * n], 0u64);
            let before = usage();
            let mut candidates: [Candidate<'_>; 1] = [Box::new(|| {
                calls += 1;
                let c = MatMut::dense(&mut c, m, n).expect("m * n elements");
                packed.multiply(&ctx, &mut ws, a, c, &Epilogue::default()).expect("shapes agree");
            })];
            let seconds = interleave(&mut candidates, Duration::from_millis(300))[0].median();
            drop(candidates);
            let (after, calls) = (usage(), calls as f64);
            if threads == 1 {
                serial = seconds;
            }
            println!(
                "{:<22}{:>10.1}{:>11.2}x{:>12.1}{:>16.1}",
                format!("{threads} threads"),
                seconds * 1e6,
                seconds / serial,
                (after.0 - before.0) / calls * 1e6,
                (after.1 - before.1) / calls * 1e3
            );
        }
    }
    Ok(())
}
