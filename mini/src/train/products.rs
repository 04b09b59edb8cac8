//! The products of one linear map: forward, and both gradients.

use anyhow::Result;
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::{Activation, Context, Epilogue, MatMut, MatRef, Workspace};

use super::rows::add_column_sums;
use crate::model::LinearWeights;

/// Context and workspace of the products.
pub(super) struct Products<'a> {
    pub ctx: &'a Context,
    pub ws: Workspace,
}

impl Products<'_> {
    /// `C = beta C + alpha A B`; grows the workspace if the product needs more.
    pub fn multiply(
        &mut self,
        a: MatRef<'_>,
        b: MatRef<'_>,
        c: MatMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        self.ws.reserve(matmul_workspace_bytes(self.ctx, a.rows(), b.cols(), a.cols())?)?;
        Ok(matmul(self.ctx, &mut self.ws, a, b, c, epilogue)?)
    }

    /// `y = beta y + act(x W^T + b)`; `x`: (rows, inputs), `y`: (rows, outputs).
    pub fn forward(
        &mut self,
        weights: &LinearWeights,
        x: &[f32],
        y: &mut [f32],
        beta: f32,
        activation: Activation,
    ) -> Result<()> {
        let (inputs, outputs) = (weights.inputs, weights.outputs());
        let rows = y.len() / outputs.max(1);
        let w = MatRef::dense(&weights.weight, outputs, inputs)?;
        let epilogue = Epilogue::default().scaled(1.0, beta).bias(&weights.bias).activation(activation);
        self.multiply(MatRef::dense(x, rows, inputs)?, w.t(), MatMut::dense(y, rows, outputs)?, &epilogue)
    }

    /// `d.weight = dY^T X`, `d.bias = sum of the rows of dY`, `dx = dY W`.
    pub fn backward(
        &mut self,
        weights: &LinearWeights,
        x: &[f32],
        dy: &[f32],
        d: &mut LinearWeights,
        dx: &mut [f32],
    ) -> Result<()> {
        let (inputs, outputs) = (weights.inputs, weights.outputs());
        let rows = dy.len() / outputs.max(1);
        let plain = Epilogue::default();
        let dy_view = MatRef::dense(dy, rows, outputs)?;
        let x = MatRef::dense(x, rows, inputs)?;
        self.multiply(dy_view.t(), x, MatMut::dense(&mut d.weight, outputs, inputs)?, &plain)?;
        let w = MatRef::dense(&weights.weight, outputs, inputs)?;
        self.multiply(dy_view, w, MatMut::dense(dx, rows, inputs)?, &plain)?;
        d.bias.fill(0.0);
        add_column_sums(dy, &mut d.bias);
        Ok(())
    }
}
