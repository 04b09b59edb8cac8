//! Objects of the C ABI for the tests that call it from Rust.
#![allow(dead_code)] // each test binary uses its own part

use kvern::capi::attention::*;
use kvern::capi::cache::*;
use kvern::capi::context::*;
use kvern::capi::experts::*;
use kvern::capi::isa::*;
use kvern::capi::matmul::*;
use kvern::capi::norms::*;
use kvern::capi::ops::*;
use kvern::capi::packed_b::*;
use kvern::capi::prepare::*;
use kvern::capi::quant::*;
use kvern::capi::rope::*;
use kvern::capi::router::*;
use kvern::capi::status::*;
use kvern::capi::workspace::*;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

/// Rows and columns of the objects: A (M, K), weights (N, K), one cache of KV_HEADS heads.
pub const M: usize = 3;
pub const N: usize = 5;
pub const K: usize = 64;
pub const KV_HEADS: usize = 2;
pub const HEAD_DIM: usize = 8;
pub const WIDTH: usize = KV_HEADS * HEAD_DIM;

pub fn text(s: *const c_char) -> String {
    // SAFETY: every text of the library is a live C string.
    unsafe { CStr::from_ptr(s) }.to_str().unwrap().to_owned()
}

pub fn message() -> String {
    text(kvern_last_error_message())
}

#[track_caller]
pub fn ok(status: kvern_status) {
    assert_eq!(status, KVERN_STATUS_OK, "{}", message());
    assert_eq!(message(), "");
}

/// The last call must have been refused with this status and a message with this text.
#[track_caller]
pub fn refused(status: kvern_status, want: kvern_status, part: &str) {
    let names = (text(kvern_status_name(status)), text(kvern_status_name(want)));
    assert_eq!(names.0, names.1, "{}", message());
    assert!(message().contains(part), "`{}` lacks `{part}`", message());
}

/// A file for a test, in Rust and in C.
pub fn temporary(name: &str) -> (PathBuf, CString) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let text = CString::new(path.to_str().unwrap()).unwrap();
    (path, text)
}

pub fn context_options() -> kvern_context_options {
    kvern_context_options {
        struct_size: size_of::<kvern_context_options>(),
        threads: 0,
        isa_cap: KVERN_ISA_DEFAULT,
        max_threads: 0,
        parallel_for: None,
        user: null_mut::<c_void>(),
        allocate: None,
        release: None,
        memory: null_mut(),
    }
}

pub fn epilogue() -> kvern_epilogue {
    kvern_epilogue {
        struct_size: size_of::<kvern_epilogue>(),
        alpha: 0.0,
        beta: 0.0,
        bias: std::ptr::null(),
        activation: KVERN_ACTIVATION_IDENTITY,
        flags: 0,
    }
}

/// Options with their size and zeros: the defaults, as a C initialiser makes them.
macro_rules! defaults {
    ($type:ty) => {{
        // SAFETY: options are plain C structs, which are valid when all their bytes are zero.
        let mut options: $type = unsafe { std::mem::zeroed() };
        options.struct_size = size_of::<$type>();
        options
    }};
}

pub fn cache_options(capacity: usize, window: usize) -> kvern_kv_cache_options {
    let none = defaults!(kvern_kv_cache_options);
    kvern_kv_cache_options { kv_heads: KV_HEADS, head_dim: HEAD_DIM, capacity, window, ..none }
}

pub fn attention_options(heads: usize) -> kvern_attention_options {
    kvern_attention_options { heads, ..defaults!(kvern_attention_options) }
}

pub fn softmax_options() -> kvern_softmax_options {
    defaults!(kvern_softmax_options)
}

pub fn norm_options(kind: kvern_norm_kind, eps: f32) -> kvern_norm_options {
    kvern_norm_options { kind, eps, ..defaults!(kvern_norm_options) }
}

pub fn router_options(chosen: usize, score: kvern_router_score) -> kvern_router_options {
    kvern_router_options { chosen, score, ..defaults!(kvern_router_options) }
}

pub fn expert_options(activation: kvern_activation) -> kvern_expert_options {
    kvern_expert_options { activation, ..defaults!(kvern_expert_options) }
}

pub fn preparation() -> kvern_preparation {
    defaults!(kvern_preparation)
}

pub fn rope_scaling(kind: kvern_rope_scaling_kind) -> kvern_rope_scaling {
    kvern_rope_scaling { kind, ..defaults!(kvern_rope_scaling) }
}

/// Memory of every kind, large enough for every call with the sizes of [`Objects`].
#[allow(clippy::type_complexity)] // one owner for each kind of memory
pub struct Arrays {
    pub x: *mut f32,
    pub y: *mut f32,
    pub gain: *mut f32,
    pub bytes: *mut u8,
    pub ids: *mut u32,
    pub n: *mut usize,
    owners: (Vec<f32>, Vec<f32>, Vec<f32>, Vec<u8>, Vec<u32>, Box<usize>),
}

impl Arrays {
    pub fn new() -> Arrays {
        let mut owners =
            (vec![1.0; 512], vec![2.0; 512], vec![3.0; 512], vec![0; 4096], vec![0; 64], Box::new(0));
        let (x, y, gain) = (owners.0.as_mut_ptr(), owners.1.as_mut_ptr(), owners.2.as_mut_ptr());
        let (bytes, ids, n) = (owners.3.as_mut_ptr(), owners.4.as_mut_ptr(), &raw mut *owners.5);
        Arrays { x, y, gain, bytes, ids, n, owners }
    }

    /// Outputs were not touched.
    pub fn unchanged(&self) -> bool {
        self.owners.1.iter().all(|&y| y == 2.0)
    }
}

/// One object of each type, made through the ABI.
pub struct Objects {
    pub ctx: *mut kvern_context,
    pub ws: *mut kvern_workspace,
    pub packed: *mut kvern_packed_b,
    pub weights: *mut kvern_weights,
    pub cache: *mut kvern_kv_cache,
    pub table: *mut kvern_rope_table,
    /// Source of `packed` and `weights`, (N, K).
    pub w: Vec<f32>,
}

impl Objects {
    pub fn new() -> Objects {
        let w: Vec<f32> = (0..N * K).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
        let mut o = Objects {
            ctx: null_mut(),
            ws: null_mut(),
            packed: null_mut(),
            weights: null_mut(),
            cache: null_mut(),
            table: null_mut(),
            w,
        };
        let w = o.w.as_ptr();
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            ok(kvern_context_create(&context_options(), &mut o.ctx));
            ok(kvern_workspace_create(std::ptr::null(), 1 << 20, &mut o.ws));
            ok(kvern_packed_b_pack(o.ctx, K, N, w, K, 1, &mut o.packed));
            ok(kvern_weights_quantize(
                std::ptr::null(),
                KVERN_WEIGHT_FORMAT_Q8_0,
                N,
                K,
                w,
                K,
                &mut o.weights,
            ));
            ok(kvern_kv_cache_create(std::ptr::null(), &cache_options(8, 0), &mut o.cache));
            ok(kvern_rope_table_create(HEAD_DIM, 16, 10000.0, &mut o.table));
        }
        o
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // SAFETY: each object was made by its create function and is not used any more.
        unsafe {
            kvern_packed_b_destroy(self.packed);
            kvern_weights_destroy(self.weights);
            kvern_kv_cache_destroy(self.cache);
            kvern_rope_table_destroy(self.table);
            kvern_workspace_destroy(self.ws);
            kvern_context_destroy(self.ctx);
        }
    }
}
