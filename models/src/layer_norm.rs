//! The layer norm with its weights (Ba, Kiros & Hinton 2016).

use crate::engine::Runtime;
use crate::error::Result;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::{MatRef, ops};

/// `(x - mean) / sqrt(var + eps) * gain + bias`, row by row.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    gain: Vec<f32>, // (n)
    bias: Vec<f32>, // (n)
    eps: f32,
}

impl LayerNorm {
    /// Loads `name.weight` and `name.bias`, (n).
    ///
    /// **Errors**: as [`Loader::tensor`].
    pub fn load(at: &Loader<'_>, name: &str, n: usize, eps: f32) -> Result<LayerNorm> {
        let at = at.at(name);
        Ok(LayerNorm { gain: at.tensor("weight", &[n])?, bias: at.tensor("bias", &[n])?, eps })
    }

    /// The normed rows.
    ///
    /// **Shapes**: `x` and the result: (rows, n). **Errors**: as [`ops::layer_norm`].
    pub fn apply(&self, rt: &Runtime, x: MatRef<'_>) -> Result<Rows> {
        let mut y = Rows::zeros(x.rows(), x.cols());
        ops::layer_norm(&rt.ctx, x, &self.gain, &self.bias, self.eps, y.view_mut()?)?;
        Ok(y)
    }
}
