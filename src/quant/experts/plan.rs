//! What experts have in common, and the scratch of a call.

use super::super::compute::Compute;
use super::super::packed::{Body, PackedWeights};
use super::super::plan::{enough_worker_bytes, row_bytes};
use super::types::{Between, Expert, ExpertOptions};
use crate::buffer::Arena;
use crate::context::Context;
use crate::error::{Error, Result, equal, option, positive, product};
use crate::tiles::Band;

/// The shape that all experts share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub experts: usize,
    pub hidden: usize,
    pub ffn: usize,
    pub out: usize,
    /// Whether there is an up.
    pub gated: bool,
    /// Whether any matrix takes activations as they are, being floats (of 8 bits too); and whether any takes
    /// int8.
    pub floats: bool,
    pub blocks: bool,
}

impl Shape {
    /// Checks that the experts fit each other.
    pub fn of<'a>(count: usize, expert: &(dyn Fn(usize) -> Expert<'a> + Sync)) -> Result<Shape> {
        option(count > 0, "experts", count, "at least 1")?;
        let first = expert(0);
        let (hidden, ffn, out) = (first.gate.k, first.gate.n, first.down.n);
        let gated = first.up.is_some();
        let mut shape = Shape { experts: count, hidden, ffn, out, gated, floats: false, blocks: false };
        for i in 0..count {
            let expert = expert(i);
            option(expert.up.is_some() == gated, "up", "one of some experts", "in all experts or in none")?;
            let stray = expert.up.is_none() && expert.up_bias.is_some();
            option(!stray, "up_bias", "one without an up", "left out")?;
            let names = [("gate.n", "gate.k"), ("up.n", "up.k"), ("down.n", "down.k")];
            let wants = [(ffn, hidden), (ffn, hidden), (out, ffn)];
            for ((part, (n, k)), want) in expert.parts().into_iter().zip(names).zip(wants) {
                let Some((w, bias)) = part else { continue };
                equal(n, w.n, "must equal the first expert's =", want.0)?;
                equal(k, w.k, "must equal the first expert's =", want.1)?;
                let len = bias.map_or(w.n, <[f32]>::len);
                equal("bias.len", len, "must equal the rows of its weights =", w.n)?;
                match &w.body {
                    Body::Floats(_) => shape.floats = true,
                    Body::Blocks(packed) => {
                        option(packed.order.is_none(), "weights", "with an order of k", "in plain order")?;
                        match w.takes_int8() {
                            true => shape.blocks = true,
                            false => shape.floats = true,
                        }
                    }
                }
            }
        }
        Ok(shape)
    }

    /// Checks that the options fit the experts.
    pub fn check(&self, options: &ExpertOptions) -> Result<()> {
        if let Between::SwigluOai { alpha, limit } = options.between {
            option(alpha.is_finite() && alpha >= 1.0, "alpha", alpha, "finite and at least 1")?;
            positive("limit", limit)?;
            option(self.gated, "up", "none", "there for this gate")?;
        }
        Ok(())
    }
}

/// Elements and bytes of each buffer of a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Ends of the experts' pairs.
    pub ends: usize,
    /// Pairs in all, and rows of gate and up.
    pub pairs: usize,
    pub products: usize,
    pub bands: usize,
    /// Bytes of a quantised row of x and of what lies between the products, 0 where nothing is quantised.
    pub x_bytes: usize,
    pub between_bytes: usize,
    /// Rows of tokens that are quantised once.
    pub tokens: usize,
    /// Columns of the rows of pairs in f32, 0 where none are needed.
    pub x_cols: usize,
    pub ffn: usize,
    pub out: usize,
    pub worker_bytes: usize,
    pub workers: usize,
}

impl Sizes {
    pub fn of<'a>(
        ctx: &Context,
        options: &ExpertOptions,
        shape: &Shape,
        expert: &(dyn Fn(usize) -> Expert<'a> + Sync),
        tokens: usize,
        chosen: usize,
    ) -> Result<Sizes> {
        let pairs = product("tokens * chosen", &[tokens, chosen])?;
        let fits = u32::try_from(pairs).is_ok();
        option(fits, "chosen", chosen, "so few that pairs have numbers of 32 bits")?;
        let products = product("products of pairs", &[pairs, 1 + usize::from(shape.gated)])?;
        let quantized = options.compute == Compute::Int8 && shape.blocks;
        let floats = options.compute == Compute::F32 || shape.floats;
        // A row is scaled before it is quantised.
        let mut worker_bytes = Arena::bytes_for::<f32>(if options.weigh_input { shape.hidden } else { 0 })?;
        // No expert has more rows than the part has pairs.
        let worker = |w: &PackedWeights, rows: usize| match &w.body {
            Body::Blocks(packed) => enough_worker_bytes(ctx.kernels(), packed, rows, w.k, options.compute),
            Body::Floats(_) => Ok(0),
        };
        let mut float_bytes = 0;
        for i in 0..shape.experts {
            for (w, _) in expert(i).parts().into_iter().flatten() {
                worker_bytes = worker(w, pairs)?.max(worker_bytes);
                if let Body::Floats(b) = &w.body {
                    float_bytes = b.workspace_bytes(ctx, pairs)?.max(float_bytes);
                }
            }
        }
        let workers = ctx.executor().workers();
        let worker_bytes = worker_bytes.max(float_bytes.div_ceil(workers).next_multiple_of(64));
        let row = |k: usize| if quantized { row_bytes(k, options.compute) } else { 0 };
        Ok(Sizes {
            ends: shape.experts,
            pairs,
            products,
            bands: products.min(2 * shape.experts),
            x_bytes: row(shape.hidden),
            between_bytes: row(shape.ffn),
            tokens: if options.weigh_input { 0 } else { tokens },
            x_cols: if floats { shape.hidden } else { 0 },
            ffn: shape.ffn,
            out: shape.out,
            worker_bytes,
            workers,
        })
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> Result<usize> {
        let of = |what: &[usize]| product("workspace bytes", what).and_then(Arena::bytes_for::<u8>);
        let parts = [
            of(&[self.ends, size_of::<u32>()])?,
            of(&[self.pairs, size_of::<u32>()])?,
            of(&[self.pairs, size_of::<u32>()])?,
            of(&[self.bands, size_of::<Band>()])?,
            of(&[self.tokens, self.x_bytes])?,
            of(&[self.pairs, self.x_bytes])?,
            of(&[self.pairs, self.x_cols, size_of::<f32>()])?,
            of(&[self.products, self.ffn, size_of::<f32>()])?,
            of(&[self.pairs, self.between_bytes])?,
            of(&[self.pairs, self.out, size_of::<f32>()])?,
            of(&[self.worker_bytes, self.workers])?,
        ];
        let sum = parts.iter().try_fold(0usize, |sum, &bytes| sum.checked_add(bytes));
        let sum = sum.filter(|&sum| sum <= isize::MAX as usize);
        sum.ok_or(Error::Overflow { what: "workspace bytes" })
    }
}
