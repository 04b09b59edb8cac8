//! Contexts, workspaces, status and version.

use super::arguments::Arguments;
use super::world::{World, allocate, backwards, defaults, release};
use super::{Call, call, lib, made};
use kvern::capi::context::*;
use kvern::capi::isa::*;
use kvern::capi::status::*;
use kvern::capi::version::*;
use kvern::capi::workspace::*;
use std::ffi::{CStr, c_char};

pub const CALLS: &[(&str, Call)] = &[
    call!(kvern_abi_version, |w, g| {
        lib!(kvern_abi_version());
        g.below(1) as i32
    }),
    call!(kvern_version_string, |w, g| text(g, lib!(kvern_version_string()))),
    call!(kvern_last_error_message, |w, g| text(g, lib!(kvern_last_error_message()))),
    call!(kvern_status_name, |w, g| {
        let number = g.number(-3);
        text(g, lib!(kvern_status_name(number)))
    }),
    call!(kvern_isa_is_available, |w, g| {
        lib!(kvern_isa_is_available(g.number(1)));
        0
    }),
    call!(kvern_isa_detect, |w, g| {
        lib!(kvern_isa_detect());
        g.below(1) as i32
    }),
    call!(kvern_isa_name, |w, g| {
        let number = g.number(1);
        text(g, lib!(kvern_isa_name(number)))
    }),
    call!(kvern_isa_count, |w, g| {
        lib!(kvern_isa_count());
        g.below(1) as i32
    }),
    call!(kvern_isa_at, |w, g| {
        lib!(kvern_isa_at(g.size(1)));
        0
    }),
    call!(kvern_isa_status, |w, g| {
        let number = g.number(1);
        text(g, lib!(kvern_isa_status(number)))
    }),
    call!(kvern_isa_from_name, |w, g| {
        let name = match g.is_hostile() {
            true => g.one_of(&[std::ptr::null(), c"".as_ptr(), c"sse9".as_ptr(), c"avx".as_ptr()]),
            false => g.one_of(&[c"scalar".as_ptr(), c"avx2".as_ptr()]),
        };
        lib!(kvern_isa_from_name(name, g.value()))
    }),
    call!(kvern_context_create, |w, g| {
        let mut options = defaults::<kvern_context_options>();
        options.threads = g.one_of(&[0, 1, 2, 3]);
        options.isa_cap = g.number(KVERN_ISA_DEFAULT);
        if g.below(4) == 0 {
            (options.threads, options.max_threads) = (0, 1 + g.below(4));
            options.parallel_for = Some(backwards);
        }
        if g.below(4) == 0 {
            options.allocate = Some(allocate);
            options.release = Some(release);
        }
        if g.is_hostile() {
            match g.below(5) {
                0 => options.threads = g.one_of(&[257, 1 << 31, u32::MAX]),
                1 => options.max_threads = g.size(1),
                2 => options.release = None,
                3 => options.allocate = None,
                _ => options.parallel_for = None,
            }
        }
        let options = g.options(&options, true);
        made!(w.contexts, g, |out| lib!(kvern_context_create(options, out)))
    }),
    call!(kvern_context_destroy, |w, g| {
        let ctx = w.contexts.take(g);
        lib!(kvern_context_destroy(if ctx.is_null() { g.handle(ctx) } else { ctx }));
        0
    }),
    call!(kvern_context_isa, |w, g| lib!(kvern_context_isa(w.contexts.any(g), g.value()))),
    call!(kvern_context_max_threads, |w, g| lib!(kvern_context_max_threads(w.contexts.any(g), g.value()))),
    call!(kvern_context_kernel_name, |w, g| {
        let names = [c"matmul".as_ptr(), c"quant int8".as_ptr()];
        let name = if g.is_hostile() {
            g.one_of(&[std::ptr::null(), c"".as_ptr(), c"x".as_ptr()])
        } else {
            g.one_of(&names)
        };
        let (ctx, out) = (w.contexts.any(g), g.value::<*const c_char>());
        let status = lib!(kvern_context_kernel_name(ctx, name, out));
        cleared(status, out)
    }),
    call!(kvern_context_kernel_count, |w, g| lib!(kvern_context_kernel_count(w.contexts.any(g), g.value()))),
    call!(kvern_context_kernel, |w, g| {
        let (ctx, index) = (w.contexts.any(g), g.size(1));
        let (operation, id) = (g.value::<*const c_char>(), g.value::<*const c_char>());
        let status = lib!(kvern_context_kernel(ctx, index, operation, id));
        cleared(cleared(status, operation), id)
    }),
    call!(kvern_workspace_create, |w, g| {
        let bytes = g.one_of(&[0, 1, 64, 5000]);
        let (ctx, bytes) = (w.optional_context(g), g.size(bytes));
        made!(w.workspaces, g, |out| lib!(kvern_workspace_create(ctx, bytes, out)))
    }),
    call!(kvern_workspace_reserve, |w, g| {
        let bytes = g.one_of(&[0, 64, 70000]);
        lib!(kvern_workspace_reserve(w.workspaces.any(g), g.size(bytes)))
    }),
    call!(kvern_workspace_bytes, |w, g| lib!(kvern_workspace_bytes(w.workspaces.any(g), g.value()))),
    call!(kvern_workspace_destroy, |w, g| {
        let ws = w.workspaces.take(g);
        lib!(kvern_workspace_destroy(if ws.is_null() { g.handle(ws) } else { ws }));
        0
    }),
];

/// A text that is never NULL.
unsafe fn text(g: &mut Arguments, text: *const c_char) -> kvern_status {
    // SAFETY: a C string of the library.
    assert!(unsafe { CStr::from_ptr(text) }.to_str().is_ok() && g.below(1) == 0);
    0
}

/// A refused call that hands out texts has set them to NULL: back to the sentinel, for the check of all
/// outputs.
unsafe fn cleared(status: kvern_status, out: *mut *const c_char) -> kvern_status {
    if status != 0 && !out.is_null() && out.is_aligned() {
        // SAFETY: a live value of the call.
        unsafe {
            let now = *out;
            let untouched = usize::from_ne_bytes([super::arguments::SENTINEL; size_of::<usize>()]);
            assert!(now.is_null() || now.addr() == untouched);
            out.cast::<u8>().write_bytes(super::arguments::SENTINEL, size_of::<usize>());
        }
    }
    status
}
