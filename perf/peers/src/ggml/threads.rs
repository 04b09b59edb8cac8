//! ggml's own thread pool.

use anyhow::{Context, Result, bail};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

/// Threads that live until this is dropped: the calling one and `n - 1` of ggml's.
pub struct Threads {
    pool: NonNull<sys::ggml_threadpool>,
    n: i32,
}

impl Threads {
    /// Starts them, with ggml's default of waiting (busily for tens of milliseconds, then asleep).
    pub fn new(n: u16) -> Result<Threads> {
        let n = i32::from(n);
        // SAFETY: fills a table of constants, once; the logger lives for ever.
        unsafe {
            sys::ggml_cpu_init();
            sys::ggml_log_set(Some(log), std::ptr::null_mut());
        }
        // SAFETY: a plain function of one number.
        let mut options = unsafe { sys::ggml_threadpool_params_default(n) };
        // SAFETY: the options are read during the call only.
        let pool = unsafe { sys::ggml_threadpool_new(&mut options) };
        Ok(Threads { pool: NonNull::new(pool).context("ggml started no threads")?, n })
    }

    /// Sends waiting threads to sleep: they would spin on a core that another candidate needs. The next call
    /// wakes them.
    pub fn sleep(&self) {
        // SAFETY: the pool is alive, and no graph runs, because running one borrows `self` until it is done.
        unsafe { sys::ggml_threadpool_pause(self.pool.as_ptr()) };
    }

    /// The plan of a graph on these threads; its `work_data` is still to be set.
    pub(super) fn plan(&self, graph: NonNull<sys::ggml_cgraph>) -> sys::ggml_cplan {
        // SAFETY: both are alive; the graph is only read.
        unsafe { sys::ggml_graph_plan(graph.as_ptr(), self.n, self.pool.as_ptr()) }
    }

    /// Computes a planned graph.
    ///
    /// # Safety
    /// * every tensor of the graph has its memory,
    /// * `plan` came from [`Threads::plan`] for this graph, and `work_data` has `work_size` bytes.
    pub(super) unsafe fn compute(
        &self,
        graph: NonNull<sys::ggml_cgraph>,
        plan: &mut sys::ggml_cplan,
    ) -> Result<()> {
        // SAFETY: this function's own contract.
        match unsafe { sys::ggml_graph_compute(graph.as_ptr(), plan) } {
            sys::GGML_STATUS_SUCCESS => Ok(()),
            status => bail!("ggml's graph ended with status {status}"),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: made by ggml_threadpool_new, freed once; sessions borrow the threads and are gone.
        unsafe { sys::ggml_threadpool_free(self.pool.as_ptr()) };
    }
}

/// Passes on what is wrong; ggml also logs each tensor that it rearranges.
unsafe extern "C" fn log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if matches!(level, sys::GGML_LOG_LEVEL_WARN | sys::GGML_LOG_LEVEL_ERROR) && !text.is_null() {
        // SAFETY: ggml passes a C string that lives as long as the call.
        eprint!("ggml: {}", unsafe { CStr::from_ptr(text) }.to_string_lossy());
    }
}
