//! Group-wise weights of every width and length: packing, products and files against their definition.

use crate::support::{Random, assert_same_bits, context, for_each_isa, map, product, temp};
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::quant::import::{Gptq, GroupWise, StoredZeros};
use kvern::quant::{Compute, PackedWeights, reference};
use kvern::{Context, Epilogue, Isa, MatMut, MatRef, Workspace};

/// What is added to codes that are no weights yet.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Symmetric,
    Zeros,
    /// Minimums that f16 holds, and others.
    Affine16,
    Affine32,
}

const KINDS: [Kind; 4] = [Kind::Symmetric, Kind::Zeros, Kind::Affine16, Kind::Affine32];

/// Whether there are weights of this kind.
fn exists(kind: Kind, bits: u32) -> bool {
    matches!(bits, 2 | 3 | 4 | 8) || matches!(kind, Kind::Affine16 | Kind::Affine32)
}

/// Weights with random codes.
fn group_wise(r: &mut Random, kind: Kind, bits: u32, group: usize, (n, k): (usize, usize)) -> GroupWise {
    let (top, groups) = (1usize << bits, n * k.div_ceil(group));
    let scales: Vec<f32> = r.vec(groups);
    let codes: Vec<u8> = (0..n * k).map(|_| r.below(top) as u8).collect();
    match kind {
        Kind::Symmetric => {
            let signed: Vec<i8> = codes.iter().map(|&c| (i32::from(c) - top as i32 / 2) as i8).collect();
            GroupWise::symmetric((n, k), bits, group, &signed, &scales)
        }
        Kind::Zeros => {
            let zeros: Vec<u8> = (0..groups).map(|_| r.below(top) as u8).collect();
            GroupWise::with_zeros((n, k), bits, group, &codes, &scales, &zeros)
        }
        Kind::Affine16 => {
            let halves = |x: Vec<f32>| x.into_iter().map(kvern::f16::from_f32).collect::<Vec<_>>();
            let (scales, minimums) = (halves(scales), halves(r.vec(groups)));
            GroupWise::affine((n, k), bits, group, &codes, &scales, &minimums)
        }
        Kind::Affine32 => GroupWise::affine((n, k), bits, group, &codes, &scales, &r.vec(groups)),
    }
    .unwrap()
}

/// Rule 2 for one row of group-wise weights in stored order.
fn group_dot(w: &GroupWise, n: usize, x: &[f32]) -> f32 {
    let row = w.row(n).unwrap();
    let sums = w.is_affine() || w.group() == 16;
    // With 8 bits the dot product is that of signed codes, and the minimum makes up for it.
    let offset = if sums && w.bits() == 8 { 128 } else { 0 };
    let minimum = |g: usize| match w.is_affine() {
        true => row.minimums[g],
        false => -(row.scales[g] * f32::from(row.zeros[g])),
    };
    let mut chain = 0.0f32;
    for (b, (q, d)) in reference::quantize_activations(x).into_iter().enumerate() {
        let step = w.group().min(32);
        let parts = || (0..32).step_by(step).map(|start| (start, (32 * b + start) / w.group()));
        for (start, g) in parts() {
            let zero = if sums { offset } else { i32::from(row.zeros[g]) };
            let dot: i32 =
                (start..start + step).map(|j| (i32::from(row.codes[32 * b + j]) - zero) * q[j]).sum();
            chain = libm::fmaf(dot as f32, row.scales[g] * d, chain);
        }
        for (start, g) in parts().filter(|_| sums) {
            let sum: i32 = q[start..start + step].iter().sum();
            let min = if offset > 0 { libm::fmaf(row.scales[g], 128.0, minimum(g)) } else { minimum(g) };
            chain = libm::fmaf(min, d * sum as f32, chain);
        }
    }
    chain
}

/// Weights of a GPTQ checkpoint whose input features are dealt out to the groups at random.
fn act_order(r: &mut Random, bits: u32, group: usize, (n, k): (usize, usize)) -> GroupWise {
    let mut words = |count: usize| (0..count).map(|_| r.next() as i32).collect::<Vec<_>>();
    let per = bits as usize;
    let (qweight, qzeros) = (words(k * per / 32 * n), words(k.div_ceil(group) * (n * per / 32)));
    let scales = r.vec(k.div_ceil(group) * n);
    let mut g_idx: Vec<i32> = (0..k).map(|i| (i / group) as i32).collect();
    for i in (1..k).rev() {
        g_idx.swap(i, r.below(i + 1));
    }
    let stored_zeros = StoredZeros::AsIs;
    let (qweight, qzeros, scales, g_idx) = (&qweight[..], &qzeros[..], &scales[..], Some(&g_idx[..]));
    let w = GroupWise::from_gptq(&Gptq { n, k, bits, group, qweight, qzeros, scales, g_idx, stored_zeros });
    let w = w.unwrap();
    assert!(w.order().is_some());
    w
}

/// Packs, reads back, and multiplies `m` rows at every tier.
fn check(r: &mut Random, w: &GroupWise, m: usize) {
    let (n, k) = (w.n(), w.k());
    let p = PackedWeights::from_groups_on(&context(Isa::Scalar, 2), w).unwrap();
    assert_eq!((p.n(), p.k(), p.format(), p.takes_int8()), (n, k, None, true));
    let mut wide = vec![0.0; n * k];
    for (i, out) in wide.chunks_exact_mut(k).enumerate() {
        w.dequantize_row(i, out).unwrap();
        let mut row = vec![f32::NAN; k];
        p.dequantize_row(i, &mut row).unwrap();
        assert_same_bits(&row, out, "row");
    }
    // Rule 1 and rule 2 go over k in stored order.
    let stored = |x: &[f32]| match w.order() {
        Some(order) => order.iter().map(|&i| x[i as usize]).collect(),
        None => x.to_vec(),
    };
    let x = r.vec(m * k);
    let a = MatRef::dense(&x, m, k).unwrap();
    let int8: Vec<f32> = (0..m)
        .flat_map(|i| {
            let x = stored(&x[i * k..(i + 1) * k]);
            (0..n).map(move |j| group_dot(w, j, &x)).collect::<Vec<_>>()
        })
        .collect();
    let stored_x: Vec<f32> = x.chunks_exact(k).flat_map(stored).collect();
    let stored_w: Vec<f32> = wide.chunks_exact(k).flat_map(stored).collect();
    let mut exact = vec![0.0; m * n];
    let ctx = Context::serial();
    let mut ws = Workspace::new(matmul_workspace_bytes(&ctx, m, n, k).unwrap()).unwrap();
    let b = MatRef::dense(&stored_w, n, k).unwrap().t();
    let stored_a = MatRef::dense(&stored_x, m, k).unwrap();
    let out = MatMut::dense(&mut exact, m, n).unwrap();
    matmul(&ctx, &mut ws, stored_a, b, out, &Epilogue::default()).unwrap();
    for_each_isa(|one| {
        for threads in [1, 3] {
            let ctx = context(one.isa(), threads);
            for (compute, want) in [(Compute::Int8, &int8), (Compute::F32, &exact)] {
                let mut c = vec![f32::NAN; m * n];
                product(&ctx, &p, compute, a, &Epilogue::default(), &mut c);
                let what = format!("{} bits in {}, {m}x{n}x{k} at {}", w.bits(), w.group(), ctx.isa());
                assert_same_bits(&c, want, &what);
            }
        }
    });
}

#[test]
fn products_equal_the_definition() {
    let mut r = Random::new(16);
    for bits in [2, 3, 4, 5, 6, 8] {
        for kind in KINDS.into_iter().filter(|&kind| exists(kind, bits)) {
            for (group, shapes) in [
                (16, [(1, 5, 96), (9, 33, 128)]),
                (32, [(1, 5, 128), (3, 40, 384)]),
                (64, [(2, 33, 256), (7, 70, 512)]),
                (128, [(1, 40, 384), (30, 33, 256)]),
            ] {
                for (m, n, k) in shapes {
                    let w = group_wise(&mut r, kind, bits, group, (n, k));
                    check(&mut r, &w, m);
                }
            }
        }
    }
    for m in [1, 4, 9, 40] {
        for (bits, group, shape) in [(4, 32, (40, 384)), (3, 64, (32, 160)), (2, 96, (16, 224))] {
            let w = act_order(&mut r, bits, group, shape);
            check(&mut r, &w, m);
        }
    }
}

/// Groups that are no power of two, as long as a row or longer, and whose last one is shorter.
#[test]
fn groups_of_any_length_have_the_same_products() {
    let mut r = Random::new(17);
    for group in [96, 256, 320, 512, 1024, 1056, 1 << 40] {
        for k in [32, 160, 1024, 1056, 2080] {
            for (kind, bits) in
                [(Kind::Symmetric, 8), (Kind::Zeros, 3), (Kind::Zeros, 4), (Kind::Affine16, 4)]
            {
                let w = group_wise(&mut r, kind, bits, group, (20, k));
                let m = 1 + r.below(3);
                check(&mut r, &w, m);
            }
        }
    }
}

/// The bytes of a matrix are those of its codes and of one set of numbers for each group, in the longest
/// groups that fit.
#[test]
fn packed_bytes_are_those_of_codes_and_groups() {
    let mut r = Random::new(18);
    for (kind, bits, group, (n, k), of_group) in [
        (Kind::Symmetric, 8, 4096, (32, 4096), 4 * 4), // a scale for each 1024
        (Kind::Symmetric, 4, 128, (32, 1024), 4 * 8),
        (Kind::Zeros, 3, 128, (32, 1024), 6 * 8),
        (Kind::Affine16, 4, 64, (32, 1024), 4 * 16),
        (Kind::Affine32, 4, 64, (32, 1024), 8 * 16),
        (Kind::Affine16, 6, 32, (32, 1024), 4 * 32),
        (Kind::Zeros, 2, 16, (32, 1024), 8 * 64),
        // One superblock for each block: the last group has one.
        (Kind::Symmetric, 8, 1024, (16, 32), 4),
    ] {
        let w = PackedWeights::from_groups(&group_wise(&mut r, kind, bits, group, (n, k))).unwrap();
        assert_eq!(w.bytes(), n * (k * bits as usize / 8 + of_group), "{kind:?} {bits} {group}");
    }
}

#[test]
fn files_hold_every_layout() {
    let mut r = Random::new(19);
    let path = temp("quant-groups");
    let mut kinds = 0;
    for bits in [2, 3, 4, 5, 6, 8] {
        for kind in KINDS.into_iter().filter(|&kind| exists(kind, bits)) {
            for group in [16, 32, 96, 128, 1024] {
                let groups = group_wise(&mut r, kind, bits, group, (20, 288));
                let w = PackedWeights::from_groups(&groups).unwrap();
                w.save(&path).unwrap();
                kinds += 1;
                for again in
                    [PackedWeights::load(&path).unwrap(), PackedWeights::from_mapped(&map(&path)).unwrap()]
                {
                    let [mut row, mut want] = [[0.0; 288]; 2];
                    for i in 0..20 {
                        again.dequantize_row(i, &mut row).unwrap();
                        groups.dequantize_row(i, &mut want).unwrap();
                        assert_same_bits(&row, &want, "row");
                    }
                }
            }
        }
    }
    assert_eq!(kinds, 5 * (4 * 4 + 2 * 2));
    std::fs::remove_file(path).unwrap();
}
