//! The feed-forward part of a transformer with 4-bit weights.

use kvern::quant::{Compute, PackedWeights, WeightFormat};
use kvern::{Activation, Context, Epilogue, MatMut, MatRef, Result, Workspace};

/// Two quantised layers with a GELU between them, and the buffers of one token.
pub struct FeedForward {
    ctx: Context,
    ws: Workspace,
    up: PackedWeights,
    down: PackedWeights,
    hidden: Vec<f32>,
}

impl FeedForward {
    /// Quantises the layers: `up` is (hidden, width), `down` is (width, hidden).
    pub fn new(ctx: Context, up: MatRef<'_>, down: MatRef<'_>) -> Result<FeedForward> {
        let hidden = vec![0.0; up.rows()];
        let up = PackedWeights::quantize(WeightFormat::Q4_0, up)?;
        let down = PackedWeights::quantize(WeightFormat::Q4_0, down)?;
        let bytes = |w: &PackedWeights| w.workspace_bytes(&ctx, 1, Compute::Int8);
        let ws = Workspace::new(bytes(&up)?.max(bytes(&down)?))?;
        Ok(FeedForward { ctx, ws, up, down, hidden })
    }

    /// `x += down * gelu(up * x)` for one token.
    pub fn token(&mut self, x: &mut [f32]) -> Result<()> {
        let FeedForward { ctx, ws, up, down, hidden } = self;
        let (width, wide) = (x.len(), hidden.len());
        let gelu = Epilogue::default().activation(Activation::Gelu);
        let out = MatMut::dense(hidden, 1, wide)?;
        up.multiply(ctx, ws, Compute::Int8, MatRef::dense(x, 1, width)?, out, &gelu)?;
        let residual = Epilogue::default().scaled(1.0, 1.0);
        let a = MatRef::dense(hidden, 1, wide)?;
        down.multiply(ctx, ws, Compute::Int8, a, MatMut::dense(x, 1, width)?, &residual)
    }
}
