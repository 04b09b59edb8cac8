//! Row operations of the backward pass. Sums over a row run in eight lanes, element `i` in lane `i mod 8`,
//! folded by halves: one order for all CPUs, and one that compilers turn into vector instructions.

const LANES: usize = 8;

/// Sum of `f` over two rows of equal length.
fn lane_sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += f(a, b);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += f(a, b);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// `sum a[i] b[i]`
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    lane_sum(a, b, |a, b| a * b)
}

/// `sums[j] += sum over i of x[i][j]`, rows ascending; `x`: (rows, sums.len()).
pub(super) fn add_column_sums(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len().max(1)) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}

/// Backward pass of ReLU: `d = 0` where its output `y` is 0.
pub(super) fn relu_backward(y: &[f32], d: &mut [f32]) {
    for (d, &y) in d.iter_mut().zip(y) {
        *d = if y > 0.0 { *d } else { 0.0 };
    }
}

/// Input and parameters of the LayerNorm that [`norm_backward`] differentiates.
pub(super) struct Norm<'a> {
    /// Input of the norm: (rows, n).
    pub x: &'a [f32],
    /// (n)
    pub gain: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// Backward pass of a LayerNorm: adds the gradients of gain and bias to `d_gain` and `d_bias`, and that of
/// the input to `dx`; `dy`: (rows, n).
///
/// With `xhat = (x - mean) * inv` and `g = dy * gain`: `dx += inv * (g - mean(g) - xhat * mean(g * xhat))`.
pub(super) fn norm_backward(
    norm: &Norm<'_>,
    dy: &[f32],
    d_gain: &mut [f32],
    d_bias: &mut [f32],
    dx: &mut [f32],
) {
    let n = norm.gain.len().max(1);
    let count = n as f32;
    let (mut xhat, mut g) = (vec![0f32; n], vec![0f32; n]);
    let rows = norm.x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n));
    for ((x, dy), dx) in rows {
        let mean = lane_sum(x, x, |x, _| x) / count;
        let variance = lane_sum(x, x, |x, _| (x - mean) * (x - mean)) / count;
        let inv = 1.0 / (variance + norm.epsilon).sqrt();
        for i in 0..n {
            xhat[i] = (x[i] - mean) * inv;
            g[i] = dy[i] * norm.gain[i];
            d_gain[i] += dy[i] * xhat[i];
            d_bias[i] += dy[i];
        }
        let mean_g = lane_sum(&g, &g, |g, _| g) / count;
        let mean_gx = dot(&g, &xhat) / count;
        for i in 0..n {
            dx[i] += inv * (g[i] - mean_g - xhat[i] * mean_gx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_add_up_whatever_the_length() {
        for n in [0, 1, 7, 8, 9, 31] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(dot(&x, &vec![2.0; n]), (n * n.max(1) - n) as f32);
        }
    }

    #[test]
    fn column_sums_are_added() {
        let mut sums = [1.0, 1.0];
        add_column_sums(&[1.0, 2.0, 3.0, 4.0], &mut sums);
        assert_eq!(sums, [5.0, 7.0]);
    }

    #[test]
    fn relu_passes_gradients_where_it_passed_values() {
        let mut d = [1.0, 2.0, 3.0];
        relu_backward(&[0.0, 5.0, 0.0], &mut d);
        assert_eq!(d, [0.0, 2.0, 0.0]);
    }
}
