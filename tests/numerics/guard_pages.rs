//! Operands that end where a forbidden page begins: nothing beyond them is read or written.

use crate::pages::{PAGE, Pages};
use crate::support::{Random, for_each_isa};
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, KvType, attend, workspace_bytes};
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::quant::{Compute, PackedWeights, WeightFormat, quantize};
use kvern::{Activation, Epilogue, MatMut, MatRef, PackedB, Workspace, ops};

/// f32 elements that end at a page without access, and start at one when they fill whole pages.
struct Guarded {
    pages: Pages,
    /// Bytes of the elements and of the pages around them.
    bytes: usize,
    len: usize,
}

impl Guarded {
    fn new(values: &[f32]) -> Guarded {
        let bytes = size_of_val(values).next_multiple_of(PAGE) + 2 * PAGE;
        let pages = Pages::new(bytes);
        pages.allow(PAGE, bytes - 2 * PAGE);
        let mut guarded = Guarded { pages, bytes, len: values.len() };
        guarded.slice().copy_from_slice(values);
        guarded
    }

    fn slice(&mut self) -> &mut [f32] {
        // SAFETY: the last `len` f32 before the last page are mapped, initialised (zero pages) and ours.
        unsafe {
            let end = self.pages.start().byte_add(self.bytes - PAGE).cast::<f32>();
            std::slice::from_raw_parts_mut(end.sub(self.len), self.len)
        }
    }
}

#[test]
fn products_touch_nothing_beyond_their_operands() {
    let mut r = Random::new(1);
    for n in (1..=70).chain([128, 200, 257]) {
        let (m, k) = (1 + n * 3 % 37, 1 + n * 7 % 50);
        let (mut a, mut b) = (Guarded::new(&r.vec(m * k)), Guarded::new(&r.vec(k * n)));
        let (mut c, mut bias) = (Guarded::new(&vec![0.0; m * n]), Guarded::new(&r.vec(n)));
        let e = Epilogue::default().scaled(1.0, 0.5).bias(bias.slice()).activation(Activation::Silu);
        for_each_isa(|ctx| {
            let mut ws = Workspace::new(matmul_workspace_bytes(ctx, m, n, k).unwrap()).unwrap();
            let (a, b, c) = (a.slice(), b.slice(), c.slice());
            let am = MatRef::dense(a, m, k).unwrap();
            let bm = MatRef::dense(b, k, n).unwrap();
            for e in [&e, &Epilogue::default()] {
                matmul(ctx, &mut ws, am, bm, MatMut::dense(c, m, n).unwrap(), e).unwrap();
                let at = MatRef::dense(a, k, m).unwrap().t();
                let bt = MatRef::dense(b, n, k).unwrap().t();
                matmul(ctx, &mut ws, at, bt, MatMut::dense(c, m, n).unwrap(), e).unwrap();
                let p = PackedB::pack(ctx, bm).unwrap();
                p.multiply(ctx, &mut ws, am, MatMut::dense(c, m, n).unwrap(), e).unwrap();
            }
        });
    }
}

#[test]
fn quantized_products_touch_nothing_beyond_their_operands() {
    let mut r = Random::new(2);
    for n in 1..=50 {
        let (m, k) = (1 + n * 3 % 9, 32 * (1 + n % 3));
        let (mut a, mut w) = (Guarded::new(&r.vec(m * k)), Guarded::new(&r.vec(n * k)));
        let mut c = Guarded::new(&vec![0.0; m * n]);
        for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
            let p = PackedWeights::quantize(format, MatRef::dense(w.slice(), n, k).unwrap()).unwrap();
            let mut blocks = vec![0; format.bytes(n, k).unwrap()];
            quantize(format, w.slice(), &mut blocks).unwrap();
            for_each_isa(|ctx| {
                for compute in [Compute::Int8, Compute::F32] {
                    let mut ws = Workspace::new(p.workspace_bytes(ctx, m, compute).unwrap()).unwrap();
                    let a = MatRef::dense(a.slice(), m, k).unwrap();
                    let c = MatMut::dense(c.slice(), m, n).unwrap();
                    p.multiply(ctx, &mut ws, compute, a, c, &Epilogue::default()).unwrap();
                }
            });
        }
    }
}

#[test]
fn attention_and_row_operations_touch_nothing_beyond_their_operands() {
    let mut r = Random::new(3);
    for n in 1..=70 {
        let (mut x, mut z) = (Guarded::new(&r.vec(2 * n)), Guarded::new(&r.vec(2 * n)));
        let (mut gain, mut y) = (Guarded::new(&r.vec(n)), Guarded::new(&r.vec(2 * n)));
        let (mut state, mut best) = (Guarded::new(&r.vec(n)), Guarded::new(&r.vec(2 * (1 + n / 2))));
        for_each_isa(|ctx| {
            let (x, z, gain, y) = (x.slice(), z.slice(), gain.slice(), y.slice());
            let zm = MatRef::dense(z, 2, n).unwrap();
            let mut ym = MatMut::dense(y, 2, n).unwrap();
            ops::layer_norm(ctx, zm, gain, gain, 1e-5, ym.reborrow()).unwrap();
            ops::rms_norm(ctx, zm, gain, 1e-5, ym.reborrow()).unwrap();
            let mut xm = MatMut::dense(x, 2, n).unwrap();
            ops::add(ctx, xm.reborrow(), zm).unwrap();
            ops::silu_mul(ctx, xm.reborrow(), zm).unwrap();
            for activation in Activation::ALL {
                ops::activate(ctx, activation, xm.reborrow());
                ops::activate_mul(ctx, activation, xm.reborrow(), zm).unwrap();
            }
            ops::swiglu_oai(ctx, 1.702, 7.0, xm.reborrow(), zm).unwrap();
            ops::add_scaled(ctx, xm.reborrow(), 0.5, zm).unwrap();
            ops::scale(ctx, xm.reborrow(), 0.5);
            ops::softcap(ctx, 30.0, xm.reborrow()).unwrap();
            ops::softmax(ctx, xm.reborrow());
            for kind in [ops::NormKind::Layer, ops::NormKind::Unit] {
                let options = ops::NormOptions::new(kind, 1e-5).gain(gain);
                ops::norm(ctx, &options.gate(Activation::Silu, zm), zm, ym.reborrow()).unwrap();
                ops::norm(ctx, &ops::NormOptions::new(kind, 1e-5), zm, ym.reborrow()).unwrap();
            }
            for along in [ops::Along::Row, ops::Along::Column] {
                ops::cumulative_sum(ctx, along, xm.reborrow());
            }
            ops::mean_pool(ctx, zm, &[0, 1, 2], None, xm.reborrow()).unwrap();
            // The taps are two rows, the state is one.
            let options = ops::ConvOptions::new(zm).bias(gain);
            ops::causal_conv(ctx, &options, zm, state.slice(), ym.reborrow()).unwrap();
            let (k, mut indices) = (1 + n / 2, vec![0; 2 * (1 + n / 2)]);
            ops::top_k(ctx, zm, k, &mut indices, best.slice()).unwrap();
            let options = ops::RouterOptions::new(k, ops::RouterScore::Sigmoid).bias(gain);
            ops::route(ctx, &options, n, x, &mut indices, best.slice()).unwrap();
            let mut xm = MatMut::dense(x, 2, n).unwrap();
            if n % 2 == 0 {
                let table = ops::RopeTable::new(n, 2, 1e4).unwrap();
                for pairs in [ops::RopePairs::Halves, ops::RopePairs::Interleaved] {
                    ops::rope(ctx, &table, pairs, n, 0, xm.reborrow()).unwrap();
                }
            }
        });
    }
    for dim in [8, 16, 24, 64] {
        let (mut q, mut k) = (Guarded::new(&r.vec(9 * 2 * dim)), Guarded::new(&r.vec(9 * dim)));
        let (mut v, mut out) = (Guarded::new(&r.vec(9 * dim)), Guarded::new(&vec![0.0; 9 * 2 * dim]));
        for_each_isa(|ctx| {
            for kind in KvType::ALL {
                let mut cache = KvCache::new(KvCacheOptions::new(1, dim, 9).types(kind, kind)).unwrap();
                let dense = |x| MatRef::dense(x, 9, dim).unwrap();
                cache.append(dense(k.slice()), dense(v.slice())).unwrap();
                let options = AttentionOptions::new(2);
                let mut ws = Workspace::new(workspace_bytes(ctx, &options, &cache, 9).unwrap()).unwrap();
                for rows in [1, 9] {
                    // The last rows: they end at the forbidden page.
                    let q = &q.slice()[(9 - rows) * 2 * dim..];
                    let out = &mut out.slice()[(9 - rows) * 2 * dim..];
                    let q = MatRef::dense(q, rows, 2 * dim).unwrap();
                    let out = MatMut::dense(out, rows, 2 * dim).unwrap();
                    attend(ctx, &mut ws, &options, q, &cache, out).unwrap();
                }
            }
        });
    }
}
