//! Who runs the work items of a call: the calling thread, the context's own threads, or the caller's.
//!
//! A call is cut into work items by shape alone, and each output element is computed by one item in one fixed
//! order, so the results do not depend on anything in this module. A worker is a thread that runs items, the
//! calling one included; its number, below [`Context::max_threads`](crate::Context::max_threads), stands for
//! scratch memory.
//!
//! ```text
//! Executor::for_each -> Team (own threads)   -> Region   the job, who may enter it, who is inside
//!                    -> ParallelFor (Rust)
//!                    -> ParallelFor (C)      -> late     a Region that a late call finds closed
//! ```

mod cpus;
mod executor;
mod forks;
#[cfg(feature = "capi")]
pub(crate) mod late;
mod options;
mod patience;
mod region;
mod team;
mod thread;

pub(crate) use executor::Executor;
pub use options::{MAX_WORKERS, ParallelFor, Parallelism};
