//! A linear map with packed weights, and the embedding table.

use anyhow::Result;
use kvern::quant::{Compute, PackedWeights, WeightFormat};
use kvern::{Activation, Context, Epilogue, MatMut, MatRef, PackedB, Workspace, ops};

use super::weights::LinearWeights;

/// Weights in the library's packed form.
enum Packed {
    F32(PackedB),
    Quantized(PackedWeights),
}

/// `y = act(x W^T + b)`, or with a residual `y = y + x W^T + b`, in one pass.
pub struct Linear {
    packed: Packed,
    bias: Vec<f32>,
    activation: Activation,
    beta: f32,
}

impl Linear {
    /// Packs `weights`, quantised when there is a `format`.
    ///
    /// # Errors
    /// When the inputs are not a multiple of the format's block, or memory cannot be allocated.
    pub fn pack(ctx: &Context, weights: &LinearWeights, format: Option<WeightFormat>) -> Result<Self> {
        let w = MatRef::dense(&weights.weight, weights.outputs(), weights.inputs)?;
        let packed = match format {
            None => Packed::F32(PackedB::pack(ctx, w.t())?),
            Some(format) => Packed::Quantized(PackedWeights::quantize(format, w)?),
        };
        Ok(Self { packed, bias: weights.bias.clone(), activation: Activation::Identity, beta: 0.0 })
    }

    /// The same map followed by `activation`.
    pub fn then(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The same map, added to the output's previous values.
    pub fn residual(mut self) -> Self {
        self.beta = 1.0;
        self
    }

    /// `x`: (n, inputs), `y`: (n, outputs).
    ///
    /// # Errors
    /// When the shapes disagree or the workspace is too small.
    pub fn apply(&self, ctx: &Context, ws: &mut Workspace, x: MatRef<'_>, y: MatMut<'_>) -> Result<()> {
        let epilogue =
            Epilogue::default().scaled(1.0, self.beta).bias(&self.bias).activation(self.activation);
        match &self.packed {
            Packed::F32(weights) => weights.multiply(ctx, ws, x, y, &epilogue)?,
            Packed::Quantized(weights) => weights.multiply(ctx, ws, Compute::Int8, x, y, &epilogue)?,
        }
        Ok(())
    }

    /// Bytes of workspace for `rows` rows.
    ///
    /// # Errors
    /// When they exceed the address space.
    pub fn workspace_bytes(&self, ctx: &Context, rows: usize) -> Result<usize> {
        Ok(match &self.packed {
            Packed::F32(weights) => weights.workspace_bytes(ctx, rows)?,
            Packed::Quantized(weights) => weights.workspace_bytes(ctx, rows, Compute::Int8)?,
        })
    }

    /// Bytes held by weights and bias.
    pub fn bytes(&self) -> usize {
        let weights = match &self.packed {
            Packed::F32(weights) => weights.bytes(),
            Packed::Quantized(weights) => weights.bytes(),
        };
        weights + size_of_val(&self.bias[..])
    }
}

/// The embedding table: (vocabulary, dim).
pub enum Embedding {
    /// Row by row.
    F32 {
        /// (vocabulary, dim)
        table: Vec<f32>,
        /// Columns of the table.
        dim: usize,
    },
    /// Packed; a row is dequantised when it is read.
    Quantized(PackedWeights),
}

impl Embedding {
    /// The table in f32, or quantised when there is a `format`.
    ///
    /// # Errors
    /// As [`Linear::pack`].
    pub fn pack(table: &[f32], dim: usize, format: Option<WeightFormat>) -> Result<Self> {
        Ok(match format {
            None => Self::F32 { table: table.to_vec(), dim },
            Some(format) => {
                let rows = MatRef::dense(table, table.len() / dim.max(1), dim)?;
                Self::Quantized(PackedWeights::quantize(format, rows)?)
            }
        })
    }

    /// `out[i] = table[ids[i]]`; `out`: (ids.len(), dim).
    ///
    /// # Errors
    /// When an id is beyond the table; then nothing is written.
    pub fn rows(&self, ctx: &Context, ids: &[u32], out: MatMut<'_>) -> Result<()> {
        match self {
            Self::F32 { table, dim } => {
                let rows = MatRef::dense(table, table.len() / (*dim).max(1), *dim)?;
                ops::embedding(ctx, rows, ids, out)?;
            }
            Self::Quantized(table) => ops::embedding_quantized(ctx, table, ids, out)?,
        }
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32 { table, .. } => size_of_val(&table[..]),
            Self::Quantized(table) => table.bytes(),
        }
    }

    /// Bytes of one row.
    ///
    /// # Errors
    /// When they exceed the address space.
    pub fn row_bytes(&self) -> Result<usize> {
        Ok(match self {
            Self::F32 { dim, .. } => dim * size_of::<f32>(),
            Self::Quantized(table) => match table.format() {
                Some(format) => format.bytes(1, table.k())?,
                None => table.bytes() / table.n().max(1),
            },
        })
    }
}
