//! Products at every tier against their definitions.

use crate::support::{assert_same_bits, context, for_each_isa, product};
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::quant::{Compute, PackedWeights, reference};
use kvern::{Context, Epilogue, Isa, MatMut, MatRef, Workspace};

/// Asserts the product with int8 activations: elements at the edges of the scalar tier equal the chain of the
/// definition, which is close to the exact sum, and every tier equals the scalar one.
pub fn assert_int8(w: &PackedWeights, a: MatRef<'_>) {
    let (m, n) = (a.rows(), w.n());
    let what = format!("{:?} {m}x{n}x{}", w.format(), w.k());
    let mut scalar = vec![f32::NAN; m * n];
    product(&context(Isa::Scalar, 1), w, Compute::Int8, a, &Epilogue::default(), &mut scalar);
    for i in [0, m - 1] {
        for j in [0, n / 2, n - 1] {
            let (chain, exact, bound) = reference::int8_dot(w, j, a.row(i).unwrap()).unwrap();
            assert!((f64::from(chain) - exact).abs() <= bound, "{what}: {chain} {exact} {bound}");
            let got = scalar[i * n + j];
            assert_eq!(got.to_bits(), chain.to_bits(), "{what}: {got} {chain}");
        }
    }
    assert_every_tier(w, Compute::Int8, a, &scalar);
}

/// Asserts the product with f32 activations at every tier: the matrix product with `wide`, the dequantised
/// weights. // (n, k)
pub fn assert_exact(w: &PackedWeights, wide: &[f32], a: MatRef<'_>) {
    let (m, n, k) = (a.rows(), w.n(), w.k());
    let b = MatRef::dense(wide, n, k).unwrap().t();
    let mut want = vec![f32::NAN; m * n];
    let ctx = Context::serial();
    let mut ws = Workspace::new(matmul_workspace_bytes(&ctx, m, n, k).unwrap()).unwrap();
    matmul(&ctx, &mut ws, a, b, MatMut::dense(&mut want, m, n).unwrap(), &Epilogue::default()).unwrap();
    assert_every_tier(w, Compute::F32, a, &want);
}

fn assert_every_tier(w: &PackedWeights, compute: Compute, a: MatRef<'_>, want: &[f32]) {
    for_each_isa(|ctx| {
        let mut c = vec![f32::NAN; want.len()];
        product(ctx, w, compute, a, &Epilogue::default(), &mut c);
        let (m, n, k) = (a.rows(), w.n(), w.k());
        assert_same_bits(&c, want, &format!("{:?} {m}x{n}x{k} at {}", w.format(), ctx.isa()));
    });
}
