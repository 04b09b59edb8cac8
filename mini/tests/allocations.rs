//! A forward pass allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kvern::Context;
use mini::cli::ModelArgs;
use mini::model::{Model, Quant, Session};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_forward_pass_allocates_nothing() {
    let ctx = Context::serial();
    let args = ModelArgs { layers: 2, ..ModelArgs::default() };
    for quant in Quant::ALL {
        let model = Model::initial(&ctx, args.shape(), 42, quant).unwrap();
        let mut session = Session::new(&ctx, &model, 16).unwrap();
        let before = ALLOCATIONS.get();
        session.forward(&[2; 16]).unwrap();
        for id in 0..40 {
            session.forward(&[id]).unwrap();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{quant:?}");
    }
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1, "the counter counts");
}
