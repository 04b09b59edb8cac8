//! Scratch memory of the caller.

use super::args::{exclusive, put, shared};
use super::context::{kvern_context, with_context};
use super::status::kvern_status;
use super::{Guarded, create, destroy, guard};
use crate::Workspace;

/// Scratch memory for compute calls, which allocate nothing. One workspace serves any number of calls, one
/// at a time: give each thread its own.
#[derive(Debug)]
pub struct kvern_workspace(pub(super) Guarded<Workspace>);

/// Makes a workspace of `bytes` bytes, 64-byte aligned. 0 is allowed: `kvern_workspace_reserve` grows it.
///
/// `ctx`: whose memory it lies and grows in; NULL for the process's allocator. `out`: receives the workspace,
/// NULL on failure.
/// Errors: NULL_POINTER, OVERFLOW, RESOURCE. Threads: `ctx` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_workspace_create(
    ctx: *const kvern_context,
    bytes: usize,
    out: *mut *mut kvern_workspace,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            with_context(ctx, |ctx| Ok(kvern_workspace(Guarded::new(Workspace::new_on(ctx, bytes)?))))
        })
    })
}

/// Grows the workspace to at least `bytes` bytes; it never shrinks. What it held is lost.
///
/// Errors: NULL_POINTER, OVERFLOW, RESOURCE (the old memory is still there), POISONED.
/// Threads: `ws` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_workspace_reserve(ws: *mut kvern_workspace, bytes: usize) -> kvern_status {
    // SAFETY: `ws` is NULL or live and exclusive, by the header's contract.
    guard(|| unsafe { Ok(exclusive("ws", ws)?.0.change("ws", |ws| ws.reserve(bytes))??) })
}

/// `*out` = the bytes that the workspace holds.
///
/// Errors: NULL_POINTER, POISONED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_workspace_bytes(ws: *const kvern_workspace, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("ws", ws)?.0.get("ws")?.bytes()) })
}

/// Frees the workspace. NULL is a no-op.
///
/// Threads: `ws` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_workspace_destroy(ws: *mut kvern_workspace) {
    // SAFETY: `ws` is NULL or live and exclusive, by the header's contract.
    unsafe { destroy(ws) }
}
