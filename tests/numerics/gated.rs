//! Gated products whose first factor is a constant: `alpha = 0` leaves out B, not UP.

use crate::support::for_each_isa;
use kvern::{Activation, Epilogue, MatMut, MatRef, PackedB, Precision, Workspace};

/// Small integers: every sum is exact, so that the right value follows from integers.
#[test]
fn alpha_of_zero_keeps_the_gate() {
    for_each_isa(|ctx| {
        for (m, n, k) in [(1, 1, 1), (3, 2, 2089), (7, 33, 64), (20, 70, 5), (2, 3, 0)] {
            let number = |i: usize, p: usize| ((i * 7 + p * 3) % 5) as f32 - 2.0;
            let a: Vec<f32> = (0..m * k).map(|at| number(at / k, at % k)).collect();
            let up: Vec<f32> = (0..k * n).map(|at| number(at % n + 1, at / n)).collect();
            let bias: Vec<f32> = (0..n).map(|j| j as f32 - 1.0).collect();
            let poison = vec![f32::NAN; k * n];
            let pack = |x: &[f32]| PackedB::pack(ctx, MatRef::dense(x, k, n).unwrap()).unwrap();
            let (b, packed_up) = (pack(&poison), pack(&up));
            let mut ws = Workspace::new(b.workspace_bytes(ctx, m).unwrap()).unwrap();
            let mut c = vec![-7.25e18; m * n];
            let epilogue = Epilogue::default().scaled(0.0, 0.0).bias(&bias).activation(Activation::Relu);
            let (a_view, out) = (MatRef::dense(&a, m, k).unwrap(), MatMut::dense(&mut c, m, n).unwrap());
            b.multiply_gated(ctx, &mut ws, Precision::Exact, a_view, &packed_up, out, &epilogue).unwrap();
            for i in 0..m {
                for j in 0..n {
                    let sum: i64 = (0..k).map(|p| (a[i * k + p] * up[p * n + j]) as i64).sum();
                    let want = bias[j].max(0.0) * sum as f32;
                    assert!(
                        c[i * n + j] == want,
                        "{m} x {n} x {k}: ({i}, {j}) is {}, not {want}",
                        c[i * n + j]
                    );
                }
            }
        }
    });
}
