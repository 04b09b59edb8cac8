//! Alternating updates (Baykal et al. 2023): several streams beside each other, of which a layer works on
//! one; the others follow by coefficients of each token.
//!
//! ```text
//! m(x) = tanh(W_router (rms_norm(x) / n))                       one number for each stream
//! predict:  p[i] = h[i] + sum over j of (W_p m(h[active]))[i, j] h[j]
//! correct:  h[i] = p[i] + (1 + (W_c m(y))[i]) (y - p[active])   y is what the layer made of p[active]
//! ```

use crate::engine::Runtime;
use crate::error::Result;
use crate::linear::Linear;
use crate::loader::Loader;
use crate::rows::Rows;
use kvern::ops;
use kvern::{Activation, Context, MatMut, MatRef};

/// The least mean square that a new stream is divided by the root of.
const LEAST: f64 = 1e-5;

/// The predictions and corrections of a layer.
pub(super) struct AltUp {
    norm: Vec<f32>,     // (n), over n
    router: Linear,     // (streams, n)
    prediction: Linear, // (streams * streams, streams)
    correction: Linear, // (streams, streams)
    /// The stream that layers work on.
    active: usize,
    eps: f32,
}

impl AltUp {
    /// Loads the tensors of the place `altup` of a layer. The maps have as few columns as there are streams,
    /// which is no block of a quantised format, and stay in f32.
    ///
    /// **Errors**: as [`Loader::linear`].
    pub fn load(at: &Loader<'_>, n: usize, streams: usize, active: usize, eps: f32) -> Result<AltUp> {
        let pairs = streams.saturating_mul(streams);
        let mut norm = at.gain("router_norm", n)?;
        norm.iter_mut().for_each(|gain| *gain /= n as f32);
        Ok(AltUp {
            norm,
            router: at.linear_f32("modality_router", (streams, n), false)?,
            prediction: at.linear_f32("prediction_coefs", (pairs, streams), false)?,
            correction: at.linear_f32("correction_coefs", (streams, streams), false)?,
            active,
            eps,
        })
    }

    /// `map m(x)`: coefficients of each token.
    fn coefficients(&self, rt: &mut Runtime, x: &Rows, map: &Linear) -> Result<Rows> {
        let h = rt.rms_norm(x.view()?, &self.norm, self.eps)?;
        let m = self.router.activate(rt, h.view()?, Activation::Tanh)?;
        map.apply(rt, m.view()?)
    }

    /// What each stream will be.
    ///
    /// **Errors**: those of the calls.
    pub fn predict(&self, rt: &mut Runtime, streams: &[Rows]) -> Result<Vec<Rows>> {
        let by = self.coefficients(rt, &streams[self.active], &self.prediction)?;
        let mut predicted = streams.to_vec();
        for (i, to) in predicted.iter_mut().enumerate() {
            for (j, from) in streams.iter().enumerate() {
                add_rows(&rt.ctx, to, &by, i * streams.len() + j, from)?;
            }
        }
        Ok(predicted)
    }

    /// Moves all streams by what the layer changed, whose result is `y`.
    ///
    /// **Errors**: those of the calls.
    pub fn correct(&self, rt: &mut Runtime, streams: &mut [Rows], y: &Rows) -> Result<()> {
        let mut by = self.coefficients(rt, y, &self.correction)?;
        by.as_mut_slice().iter_mut().for_each(|by| *by += 1.0);
        let mut change = y.clone();
        ops::add_scaled(&rt.ctx, change.view_mut()?, -1.0, streams[self.active].view()?)?;
        for (i, stream) in streams.iter_mut().enumerate() {
            add_rows(&rt.ctx, stream, &by, i, &change)?;
        }
        Ok(())
    }
}

/// `to[t] = to[t] + by[t][column] * from[t]`: a factor for each token.
fn add_rows(ctx: &Context, to: &mut Rows, by: &Rows, column: usize, from: &Rows) -> Result<()> {
    let n = from.cols();
    let factors = by.as_slice().iter().skip(column).step_by(by.cols().max(1));
    let rows = to.as_mut_slice().chunks_exact_mut(n.max(1)).zip(from.as_slice().chunks_exact(n.max(1)));
    for ((to, from), &by) in rows.zip(factors) {
        ops::add_scaled(ctx, MatMut::dense(to, 1, n)?, by, MatRef::dense(from, 1, n)?)?;
    }
    Ok(())
}

/// Maps from one stream to the others, at the beginning of the stack, and back at its end. Each row keeps the
/// magnitude of the first stream: `y * rms(x) / sqrt(max(mean(y^2), 1e-5))`.
pub(super) struct Streams {
    split: Vec<Linear>, // (n, n)
    join: Vec<Linear>,  // (n, n)
}

impl Streams {
    /// Loads `altup_projections` and `altup_unembed_projections`.
    ///
    /// **Errors**: as [`Loader::linear`].
    pub fn load(model: &Loader<'_>, n: usize, streams: usize) -> Result<Streams> {
        let maps = |name: &str| -> Result<Vec<Linear>> {
            let others = 0..streams.saturating_sub(1);
            others.map(|i| model.linear(&format!("{name}.{i}"), (n, n), false)).collect()
        };
        Ok(Streams { split: maps("altup_projections")?, join: maps("altup_unembed_projections")? })
    }

    /// All streams of the embeddings `x`, which are the first.
    ///
    /// **Errors**: as [`Linear::apply`].
    pub fn split(&self, rt: &mut Runtime, x: Rows) -> Result<Vec<Rows>> {
        let mut streams = vec![x];
        for map in &self.split {
            let mut y = map.apply(rt, streams[0].view()?)?;
            match_magnitude(&mut y, &streams[0]);
            streams.push(y);
        }
        Ok(streams)
    }

    /// The mean of all streams, those but the first mapped back.
    ///
    /// **Errors**: as [`Linear::apply`].
    pub fn join(&self, rt: &mut Runtime, streams: &[Rows]) -> Result<Rows> {
        let mut sum = streams[0].clone();
        for (map, stream) in self.join.iter().zip(&streams[1..]) {
            let mut y = map.apply(rt, stream.view()?)?;
            match_magnitude(&mut y, &streams[0]);
            ops::add(&rt.ctx, sum.view_mut()?, y.view()?)?;
        }
        ops::scale(&rt.ctx, sum.view_mut()?, 1.0 / streams.len() as f32);
        Ok(sum)
    }
}

/// Scales each row of `y` to the root mean square of that row of `x`.
fn match_magnitude(y: &mut Rows, x: &Rows) {
    let n = x.cols().max(1);
    let mean_square = |row: &[f32]| row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / n as f64;
    for (y, x) in y.as_mut_slice().chunks_exact_mut(n).zip(x.as_slice().chunks_exact(n)) {
        let by = (mean_square(x) / mean_square(y).max(LEAST)).sqrt() as f32;
        y.iter_mut().for_each(|y| *y *= by);
    }
}
