//! Contexts: a tier and the threads.

use super::args::{Options, put, read_or_default, shared};
use super::isa::{self, kvern_isa};
use super::memory::{Given, kvern_allocate, kvern_release};
use super::status::{Checked, Failure, KVERN_STATUS_NULL_POINTER, KVERN_STATUS_OPTION, kvern_status};
use super::threads::{Caller, kvern_parallel_for};
use super::{create, destroy, guard};
use crate::Context;
use crate::buffer::{Memory, Shared, boxed, vector};
use crate::error::{Error, Result, text};
use crate::parallel::{Executor, MAX_WORKERS};
use std::ffi::{CStr, c_char, c_void};
use std::fmt;

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
        Some(run) => Ok(Chosen::Caller(Caller::new(run, options.user, options.max_threads))),
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
    let (chosen, isa_cap) = (chosen(options)?, isa::chosen("options->isa_cap", options.isa_cap)?);
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
    guard(|| unsafe { put("out", out, shared("ctx", ctx)?.context.max_threads()) })
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
