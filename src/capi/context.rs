//! Contexts: a tier and the threads.

use super::args::{Options, put, read_or_default, shared};
use super::status::{Checked, Failure, KVERN_STATUS_NULL_POINTER, KVERN_STATUS_OPTION, kvern_status};
use super::{create, destroy, guard};
use crate::buffer::{ALIGN, Memory, Shared, boxed, vector};
use crate::error::{Error, Result, text};
use crate::parallel::{Executor, MAX_WORKERS, late};
use crate::{Context, Isa, ParallelFor};
use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::LazyLock;

/// An instruction-set tier: a `KVERN_ISA_*` number. All tiers give the same bits.
pub type kvern_isa = i32;

/// As an option: the tier that the machine prefers.
pub const KVERN_ISA_DEFAULT: kvern_isa = 0;
/// Portable code.
pub const KVERN_ISA_SCALAR: kvern_isa = 1;
/// x86-64 with AVX2, FMA, F16C, BMI1, BMI2, LZCNT and POPCNT.
pub const KVERN_ISA_AVX2: kvern_isa = 2;
/// What KVERN_ISA_AVX2 needs, and AVX-512 F, BW, VL and DQ. VNNI and BF16 are used where the CPU has them.
pub const KVERN_ISA_AVX512: kvern_isa = 3;

/// One worker of a parallel region, to be called as `body(arg, worker)`.
pub type kvern_worker_body = unsafe extern "C" fn(arg: *mut c_void, worker: usize);

/// The caller's own threads: calls `body(arg, worker)` for each worker in 0..workers, on any threads in any
/// order, and returns when all of these calls have returned. Must not throw; may be called from several
/// threads at once when the context is. The calling thread is in the default floating-point mode meanwhile.
///
/// What it does wrong costs time, never memory or a result. A worker that is called late finds less work, and
/// none when the call of kvern is over, or its context destroyed: `arg` is a number that stands for the
/// region, no memory. A second call of a worker does nothing, nor does a number that is no worker. The
/// calling thread does the work of workers that are not called, and all work where 64 such regions of the
/// process are being computed already. The call of kvern returns when no thread is inside of `body` any more.
/// `body` itself is there as long as the library is loaded.
pub type kvern_parallel_for = Option<
    unsafe extern "C" fn(user: *mut c_void, workers: usize, body: kvern_worker_body, arg: *mut c_void),
>;

/// The caller's own memory: returns `bytes` bytes (never 0) from a multiple of `alignment` (64) on, or NULL
/// when there are none: the call that needs them is refused with RESOURCE then, and with OPTION for another
/// alignment. Must not throw and not call kvern; may be called from several threads at once.
pub type kvern_allocate =
    Option<unsafe extern "C" fn(user: *mut c_void, bytes: usize, alignment: usize) -> *mut c_void>;

/// Takes back what `kvern_allocate` returned for as many bytes; the same rules.
pub type kvern_release = Option<unsafe extern "C" fn(user: *mut c_void, start: *mut c_void, bytes: usize)>;

/// What a context is made from. Start from KVERN_CONTEXT_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_context_options {
    /// sizeof(kvern_context_options).
    pub struct_size: usize,
    /// Threads that compute, the calling one included: 1..=256; 0 means 1. Others are started at once and
    /// belong to the context. More than there are CPUs gain nothing.
    pub threads: u32,
    /// The tier to use; KVERN_ISA_DEFAULT for the one that the machine prefers.
    pub isa_cap: kvern_isa,
    /// With `parallel_for`: the most threads that it computes on, 1..=256. Else 0.
    pub max_threads: usize,
    /// The caller's own threads, instead of `threads`; NULL for none.
    pub parallel_for: kvern_parallel_for,
    /// Passed to `parallel_for`. Must stay valid until the context is destroyed.
    pub user: *mut c_void,
    /// Where packed matrices, packed weights, caches and workspaces lie that are made with this context; NULL
    /// for the process's allocator. It is used until the last of these objects is destroyed, even after the
    /// context.
    pub allocate: kvern_allocate,
    /// Takes memory back; NULL where `allocate` is.
    pub release: kvern_release,
    /// Passed to `allocate` and `release`.
    pub memory: *mut c_void,
}

const _: () = assert!(
    size_of::<kvern_context_options>() == 7 * size_of::<usize>() + 8,
    "no padding, or garbage becomes an option"
);
// SAFETY: integers, a nullable function and an opaque pointer: every pattern that C can store is a value.
unsafe impl Options for kvern_context_options {}

/// A tier and the threads that compute. Immutable: any number of threads may call through one context at a
/// time, each with its own workspace.
#[derive(Debug)]
pub struct kvern_context {
    pub(super) context: Context,
    /// The operations and the ids of their kernels in turn, each with a NUL behind it.
    kernels: Vec<u8>,
}

impl kvern_context {
    /// `(operation, kernel id)` of each operation.
    fn kernels(&self) -> impl Iterator<Item = (&CStr, &CStr)> {
        let mut rest = &self.kernels[..];
        let mut next = move || {
            let text = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[text.count_bytes() + 1..];
            Some(text)
        };
        std::iter::from_fn(move || Some((next()?, next()?)))
    }
}

/// The context of a call that makes an object: NULL is the calling thread, the machine's best tier, and the
/// process's allocator.
///
/// # Safety
/// - `ctx` is NULL or points to a live context.
pub(super) unsafe fn with_context<R>(
    ctx: *const kvern_context,
    make: impl FnOnce(&Context) -> Checked<R>,
) -> Checked<R> {
    if ctx.is_null() {
        return make(&Context::serial());
    }
    // SAFETY: handed on to the caller.
    make(unsafe { &shared("ctx", ctx)?.context })
}

/// The names of operations, for a message.
struct Names<'a>(&'a [(&'static str, &'static str)]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().enumerate();
        names.into_iter().try_for_each(|(i, (op, _))| write!(f, "{}{op}", if i > 0 { ", " } else { "" }))
    }
}

/// A C caller's `parallel_for`.
struct Caller {
    run: unsafe extern "C" fn(*mut c_void, usize, kvern_worker_body, *mut c_void),
    user: *mut c_void,
    workers: usize,
}

// SAFETY: the header makes it the caller's duty that `run` and `user` may be used from any thread.
unsafe impl Send for Caller {}
// SAFETY: as above, at once.
unsafe impl Sync for Caller {}

/// Runs one worker, if the region of the ticket `arg` is still open.
unsafe extern "C" fn run_worker(arg: *mut c_void, worker: usize) {
    late::enter(arg.addr(), worker);
}

impl ParallelFor for Caller {
    fn workers(&self) -> usize {
        self.workers
    }

    fn run(&self, workers: usize, body: &(dyn Fn(usize) + Sync)) {
        let result = late::region(body, |ticket| {
            // SAFETY: `run` is the caller's function with the caller's `user`; the ticket is no memory.
            unsafe { (self.run)(self.user, workers, run_worker, std::ptr::without_provenance_mut(ticket)) };
        });
        if let Some(Err(payload)) = result {
            resume_unwind(payload);
        }
    }
}

fn isa(what: &'static str, number: kvern_isa) -> Checked<Option<Isa>> {
    if number == KVERN_ISA_DEFAULT {
        return Ok(None);
    }
    let known = Isa::known().find(|isa| *isa as i32 == number);
    known
        .map(Some)
        .ok_or_else(|| Error::Option { what, got: text(number), allowed: "a KVERN_ISA number" }.into())
}

fn option(what: &'static str, got: usize, allowed: &'static str) -> Failure {
    Error::Option { what, got: text(got), allowed }.into()
}

/// Where a context's calls run.
enum Chosen {
    Threads(usize),
    Caller(Caller),
}

impl Chosen {
    fn executor(self) -> Result<Executor> {
        match self {
            Chosen::Threads(n) => Executor::threads(n),
            Chosen::Caller(caller) => Ok(Executor::caller(boxed(caller)?)),
        }
    }
}

fn chosen(options: &kvern_context_options) -> Checked<Chosen> {
    let threads = options.threads as usize;
    match options.parallel_for {
        None if options.max_threads != 0 => {
            Err(option("options->max_threads", options.max_threads, "0 without a parallel_for"))
        }
        None if threads > MAX_WORKERS => Err(option("options->threads", threads, "0..=256")),
        None => Ok(Chosen::Threads(threads.max(1))),
        Some(_) if threads > 1 => Err(option("options->threads", threads, "0 or 1 with a parallel_for")),
        Some(_) if !(1..=MAX_WORKERS).contains(&options.max_threads) => {
            Err(option("options->max_threads", options.max_threads, "1..=256 with a parallel_for"))
        }
        Some(run) => {
            late::prepare();
            Ok(Chosen::Caller(Caller { run, user: options.user, workers: options.max_threads }))
        }
    }
}

/// A C caller's memory.
struct Given {
    allocate: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    release: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
    user: *mut c_void,
}

// SAFETY: the header makes it the caller's duty that the functions may be called from any thread.
unsafe impl Send for Given {}
// SAFETY: as above, at once.
unsafe impl Sync for Given {}

// SAFETY: the header makes it the caller's duty that the memory is the block's alone until it is released.
unsafe impl Memory for Given {
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's function with the caller's pointer.
        unsafe { (self.allocate)(self.user, bytes, ALIGN).cast() }
    }

    unsafe fn free(&self, start: *mut u8, bytes: usize) {
        // SAFETY: as above; `start` came from `allocate`.
        unsafe { (self.release)(self.user, start.cast(), bytes) }
    }
}

fn memory(options: &kvern_context_options) -> Checked<Option<Shared<dyn Memory>>> {
    match (options.allocate, options.release) {
        (None, None) => Ok(None),
        (Some(allocate), Some(release)) => {
            Ok(Some(Shared::new(Given { allocate, release, user: options.memory })?.erased()))
        }
        (None, _) => Err(Failure::new(KVERN_STATUS_NULL_POINTER, "options->allocate is NULL")),
        (_, None) => Err(Failure::new(KVERN_STATUS_NULL_POINTER, "options->release is NULL")),
    }
}

fn make(options: &kvern_context_options) -> Checked<kvern_context> {
    let (chosen, isa_cap) = (chosen(options)?, isa("options->isa_cap", options.isa_cap)?);
    let context = Context::of_parts(isa_cap, || chosen.executor(), memory(options)?)?;
    let names = || context.kernel_names().into_iter().flat_map(|(operation, id)| [operation, id]);
    let mut kernels = vector(names().map(|name| name.len() + 1).sum())?;
    names().for_each(|name| kernels.extend(name.bytes().chain([0])));
    Ok(kvern_context { context, kernels })
}

/// Makes a context.
///
/// `options`: NULL for all defaults: the calling thread alone, the machine's best tier.
/// `out`: receives the context, NULL on failure.
/// Errors: NULL_POINTER, MISALIGNED, OPTION, UNSUPPORTED (a tier that the machine lacks, or a field of a
/// newer header), RESOURCE. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_context_create(
    options: *const kvern_context_options,
    out: *mut *mut kvern_context,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { create(out, || make(&read_or_default("options", options)?)) })
}

/// Ends the context's threads and frees it. NULL is a no-op.
///
/// Threads: `ctx` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_context_destroy(ctx: *mut kvern_context) {
    // SAFETY: `ctx` is NULL or live and exclusive, by the header's contract.
    unsafe { destroy(ctx) }
}

/// `*out` = the tier that the context computes with, a `KVERN_ISA_*` number.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_context_isa(ctx: *const kvern_context, out: *mut kvern_isa) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("ctx", ctx)?.context.isa() as kvern_isa) })
}

/// `*out` = the most threads that compute at once: 1 for a context without threads.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_context_max_threads(
    ctx: *const kvern_context,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("ctx", ctx)?.context.workers()) })
}

/// `*out` = the id of the kernel that the context runs for an operation, such as `avx512-f32-6x64`.
///
/// `operation`: its name, NUL-terminated; the message of a failure lists the names.
/// `out`: receives a text that lives as long as the context.
/// Errors: NULL_POINTER, OPTION (no such operation). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_context_kernel_name(
    ctx: *const kvern_context,
    operation: *const c_char,
    out: *mut *const c_char,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `operation` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        put("out", out, std::ptr::null())?;
        let ctx = shared("ctx", ctx)?;
        if operation.is_null() {
            return Err(Failure::new(KVERN_STATUS_NULL_POINTER, "operation is NULL"));
        }
        let operation = CStr::from_ptr(operation);
        match ctx.kernels().find(|(op, _)| *op == operation) {
            Some((_, id)) => put("out", out, id.as_ptr()),
            None => {
                let all = ctx.context.kernel_names();
                let names = Names(&all);
                let message = format_args!("operation = {operation:?} must be one of {names}");
                Err(Failure::new(KVERN_STATUS_OPTION, message))
            }
        }
    })
}

/// `*out` = how many operations have a kernel of their own: the indices of `kvern_context_kernel`.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_context_kernel_count(
    ctx: *const kvern_context,
    out: *mut usize,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("ctx", ctx)?.context.kernel_names().len()) })
}

/// `*operation`, `*id` = the name of an operation, and the id of the kernel that the context runs for it.
///
/// `index`: below `kvern_context_kernel_count`. `operation`, `id`: receive texts that live as long as the
/// context, NULL on failure.
/// Errors: NULL_POINTER, SHAPE. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_context_kernel(
    ctx: *const kvern_context,
    index: usize,
    operation: *mut *const c_char,
    id: *mut *const c_char,
) -> kvern_status {
    // SAFETY: all are NULL or live, by the header's contract.
    guard(|| unsafe {
        put("operation", operation, std::ptr::null())?;
        put("id", id, std::ptr::null())?;
        let ctx = shared("ctx", ctx)?;
        let (relation, want) = ("must be below the number of kernels =", ctx.context.kernel_names().len());
        let found = ctx.kernels().nth(index);
        let (name, kernel) = found.ok_or(Error::Shape { what: "index", got: index, relation, want })?;
        put("operation", operation, name.as_ptr())?;
        put("id", id, kernel.as_ptr())
    })
}

/// Whether this machine has a tier: 1 or 0; 0 for a number that is none.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_is_available(isa: kvern_isa) -> i32 {
    let available = || Isa::available().iter().any(|tier| *tier as kvern_isa == isa);
    catch_unwind(available).unwrap_or(false).into()
}

/// The tier that this machine prefers, a `KVERN_ISA_*` number.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_detect() -> kvern_isa {
    catch_unwind(|| Isa::detect() as kvern_isa).unwrap_or(KVERN_ISA_SCALAR)
}

/// The name of a tier, such as `avx2`; `?` for a number that is none. Static, never NULL.
///
/// Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn kvern_isa_name(isa: kvern_isa) -> *const c_char {
    /// Names with their NULs, in the order of the tiers.
    static NAMES: LazyLock<[[u8; 16]; 16]> = LazyLock::new(|| {
        let mut names = [[0; 16]; 16];
        for (to, isa) in names.iter_mut().zip(Isa::known()) {
            to[..15].iter_mut().zip(isa.name().bytes()).for_each(|(to, byte)| *to = byte);
        }
        names
    });
    let known = || match isa {
        KVERN_ISA_DEFAULT => Some(c"default"),
        _ => {
            let i = Isa::known().position(|tier| tier as kvern_isa == isa)?;
            CStr::from_bytes_until_nul(NAMES.get(i)?).ok()
        }
    };
    catch_unwind(known).ok().flatten().unwrap_or(c"?").as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::AssertUnwindSafe;

    #[test]
    fn tiers_have_the_numbers_and_names_of_the_safe_api() {
        let numbers = [Isa::Scalar, Isa::Avx2, Isa::Avx512].map(|isa| isa as i32);
        assert_eq!(numbers, [KVERN_ISA_SCALAR, KVERN_ISA_AVX2, KVERN_ISA_AVX512]);
        for isa in Isa::known() {
            // SAFETY: the name is static.
            assert_eq!(unsafe { CStr::from_ptr(kvern_isa_name(isa as i32)) }.to_str(), Ok(isa.name()));
        }
    }

    unsafe extern "C" fn backwards(
        _: *mut c_void,
        workers: usize,
        body: kvern_worker_body,
        arg: *mut c_void,
    ) {
        for worker in (0..workers).rev() {
            // SAFETY: `body` is called with its `arg` during the region.
            unsafe { body(arg, worker) };
        }
    }

    #[test]
    fn a_panic_of_a_worker_passes_the_callers_frames_as_a_value() {
        let caller = Caller { run: backwards, user: std::ptr::null_mut(), workers: 3 };
        let result = catch_unwind(AssertUnwindSafe(|| {
            caller.run(3, &|worker| assert_ne!(worker, 1, "worker one"));
        }));
        let text = super::super::panic_text(&*result.unwrap_err()).to_owned();
        assert!(text.contains("worker one"), "{text}");
        caller.run(3, &|worker| assert!(worker < 3));
    }
}
