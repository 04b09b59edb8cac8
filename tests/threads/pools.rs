//! A caller's pool in Rust may do what it likes with the bodies that it is given: results are right and
//! memory is safe.

use crate::support::{Random, assert_same_bits, context, product};
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::quant::{Compute, PackedWeights, WeightFormat};
use kvern::*;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex};

/// What a pool does with a region.
#[derive(Debug, Clone, Copy)]
enum Habit {
    Never,
    Backwards,
    EachTwice,
    AllAtOnceTwice,
    OneWorkerFromManyThreads,
    OutOfRange,
    Random,
}

const HABITS: [Habit; 7] = [
    Habit::Never,
    Habit::Backwards,
    Habit::EachTwice,
    Habit::AllAtOnceTwice,
    Habit::OneWorkerFromManyThreads,
    Habit::OutOfRange,
    Habit::Random,
];

/// A pool that says that it has `said` workers, and another number each time it is asked again.
struct Pool {
    habit: Habit,
    said: usize,
    asked: AtomicUsize,
    random: Mutex<Random>,
}

impl ParallelFor for Pool {
    fn workers(&self) -> usize {
        self.said + 61 * self.asked.fetch_add(1, SeqCst)
    }

    fn run(&self, workers: usize, body: &(dyn Fn(usize) + Sync)) {
        let from_threads = |workers: &[usize]| {
            std::thread::scope(|s| workers.iter().for_each(|&worker| drop(s.spawn(move || body(worker)))));
        };
        match self.habit {
            Habit::Never => {}
            Habit::Backwards => (0..workers).rev().for_each(body),
            Habit::EachTwice => (0..2 * workers).for_each(|i| body(i / 2)),
            Habit::AllAtOnceTwice => {
                from_threads(&(0..2 * workers.min(8)).map(|i| i / 2).collect::<Vec<_>>());
            }
            Habit::OneWorkerFromManyThreads => from_threads(&[workers - 1; 6]),
            Habit::OutOfRange => from_threads(&[workers, workers + 1, 255, 256, 1 << 20, usize::MAX]),
            Habit::Random => {
                let mut random = self.random.lock().unwrap();
                let calls = random.below(12);
                let workers: Vec<_> = (0..calls).map(|_| random.below(workers + 2)).collect();
                drop(random);
                from_threads(&workers);
            }
        }
    }
}

fn pool(habit: Habit, said: usize) -> (Arc<Pool>, Context) {
    let pool = Pool { habit, said, asked: AtomicUsize::new(0), random: Mutex::new(Random::new(said as u64)) };
    let pool = Arc::new(pool);
    let parallelism = Parallelism::Caller(pool.clone());
    let ctx = Context::new(&ContextOptions::default().parallelism(parallelism)).unwrap();
    (pool, ctx)
}

#[test]
fn any_habit_gives_the_bits_of_one_thread() {
    let (m, n, k) = (130, 300, 200);
    let mut random = Random::new(17);
    let (a, b) = (random.vec(m * k), random.vec(k * n));
    let (a, b) = (MatRef::dense(&a, m, k).unwrap(), MatRef::dense(&b, k, n).unwrap());
    let w = random.vec(512 * 1024);
    let x = random.vec(1024);
    let (w, x) = (MatRef::dense(&w, 512, 1024).unwrap(), MatRef::dense(&x, 1, 1024).unwrap());
    let none = Epilogue::default();
    let run = |ctx: &Context| {
        // Both workspaces have just the bytes that the query names: a worker too many would write beyond
        // them.
        let mut c = vec![f32::from_bits(0x7fc0_5eed); m * n];
        let mut ws = Workspace::new(matmul_workspace_bytes(ctx, m, n, k).unwrap()).unwrap();
        matmul(ctx, &mut ws, a, b, MatMut::dense(&mut c, m, n).unwrap(), &none).unwrap();
        let packed = PackedWeights::quantize_on(ctx, WeightFormat::Q4_0, w).unwrap();
        let mut y = vec![f32::from_bits(0x7fc0_5eed); 512];
        product(ctx, &packed, Compute::Int8, x, &none, &mut y);
        c.extend(y);
        c
    };
    let want = run(&context(Isa::detect(), 1));
    for habit in HABITS {
        for said in [1, 2, 5, 255, 256, 100_000] {
            let (pool, ctx) = pool(habit, said);
            for _ in 0..3 {
                assert_eq!(ctx.max_threads(), said.min(256));
                assert_same_bits(&run(&ctx), &want, &format!("{habit:?} of {said}"));
            }
            assert_eq!(pool.asked.load(SeqCst), 1, "asked again");
        }
    }
}

#[test]
fn any_habit_runs_each_item_once_and_each_worker_alone() {
    for habit in HABITS {
        for said in [2, 5, 256] {
            let (_, ctx) = pool(habit, said);
            for items in [1, 2, 3, 40, 700] {
                let runs: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                let inside: Vec<AtomicUsize> = (0..said.min(items)).map(|_| AtomicUsize::new(0)).collect();
                ctx.parallel_for(items, &|worker, item| {
                    assert_eq!(inside[worker].fetch_add(1, SeqCst), 0);
                    runs[item].fetch_add(1, SeqCst);
                    std::thread::yield_now();
                    inside[worker].fetch_sub(1, SeqCst);
                });
                assert!(runs.iter().all(|r| r.load(SeqCst) == 1), "{habit:?} of {said}, {items} items");
            }
        }
    }
}
