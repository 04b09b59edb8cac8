//! A linear map with packed weights.

use crate::engine::Runtime;
use crate::error::Result;
use crate::rows::Rows;
use kvern::quant::{Compute, PackedWeights, Product, WeightFormat, multiply_many, workspace_bytes_many};
use kvern::{Activation, Context, Epilogue, MatMut, MatRef, ops};

/// The arithmetic of all products: activations stay f32, so weights of floats and of blocks are both
/// multiplied exactly as they are.
pub const COMPUTE: Compute = Compute::F32;

/// `y = x W^T + b`, W (outputs, inputs) in any [`WeightFormat`].
#[derive(Debug, Clone)]
pub struct Linear {
    weights: PackedWeights,
    bias: Option<Vec<f32>>, // (outputs)
}

impl Linear {
    /// Packs rows of weights, one row for each output.
    ///
    /// **Shapes**: `rows`: (outputs, inputs), `bias`: (outputs). **Errors**: as
    /// [`PackedWeights::quantize_on`]; `Shape` for a bias of another length, when it is first used.
    pub fn pack(
        ctx: &Context,
        format: WeightFormat,
        rows: MatRef<'_>,
        bias: Option<Vec<f32>>,
    ) -> Result<Linear> {
        Ok(Linear { weights: PackedWeights::quantize_on(ctx, format, rows)?, bias })
    }

    /// Elements of a result row.
    pub fn outputs(&self) -> usize {
        self.weights.n()
    }

    /// Elements of an input row.
    pub fn inputs(&self) -> usize {
        self.weights.k()
    }

    /// The packed weights, for calls that take them, such as those of experts.
    pub fn weights(&self) -> &PackedWeights {
        &self.weights
    }

    /// The bias.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    fn epilogue(&self) -> Epilogue<'_> {
        self.bias().map_or_else(Epilogue::default, |bias| Epilogue::default().bias(bias))
    }

    /// `x W^T + b`.
    ///
    /// **Shapes**: `x`: (tokens, inputs); the result (tokens, outputs). **Errors**: as
    /// [`PackedWeights::multiply`].
    pub fn apply(&self, rt: &mut Runtime, x: MatRef<'_>) -> Result<Rows> {
        self.activate(rt, x, Activation::Identity)
    }

    /// `act(x W^T + b)`.
    ///
    /// **Shapes**, **Errors**: as [`Linear::apply`].
    pub fn activate(&self, rt: &mut Runtime, x: MatRef<'_>, activation: Activation) -> Result<Rows> {
        let mut y = Rows::zeros(x.rows(), self.outputs());
        self.multiply(rt, x, y.view_mut()?, &self.epilogue().activation(activation))?;
        Ok(y)
    }

    /// `y = y + by * (x W^T + b)`: a residual.
    ///
    /// **Numerics**: without a bias, or with `by = 1`, in the epilogue of the product; otherwise the sum
    /// first, for an epilogue does not multiply its bias. **Shapes**, **Errors**: as [`Linear::apply`].
    pub fn add_to(&self, rt: &mut Runtime, x: MatRef<'_>, by: f32, y: &mut Rows) -> Result<()> {
        if self.bias.is_some() && by != 1.0 {
            let sum = self.apply(rt, x)?;
            return Ok(ops::add_scaled(&rt.ctx, y.view_mut()?, by, sum.view()?)?);
        }
        self.multiply(rt, x, y.view_mut()?, &self.epilogue().scaled(by, 1.0))
    }

    /// `y = beta * y + act(alpha * x W^T + bias)` with an epilogue of the caller's; the map's own bias takes
    /// no part.
    ///
    /// **Errors**: as [`PackedWeights::multiply`].
    pub fn multiply(
        &self,
        rt: &mut Runtime,
        x: MatRef<'_>,
        y: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        rt.reserve(self.weights.workspace_bytes(&rt.ctx, x.rows(), COMPUTE)?)?;
        Ok(self.weights.multiply(&rt.ctx, &mut rt.ws, COMPUTE, x, y, epilogue)?)
    }

    /// Several maps of the same rows: queries, keys and values.
    ///
    /// **Numerics**: the bits of [`Linear::apply`]. **Errors**: as [`multiply_many`].
    pub fn apply_each<const N: usize>(
        rt: &mut Runtime,
        x: MatRef<'_>,
        maps: [&Linear; N],
    ) -> Result<[Rows; N]> {
        let weights = maps.map(Linear::weights);
        rt.reserve(workspace_bytes_many(&rt.ctx, x.rows(), COMPUTE, &weights)?)?;
        let mut results = maps.map(|map| Rows::zeros(x.rows(), map.outputs()));
        let mut products = Vec::with_capacity(N);
        for (map, y) in maps.iter().zip(&mut results) {
            let mut product = Product::new(&map.weights, y.view_mut()?);
            product.epilogue = map.epilogue();
            products.push(product);
        }
        multiply_many(&rt.ctx, &mut rt.ws, COMPUTE, x, &mut products)?;
        drop(products);
        Ok(results)
    }

    /// `act(x W^T + b) * (x U^T + c)`, with this map as the gate W and `up` as U.
    ///
    /// **Numerics**: one gated product; two products where `up` has a bias c, which a gated product cannot
    /// add. **Shapes**, **Errors**: as [`PackedWeights::multiply_gated`].
    pub fn gate(&self, rt: &mut Runtime, x: MatRef<'_>, up: &Linear, activation: Activation) -> Result<Rows> {
        if up.bias.is_some() {
            let [mut gate, up] = Linear::apply_each(rt, x, [self, up])?;
            ops::activate_mul(&rt.ctx, activation, gate.view_mut()?, up.view()?)?;
            return Ok(gate);
        }
        rt.reserve(workspace_bytes_many(&rt.ctx, x.rows(), COMPUTE, &[&self.weights, &up.weights])?)?;
        let mut y = Rows::zeros(x.rows(), self.outputs());
        let (ws, epilogue) = (&mut rt.ws, self.epilogue().activation(activation));
        self.weights.multiply_gated(&rt.ctx, ws, COMPUTE, x, &up.weights, y.view_mut()?, &epilogue)?;
        Ok(y)
    }

    /// Rows of the weights: the map as an embedding table (vocabulary, n).
    ///
    /// **Errors**: `Shape` for an id that is not below the outputs.
    pub fn rows(&self, rt: &Runtime, ids: &[u32]) -> Result<Rows> {
        let mut out = Rows::zeros(ids.len(), self.inputs());
        ops::embedding_quantized(&rt.ctx, &self.weights, ids, out.view_mut()?)?;
        Ok(out)
    }
}
