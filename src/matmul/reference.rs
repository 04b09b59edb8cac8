//! The oracle: a naive product in f64, and the error bound that the f32 chain is held to.

use crate::view::MatRef;

/// `(product, bound)` for each element, row-major (m, n): the sum in f64, and `k * 2^-24 * sum |a||b|`
/// (Higham 2002, section 3.1, for a chain of k fused operations), with a factor of 2 for the last place.
pub fn matmul(a: MatRef<'_>, b: MatRef<'_>) -> Vec<(f64, f64)> {
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for p in 0..k {
                let product = f64::from(a.from(i, p)[0]) * f64::from(b.from(p, j)[0]);
                sum += product;
                magnitude += product.abs();
            }
            out.push((sum, 2.0 * k as f64 * 2f64.powi(-24) * magnitude));
        }
    }
    out
}
