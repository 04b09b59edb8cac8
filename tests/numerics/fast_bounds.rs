//! The ends of `Precision::Fast`: activations that round to infinity as bf16, and subnormals.

use crate::support::for_each_isa;
use kvern::{Epilogue, MatMut, MatRef, PackedB, Precision, Workspace, bf16};

/// `sum of a[i] * b[i]` by `Fast`, and the exact sum.
fn dot(ctx: &kvern::Context, a: &[f32], b: &[f32]) -> (f32, f64) {
    let b: Vec<bf16> = b.iter().map(|&b| bf16::from_f32(b)).collect();
    let packed = PackedB::pack(ctx, MatRef::dense(&b, b.len(), 1).unwrap()).unwrap();
    let mut ws = Workspace::new(packed.workspace_bytes(ctx, 1).unwrap()).unwrap();
    let mut c = [1e30];
    let (x, out) = (MatRef::dense(a, 1, a.len()).unwrap(), MatMut::dense(&mut c, 1, 1).unwrap());
    packed.multiply_with(ctx, &mut ws, Precision::Fast, x, out, &Epilogue::default()).unwrap();
    (c[0], a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b.to_f32())).sum())
}

#[test]
fn fast_products_hold_their_bound_up_to_the_last_number_that_rounds_to_a_finite_bf16() {
    let last = f32::from_bits(0x7f7f_7fff);
    assert!((last - 3.3961775e38).abs() < 1e32);
    for_each_isa(|ctx| {
        for (a, b) in [(vec![last, 1.0], vec![0.5, 1.0]), (vec![-last; 40], vec![0.01; 40])] {
            let (got, want) = dot(ctx, &a, &b);
            let sizes: f64 =
                a.iter().zip(&b).map(|(&a, &b)| f64::from(a * bf16::from_f32(b).to_f32()).abs()).sum();
            let bound = (2f64.powi(-8) + a.len() as f64 * 2f64.powi(-22)) * sizes;
            assert!((f64::from(got) - want).abs() <= bound, "at {}: {got} is not {want}", ctx.isa());
        }
        // Beyond it: infinity where bf16 dot instructions compute it, the exact product elsewhere.
        let (got, want) = dot(ctx, &[f32::from_bits(0x7f7f_8000), 1.0], &[0.5, 1.0]);
        assert!(got == f32::INFINITY || got == want as f32, "at {}: {got}", ctx.isa());
    });
}

#[test]
fn fast_products_take_subnormals_for_zero_or_as_they_are() {
    let tiny = f32::from_bits(0x0070_0000); // a bf16, and subnormal
    for_each_isa(|ctx| {
        let (got, want) = dot(ctx, &[tiny, tiny], &[1.0, 1.0]);
        assert!(got == 0.0 || got == want as f32, "at {}: {got}", ctx.isa());
        let (got, _) = dot(ctx, &[tiny, 1.0], &[1.0, 1.0]);
        assert_eq!(got, 1.0);
    });
}
