//! Limits of the machine: the peak rates of the instructions that bound the kernels, and the read bandwidth.

use kvern::Isa;
use kvern::buffer::AlignedBuf;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Peaks of one thread, in operations (multiply and add count as two) a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peaks {
    /// f32 FMA.
    pub f32: f64,
    /// int8 dot products.
    pub int8: f64,
    /// bf16 dot products, 0 where the CPU has none.
    pub bf16: f64,
}

/// Measures the peaks of one thread at a tier.
pub fn peaks(isa: Isa) -> Peaks {
    #[cfg(target_arch = "x86_64")]
    return x86::peaks(isa);
    #[cfg(not(target_arch = "x86_64"))]
    return Peaks::default();
}

/// Sequential read bandwidth of `threads` threads together, bytes a second, best of several passes over
/// 256 MiB each, with 2 MiB pages (`huge`) or 4 KiB ones.
pub fn read_bandwidth(threads: usize, huge: bool) -> f64 {
    const BYTES: usize = 256 << 20;
    let buffers: Vec<Memory> = (0..threads).map(|_| Memory::new(BYTES, huge)).collect();
    let barrier = Barrier::new(threads);
    let passes = 8;
    let elapsed: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|s| {
        let handles: Vec<_> = buffers
            .iter()
            .map(|buffer| {
                let barrier = &barrier;
                s.spawn(move || {
                    (0..passes)
                        .map(|_| {
                            barrier.wait();
                            let start = Instant::now();
                            black_box(sum(buffer.words()));
                            (start, Instant::now())
                        })
                        .collect()
                })
            })
            .collect();
        handles.into_iter().filter_map(|h| h.join().ok()).collect()
    });
    (0..passes)
        .filter_map(|pass| {
            let start = elapsed.iter().map(|t| t[pass].0).min()?;
            let end = elapsed.iter().map(|t| t[pass].1).max()?;
            Some((threads * BYTES) as f64 / (end - start).as_secs_f64())
        })
        .fold(0.0, f64::max)
}

/// Memory with a chosen page size.
enum Memory {
    Huge(AlignedBuf<u64>),
    Small(Vec<u64>),
}

impl Memory {
    fn new(bytes: usize, huge: bool) -> Memory {
        if huge && let Ok(mut buffer) = AlignedBuf::zeroed(bytes / 8) {
            buffer.as_mut_slice().fill(1);
            return Memory::Huge(buffer);
        }
        let mut words: Vec<u64> = Vec::with_capacity(bytes / 8);
        #[cfg(target_os = "linux")]
        {
            let start = words.as_ptr().addr().next_multiple_of(4096);
            let pages = (words.as_ptr().addr() + bytes - start) / 4096 * 4096;
            // SAFETY: the range lies inside the vector's allocation; the advice changes no contents.
            unsafe { libc::madvise(start as *mut libc::c_void, pages, libc::MADV_NOHUGEPAGE) };
        }
        words.resize(bytes / 8, 1);
        Memory::Small(words)
    }

    fn words(&self) -> &[u64] {
        match self {
            Memory::Huge(b) => b.as_slice(),
            Memory::Small(v) => v,
        }
    }
}

/// Sums all words with the widest loads there are.
fn sum(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just found.
        return unsafe { x86::sum(words) };
    }
    words.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// Best rate of `work` units a call over 150 ms.
fn best_rate(work: f64, mut call: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(150) {
        let t = Instant::now();
        call();
        best = best.min(t.elapsed().as_secs_f64());
    }
    work / best
}

/// Prints the table of the `ceilings` subcommand.
pub fn print(threads: usize) {
    println!("one thread, best of many        f32 GFLOP/s   int8 GOP/s   bf16 GFLOP/s");
    for &isa in Isa::available() {
        let p = peaks(isa);
        if p.f32 > 0.0 {
            println!("{:<32}{:>11.1}{:>13.1}{:>15.1}", isa.name(), p.f32 / 1e9, p.int8 / 1e9, p.bf16 / 1e9);
        }
    }
    println!("\nsequential read, GB/s           4 KiB pages  2 MiB pages");
    for n in 1..=threads {
        let (small, huge) = (read_bandwidth(n, false), read_bandwidth(n, true));
        println!("{n:>3} threads{:>33.1}{:>13.1}", small / 1e9, huge / 1e9);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Isa, Peaks, best_rate};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Steps of a measuring loop; each step issues one instruction to each of 12 or 24 chains, more than
    /// latency (4 to 6 cycles) times rate (1 or 2 a cycle).
    const STEPS: usize = 20_000;

    pub fn peaks(isa: Isa) -> Peaks {
        let (mut f32, mut int8, mut bf16) = (0.0, 0.0, 0.0);
        /// Best rate of one of the loops below.
        macro_rules! rate {
            ($work:expr, $call:ident) => {
                // SAFETY: the match arm's tier, or the feature asked for, is there on this machine.
                best_rate($work, || unsafe { $call() })
            };
        }
        match isa {
            Isa::Avx512 => {
                let lanes = (STEPS * 24 * 16) as f64;
                f32 = rate!(2.0 * lanes, fma512);
                int8 = rate!(8.0 * lanes, vnni512);
                if is_x86_feature_detected!("avx512bf16") {
                    bf16 = rate!(4.0 * lanes, bf16_512);
                }
            }
            Isa::Avx2 => {
                let lanes = (STEPS * 12 * 8) as f64;
                f32 = rate!(2.0 * lanes, fma256);
                int8 = rate!(8.0 * lanes, maddubs256);
            }
            Isa::AvxVnni => {
                let lanes = (STEPS * 12 * 8) as f64;
                f32 = rate!(2.0 * lanes, fma256);
                int8 = rate!(8.0 * lanes, vnni256);
            }
            _ => {}
        }
        Peaks { f32, int8, bf16 }
    }

    /// A loop over `$n` independent chains of `$step`.
    macro_rules! chains {
        (
            $features:literal, $name:ident, $n:literal, $zero:expr,
            |$acc:ident, $x:ident| $step:expr, $arg:expr
        ) => {
            #[target_feature(enable = $features)]
            fn $name() {
                let $x = black_box($arg);
                let mut chains = [$zero; $n];
                for _ in 0..STEPS {
                    for i in 0..$n {
                        let $acc = chains[i];
                        chains[i] = $step;
                    }
                }
                black_box(chains);
            }
        };
    }

    chains!(
        "avx512f",
        fma512,
        24,
        _mm512_setzero_ps(),
        |a, x| _mm512_fmadd_ps(x, x, a),
        _mm512_set1_ps(1e-3)
    );
    chains!(
        "avx512f,avx512vnni",
        vnni512,
        24,
        _mm512_setzero_si512(),
        |a, x| _mm512_dpbusd_epi32(a, x, x),
        _mm512_set1_epi8(1)
    );
    chains!(
        "avx512f,avx512bf16",
        bf16_512,
        24,
        _mm512_setzero_ps(),
        |a, x| _mm512_dpbf16_ps(a, x, x),
        _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-3), _mm512_set1_ps(1e-3))
    );
    chains!(
        "avx2,fma",
        fma256,
        12,
        _mm256_setzero_ps(),
        |a, x| _mm256_fmadd_ps(x, x, a),
        _mm256_set1_ps(1e-3)
    );
    // The multiplication alone, which bounds the AVX2 kernels; its sums are 16-bit and cheap to add.
    chains!(
        "avx2",
        maddubs256,
        12,
        _mm256_setzero_si256(),
        |a, x| _mm256_add_epi16(a, _mm256_maddubs_epi16(x, a)),
        _mm256_set1_epi8(1)
    );

    chains!(
        "avx2,avxvnni",
        vnni256,
        12,
        _mm256_setzero_si256(),
        |a, x| _mm256_dpbusd_avx_epi32(a, x, x),
        _mm256_set1_epi8(1)
    );

    #[target_feature(enable = "avx2")]
    pub fn sum(words: &[u64]) -> u64 {
        let mut acc = [_mm256_setzero_si256(); 4];
        let (chunks, rest) = words.as_chunks::<16>();
        for chunk in chunks {
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: four vectors of four words fill the chunk of 16.
                let v = unsafe { _mm256_loadu_si256(chunk.as_ptr().add(4 * i).cast()) };
                *acc = _mm256_add_epi64(*acc, v);
            }
        }
        let all = _mm256_add_epi64(_mm256_add_epi64(acc[0], acc[1]), _mm256_add_epi64(acc[2], acc[3]));
        let mut lanes = [0u64; 4];
        // SAFETY: the array is one vector long.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), all) };
        lanes.iter().chain(rest).fold(0, |a, b| a.wrapping_add(*b))
    }
}
