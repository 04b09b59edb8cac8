//! The context: one instruction-set tier and one way to run work items.

use crate::buffer::{Memory, Shared, Workspace};
use crate::error::{Error, Result, text};
use crate::fp_mode;
use crate::isa::Isa;
use crate::kernels::KernelSet;
use crate::parallel::{Executor, Parallelism};
use std::fmt;
use std::sync::Arc;

/// What a context is made from.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ContextOptions {
    /// The tier to use; `None` for the one that the machine prefers.
    pub isa_cap: Option<Isa>,
    /// Where the work items of a call run.
    pub parallelism: Parallelism,
    /// Leaves out the dot product instructions of the tier (AVX-512 VNNI, AVX-VNNI, `sdot`, `usmmla`), as on
    /// CPUs without them: the same bits, for tests and comparisons.
    pub no_dot_instructions: bool,
    /// Where the large objects lie that are made with the context; `None` for the process's allocator.
    pub memory: Option<Arc<dyn Memory>>,
}

impl ContextOptions {
    /// Sets the tier. A tier that the machine lacks is an error of [`Context::new`].
    pub fn isa_cap(mut self, isa: Isa) -> ContextOptions {
        self.isa_cap = Some(isa);
        self
    }

    /// Sets where work items run.
    pub fn parallelism(mut self, parallelism: Parallelism) -> ContextOptions {
        self.parallelism = parallelism;
        self
    }

    /// Leaves out the dot product instructions of the tier.
    pub fn no_dot_instructions(mut self) -> ContextOptions {
        self.no_dot_instructions = true;
        self
    }

    /// Sets the memory for what is made with the context.
    pub fn memory(mut self, memory: Arc<dyn Memory>) -> ContextOptions {
        self.memory = Some(memory);
        self
    }

    /// Shorthand for [`Parallelism::Threads`].
    pub fn threads(self, n: usize) -> ContextOptions {
        self.parallelism(Parallelism::Threads(n))
    }
}

/// The tier and the threads that compute calls run on. Immutable: any number of threads may call through
/// one context at a time, each with its own workspace. Contexts share no state with each other.
///
/// When the context's threads are busy with one caller's region, a second caller computes on its own
/// thread; its result has the same bits.
///
/// Every call computes in the default floating-point mode (round to nearest even, subnormal numbers kept,
/// exceptions masked), on the calling thread and on all others, and leaves each thread in the mode that it
/// was in: x86-64 and aarch64; on other CPUs threads have to be in the default mode. In a child process that
/// a fork made, calls run on the calling thread.
pub struct Context {
    kernels: &'static KernelSet,
    executor: Executor,
    memory: Option<Shared<dyn Memory>>,
}

impl Context {
    /// A context.
    ///
    /// **Errors**: [`Error::Isa`] for a cap that the machine does not have, [`Error::Option`] for a
    /// thread count outside of 1..=256, [`Error::Resource`] when threads cannot be started.
    /// **Cost**: starts `n - 1` threads for `Threads(n)`, none otherwise.
    pub fn new(options: &ContextOptions) -> Result<Context> {
        let kernels = Context::kernels_of(options.isa_cap)?;
        let kernels = if options.no_dot_instructions { kernels.without_dots() } else { kernels };
        let executor = Executor::new(&options.parallelism)?;
        let memory = options.memory.clone().map(Shared::new).transpose()?.map(Shared::erased);
        Ok(Context { kernels, executor, memory })
    }

    /// A context whose threads and memory no `Arc` owns: an `Arc` cannot be made without ending the process
    /// where there is no memory for it.
    #[cfg(feature = "capi")]
    pub(crate) fn of_parts(
        isa_cap: Option<Isa>,
        executor: impl FnOnce() -> Result<Executor>,
        memory: Option<Shared<dyn Memory>>,
    ) -> Result<Context> {
        let kernels = Context::kernels_of(isa_cap)?;
        Ok(Context { kernels, executor: executor()?, memory })
    }

    fn kernels_of(isa_cap: Option<Isa>) -> Result<&'static KernelSet> {
        let isa = isa_cap.unwrap_or_else(Isa::detect);
        KernelSet::for_isa(isa).ok_or_else(|| Error::Isa { name: isa.name(), why: text(isa.status()) })
    }

    /// A context on the calling thread at the machine's best tier.
    pub fn serial() -> Context {
        let kernels = KernelSet::for_isa(Isa::detect()).unwrap_or_else(KernelSet::scalar);
        Context { kernels, executor: Executor::SERIAL, memory: None }
    }

    /// A context on the calling thread of kernels that the caller may run, whatever was detected.
    #[cfg(test)]
    pub(crate) fn of_kernels(kernels: &'static KernelSet) -> Context {
        Context { kernels, executor: Executor::SERIAL, memory: None }
    }

    /// The tier of this context's kernels.
    pub fn isa(&self) -> Isa {
        self.kernels.isa
    }

    /// The most threads that compute at once, the calling one included: 1 for a serial context.
    pub fn max_threads(&self) -> usize {
        self.executor.workers()
    }

    /// The ids of the kernels that this context runs: `(operation, id)`, ids like `avx512-f32-6x64`.
    pub fn kernel_names(&self) -> [(&'static str, &'static str); 3] {
        self.kernels.names()
    }

    /// Calls `body(worker, item)` once for each item in `0..items` on the workers of this context, and
    /// returns when all have returned: for an engine's own operations between kvern's, on the same threads.
    /// `worker` is below [`Context::max_threads`], and no two calls run on one worker at a time. Items are
    /// handed out one by one, in ascending order. Allocates nothing. `body` runs in the default
    /// floating-point mode, on the calling thread, too. A panic of `body` is passed on when all workers have
    /// stopped.
    pub fn parallel_for(&self, items: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        let _mode = fp_mode::default_mode();
        self.executor.for_each(items, body);
    }

    /// The same kernels on the calling thread: for calls inside of a work item.
    pub(crate) fn on_this_thread(&self) -> Context {
        Context { kernels: self.kernels, executor: Executor::SERIAL, memory: None }
    }

    pub(crate) fn kernels(&self) -> &'static KernelSet {
        self.kernels
    }

    pub(crate) fn memory(&self) -> Option<&Shared<dyn Memory>> {
        self.memory.as_ref()
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }
}

impl Workspace {
    /// A workspace of `bytes` bytes in the context's [`Memory`], where it also grows.
    ///
    /// **Errors**: as [`Workspace::new`].
    pub fn new_on(ctx: &Context, bytes: usize) -> Result<Workspace> {
        Workspace::new_in(ctx.memory(), bytes)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({}, {} threads)", self.isa(), self.max_threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_can_be_capped_at_every_available_tier() {
        for &isa in Isa::available() {
            let ctx = Context::new(&ContextOptions::default().isa_cap(isa).threads(2)).unwrap();
            assert_eq!((ctx.isa(), ctx.max_threads()), (isa, 2));
            assert!(ctx.kernel_names().iter().all(|(_, id)| id.starts_with(isa.name())));
            assert_eq!(format!("{ctx:?}"), format!("Context({isa}, 2 threads)"));
        }
        assert_eq!(Context::serial().isa(), Isa::detect());
    }

    #[test]
    fn every_item_runs_once_on_a_worker_of_its_own() {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        for threads in [1, 2, 3] {
            let ctx = Context::new(&ContextOptions::default().threads(threads)).unwrap();
            let runs: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            let inside: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            ctx.parallel_for(runs.len(), &|worker, item| {
                assert_eq!(inside[worker].fetch_add(1, Relaxed), 0);
                runs[item].fetch_add(1, Relaxed);
                inside[worker].fetch_sub(1, Relaxed);
            });
            assert!(runs.iter().all(|r| r.load(Relaxed) == 1));
        }
    }

    #[test]
    fn bad_options_are_refused() {
        let e = Context::new(&ContextOptions::default().threads(0)).unwrap_err();
        assert_eq!(e.to_string(), "threads = 0 must be 1..=256");
        for isa in Isa::KNOWN.into_iter().filter(|isa| !isa.is_available()) {
            let e = Context::new(&ContextOptions::default().isa_cap(isa)).unwrap_err();
            assert_eq!(e.to_string(), format!("isa = {isa} is not available: {}", isa.status()));
        }
    }
}
