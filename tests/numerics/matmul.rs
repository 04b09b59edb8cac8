//! f32 products: every tier equals the scalar definition bit for bit, the definition is held to an f64
//! oracle, and bad input is refused.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::matmul::{matmul, matmul_workspace_bytes, reference};
use kvern::{
    Activation, Context, Dtype, Epilogue, Isa, MatMut, MatRef, PackedB, Precision, Workspace, bf16, f16,
};
use proptest::prelude::*;

fn product(ctx: &Context, a: MatRef<'_>, b: MatRef<'_>, c: &mut [f32], e: &Epilogue<'_>) {
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    let mut ws = Workspace::new(matmul_workspace_bytes(ctx, m, n, k).unwrap()).unwrap();
    matmul(ctx, &mut ws, a, b, MatMut::dense(c, m, n).unwrap(), e).unwrap();
}

fn packed(ctx: &Context, a: MatRef<'_>, b: &PackedB, c: &mut [f32], e: &Epilogue<'_>) {
    let mut ws = Workspace::new(b.workspace_bytes(ctx, a.rows()).unwrap()).unwrap();
    b.multiply(ctx, &mut ws, a, MatMut::dense(c, a.rows(), b.n()).unwrap(), e).unwrap();
}

/// The definition: one FMA chain over k for each element (by `libm`: the `fmaf` of some C libraries is not
/// fused).
fn chains(a: MatRef<'_>, b: MatRef<'_>, am: &[f32], bm: &[f32]) -> Vec<f32> {
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    let mut c = vec![0.0f32; m * n];
    for i in 0..m {
        for j in 0..n {
            for p in 0..k {
                c[i * n + j] = libm::fmaf(am[i * k + p], bm[p * n + j], c[i * n + j]);
            }
        }
    }
    c
}

#[test]
fn two_by_two() {
    for_each_isa(|ctx| {
        let a = MatRef::dense(&[1.0, 2.0, 3.0, 4.0], 2, 2).unwrap();
        let mut c = [0.0; 4];
        product(ctx, a, a, &mut c, &Epilogue::default());
        assert_eq!(c, [7.0, 10.0, 15.0, 22.0]);
    });
}

#[test]
fn every_tail_equals_the_chain_on_every_road() {
    let mut r = Random::new(1);
    let shapes = (1..=130)
        .map(|m| (m, 1 + m * 7 % 130, 1 + m * 13 % 67))
        .chain((1..=130).map(|n| (1 + n * 5 % 14, n, 1 + n % 9)))
        .chain([(1, 1, 1), (6, 64, 16), (7, 65, 600), (50, 70, 1100), (2, 300, 513), (200, 3, 5)]);
    for (m, n, k) in shapes {
        let (am, bm) = (r.vec(m * k), r.vec(k * n));
        let transpose = |x: &[f32], rows: usize, cols: usize| -> Vec<f32> {
            (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
        };
        let (at, bt) = (transpose(&am, m, k), transpose(&bm, k, n));
        let a = MatRef::dense(&am, m, k).unwrap();
        let b = MatRef::dense(&bm, k, n).unwrap();
        let a_t = MatRef::dense(&at, k, m).unwrap().t();
        let b_t = MatRef::dense(&bt, n, k).unwrap().t();
        let want = chains(a, b, &am, &bm);
        for_each_isa(|ctx| {
            let what = format!("{m}x{n}x{k} at {}", ctx.isa());
            let mut c = vec![f32::NAN; m * n];
            for (a, b) in [(a, b), (a_t, b), (a, b_t), (a_t, b_t)] {
                c.fill(f32::NAN);
                product(ctx, a, b, &mut c, &Epilogue::default());
                assert_same_bits(&c, &want, &what);
            }
            for p in [PackedB::pack(ctx, b), PackedB::pack(ctx, b_t)] {
                c.fill(f32::NAN);
                packed(ctx, a, &p.unwrap(), &mut c, &Epilogue::default());
                assert_same_bits(&c, &want, &format!("packed {what}"));
            }
        });
    }
}

#[test]
fn weights_packed_at_one_tier_multiply_at_any_other() {
    let mut r = Random::new(2);
    let (m, n, k) = (9, 150, 70);
    let (a, b) = (r.vec(m * k), r.vec(k * n));
    let (a, b) = (MatRef::dense(&a, m, k).unwrap(), MatRef::dense(&b, k, n).unwrap());
    let mut want = vec![0.0; m * n];
    product(&context(Isa::Scalar, 1), a, b, &mut want, &Epilogue::default());
    for_each_isa(|packer| {
        let p = PackedB::pack(packer, b).unwrap();
        assert!(p.kernel_id().starts_with(packer.isa().name()));
        for_each_isa(|ctx| {
            let mut c = vec![0.0; m * n];
            packed(ctx, a, &p, &mut c, &Epilogue::default());
            assert_same_bits(&c, &want, &format!("packed at {}, run at {}", packer.isa(), ctx.isa()));
        });
    });
}

#[test]
fn the_chain_stays_within_the_bound_of_the_f64_oracle() {
    let mut r = Random::new(3);
    for (m, n, k) in [(5, 17, 1000), (64, 64, 64), (3, 200, 2048)] {
        let (a, b) = (r.vec(m * k), r.vec(k * n));
        let (a, b) = (MatRef::dense(&a, m, k).unwrap(), MatRef::dense(&b, k, n).unwrap());
        let oracle = reference::matmul(a, b);
        let mut c = vec![0.0; m * n];
        product(&Context::serial(), a, b, &mut c, &Epilogue::default());
        for (got, (want, bound)) in c.iter().zip(oracle) {
            assert!((f64::from(*got) - want).abs() <= bound, "{got} {want} {bound}");
        }
    }
}

#[test]
fn rows_and_threads_and_batches_do_not_change_bits() {
    let mut r = Random::new(4);
    let (m, n, k) = (64, 700, 300);
    let (a, b, bias) = (r.vec(m * k), r.vec(k * n), r.vec(n));
    let am = MatRef::dense(&a, m, k).unwrap();
    let bm = MatRef::dense(&b, k, n).unwrap();
    let start = r.vec(m * n);
    let e = Epilogue::default().scaled(1.5, -0.25).bias(&bias).activation(Activation::Gelu);
    let mut want = start.clone();
    product(&context(Isa::Scalar, 1), am, bm, &mut want, &e);
    for_each_isa(|ctx| {
        for threads in [1, 2, 3, 8] {
            let ctx = context(ctx.isa(), threads);
            let mut c = start.clone();
            product(&ctx, am, bm, &mut c, &e);
            assert_same_bits(&c, &want, &format!("{ctx:?}"));
        }
        for i in 0..m {
            let mut c = start[i * n..(i + 1) * n].to_vec();
            product(ctx, MatRef::dense(am.row(i).unwrap(), 1, k).unwrap(), bm, &mut c, &e);
            assert_same_bits(&c, &want[i * n..(i + 1) * n], "one row");
        }
    });
}

#[test]
fn alpha_and_beta_keep_the_corners_of_blas() {
    for_each_isa(|ctx| {
        let nan = [f32::NAN; 4];
        let one = [1.0; 4];
        let (a, n) = (MatRef::dense(&one, 2, 2).unwrap(), MatRef::dense(&nan, 2, 2).unwrap());
        let mut c = [f32::NAN; 4];
        product(ctx, a, a, &mut c, &Epilogue::default());
        assert_eq!(c, [2.0; 4], "beta = 0 does not read C");
        product(ctx, n, n, &mut c, &Epilogue::default().scaled(0.0, 0.5));
        assert_eq!(c, [1.0; 4], "alpha = 0 does not read A and B");
        product(ctx, n, a, &mut c, &Epilogue::default());
        assert!(c.iter().all(|x| x.is_nan()), "NaN spreads");
        let mut c = [3.0; 4];
        let (a, b) = (MatRef::dense(&[], 2, 0).unwrap(), MatRef::dense(&[], 0, 2).unwrap());
        product(ctx, a, b, &mut c, &Epilogue::default());
        assert_eq!(c, [0.0; 4], "an empty sum is zero");
    });
}

#[test]
fn bad_shapes_are_refused_and_change_nothing() {
    let ctx = Context::serial();
    let data = [1.0; 64];
    let mut ws = Workspace::new(1 << 20).unwrap();
    let a = MatRef::dense(&data, 4, 8).unwrap();
    let b = MatRef::dense(&data, 7, 5).unwrap();
    let mut c = [9.0; 64];
    let e = Epilogue::default();
    let err = matmul(&ctx, &mut ws, a, b, MatMut::dense(&mut c, 4, 5).unwrap(), &e).unwrap_err();
    assert_eq!(err.to_string(), "b.rows = 7 must equal a.cols = 8");
    let b = MatRef::dense(&data, 8, 5).unwrap();
    let err = matmul(&ctx, &mut ws, a, b, MatMut::dense(&mut c, 4, 6).unwrap(), &e).unwrap_err();
    assert_eq!(err.to_string(), "c.cols = 6 must equal b.cols = 5");
    let err = matmul(&ctx, &mut ws, a, b, MatMut::dense(&mut c, 3, 5).unwrap(), &e).unwrap_err();
    assert_eq!(err.to_string(), "c.rows = 3 must equal a.rows = 4");
    let short = Epilogue::default().bias(&data[..4]);
    let err = matmul(&ctx, &mut ws, a, b, MatMut::dense(&mut c, 4, 5).unwrap(), &short).unwrap_err();
    assert_eq!(err.to_string(), "bias.len = 4 must equal c.cols = 5");
    let mut none = Workspace::new(0).unwrap();
    let err = matmul(&ctx, &mut none, a, b, MatMut::dense(&mut c, 4, 5).unwrap(), &e).unwrap_err();
    assert!(err.to_string().starts_with("workspace = 0 bytes must be at least"), "{err}");
    let p = PackedB::pack(&ctx, b).unwrap();
    let err = p.multiply(&ctx, &mut ws, b, MatMut::dense(&mut c, 8, 5).unwrap(), &e).unwrap_err();
    assert_eq!(err.to_string(), "a.cols = 5 must equal the packed b's k = 8");
    let err = p.multiply(&ctx, &mut ws, a, MatMut::dense(&mut c, 4, 6).unwrap(), &e).unwrap_err();
    assert_eq!(err.to_string(), "c.cols = 6 must equal the packed b's n = 5");
    assert_eq!(c, [9.0; 64]);
    assert!(matmul_workspace_bytes(&ctx, usize::MAX, 1, 1).is_err());
    let largest = isize::MAX as usize;
    assert!(matmul_workspace_bytes(&ctx, largest, largest, largest).is_ok(), "blocks, not matrices");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_shape_stride_and_transpose(
        (m, n, k) in (1usize..40, 1usize..150, 0usize..80),
        (pa, pb, pc) in (0usize..5, 0usize..5, 0usize..5),
        (ta, tb) in (any::<bool>(), any::<bool>()),
        alpha in prop_oneof![Just(1.0f32), Just(0.0), Just(-0.5)],
        beta in prop_oneof![Just(0.0f32), Just(1.0), Just(-0.5)],
        seed in 0u64..1000,
    ) {
        let mut r = Random::new(seed);
        let (ar, ac) = if ta { (k, m) } else { (m, k) };
        let (br, bc) = if tb { (n, k) } else { (k, n) };
        let (a, b) = (r.vec(ar * (ac + pa)), r.vec(br * (bc + pb)));
        let mut av = MatRef::new(&a, ar, ac, ac + pa).unwrap();
        let mut bv = MatRef::new(&b, br, bc, bc + pb).unwrap();
        if ta { av = av.t(); }
        if tb { bv = bv.t(); }
        let start = r.vec(m * (n + pc));
        let e = Epilogue::default().scaled(alpha, beta);
        let mut results = Vec::new();
        for_each_isa(|ctx| {
            let mut c = start.clone();
            let mut ws = Workspace::new(matmul_workspace_bytes(ctx, m, n, k).unwrap()).unwrap();
            matmul(ctx, &mut ws, av, bv, MatMut::new(&mut c, m, n, n + pc).unwrap(), &e).unwrap();
            results.push(c);
        });
        for c in &results {
            prop_assert_eq!(crate::support::bits(c), crate::support::bits(&results[0]));
        }
        let oracle = reference::matmul(av, bv);
        for i in 0..m {
            for j in 0..n + pc {
                let got = results[0][i * (n + pc) + j];
                if j >= n {
                    prop_assert_eq!(got, start[i * (n + pc) + j], "gaps between rows stay untouched");
                    continue;
                }
                let (sum, bound) = oracle[i * n + j];
                let want = f64::from(alpha) * sum + f64::from(beta) * f64::from(start[i * (n + pc) + j]);
                prop_assert!((f64::from(got) - want).abs() <= bound + 1e-6);
            }
        }
    }
}

#[test]
fn a_workspace_for_the_largest_batch_serves_every_smaller_one() {
    let mut r = Random::new(7);
    for (largest, n, k) in [(200, 384, 128), (40, 9000, 64), (33, 2100, 700), (5, 8200, 40), (300, 5, 3)] {
        let (a, b, bias) = (r.vec(largest * k), r.vec(k * n), r.vec(n));
        let ctx = Context::serial();
        let mut ws = Workspace::new(matmul_workspace_bytes(&ctx, largest, n, k).unwrap()).unwrap();
        let bm = MatRef::dense(&b, k, n).unwrap();
        let p = PackedB::pack(&ctx, bm).unwrap();
        let mut packed_ws = Workspace::new(p.workspace_bytes(&ctx, largest).unwrap()).unwrap();
        let mut c = vec![0.0; largest * n];
        for m in (1..=largest).filter(|m| m % 7 == 1 || largest - m < 3 || *m < 4) {
            for e in [Epilogue::default(), Epilogue::default().scaled(1.0, 1.0).bias(&bias)] {
                let mut c = MatMut::dense(&mut c[..m * n], m, n).unwrap();
                for at in [false, true] {
                    let am = MatRef::dense(&a[..m * k], if at { k } else { m }, if at { m } else { k });
                    let am = if at { am.unwrap().t() } else { am.unwrap() };
                    let bt = MatRef::dense(&b, n, k).unwrap().t();
                    for b in [bm, bt] {
                        matmul(&ctx, &mut ws, am, b, c.reborrow(), &e).unwrap();
                    }
                    p.multiply(&ctx, &mut packed_ws, am, c.reborrow(), &e).unwrap();
                }
            }
        }
        let bytes = |m| matmul_workspace_bytes(&ctx, m, n, k).unwrap();
        assert!((1..400).all(|m| bytes(m) <= bytes(m + 1)), "{n} {k}");
    }
}

#[test]
fn half_precision_weights_equal_the_widened_ones_and_are_half_the_size() {
    let mut r = Random::new(8);
    let shapes = (1..=70).map(|n| (1 + n * 3 % 11, n, 1 + n * 7 % 40)).chain([(50, 200, 1030), (1, 64, 513)]);
    for (m, n, k) in shapes {
        let (a, b) = (r.vec(m * k), r.vec(k * n));
        let am = MatRef::dense(&a, m, k).unwrap();
        let h: Vec<f16> = b.iter().map(|&x| f16::from_f32(x * 1e-3)).collect();
        let g: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
        let wide_h: Vec<f32> = h.iter().map(|x| x.to_f32()).collect();
        let wide_g: Vec<f32> = g.iter().map(|x| x.to_f32()).collect();
        for_each_isa(|ctx| {
            let check = |p: PackedB, wide: &[f32], dtype: Dtype| {
                let mut want = vec![0.0; m * n];
                product(ctx, am, MatRef::dense(wide, k, n).unwrap(), &mut want, &Epilogue::default());
                let mut c = vec![f32::NAN; m * n];
                packed(ctx, am, &p, &mut c, &Epilogue::default());
                assert_same_bits(&c, &want, &format!("{dtype:?} {m}x{n}x{k} at {}", ctx.isa()));
                assert_eq!(p.dtype(), dtype);
                let padded_k = if dtype == Dtype::Bf16 { k.next_multiple_of(2) } else { k };
                assert_eq!(p.bytes(), n.next_multiple_of(16) * padded_k * dtype.bytes());
            };
            check(PackedB::pack(ctx, MatRef::dense(&h, k, n).unwrap()).unwrap(), &wide_h, Dtype::F16);
            check(PackedB::pack(ctx, MatRef::dense(&g, k, n).unwrap()).unwrap(), &wide_g, Dtype::Bf16);
        });
    }
}

#[test]
fn fast_products_stay_within_their_bound_and_do_not_depend_on_batch_or_threads() {
    let mut r = Random::new(9);
    for (m, n, k) in [(50, 130, 515), (7, 64, 1), (13, 33, 1200)] {
        let (a, b) = (r.vec(m * k), r.vec(k * n));
        let am = MatRef::dense(&a, m, k).unwrap();
        let b: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
        for_each_isa(|ctx| {
            let p = PackedB::pack(ctx, MatRef::dense(&b, k, n).unwrap()).unwrap();
            let fast = |ctx: &Context, a: MatRef<'_>| {
                let mut ws = Workspace::new(p.workspace_bytes(ctx, a.rows()).unwrap()).unwrap();
                let mut c = vec![f32::NAN; a.rows() * n];
                let out = MatMut::dense(&mut c, a.rows(), n).unwrap();
                p.multiply_with(ctx, &mut ws, Precision::Fast, a, out, &Epilogue::default()).unwrap();
                c
            };
            let c = fast(ctx, am);
            for (i, got) in c.iter().enumerate() {
                let (row, col) = (i / n, i % n);
                let (mut want, mut magnitude) = (0.0, 0.0);
                for q in 0..k {
                    let x = f64::from(a[row * k + q]) * f64::from(b[q * n + col].to_f32());
                    want += x;
                    magnitude += x.abs();
                }
                let bound = (2f64.powi(-8) + k as f64 * 2f64.powi(-22)) * magnitude;
                assert!((f64::from(*got) - want).abs() <= bound, "{got} {want} {bound}");
            }
            for threads in [2, 3] {
                assert_same_bits(&fast(&context(ctx.isa(), threads), am), &c, "threads");
            }
            let at: Vec<f32> = (0..m * k).map(|i| a[i % m * k + i / m]).collect();
            assert_same_bits(&fast(ctx, MatRef::dense(&at, k, m).unwrap().t()), &c, "transposed a");
            let last = MatRef::dense(am.row(m - 1).unwrap(), 1, k).unwrap();
            assert_same_bits(&fast(ctx, last), &c[(m - 1) * n..], "one row");
        });
    }
}

#[test]
fn gated_products_and_half_outputs_are_the_plain_steps_in_one_pass() {
    let mut r = Random::new(10);
    for (m, n, k) in [(1, 70, 33), (7, 300, 64), (40, 17, 600), (200, 260, 20)] {
        let (a, b, u, bias) = (r.vec(m * k), r.vec(k * n), r.vec(k * n), r.vec(n));
        let a = MatRef::dense(&a, m, k).unwrap();
        let (bm, um) = (MatRef::dense(&b, k, n).unwrap(), MatRef::dense(&u, k, n).unwrap());
        let e = Epilogue::default().scaled(0.5, 0.0).bias(&bias).activation(Activation::Silu);
        for_each_isa(|ctx| {
            for threads in [1, 3] {
                let ctx = &context(ctx.isa(), threads);
                let (b, up) = (PackedB::pack(ctx, bm).unwrap(), PackedB::pack(ctx, um).unwrap());
                let mut ws = Workspace::new(b.workspace_bytes(ctx, m).unwrap()).unwrap();
                let (mut gate, mut factor) = (vec![0.0; m * n], vec![0.0; m * n]);
                packed(ctx, a, &b, &mut gate, &e);
                packed(ctx, a, &up, &mut factor, &Epilogue::default());
                let want: Vec<f32> = gate.iter().zip(&factor).map(|(g, f)| g * f).collect();
                let mut c = vec![f32::NAN; m * n];
                let out = MatMut::dense(&mut c, m, n).unwrap();
                b.multiply_gated(ctx, &mut ws, Precision::Exact, a, &up, out, &e).unwrap();
                assert_same_bits(&c, &want, "gated");

                let mut half = vec![f16::NAN; m * n];
                let out = MatMut::dense(&mut half, m, n).unwrap();
                b.multiply_gated(ctx, &mut ws, Precision::Exact, a, &up, out, &e).unwrap();
                assert!(half.iter().zip(&want).all(|(h, w)| h.to_bits() == f16::from_f32(*w).to_bits()));
                let mut brain = vec![bf16::NAN; m * n];
                let out = MatMut::dense(&mut brain, m, n).unwrap();
                b.multiply_with(ctx, &mut ws, Precision::Exact, a, out, &e).unwrap();
                assert!(brain.iter().zip(&gate).all(|(h, w)| h.to_bits() == bf16::from_f32(*w).to_bits()));
            }
        });
        let ctx = Context::serial();
        let (b, up) = (PackedB::pack(&ctx, bm).unwrap(), PackedB::pack(&ctx, bm.t()).unwrap());
        let mut ws = Workspace::new(1 << 24).unwrap();
        let mut c = vec![f16::ONE; m * n];
        let out = MatMut::dense(&mut c, m, n).unwrap();
        let beta = Epilogue::default().scaled(1.0, 1.0);
        let e = b.multiply_with(&ctx, &mut ws, Precision::Exact, a, out, &beta).unwrap_err();
        assert!(e.to_string().starts_with("beta = 1 must be 0"), "{e}");
        let out = MatMut::dense(&mut c, m, n).unwrap();
        let e = b.multiply_gated(&ctx, &mut ws, Precision::Exact, a, &up, out, &Epilogue::default());
        assert!(e.unwrap_err().to_string().starts_with("up.k = "));
        assert!(c.iter().all(|x| *x == f16::ONE));
    }
}

#[test]
fn products_without_elements_need_no_workspace() {
    let mut r = Random::new(11);
    for (m, n, k) in [(0, 0, 0), (0, 70, 0), (0, 70, 9), (5, 0, 9), (5, 0, 0)] {
        let b: Vec<bf16> = r.vec(k * n).into_iter().map(bf16::from_f32).collect();
        let a = r.vec(m * k);
        for_each_isa(|ctx| {
            let b = PackedB::pack(ctx, MatRef::dense(&b, k, n).unwrap()).unwrap();
            let mut ws = Workspace::new(b.workspace_bytes(ctx, m).unwrap()).unwrap();
            for precision in [Precision::Exact, Precision::Fast] {
                let (a, c) = (MatRef::dense(&a, m, k).unwrap(), MatMut::dense(&mut [], m, n).unwrap());
                b.multiply_with::<f32>(ctx, &mut ws, precision, a, c, &Epilogue::default()).unwrap();
            }
        });
    }
}

/// A file may come from a machine of another tier, whose panels are narrower.
#[test]
fn fast_products_do_not_depend_on_the_tier_that_packed() {
    let mut r = Random::new(12);
    let n = 130;
    for (m, k) in (1..=9).flat_map(|m| [(m, 0), (m, 1), (m, 66)]) {
        let b: Vec<bf16> = r.vec(k * n).into_iter().map(bf16::from_f32).collect();
        let (a, b) = (r.vec(m * k), MatRef::dense(&b, k, n).unwrap());
        let a = MatRef::dense(&a, m, k).unwrap();
        for_each_isa(|ctx| {
            let product = |packed: PackedB| {
                let mut ws = Workspace::new(packed.workspace_bytes(ctx, m).unwrap()).unwrap();
                let mut c = vec![f32::NAN; m * n];
                let out = MatMut::dense(&mut c, m, n).unwrap();
                packed.multiply_with(ctx, &mut ws, Precision::Fast, a, out, &Epilogue::default()).unwrap();
                c
            };
            let want = product(PackedB::pack(ctx, b).unwrap());
            for_each_isa(|other| assert_same_bits(&product(PackedB::pack(other, b).unwrap()), &want, "fast"));
        });
    }
}
