//! Tensors, their memory, and graphs of one node.

use super::{Layout, Threads, Type};
use anyhow::{Context, Result, ensure};
use kvern::buffer::AlignedBuf;
use llama_cpp_sys_2 as sys;
use std::ptr::NonNull;

/// A tensor of a session: its number there.
#[derive(Clone, Copy)]
pub struct Tensor(usize);

/// A planned graph of a session: its number there.
#[derive(Clone, Copy)]
pub struct Graph(usize);

/// Tensors with their memory, and graphs over them.
pub struct Session<'t> {
    threads: &'t Threads,
    context: NonNull<sys::ggml_context>,
    tensors: Vec<NonNull<sys::ggml_tensor>>,
    buffers: Vec<NonNull<sys::ggml_backend_buffer>>,
    graphs: Vec<Planned>,
}

/// A graph that is ready to run; `plan.work_data` points into `_work`.
struct Planned {
    graph: NonNull<sys::ggml_cgraph>,
    plan: sys::ggml_cplan,
    _work: AlignedBuf<u8>,
}

/// Nodes and leaves that a graph has room for: a product has 3, attention 8 with its views.
const GRAPH_SIZE: usize = 16;

impl<'t> Session<'t> {
    /// A session with room for the descriptions of `graphs` graphs and what each of them takes.
    pub fn new(threads: &'t Threads, graphs: usize) -> Result<Session<'t>> {
        // SAFETY: two plain functions.
        let each =
            unsafe { 6 * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead_custom(GRAPH_SIZE, false) };
        let mem_size = (graphs + 8) * each;
        let params = sys::ggml_init_params { mem_size, mem_buffer: std::ptr::null_mut(), no_alloc: true };
        // SAFETY: ggml allocates the memory of the context itself.
        let context = NonNull::new(unsafe { sys::ggml_init(params) }).context("no memory for ggml")?;
        Ok(Session { threads, context, tensors: Vec::new(), buffers: Vec::new(), graphs: Vec::new() })
    }

    /// A tensor of `of` elements with memory of its own; `shape` begins with the row's length.
    pub fn tensor(&mut self, of: Type, shape: [usize; 3], layout: Layout) -> Result<Tensor> {
        // A size of 1 more is no dimension to ggml: (k, n) and (k, n, 1) are the same.
        let [d, rows, planes] = shape.map(|len| len as i64);
        // SAFETY: the context is alive; its data is allocated below.
        let tensor = unsafe { sys::ggml_new_tensor_3d(self.context.as_ptr(), of.0, d, rows, planes) };
        let tensor = NonNull::new(tensor).context("no memory for a tensor")?;
        let kind = layout.buffer_type();
        ensure!(!kind.is_null(), "this machine's ggml rearranges no weights");
        // SAFETY: the buffer is as large as its type asks for this tensor, and is freed with the session.
        unsafe {
            let bytes = sys::ggml_backend_buft_get_alloc_size(kind, tensor.as_ptr());
            let buffer = sys::ggml_backend_buft_alloc_buffer(kind, bytes);
            let buffer = NonNull::new(buffer).with_context(|| format!("no memory for {bytes} bytes"))?;
            self.buffers.push(buffer);
            let base = sys::ggml_backend_buffer_get_base(buffer.as_ptr());
            let status = sys::ggml_backend_tensor_alloc(buffer.as_ptr(), tensor.as_ptr(), base);
            ensure!(status == sys::GGML_STATUS_SUCCESS, "ggml placed no tensor: status {status}");
        }
        Ok(self.keep(tensor))
    }

    /// Fills a tensor; weights are rearranged here where their layout says so.
    pub fn write(&mut self, tensor: Tensor, bytes: &[u8]) -> Result<()> {
        let tensor = self.tensors[tensor.0].as_ptr();
        // SAFETY: the tensor is alive.
        let want = unsafe { sys::ggml_nbytes(tensor) };
        ensure!(bytes.len() == want, "{} bytes for a tensor of {want}", bytes.len());
        // SAFETY: the tensor has memory, and as many bytes as the slice.
        unsafe { sys::ggml_backend_tensor_set(tensor, bytes.as_ptr().cast(), 0, want) };
        Ok(())
    }

    /// A plain tensor that holds `bytes`.
    pub fn filled(&mut self, of: Type, shape: [usize; 3], bytes: &[u8]) -> Result<Tensor> {
        let tensor = self.tensor(of, shape, Layout::Plain)?;
        self.write(tensor, bytes)?;
        Ok(tensor)
    }

    /// Copies an f32 tensor out.
    pub fn read(&self, tensor: Tensor, values: &mut [f32]) -> Result<()> {
        let tensor = self.tensors[tensor.0].as_ptr();
        // SAFETY: the tensor is alive.
        let have = unsafe { sys::ggml_nbytes(tensor) };
        ensure!(size_of_val(values) == have, "{} values of a tensor of {have} bytes", values.len());
        // SAFETY: the tensor has memory, and as many bytes as the slice.
        unsafe { sys::ggml_backend_tensor_get(tensor, values.as_mut_ptr().cast(), 0, have) };
        Ok(())
    }

    /// Plans `result = inputs * weights^T`: weights (n, k), inputs (tokens, k), result (tokens, n).
    pub fn product(&mut self, weights: Tensor, inputs: Tensor, result: Tensor) -> Result<Graph> {
        let (w, x) = (self.tensors[weights.0], self.tensors[inputs.0]);
        // SAFETY: both are alive.
        let (wk, xk) = unsafe { ((*w.as_ptr()).ne[0], (*x.as_ptr()).ne[0]) };
        ensure!(wk == xk, "weights have rows of {wk}, inputs of {xk}");
        // SAFETY: the context is alive, the rows are equally long.
        let node = unsafe { sys::ggml_mul_mat(self.context.as_ptr(), w.as_ptr(), x.as_ptr()) };
        self.plan(node, result)
    }

    /// Plans attention under a mask: queries and result (tokens, heads, head_dim), keys and values (kv_len,
    /// kv_heads, head_dim), or (kv_heads, kv_len, head_dim) where `by_heads`, mask f16 (tokens, kv_len).
    pub fn attention(
        &mut self,
        [queries, keys, values, mask]: [Tensor; 4],
        by_heads: bool,
        scale: f32,
        result: Tensor,
    ) -> Result<Graph> {
        let heads_outside = [(queries, false), (keys, by_heads), (values, by_heads)].map(|(t, outside)| {
            let tensor = self.tensors[t.0].as_ptr();
            if outside {
                return tensor;
            }
            // SAFETY: both are alive; the view has the same elements, heads before tokens.
            unsafe { sys::ggml_permute(self.context.as_ptr(), tensor, 0, 2, 1, 3) }
        });
        let [q, k, v] = heads_outside;
        // SAFETY: the views were just made.
        let [q_ne, k_ne, v_ne] = unsafe { [(*q).ne, (*k).ne, (*v).ne] };
        ensure!(q_ne[0] == k_ne[0] && k_ne == v_ne && q_ne[2] % k_ne[2] == 0, "shapes of q, k and v");
        let mask = self.tensors[mask.0].as_ptr();
        // SAFETY: the context is alive, the shapes fit.
        let node = unsafe { sys::ggml_flash_attn_ext(self.context.as_ptr(), q, k, v, mask, scale, 0.0, 0.0) };
        self.plan(node, result)
    }

    /// Computes a graph: allocates nothing.
    pub fn compute(&mut self, graph: Graph) -> Result<()> {
        let planned = &mut self.graphs[graph.0];
        // SAFETY: `plan` put the node into the graph, gave it memory, and made the plan with its buffer.
        unsafe { self.threads.compute(planned.graph, &mut planned.plan) }
    }

    /// A graph of one node, whose result lands in the memory of `result`.
    fn plan(&mut self, node: *mut sys::ggml_tensor, result: Tensor) -> Result<Graph> {
        let node = NonNull::new(node).context("ggml refused the operation")?;
        let result = self.tensors[result.0].as_ptr();
        // SAFETY: both are alive; the result's memory is as large as the node, and its own buffer's.
        unsafe {
            let (want, have) = (sys::ggml_nbytes(node.as_ptr()), sys::ggml_nbytes(result));
            ensure!(want == have, "a result of {want} bytes into {have}");
            let status = sys::ggml_backend_tensor_alloc((*result).buffer, node.as_ptr(), (*result).data);
            ensure!(status == sys::GGML_STATUS_SUCCESS, "ggml placed no result: status {status}");
        }
        // SAFETY: the context is alive and has room for the graph.
        let graph = unsafe { sys::ggml_new_graph_custom(self.context.as_ptr(), GRAPH_SIZE, false) };
        let graph = NonNull::new(graph).context("no memory for a graph")?;
        // SAFETY: node and graph are of one context.
        unsafe { sys::ggml_build_forward_expand(graph.as_ptr(), node.as_ptr()) };
        let mut plan = self.threads.plan(graph);
        let mut work = AlignedBuf::zeroed(plan.work_size.max(1))?;
        plan.work_data = work.as_mut_slice().as_mut_ptr();
        self.graphs.push(Planned { graph, plan, _work: work });
        Ok(Graph(self.graphs.len() - 1))
    }

    fn keep(&mut self, tensor: NonNull<sys::ggml_tensor>) -> Tensor {
        self.tensors.push(tensor);
        Tensor(self.tensors.len() - 1)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        for buffer in &self.buffers {
            // SAFETY: made by ggml, freed once; nothing uses the tensors any more.
            unsafe { sys::ggml_backend_buffer_free(buffer.as_ptr()) };
        }
        // SAFETY: made by ggml_init, freed once.
        unsafe { sys::ggml_free(self.context.as_ptr()) };
    }
}
