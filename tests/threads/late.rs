//! A C caller's `parallel_for` may return before its workers have run, and run them when the call is over or
//! when its context is gone: they find a closed region.

use crate::capi::{context_options, ok};
use crate::support::{Random, bits};
use kvern::capi::context::*;
use kvern::capi::matmul::*;
use kvern::capi::threads::*;
use kvern::capi::workspace::*;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// A call of a body that the pool owes.
struct Owed {
    body: kvern_worker_body,
    arg: usize,
    worker: usize,
}

impl Owed {
    fn pay(&self) {
        // SAFETY: the header lets the body be called at any time.
        unsafe { (self.body)(self.arg as *mut c_void, self.worker) }
    }
}

/// A pool that owes calls.
struct Pool {
    owed: Mutex<Vec<Owed>>,
    /// How many calls of each region it makes before it returns, at most.
    prompt: AtomicUsize,
}

unsafe extern "C" fn run(user: *mut c_void, workers: usize, body: kvern_worker_body, arg: *mut c_void) {
    // SAFETY: `user` is the test's pool, which outlives its context.
    let pool = unsafe { &*user.cast::<Pool>() };
    let prompt = pool.prompt.load(SeqCst).min(workers);
    (0..prompt).for_each(|worker| Owed { body, arg: arg as usize, worker }.pay());
    let late = (prompt..workers).map(|worker| Owed { body, arg: arg as usize, worker });
    pool.owed.lock().unwrap().extend(late);
}

const S: usize = 200; // a product that is cut into items

struct Product {
    a: Vec<f32>,
    c: Vec<f32>,
    ws: *mut kvern_workspace,
}

impl Product {
    fn new() -> Product {
        let (a, mut ws) = (Random::new(5).vec(S * S), null_mut());
        // SAFETY: `ws` is a live local.
        ok(unsafe { kvern_workspace_create(null(), 16 << 20, &mut ws) });
        Product { a, c: vec![0.0; S * S], ws }
    }

    fn run(&mut self, ctx: *const kvern_context) -> Vec<u32> {
        self.c.fill(f32::from_bits(0x7fc0_5eed));
        let (a, c) = (self.a.as_ptr(), self.c.as_mut_ptr());
        // SAFETY: every pointer is live and of the stated size.
        ok(unsafe { kvern_matmul(ctx, self.ws, S, S, S, a, S, 0, a, S, 0, c, S, null()) });
        bits(&self.c)
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more.
        unsafe { kvern_workspace_destroy(self.ws) };
    }
}

fn create(pool: &Pool, workers: usize) -> *mut kvern_context {
    let user = std::ptr::from_ref(pool).cast_mut().cast();
    let options =
        kvern_context_options { parallel_for: Some(run), max_threads: workers, user, ..context_options() };
    let mut ctx = null_mut();
    // SAFETY: both pointers point to live locals.
    ok(unsafe { kvern_context_create(&options, &mut ctx) });
    ctx
}

#[test]
fn late_workers_find_a_closed_region() {
    let pool = Pool { owed: Mutex::new(Vec::new()), prompt: AtomicUsize::new(0) };
    let mut product = Product::new();
    let want = product.run(null_serial());
    for workers in [2, 3, 16] {
        let ctx = create(&pool, workers);
        for prompt in [0, 1, workers - 1, workers] {
            pool.prompt.store(prompt, SeqCst);
            for _ in 0..20 {
                assert_eq!(product.run(ctx), want);
                // Between two calls, where the stack of the region is anybody's.
                pool.owed.lock().unwrap().iter().for_each(Owed::pay);
                assert_eq!(bits(&product.c), want);
            }
        }
        // SAFETY: nothing computes with it any more.
        unsafe { kvern_context_destroy(ctx) };
        let owed = std::mem::take(&mut *pool.owed.lock().unwrap());
        assert!(owed.len() > 20);
        owed.iter().for_each(Owed::pay);
        assert_eq!(bits(&product.c), want);
    }
}

/// Threads that pay old and new debts all the time, while others compute: late calls meet open regions of
/// other calls, too, and help there or do nothing.
#[test]
fn late_workers_in_a_storm() {
    let pool = Pool { owed: Mutex::new(Vec::new()), prompt: AtomicUsize::new(1) };
    let stop = AtomicBool::new(false);
    let want = Product::new().run(null_serial());
    std::thread::scope(|s| {
        for seed in 0..2 {
            let (pool, stop) = (&pool, &stop);
            s.spawn(move || {
                let mut random = Random::new(seed);
                while !stop.load(SeqCst) {
                    let owed = {
                        let mut owed = pool.owed.lock().unwrap();
                        let n = owed.len().max(1);
                        // Some are paid twice.
                        let i = random.below(n);
                        owed.get(i).map(|o| Owed { ..*o }).inspect(|_| {
                            if random.below(3) > 0 {
                                owed.swap_remove(i);
                            }
                        })
                    };
                    match owed {
                        Some(owed) => owed.pay(),
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
        let computing: Vec<_> = (0..2)
            .map(|i| {
                let (pool, want) = (&pool, &want);
                s.spawn(move || {
                    let mut product = Product::new();
                    for _ in 0..10 {
                        let ctx = create(pool, 4 + 3 * i);
                        (0..10).for_each(|_| assert_eq!(&product.run(ctx), want));
                        // SAFETY: nothing computes with it any more.
                        unsafe { kvern_context_destroy(ctx) };
                    }
                })
            })
            .collect();
        let failed = computing.into_iter().any(|thread| thread.join().is_err());
        stop.store(true, SeqCst);
        assert!(!failed);
    });
}

/// A context on the calling thread, kept to the end of the process.
fn null_serial() -> *const kvern_context {
    let mut ctx = null_mut();
    // SAFETY: all pointers are NULL or live.
    ok(unsafe { kvern_context_create(null(), &mut ctx) });
    static KEPT: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    KEPT.lock().unwrap().push(ctx as usize);
    ctx
}
