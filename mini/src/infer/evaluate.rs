//! Quality of several weight formats of one model on one text.

use anyhow::{Context as _, Result, ensure};
use kvern::{Context, MatMut, ops};

use crate::model::Session;

/// Quality over the evaluated positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// Mean cross-entropy per token, in nats.
    pub loss: f64,
    /// The exponential of the loss.
    pub perplexity: f64,
    /// Largest absolute difference of a logit from the reference.
    pub max_abs_logit_err: f64,
    /// Mean Kullback-Leibler divergence of the distribution from the reference's, in nats.
    pub kl: f64,
    /// Share of positions whose greatest logit is that of the reference.
    pub top1_agreement: f64,
}

/// Sums over positions.
#[derive(Clone, Default)]
struct Sums {
    loss: f64,
    kl: f64,
    error: f32,
    agreed: usize,
}

/// Evaluates the sessions on `ids`: each id but the first is predicted from the true ids before it in its
/// window of `window` predictions. The first session is the reference of all comparisons.
///
/// `progress` is called after each window. Sums run in f64 over ascending positions, logarithms come from
/// `libm`: the result is the same on every machine.
///
/// # Errors
/// When there are fewer than two ids or no window, a session takes fewer ids in one call than `window`, or
/// every logit of a position is NaN.
pub fn evaluate(
    sessions: &mut [Session<'_>],
    ids: &[u32],
    window: usize,
    mut progress: impl FnMut(),
) -> Result<Vec<Quality>> {
    let positions = ids.len().saturating_sub(1);
    ensure!(positions > 0 && window > 0, "{} ids in windows of {window} leave nothing to predict", ids.len());
    let mut sums = vec![Sums::default(); sessions.len()];
    let (reference, others) = sessions.split_first_mut().context("0 sessions to evaluate")?;
    let ctx = reference.context();
    let mut scratch = vec![0.0; reference.model().shape().vocabulary];

    for start in (0..positions).step_by(window) {
        let end = positions.min(start + window);
        let (inputs, targets) = (&ids[start..end], &ids[start + 1..end + 1]);
        let exact = logits(reference, inputs)?;
        sums[0].add(ctx, exact, exact, targets, &mut scratch)?;
        for (other, sums) in others.iter_mut().zip(&mut sums[1..]) {
            let found = logits(other, inputs)?;
            sums.add(ctx, found, exact, targets, &mut scratch)?;
        }
        progress();
    }
    Ok(sums.iter().map(|sums| sums.quality(positions)).collect())
}

/// The logits after each of `inputs`, taken as a sequence of its own.
fn logits<'s>(session: &'s mut Session<'_>, inputs: &[u32]) -> Result<&'s [f32]> {
    session.clear();
    session.forward(inputs)
}

impl Sums {
    fn add(
        &mut self,
        ctx: &Context,
        found: &[f32],
        exact: &[f32],
        targets: &[u32],
        scratch: &mut [f32],
    ) -> Result<()> {
        let rows = found.chunks_exact(scratch.len()).zip(exact.chunks_exact(scratch.len()));
        for ((found, exact), &target) in rows.zip(targets) {
            let all_nan = "every logit of a position is NaN";
            let best = ops::argmax(ctx, found).context(all_nan)?;
            let exact_best = ops::argmax(ctx, exact).context(all_nan)?;
            self.agreed += usize::from(best == exact_best);
            self.error = found.iter().zip(exact).fold(self.error, |error, (a, b)| error.max((a - b).abs()));
            self.loss += cross_entropy(ctx, found, best, target as usize, scratch)?;
            let log_sum = log_sum(found, best, scratch);
            self.kl += divergence(ctx, (exact, exact_best), (found, log_sum), scratch)?;
        }
        Ok(())
    }

    fn quality(&self, positions: usize) -> Quality {
        let loss = self.loss / positions as f64;
        Quality {
            loss,
            perplexity: libm::exp(loss),
            kl: self.kl / positions as f64,
            max_abs_logit_err: f64::from(self.error),
            top1_agreement: self.agreed as f64 / positions as f64,
        }
    }
}

/// `-ln softmax(logits)[target]`, where `best` is the greatest logit.
///
/// The softmax's value at `best` is one over the sum of exponentials and so never 0, as the one at `target`
/// may be.
fn cross_entropy(
    ctx: &Context,
    logits: &[f32],
    best: usize,
    target: usize,
    scratch: &mut [f32],
) -> Result<f64> {
    scratch.copy_from_slice(logits);
    let n = scratch.len();
    ops::softmax(ctx, MatMut::dense(scratch, 1, n)?);
    let distance = f64::from(logits[best]) - f64::from(logits[target]);
    Ok(distance - libm::log(f64::from(scratch[best])))
}

/// The logarithm of the sum of the exponentials of logits, of which `probabilities` is the softmax.
fn log_sum(logits: &[f32], best: usize, probabilities: &[f32]) -> f64 {
    f64::from(logits[best]) - libm::log(f64::from(probabilities[best]))
}

/// Divergence of `found` from `exact`: the sum of `p (ln p - ln q)`, written with logits so that it takes two
/// logarithms and no more. Sums ascend.
fn divergence(
    ctx: &Context,
    (exact, best): (&[f32], usize),
    (found, found_log_sum): (&[f32], f64),
    scratch: &mut [f32],
) -> Result<f64> {
    scratch.copy_from_slice(exact);
    let n = scratch.len();
    ops::softmax(ctx, MatMut::dense(scratch, 1, n)?);
    let mut sum = 0.0;
    for ((&p, &a), &b) in scratch.iter().zip(exact).zip(found) {
        sum += f64::from(p) * (f64::from(a) - f64::from(b));
    }
    // Rounding may leave a tiny negative number where both are the same.
    Ok((sum - log_sum(exact, best, scratch) + found_log_sum).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, Quant, Shape};

    fn entropy(logits: &[f32], target: usize) -> f64 {
        let ctx = Context::serial();
        let best = ops::argmax(&ctx, logits).unwrap();
        cross_entropy(&ctx, logits, best, target, &mut vec![0.0; logits.len()]).unwrap()
    }

    #[test]
    fn cross_entropy_of_known_distributions() {
        assert!((entropy(&[0.5; 8], 3) - 8f64.ln()).abs() < 1e-6);
        assert!((entropy(&[0.0, 3f32.ln()], 0) - 4f64.ln()).abs() < 1e-6);
        assert_eq!(entropy(&[200.0, 0.0], 1), 200.0);
        assert_eq!(entropy(&[0.0, -1e4], 1), 1e4);
    }

    #[test]
    fn formats_are_compared_with_the_first_and_windows_do_not_overlap() {
        let ctx = Context::serial();
        let shape = Shape { dim: 64, heads: 2, ffn: 64, context: 16, ..Shape::DEFAULT };
        let models = Quant::ALL.map(|quant| Model::initial(&ctx, shape, 1, quant).unwrap());
        let ids: Vec<u32> = (0..41).map(|i| i * 37 % 1004).collect();
        let run = |window: usize| {
            let mut sessions: Vec<_> = models.iter().map(|m| Session::new(&ctx, m, 16).unwrap()).collect();
            let mut windows = 0;
            let found = evaluate(&mut sessions, &ids, window, || windows += 1).unwrap();
            (found, windows)
        };
        let (found, windows) = run(16);
        assert_eq!(windows, 3);
        assert_eq!((found[0].max_abs_logit_err, found[0].kl, found[0].top1_agreement), (0.0, 0.0, 1.0));
        let [int8, int4] = [1, 2].map(|i| found[i].max_abs_logit_err);
        assert!(0.0 < int8 && int8 < int4 && int4 < 2.0, "{int8} {int4}");
        assert!(0.0 < found[1].kl && found[1].kl < found[2].kl, "{found:?}");
        for quality in &found {
            assert!((quality.perplexity.ln() - quality.loss).abs() < 1e-9);
            assert!((0.0..=1.0).contains(&quality.top1_agreement));
        }
        assert_eq!(run(16).0, found);
        assert_ne!(run(8).0[0].loss, found[0].loss);
    }

    #[test]
    fn nothing_to_predict_is_an_error() {
        let ctx = Context::serial();
        let model = Model::initial(&ctx, Shape::DEFAULT, 1, Quant::Fp32).unwrap();
        let mut sessions = [Session::new(&ctx, &model, 4).unwrap()];
        for (ids, window) in [(&[][..], 4), (&[1], 4), (&[1, 2], 0), (&[1; 9], 5)] {
            assert!(evaluate(&mut sessions, ids, window, || ()).is_err());
        }
        assert!(evaluate(&mut [], &[1, 2], 4, || ()).is_err());
    }
}
