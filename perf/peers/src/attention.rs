//! Attention over a cache: kvern's `attend` beside ggml's `ggml_flash_attn_ext`.

use crate::check::{ROTATION_BYTES, TOLERANCE, agree, bytes_of, values};
use crate::ggml::{Layout, Rotation, Session, Threads, Type, dequantize, quantize};
use anyhow::Result;
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, KvType, attend, workspace_bytes};
use kvern::{Context, MatMut, MatRef, Workspace, f16};
use kvern_perf::speed::{Limits, Options, Row, Table, start};
use kvern_perf::timing::{Candidate, interleave_resting};
use std::cell::RefCell;

/// One shape: queries at the end of `kv_len` tokens.
struct Shape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    q_len: usize,
    kv_len: usize,
}

const fn shape(head_dim: usize, [heads, kv_heads]: [usize; 2], q_len: usize, kv_len: usize) -> Shape {
    Shape { heads, kv_heads, head_dim, q_len, kv_len }
}

/// A 7B model, Gemma 270M, Qwen 0.5B and the mini: decoding and prompts.
const SHAPES: [Shape; 10] = [
    shape(128, [32, 8], 1, 1024),
    shape(128, [32, 8], 1, 8192),
    shape(128, [32, 8], 1, 32768),
    shape(256, [4, 1], 1, 2048),
    shape(64, [14, 2], 1, 4096),
    shape(32, [4, 4], 1, 512),
    shape(128, [32, 8], 512, 512),
    shape(128, [32, 8], 512, 4096),
    shape(128, [32, 8], 2048, 2048),
    shape(64, [14, 2], 512, 512),
];

/// How keys and values are kept.
struct Kind {
    name: &'static str,
    theirs: Type,
    ours: KvType,
    /// [`TOLERANCE`], or more where kvern rounds ggml's values again, to codes of its own, and where ggml's
    /// sums are coarse.
    tolerance: f64,
}

/// ggml's 4 bits are -8..=7 with the extreme at -8, kvern's -7..=7: half a step of absmax / 7 is 7 % of
/// uniform values, in the keys and in the values.
const ROUNDED_TWICE: f64 = 0.15;

/// For one query ggml sums values of f16 in f16: 2.6 % over 32768 keys.
const SUMMED_IN_HALVES: f64 = 0.04;

/// Every type of kvern's caches beside the type of ggml's with as many bits an element.
const KINDS: [Kind; 5] = [
    Kind { name: "f32", theirs: Type::F32, ours: KvType::F32, tolerance: TOLERANCE },
    Kind { name: "f16", theirs: Type::F16, ours: KvType::F16, tolerance: SUMMED_IN_HALVES },
    Kind { name: "bf16", theirs: Type::BF16, ours: KvType::Bf16, tolerance: TOLERANCE },
    Kind { name: "int8/q8_0", theirs: Type::Q8_0, ours: KvType::Int8, tolerance: TOLERANCE },
    Kind { name: "int4/q4_0", theirs: Type::Q4_0, ours: KvType::Int4, tolerance: ROUNDED_TWICE },
];

/// The order of ggml's cache: llama.cpp's, token after token, and head after head, which saves a stride of a
/// power of two. The faster one is the best peer.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Tokens,
    Heads,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Order::Tokens => "ggml",
            Order::Heads => "ggml by heads",
        }
    }

    /// Rows of a cache, which come token after token, in this order; each row has `row` bytes.
    fn arrange(self, bytes: &[u8], kv_heads: usize, row: usize) -> Vec<u8> {
        match self {
            Order::Tokens => bytes.to_vec(),
            Order::Heads => (0..kv_heads)
                .flat_map(|head| bytes.chunks_exact(row).skip(head).step_by(kv_heads))
                .flatten()
                .copied()
                .collect(),
        }
    }
}

impl Shape {
    fn name(&self, kind: &Kind) -> String {
        let Shape { heads, kv_heads, head_dim, q_len, kv_len } = self;
        match q_len {
            1 => format!("decode D{head_dim} {heads}/{kv_heads} {kv_len} {}", kind.name),
            _ => format!("prefill D{head_dim} {heads}/{kv_heads} {q_len} on {kv_len} {}", kind.name),
        }
    }

    /// Two products for each query and each key that it sees.
    fn operations(&self) -> f64 {
        let seen = self.q_len * self.kv_len - self.q_len * (self.q_len - 1) / 2;
        (4 * self.heads * self.head_dim * seen) as f64
    }

    /// Caches of `bytes` that take turns: a single query reads a layer's cache once and goes on to the next
    /// layer's. The toy model's caches stay where they are.
    fn copies(&self, bytes: usize) -> usize {
        let toy = self.kv_len * self.kv_heads * self.head_dim < 1 << 17;
        if self.q_len > 1 || toy { 1 } else { ROTATION_BYTES.div_ceil(bytes) }
    }

    /// 0 where the query sees the key, minus infinity elsewhere: (q_len, kv_len) in f16.
    fn mask(&self) -> Vec<u8> {
        let before = self.kv_len - self.q_len;
        let (seen, hidden) = (f16::ZERO.to_ne_bytes(), f16::NEG_INFINITY.to_ne_bytes());
        (0..self.q_len)
            .flat_map(|i| (0..self.kv_len).flat_map(move |j| if j <= before + i { seen } else { hidden }))
            .collect()
    }
}

/// Runs every case that the options want.
pub fn run(options: &Options) -> Result<()> {
    let threads = Threads::new(options.threads)?;
    let (ctx, limits, table) = start(options)?;
    for shape in &SHAPES {
        for kind in &KINDS {
            if options.wants(&shape.name(kind)) {
                measure(options, &ctx, &threads, &limits, &table, shape, kind)?;
            }
        }
    }
    Ok(())
}

fn measure(
    options: &Options,
    ctx: &Context,
    threads: &Threads,
    limits: &Limits,
    table: &Table,
    shape: &Shape,
    kind: &Kind,
) -> Result<()> {
    let name = shape.name(kind);
    let kv_dim = shape.kv_heads * shape.head_dim;
    let q = values(shape.q_len * shape.heads * shape.head_dim, 3);
    // Both sides hold the very same keys and values: those that ggml's type can express.
    let rows = shape.kv_len * shape.kv_heads;
    let stored = |seed| quantize(kind.theirs, &values(rows * shape.head_dim, seed), shape.head_dim);
    let (k, v) = (stored(4)?, stored(5)?);
    let back = |bytes: &[u8]| dequantize(kind.theirs, bytes, rows, shape.head_dim);

    let made_from = KvCacheOptions::new(shape.kv_heads, shape.head_dim, shape.kv_len);
    let mut cache = KvCache::new(made_from.types(kind.ours, kind.ours))?;
    let (keys, values) = (back(&k)?, back(&v)?);
    let rows_of = |values| MatRef::dense(values, shape.kv_len, kv_dim);
    cache.append(rows_of(&keys)?, rows_of(&values)?)?;
    let copies = shape.copies(cache.bytes());
    let caches = vec![cache; copies];
    let call = AttentionOptions::new(shape.heads);
    let ws = Workspace::new(workspace_bytes(ctx, &call, &caches[0], shape.q_len)?)?;
    let state = RefCell::new((ws, vec![0f32; q.len()]));
    let queries = MatRef::dense(&q, shape.q_len, shape.heads * shape.head_dim)?;
    let mut turn = 0;
    let mut ours = || {
        turn += 1;
        let (ws, out) = &mut *state.borrow_mut();
        let out = MatMut::dense(out, queries.rows(), queries.cols()).expect("shape");
        attend(ctx, ws, &call, queries, &caches[turn % caches.len()], out).expect("valid call");
    };
    ours();
    let copies = shape.copies(k.len() + v.len());
    let orders = [Order::Tokens, Order::Heads];
    let mut theirs = Vec::new();
    for order in orders {
        let mut rotation = peer(threads, shape, copies, kind.theirs, order, &q, [&k, &v])?;
        agree(&name, kind.tolerance, &state.borrow().1, &rotation.result(q.len())?)?;
        theirs.push(rotation);
    }
    let mut candidates: Vec<Candidate<'_>> = vec![Box::new(ours)];
    for rotation in &mut theirs {
        candidates.push(Box::new(|| rotation.turn()));
    }
    let times = interleave_resting(&mut candidates, options.budget(), || threads.sleep());
    drop(candidates);
    let seconds = times[0].median();
    let operations = shape.operations();
    let bytes_read = |bytes: usize, copies: usize| if copies > 1 { bytes as f64 } else { 0.0 };
    let bytes = bytes_read(caches[0].bytes(), caches.len());
    let rows = orders.iter().zip(&times[1..]).map(|(order, times)| (order.name(), times.median()));
    let best = rows.clone().min_by(|a, b| a.1.total_cmp(&b.1));
    let best_peer = best.map(|(peer, theirs)| (peer.to_owned(), theirs / seconds));
    let row = Row { case: name.clone(), kernel: "kvern".into(), seconds, operations, bytes, best_peer };
    table.row(&row, limits.floor(operations, bytes, limits.peaks.f32));
    let bytes = bytes_read(k.len() + v.len(), copies);
    for (peer, seconds) in rows {
        let (case, kernel) = (name.clone(), peer.to_owned());
        let row = Row { case, kernel, seconds, operations, bytes, best_peer: None };
        table.row(&row, limits.floor(operations, bytes, limits.peaks.f32));
    }
    Ok(())
}

/// ggml's side of a case: `copies` caches, and the queries once.
fn peer<'t>(
    threads: &'t Threads,
    shape: &Shape,
    copies: usize,
    of: Type,
    order: Order,
    q: &[f32],
    [k, v]: [&[u8]; 2],
) -> Result<Rotation<'t>> {
    let &Shape { heads, kv_heads, head_dim, q_len, kv_len } = shape;
    let mut session = Session::new(threads, copies)?;
    let queries = session.filled(Type::F32, [head_dim, heads, q_len], &bytes_of(q))?;
    let mask = session.filled(Type::F16, [kv_len, q_len, 1], &shape.mask())?;
    let result = session.tensor(Type::F32, [head_dim, heads, q_len], Layout::Plain)?;
    let by_heads = order == Order::Heads;
    let dims = if by_heads { [head_dim, kv_len, kv_heads] } else { [head_dim, kv_heads, kv_len] };
    let [k, v] = [k, v].map(|bytes| order.arrange(bytes, kv_heads, of.row_bytes(head_dim)));
    let mut graphs = Vec::new();
    for _ in 0..copies {
        let inputs = [queries, session.filled(of, dims, &k)?, session.filled(of, dims, &v)?, mask];
        graphs.push(session.attention(inputs, by_heads, 1.0 / (head_dim as f32).sqrt(), result)?);
    }
    Ok(Rotation::new(session, graphs, result))
}
