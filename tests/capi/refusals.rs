//! Mistakes of a C caller with caches, attention, packed matrices
//! and tables: a status and a message, and nothing is changed.

use crate::capi::*;
use crate::statuses::*;
use kvern::capi::attention::*;
use kvern::capi::cache::*;
use kvern::capi::cache_edit::*;
use kvern::capi::context::*;
use kvern::capi::matmul::*;
use kvern::capi::ops::*;
use kvern::capi::packed_b::*;
use kvern::capi::prepare::*;
use kvern::capi::ragged::*;
use kvern::capi::rope::*;
use kvern::capi::status::*;
use std::ffi::c_void;
use std::ptr::{null, null_mut};

/// Memory of the caller: inputs of ones, outputs that must keep their twos.
struct Memory {
    x: Vec<f32>,
    y: Vec<f32>,
    n: usize,
}

impl Memory {
    fn new() -> Memory {
        Memory { x: vec![1.0; 512], y: vec![2.0; 512], n: 0 }
    }

    fn pointers(&mut self) -> (*mut f32, *mut f32, *mut usize) {
        (self.x.as_mut_ptr(), self.y.as_mut_ptr(), &raw mut self.n)
    }

    fn unchanged(&self) -> bool {
        self.y.iter().all(|&y| y == 2.0)
    }
}

#[test]
fn packed_matrices_refuse_null_and_garbage() {
    let (o, mut memory) = (Objects::new(), Memory::new());
    let (x, y, n) = memory.pointers();
    let (b, none, e) = (o.packed.cast_const(), null_mut::<kvern_packed_b>(), null());
    let (a, c, path) = (x.cast_const(), y.cast::<c_void>(), c"/nowhere/b".as_ptr());
    let beta = kvern_epilogue { beta: 1.0, ..epilogue() };
    let odd = x.wrapping_byte_add(1);
    let mut out = none;
    refuse! {
        NULL_POINTER "b is NULL": kvern_packed_b_pack_dtype(o.ctx, 1, K, N, null(), N, 0, &mut out);
        NULL_POINTER "out is NULL": kvern_packed_b_pack_dtype(o.ctx, 0, K, N, a.cast(), N, 0, null_mut());
        OPTION "dtype = 2 must be a KVERN_DTYPE number":
            kvern_packed_b_pack_dtype(o.ctx, 2, K, N, a.cast(), N, 0, &mut out);
        OPTION "transpose_b = 2": kvern_packed_b_pack_dtype(o.ctx, 0, K, N, a.cast(), N, 2, &mut out);
        SHAPE "b_row_stride = 4": kvern_packed_b_pack_dtype(o.ctx, 30, K, N, a.cast(), 4, 0, &mut out);
        MISALIGNED "b = ": kvern_packed_b_pack_dtype(o.ctx, 30, K, N, odd.cast(), N, 0, &mut out);
        OVERFLOW "b": kvern_packed_b_pack_dtype(o.ctx, 1, usize::MAX, N, a.cast(), N, 0, &mut out);
        NULL_POINTER "b is NULL": kvern_packed_b_save(null(), path);
        NULL_POINTER "path is NULL": kvern_packed_b_save(b, null());
        IO "/nowhere/b": kvern_packed_b_save(b, path);
        NULL_POINTER "path is NULL": kvern_packed_b_load(null(), null(), &mut out);
        NULL_POINTER "out is NULL": kvern_packed_b_load(null(), path, null_mut());
        NULL_POINTER "path is NULL": kvern_packed_b_map(null(), &mut out);
        NULL_POINTER "out is NULL": kvern_packed_b_map(path, null_mut());
        NULL_POINTER "b is NULL": kvern_packed_b_k(null(), n);
        NULL_POINTER "out is NULL": kvern_packed_b_k(b, null_mut());
        NULL_POINTER "b is NULL": kvern_packed_b_n(null(), n);
        NULL_POINTER "out is NULL": kvern_packed_b_n(b, null_mut());
        NULL_POINTER "b is NULL": kvern_packed_b_dtype(null(), &mut 0);
        NULL_POINTER "out is NULL": kvern_packed_b_dtype(b, null_mut());
        NULL_POINTER "b is NULL": kvern_packed_b_kernel_id(null(), &mut null());
        NULL_POINTER "out is NULL": kvern_packed_b_kernel_id(b, null_mut());
        NULL_POINTER "ctx is NULL":
            kvern_packed_b_multiply_with(null(), o.ws, b, 0, M, N, K, a, K, 0, c, N, e);
        NULL_POINTER "ws is NULL":
            kvern_packed_b_multiply_with(o.ctx, null_mut(), b, 0, M, N, K, a, K, 0, c, N, e);
        NULL_POINTER "b is NULL":
            kvern_packed_b_multiply_with(o.ctx, o.ws, null(), 0, M, N, K, a, K, 0, c, N, e);
        NULL_POINTER "a is NULL":
            kvern_packed_b_multiply_with(o.ctx, o.ws, b, 0, M, N, K, null(), K, 0, c, N, e);
        NULL_POINTER "c is NULL":
            kvern_packed_b_multiply_with(o.ctx, o.ws, b, 0, M, N, K, a, K, 1, null_mut(), N, e);
        OPTION "precision = 2": kvern_packed_b_multiply_with(o.ctx, o.ws, b, 2, M, N, K, a, K, 0, c, N, e);
        OPTION "c_dtype = 3": kvern_packed_b_multiply_with(o.ctx, o.ws, b, 0, M, N, K, a, K, 3, c, N, e);
        OPTION "beta = 1": kvern_packed_b_multiply_with(o.ctx, o.ws, b, 0, M, N, K, a, K, 30, c, N, &beta);
        ALIASED "c overlaps a": kvern_packed_b_multiply_with(o.ctx, o.ws, b, 0, M, N, K, y, K, 1, c, N, e);
        SHAPE "c.cols = 4": kvern_packed_b_multiply_with(o.ctx, o.ws, b, 0, M, 4, K, a, K, 1, c, 4, e);
        NULL_POINTER "up is NULL":
            kvern_packed_b_multiply_gated(o.ctx, o.ws, b, null(), 0, M, N, K, a, K, 0, c, N, e);
        NULL_POINTER "b is NULL":
            kvern_packed_b_multiply_gated(o.ctx, o.ws, null(), b, 0, M, N, K, a, K, 0, c, N, e);
        OPTION "beta = 1": kvern_packed_b_multiply_gated(o.ctx, o.ws, b, b, 0, M, N, K, a, K, 0, c, N, &beta);
    }
    assert!(out.is_null() && memory.unchanged());
}

#[test]
fn tables_softmax_and_kernels_refuse_null_and_garbage() {
    let (o, mut memory) = (Objects::new(), Memory::new());
    let (x, y, n) = memory.pointers();
    let (mut out, at, w) = (null_mut(), [0usize, 1, 16], WIDTH);
    let table = o.table.cast_const();
    let kind = rope_scaling(9);
    let flags = kvern_rope_scaling { flags: 1, ..rope_scaling(0) };
    let unknown = kvern_rope_scaling {
        flags: 3,
        factor: 2.0,
        original_positions: 9,
        ..rope_scaling(KVERN_ROPE_SCALING_YARN)
    };
    let nan = kvern_rope_scaling { factor: f64::NAN, ..rope_scaling(KVERN_ROPE_SCALING_LINEAR) };
    let empty = rope_scaling(KVERN_ROPE_SCALING_YARN);
    let cap = kvern_softmax_options { softcap: -1.0, ..softmax_options() };
    let short = kvern_softmax_options { mask: x, mask_rows: 3, mask_row_stride: w, ..softmax_options() };
    let over = kvern_softmax_options { mask: y, mask_row_stride: w, ..softmax_options() };
    let (mut name, mut id) = (null(), null());
    refuse! {
        NULL_POINTER "out is NULL": kvern_rope_table_create_scaled(8, 8, 1e4, null(), null_mut());
        OPTION "scaling->kind = 9": kvern_rope_table_create_scaled(8, 8, 1e4, &kind, &mut out);
        UNSUPPORTED "scaling->flags = 1": kvern_rope_table_create_scaled(8, 8, 1e4, &flags, &mut out);
        UNSUPPORTED "scaling->flags = 3": kvern_rope_table_create_scaled(8, 8, 1e4, &unknown, &mut out);
        OPTION "factor = NaN": kvern_rope_table_create_scaled(8, 8, 1e4, &nan, &mut out);
        OPTION "factor = 0": kvern_rope_table_create_scaled(8, 8, 1e4, &empty, &mut out);
        NULL_POINTER "frequencies is NULL": kvern_rope_table_from_frequencies(4, null(), 8, 1.0, &mut out);
        NULL_POINTER "out is NULL": kvern_rope_table_from_frequencies(1, &1.0, 8, 1.0, null_mut());
        OPTION "frequencies.len = 0": kvern_rope_table_from_frequencies(0, null(), 8, 1.0, &mut out);
        OPTION "frequencies = inf": kvern_rope_table_from_frequencies(1, &f64::INFINITY, 8, 1.0, &mut out);
        NULL_POINTER "table is NULL": kvern_rope_table_positions(null(), n);
        NULL_POINTER "out is NULL": kvern_rope_table_positions(table, null_mut());
        NULL_POINTER "table is NULL": kvern_rope_table_rotary_dim(null(), n);
        NULL_POINTER "out is NULL": kvern_rope_table_rotary_dim(table, null_mut());
        NULL_POINTER "table is NULL": kvern_rope_table_bytes(null(), n);
        NULL_POINTER "out is NULL": kvern_rope_table_bytes(table, null_mut());
        NULL_POINTER "table is NULL": kvern_rope_table_row(null(), 0, 4, x, y);
        NULL_POINTER "cos is NULL": kvern_rope_table_row(table, 0, 4, null_mut(), y);
        NULL_POINTER "sin is NULL": kvern_rope_table_row(table, 0, 4, x, null_mut());
        SHAPE "pairs = 5 must equal rotary_dim / 2 = 4": kvern_rope_table_row(table, 0, 5, x, y);
        SHAPE "position = 16 must be below": kvern_rope_table_row(table, 16, 4, x, y);
        ALIASED "sin overlaps cos": kvern_rope_table_row(table, 0, 4, y, y);
        NULL_POINTER "ctx is NULL": kvern_rope_at(null(), table, 0, at.as_ptr(), 2, KV_HEADS, HEAD_DIM, y, w);
        NULL_POINTER "table is NULL":
            kvern_rope_at(o.ctx, null(), 0, at.as_ptr(), 2, KV_HEADS, HEAD_DIM, y, w);
        NULL_POINTER "positions is NULL": kvern_rope_at(o.ctx, table, 0, null(), 2, KV_HEADS, HEAD_DIM, y, w);
        NULL_POINTER "x is NULL":
            kvern_rope_at(o.ctx, table, 0, at.as_ptr(), 2, KV_HEADS, HEAD_DIM, null_mut(), w);
        OPTION "pairs = 7": kvern_rope_at(o.ctx, table, 7, at.as_ptr(), 2, KV_HEADS, HEAD_DIM, y, w);
        SHAPE "positions = 16 must be below":
            kvern_rope_at(o.ctx, table, 0, at.as_ptr(), 3, KV_HEADS, HEAD_DIM, y, w);
        ALIASED "x overlaps positions": kvern_rope_at(o.ctx, table, 0, y.cast(), 2, KV_HEADS, HEAD_DIM, y, w);
        NULL_POINTER "ctx is NULL": kvern_softmax_with(null(), null(), 2, w, x, w, y, w);
        NULL_POINTER "x is NULL": kvern_softmax_with(o.ctx, null(), 2, w, null(), w, y, w);
        NULL_POINTER "y is NULL": kvern_softmax_with(o.ctx, null(), 2, w, x, w, null_mut(), w);
        ALIASED "y overlaps x": kvern_softmax_with(o.ctx, null(), 2, w, y, w, y, w);
        ALIASED "y overlaps options->mask": kvern_softmax_with(o.ctx, &over, 2, w, x, w, y, w);
        OPTION "softcap = -1": kvern_softmax_with(o.ctx, &cap, 2, w, x, w, y, w);
        SHAPE "x.rows = 2 must be a multiple of mask.rows = 3":
            kvern_softmax_with(o.ctx, &short, 2, w, x, w, y, w);
        NULL_POINTER "ctx is NULL": kvern_context_kernel_count(null(), n);
        NULL_POINTER "out is NULL": kvern_context_kernel_count(o.ctx, null_mut());
        NULL_POINTER "ctx is NULL": kvern_context_kernel(null(), 0, &mut name, &mut id);
        NULL_POINTER "operation is NULL": kvern_context_kernel(o.ctx, 0, null_mut(), &mut id);
        NULL_POINTER "id is NULL": kvern_context_kernel(o.ctx, 0, &mut name, null_mut());
        NULL_POINTER "slopes is NULL": kvern_alibi_slopes(4, null_mut());
        OVERFLOW "slopes": kvern_alibi_slopes(usize::MAX, y);
    }
    assert!(out.is_null() && memory.unchanged());
}

#[test]
fn caches_refuse_null_and_garbage() {
    let (o, mut memory) = (Objects::new(), Memory::new());
    let (x, y, n) = memory.pointers();
    let (cache, w, none, path) = (o.cache, WIDTH, null(), c"/nowhere/cache".as_ptr());
    let (mut out, nobody) = (null_mut(), null_mut::<kvern_kv_cache>());
    let kind = kvern_kv_cache_options { keys: 5, ..cache_options(4, 0) };
    let other = kvern_kv_cache_options { values: -1, ..cache_options(4, 0) };
    let sinks = kvern_kv_cache_options { sinks: 1, ..cache_options(4, 0) };
    let odd = kvern_kv_cache_options { value_dim: 7, ..cache_options(4, 0) };
    let many = kvern_kv_cache_options { sequences: usize::MAX, ..cache_options(4, 0) };
    let pages = kvern_kv_cache_options { pages: usize::MAX, ..cache_options(4, 0) };
    let rope = kvern_preparation { rope: o.table, ..preparation() };
    let pairs = kvern_preparation { pairs: 2, ..rope };
    let flags = kvern_preparation { flags: 2, ..preparation() };
    let far = [99usize];
    let far = kvern_preparation { positions: far.as_ptr(), ..rope };
    let gain = kvern_preparation { q_gain: y, ..preparation() };
    let (z, later) = (x.wrapping_add(256), y.wrapping_add(3));
    if usize::BITS == 64 {
        refuse! { OPTION "sequences = ": kvern_kv_cache_create(null(), &many, &mut out); }
    } else {
        refuse! { OVERFLOW "pages does not fit": kvern_kv_cache_create(null(), &many, &mut out); }
    }
    refuse! {
        OPTION "options->keys = 5": kvern_kv_cache_create(null(), &kind, &mut out);
        OPTION "options->values = -1": kvern_kv_cache_create(null(), &other, &mut out);
        OPTION "sinks = 1": kvern_kv_cache_create(null(), &sinks, &mut out);
        OPTION "value_dim = 7": kvern_kv_cache_create(null(), &odd, &mut out);
        OPTION "pages = ": kvern_kv_cache_create(null(), &pages, &mut out);
        NULL_POINTER "cache is NULL": kvern_kv_cache_append_to(nobody, 0, 1, x, w, x, w);
        NULL_POINTER "k is NULL": kvern_kv_cache_append_to(cache, 0, 1, none, w, x, w);
        NULL_POINTER "v is NULL": kvern_kv_cache_append_to(cache, 0, 1, x, w, none, w);
        OPTION "sequence = 1": kvern_kv_cache_append_to(cache, 1, 1, x, w, x, w);
        NULL_POINTER "ctx is NULL":
            kvern_kv_cache_append_prepared(null(), cache, 0, &rope, 1, 2, y, w, x, w, z, w);
        NULL_POINTER "cache is NULL":
            kvern_kv_cache_append_prepared(o.ctx, nobody, 0, &rope, 1, 2, y, w, x, w, z, w);
        NULL_POINTER "q is NULL":
            kvern_kv_cache_append_prepared(o.ctx, cache, 0, &rope, 1, 2, null_mut(), w, y, w, z, w);
        NULL_POINTER "k is NULL":
            kvern_kv_cache_append_prepared(o.ctx, cache, 0, &rope, 1, 2, y, w, null_mut(), w, z, w);
        NULL_POINTER "v is NULL":
            kvern_kv_cache_append_prepared(o.ctx, cache, 0, &rope, 1, 2, y, w, x, w, none, w);
        OPTION "preparation->pairs = 2":
            kvern_kv_cache_append_prepared(o.ctx, cache, 0, &pairs, 1, 2, y, w, x, w, z, w);
        UNSUPPORTED "preparation->flags = 2":
            kvern_kv_cache_append_prepared(o.ctx, cache, 0, &flags, 1, 2, y, w, x, w, z, w);
        SHAPE "positions = 99": kvern_kv_cache_append_prepared(o.ctx, cache, 0, &far, 1, 2, y, w, x, w, z, w);
        ALIASED "k overlaps q":
            kvern_kv_cache_append_prepared(o.ctx, cache, 0, &rope, 1, 2, y, w, later, w, z, w);
        ALIASED "q overlaps v":
            kvern_kv_cache_append_prepared(o.ctx, cache, 0, &rope, 1, 2, y, w, x, w, y, w);
        ALIASED "q overlaps preparation->q_gain":
            kvern_kv_cache_append_prepared(o.ctx, cache, 0, &gain, 1, 2, y, w, x, w, z, w);
        CACHE_FULL "capacity = 8":
            kvern_kv_cache_append_prepared(o.ctx, cache, 0, none.cast(), 9, 2, y, w, x, w, z, w);
        NULL_POINTER "cache is NULL": kvern_kv_cache_token(null(), 0, 0, w, x, w, y);
        NULL_POINTER "k is NULL": kvern_kv_cache_token(cache, 0, 0, w, null_mut(), w, y);
        NULL_POINTER "v is NULL": kvern_kv_cache_token(cache, 0, 0, w, x, w, null_mut());
        SHAPE "position + 1 = 1": kvern_kv_cache_token(cache, 0, 0, w, x, w, y);
        ALIASED "v overlaps k": kvern_kv_cache_token(cache, 0, 0, w, y, w, y);
        NULL_POINTER "cache is NULL": kvern_kv_cache_len_of(null(), 0, n);
        NULL_POINTER "out is NULL": kvern_kv_cache_len_of(cache, 0, null_mut());
        OPTION "sequence = 1 must be below": kvern_kv_cache_len_of(cache, 1, n);
        NULL_POINTER "cache is NULL": kvern_kv_cache_start_of(null(), 0, n);
        NULL_POINTER "out is NULL": kvern_kv_cache_start_of(cache, 0, null_mut());
        OPTION "sequence = 9": kvern_kv_cache_start_of(cache, 9, n);
        NULL_POINTER "cache is NULL": kvern_kv_cache_bytes_used(null(), n);
        NULL_POINTER "out is NULL": kvern_kv_cache_bytes_used(cache, null_mut());
        NULL_POINTER "cache is NULL": kvern_kv_cache_pages(null(), n);
        NULL_POINTER "out is NULL": kvern_kv_cache_pages(cache, null_mut());
        NULL_POINTER "cache is NULL": kvern_kv_cache_free_pages(null(), n);
        NULL_POINTER "out is NULL": kvern_kv_cache_free_pages(cache, null_mut());
        NULL_POINTER "cache is NULL": kvern_kv_cache_save(null(), path);
        NULL_POINTER "path is NULL": kvern_kv_cache_save(cache, null());
        IO "/nowhere/cache": kvern_kv_cache_save(cache, path);
        NULL_POINTER "cache is NULL": kvern_kv_cache_restore(nobody, path);
        NULL_POINTER "path is NULL": kvern_kv_cache_restore(cache, null());
        NULL_POINTER "options is NULL": kvern_kv_cache_load(null(), null(), path, &mut out);
        NULL_POINTER "path is NULL": kvern_kv_cache_load(null(), &cache_options(4, 0), null(), &mut out);
        NULL_POINTER "out is NULL": kvern_kv_cache_load(null(), &cache_options(4, 0), path, null_mut());
        NULL_POINTER "cache is NULL": kvern_kv_cache_clear_in(nobody, 0);
        OPTION "sequence = 1": kvern_kv_cache_clear_in(cache, 1);
        NULL_POINTER "cache is NULL": kvern_kv_cache_truncate_in(nobody, 0, 0);
        OPTION "sequence = 1": kvern_kv_cache_truncate_in(cache, 1, 0);
        NULL_POINTER "cache is NULL": kvern_kv_cache_remove(nobody, 0, 0, 0);
        SHAPE "positions.start = 1": kvern_kv_cache_remove(cache, 0, 1, 0);
        SHAPE "positions.end = ": kvern_kv_cache_remove(cache, 0, 0, usize::MAX);
        NULL_POINTER "cache is NULL": kvern_kv_cache_rotate(nobody, 0, 0, 0, 1, o.table, 0);
        NULL_POINTER "table is NULL": kvern_kv_cache_rotate(cache, 0, 0, 0, 1, null(), 0);
        OPTION "pairs = 5": kvern_kv_cache_rotate(cache, 0, 0, 0, 1, o.table, 5);
        SHAPE "|by| + 1 = ": kvern_kv_cache_rotate(cache, 0, 0, 0, isize::MIN, o.table, 0);
        NULL_POINTER "cache is NULL": kvern_kv_cache_fork(nobody, 0, 0);
        OPTION "sequence = 1": kvern_kv_cache_fork(cache, 0, 1);
        OPTION "sequence = 3": kvern_kv_cache_fork(cache, 3, 0);
    }
    assert!(out.is_null() && memory.unchanged());
    // SAFETY: both are live.
    unsafe { ok(kvern_kv_cache_len(cache, n)) };
    assert_eq!(memory.n, 0, "nothing was appended");
}

#[test]
fn attention_refuses_null_and_garbage() {
    let (o, mut memory) = (Objects::new(), Memory::new());
    let (x, y, n) = memory.pointers();
    let (w, raw, all) = (WIDTH, attention_options(0), attention_options(0));
    // SAFETY: every pointer is live and of the stated size.
    unsafe { ok(kvern_kv_cache_append(o.cache, 4, x, w, x, w)) };
    let run = |options: &kvern_attention_options| {
        // SAFETY: as above; what is wrong about the options is refused before it is read.
        unsafe { kvern_attention(o.ctx, o.ws, options, o.cache, 2, x, w, y, w) }
    };
    let mut later = y.wrapping_add(4);
    let bad = [7u8; 8];
    let (none, far) = ([0usize; 0], [5usize]);
    let huge = isize::MAX as usize;
    type O = kvern_attention_options;
    for (options, status, part) in [
        (O { precision: 2, ..raw }, KVERN_STATUS_OPTION, "options->precision = 2"),
        (O { softcap: -1.0, ..raw }, KVERN_STATUS_OPTION, "softcap = -1"),
        (O { mask_per_head: 2, ..raw }, KVERN_STATUS_OPTION, "options->mask_per_head = 2"),
        (O { seen_per_head: -1, ..raw }, KVERN_STATUS_OPTION, "options->seen_per_head = -1"),
        (O { mask: x, mask_row_stride: 3, ..raw }, KVERN_STATUS_SHAPE, "options->mask_row_stride = 3"),
        (O { mask: x, mask_row_stride: huge, ..raw }, KVERN_STATUS_OVERFLOW, "options->mask"),
        (O { mask: later, mask_row_stride: 4, ..raw }, KVERN_STATUS_ALIASED, "out overlaps options->mask"),
        (O { seen: bad.as_ptr(), seen_row_stride: 4, ..raw }, KVERN_STATUS_OPTION, "options->seen[0] = 7"),
        (O { tree: bad.as_ptr(), tree_row_stride: 2, ..raw }, KVERN_STATUS_OPTION, "options->tree[0] = 7"),
        (
            O { tree: bad.as_ptr(), tree_row_stride: 1, ..raw },
            KVERN_STATUS_SHAPE,
            "options->tree_row_stride = 1",
        ),
        (O { alibi: later, ..raw }, KVERN_STATUS_ALIASED, "out overlaps options->alibi"),
        (O { alibi: x.wrapping_byte_add(2), ..raw }, KVERN_STATUS_MISALIGNED, "options->alibi = "),
        (O { sink_logits: y, ..raw }, KVERN_STATUS_ALIASED, "out overlaps options->sink_logits"),
        (O { lse: later, lse_row_stride: 2, ..raw }, KVERN_STATUS_ALIASED, "options->lse overlaps out"),
        (O { lse: x, lse_row_stride: 2, ..raw }, KVERN_STATUS_ALIASED, "options->lse overlaps q"),
        (O { lse: x, lse_row_stride: 1, ..raw }, KVERN_STATUS_SHAPE, "options->lse_row_stride = 1"),
        (O { sequences_len: 1, ..raw }, KVERN_STATUS_NULL_POINTER, "options->sequences is NULL"),
        (O { sequences: far.as_ptr(), sequences_len: 1, ..raw }, KVERN_STATUS_OPTION, "sequence = 5"),
        (O { heads: 1, ..raw }, KVERN_STATUS_SHAPE, "heads = 1"),
    ] {
        refused(run(&options), status, part);
    }
    ok(unsafe {
        // SAFETY: as above; no sequences are sequence 0.
        let options = O { sequences: none.as_ptr(), ..raw };
        later = x.wrapping_add(128);
        kvern_attention(o.ctx, o.ws, &options, o.cache, 2, x, w, later, w)
    });
    let (h, d, c) = (KV_HEADS, HEAD_DIM, o.ctx);
    let listed = O { sequences: far.as_ptr(), sequences_len: 1, ..raw };
    let none = null::<f32>();
    refuse! {
        NULL_POINTER "ctx is NULL": kvern_attention_plain_workspace_bytes(null(), &raw, h, d, d, 4, 2, n);
        NULL_POINTER "options is NULL": kvern_attention_plain_workspace_bytes(c, null(), h, d, d, 4, 2, n);
        NULL_POINTER "out is NULL": kvern_attention_plain_workspace_bytes(c, &raw, h, d, d, 4, 2, null_mut());
        SHAPE "kv_heads = 0": kvern_attention_plain_workspace_bytes(c, &raw, 0, d, d, 4, 2, n);
        OVERFLOW "head_dim": kvern_attention_plain_workspace_bytes(c, &raw, usize::MAX, d, d, 4, 2, n);
        NULL_POINTER "ctx is NULL":
            kvern_attention_plain(null(), o.ws, &all, h, d, d, 4, x, w, x, w, 2, x, w, y, w);
        NULL_POINTER "ws is NULL":
            kvern_attention_plain(c, null_mut(), &all, h, d, d, 4, x, w, x, w, 2, x, w, y, w);
        NULL_POINTER "options is NULL":
            kvern_attention_plain(c, o.ws, null(), h, d, d, 4, x, w, x, w, 2, x, w, y, w);
        NULL_POINTER "k is NULL":
            kvern_attention_plain(c, o.ws, &all, h, d, d, 4, none, w, x, w, 2, x, w, y, w);
        NULL_POINTER "v is NULL":
            kvern_attention_plain(c, o.ws, &all, h, d, d, 4, x, w, none, w, 2, x, w, y, w);
        NULL_POINTER "q is NULL":
            kvern_attention_plain(c, o.ws, &all, h, d, d, 4, x, w, x, w, 2, none, w, y, w);
        NULL_POINTER "out is NULL":
            kvern_attention_plain(c, o.ws, &all, h, d, d, 4, x, w, x, w, 2, x, w, null_mut(), w);
        ALIASED "out overlaps k":
            kvern_attention_plain(c, o.ws, &all, h, d, d, 4, y, w, x, w, 2, x, w, y, w);
        ALIASED "out overlaps v":
            kvern_attention_plain(c, o.ws, &all, h, d, d, 4, x, w, y, w, 2, x, w, y, w);
        OPTION "options->sequences_len = 1":
            kvern_attention_plain(c, o.ws, &listed, h, d, d, 4, x, w, x, w, 2, x, w, y, w);
        SHAPE "q.rows = 5": kvern_attention_plain(c, o.ws, &all, h, d, d, 4, x, w, x, w, 5, x, w, y, w);
        OVERFLOW "q": kvern_attention_plain(c, o.ws, &all, h, d, d, 4, x, w, x, w, huge, x, w, y, w);
    }
    let (keys, ends, late, down) = ([0, 4], [0, 2], [1, 4], [0, 3, 1]);
    let (k_starts, q_starts, late, down) = (keys.as_ptr(), ends.as_ptr(), late.as_ptr(), down.as_ptr());
    let tree = O { tree: [1u8; 16].as_ptr(), tree_row_stride: 2, ..all };
    let odd = k_starts.wrapping_byte_add(1);
    macro_rules! ragged {
        ($n:expr, $keys:expr, $queries:expr) => {
            ragged!($n, $keys, $queries, &all, 4, 2)
        };
        ($n:expr, $keys:expr, $queries:expr, $options:expr, $kv_len:expr, $q_len:expr) => {
            kvern_attention_ragged(
                c, o.ws, $options, $n, $keys, $queries, h, d, d, $kv_len, x, w, x, w, $q_len, x, w, y, w,
            )
        };
    }
    refuse! {
        NULL_POINTER "k_starts is NULL": ragged!(1, null(), q_starts);
        NULL_POINTER "q_starts is NULL": ragged!(1, k_starts, null());
        MISALIGNED "k_starts": ragged!(1, odd, q_starts);
        OVERFLOW "sequences + 1": ragged!(usize::MAX, k_starts, q_starts);
        OPTION "key_starts = 1 must be 0 at first": ragged!(1, late, q_starts);
        SHAPE "query_starts = 1 must be at least the start before it = 3":
            ragged!(2, [0, 0, 4].as_ptr(), down);
        SHAPE "key_starts.last = 4 must equal k.rows = 3": ragged!(1, k_starts, q_starts, &all, 3, 2);
        SHAPE "query_starts.last = 2 must equal q.rows = 1": ragged!(1, k_starts, q_starts, &all, 4, 1);
        OPTION "options->sequences_len = 1": ragged!(1, k_starts, q_starts, &listed, 4, 2);
        OPTION "tree = one must be none": ragged!(1, k_starts, q_starts, &tree, 4, 2);
        NULL_POINTER "options is NULL": ragged!(1, k_starts, q_starts, null(), 4, 2);
    }
    assert!(memory.unchanged());
}

/// Sizes at the ends of the address space: every status but OK and PANIC, and no crash.
#[test]
fn absurd_sizes_are_refused() {
    let (o, mut memory) = (Objects::new(), Memory::new());
    let (x, y, n) = memory.pointers();
    let (b, table, half) = (o.packed.cast_const(), o.table.cast_const(), isize::MAX as usize);
    let raw = attention_options(0);
    for s in [half / 4 + 1, half, half + 1, usize::MAX - 7, usize::MAX] {
        let even = s & !7;
        let value = kvern_kv_cache_options { value_dim: even, ..cache_options(8, 0) };
        let many = kvern_kv_cache_options { sequences: s, ..cache_options(8, 0) };
        let masked = kvern_softmax_options { mask: x, mask_rows: s, mask_row_stride: 4, ..softmax_options() };
        let window = kvern_attention_options { window: s, sinks: s, mask: x, mask_row_stride: s, ..raw };
        let batch = kvern_attention_options { sequences: n, sequences_len: s, ..raw };
        let (c, d) = (y.cast::<c_void>(), HEAD_DIM);
        // SAFETY: sizes that no memory has are refused before anything is read.
        let statuses = unsafe {
            [
                kvern_packed_b_pack_dtype(o.ctx, 30, s, s, x.cast(), s, 0, &mut null_mut()),
                kvern_packed_b_multiply_with(o.ctx, o.ws, b, 0, s, N, K, x, K, 1, c, N, null()),
                kvern_packed_b_multiply_gated(o.ctx, o.ws, b, b, 0, M, s, K, x, K, 30, c, s, null()),
                kvern_rope_table_create_scaled(even, s, 1e4, null(), &mut null_mut()),
                kvern_rope_table_from_frequencies(s, &1.0, 8, 1.0, &mut null_mut()),
                kvern_rope_table_row(table, s, HEAD_DIM / 2, x, y),
                kvern_rope_table_row(table, 0, s, x, y),
                kvern_rope_at(o.ctx, table, 0, n, s, KV_HEADS, HEAD_DIM, y, WIDTH),
                kvern_softmax_with(o.ctx, null(), s, s, x, s, y, s),
                kvern_softmax_with(o.ctx, &masked, 1, 4, x, 4, y, 4),
                kvern_kv_cache_create(null(), &value, &mut null_mut()),
                kvern_kv_cache_create(null(), &many, &mut null_mut()),
                kvern_kv_cache_append_to(o.cache, 0, s, x, WIDTH, x, WIDTH),
                kvern_kv_cache_append_to(o.cache, s, 1, x, WIDTH, x, WIDTH),
                kvern_kv_cache_append_prepared(o.ctx, o.cache, 0, null(), 1, s, y, s, x, WIDTH, x, WIDTH),
                kvern_kv_cache_token(o.cache, 0, s, WIDTH, x, WIDTH, y),
                kvern_kv_cache_token(o.cache, 0, 0, s, x, s, y),
                kvern_kv_cache_truncate_in(o.cache, 0, s),
                kvern_kv_cache_remove(o.cache, 0, 0, s),
                kvern_kv_cache_fork(o.cache, s, 0),
                kvern_attention(o.ctx, o.ws, &batch, o.cache, s, x, WIDTH, y, WIDTH),
                kvern_attention(o.ctx, o.ws, &window, o.cache, s, x, WIDTH, y, WIDTH),
                kvern_attention_plain_workspace_bytes(o.ctx, &raw, s, s, s, s, s, n),
                kvern_attention_plain(o.ctx, o.ws, &raw, 1, s, s, 1, x, s, x, s, 1, x, s, y, s),
                kvern_attention_plain(o.ctx, o.ws, &raw, 2, d, d, s, x, 16, x, 16, 1, x, 16, y, 16),
                kvern_alibi_slopes(s, y),
            ]
        };
        for (i, status) in statuses.into_iter().enumerate() {
            assert!(status < 0 && status != KVERN_STATUS_PANIC, "call {i} with {s}: {status} {}", message());
        }
    }
    assert!(memory.unchanged());
}
