//! Where ggml keeps weights: as they come, or rearranged for its kernels.

use super::Type;
use llama_cpp_sys_2 as sys;

/// How weights lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Blocks as in the file.
    Plain,
    /// Rows interleaved when the weights are loaded: what llama.cpp does by default with the types that have
    /// such a kernel.
    Repacked,
}

impl Layout {
    /// The layouts that ggml can multiply `(n, k)` weights in.
    pub fn available(of: Type, n: usize, k: usize) -> Vec<Layout> {
        let mut layouts = vec![Layout::Plain];
        if repacks(of, n, k) == Some(true) {
            layouts.push(Layout::Repacked);
        }
        layouts
    }

    /// The name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Plain => "ggml",
            Layout::Repacked => "ggml repacked",
        }
    }

    /// The memory that lays tensors out this way; null where the machine has none.
    pub(super) fn buffer_type(self) -> sys::ggml_backend_buffer_type_t {
        match self {
            // SAFETY: returns a constant.
            Layout::Plain => unsafe { sys::ggml_backend_cpu_buffer_type() },
            Layout::Repacked => repacked().unwrap_or(std::ptr::null_mut()),
        }
    }
}

fn cpu() -> sys::ggml_backend_dev_t {
    // SAFETY: the CPU is always registered, with one device.
    unsafe { sys::ggml_backend_reg_dev_get(sys::ggml_backend_cpu_reg(), 0) }
}

/// The buffer type `CPU_REPACK`, found the way llama.cpp finds it.
fn repacked() -> Option<sys::ggml_backend_buffer_type_t> {
    type ExtraBufferTypes =
        unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *mut sys::ggml_backend_buffer_type_t;
    let name = c"ggml_backend_dev_get_extra_bufts";
    // SAFETY: the registry is alive for ever, the name is a C string.
    let found = unsafe { sys::ggml_backend_reg_get_proc_address(sys::ggml_backend_cpu_reg(), name.as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: ggml-backend.h gives the function of this name this type.
    let list = unsafe { std::mem::transmute::<*mut std::ffi::c_void, ExtraBufferTypes>(found) };
    // SAFETY: the device is the CPU's own; the answer is a list that ends with null, or null.
    let mut types = unsafe { list(cpu()) };
    while !types.is_null() {
        // SAFETY: not beyond the null that ends the list.
        let kind = unsafe { *types };
        if kind.is_null() {
            return None;
        }
        // SAFETY: a buffer type's name is a C string that is never freed.
        if unsafe { std::ffi::CStr::from_ptr(sys::ggml_backend_buft_name(kind)) } == c"CPU_REPACK" {
            return Some(kind);
        }
        // SAFETY: this entry was not the last.
        types = unsafe { types.add(1) };
    }
    None
}

/// Whether ggml multiplies `(n, k)` weights of this type from its rearranged memory. `None` when it has no
/// such memory.
fn repacks(of: Type, n: usize, k: usize) -> Option<bool> {
    let kind = repacked()?;
    let params =
        sys::ggml_init_params { mem_size: 1 << 16, mem_buffer: std::ptr::null_mut(), no_alloc: true };
    // SAFETY: a context of its own, with room for three descriptions without data; the buffer has no bytes
    // and outlives the question; both are freed once.
    unsafe {
        let context = sys::ggml_init(params);
        let weights = sys::ggml_new_tensor_2d(context, of.0, k as i64, n as i64);
        let inputs = sys::ggml_new_tensor_2d(context, sys::GGML_TYPE_F32, k as i64, 1);
        let product = sys::ggml_mul_mat(context, weights, inputs);
        let buffer = sys::ggml_backend_buft_alloc_buffer(kind, 0);
        (*weights).buffer = buffer;
        let supported = sys::ggml_backend_dev_supports_op(cpu(), product);
        (*weights).buffer = std::ptr::null_mut();
        sys::ggml_backend_buffer_free(buffer);
        sys::ggml_free(context);
        Some(supported)
    }
}
