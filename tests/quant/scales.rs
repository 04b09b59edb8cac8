//! Scales at the ends of what they can be: every exponent of MXFP4, and group scales up to the end of f32,
//! at every tier and number of rows.

use crate::support::{assert_same_bits, for_each_isa, product};
use kvern::quant::import::GroupWise;
use kvern::quant::{Compute, PackedWeights, WeightFormat, dequantize};
use kvern::{Context, Epilogue, MatRef};

/// Rows of activations: a row, tiles of a few, and enough to widen weights ahead of the product.
const ROWS: [usize; 4] = [1, 3, 13, 64];

/// `a * w^T`, every row of a being `x`; rows of c after the first have to equal it.
fn products(ctx: &Context, w: &PackedWeights, compute: Compute, x: &[f32], rows: usize) -> Vec<f32> {
    let a: Vec<f32> = x.iter().copied().cycle().take(rows * x.len()).collect();
    let mut c = vec![1e30; rows * w.n()];
    product(ctx, w, compute, MatRef::dense(&a, rows, x.len()).unwrap(), &Epilogue::default(), &mut c);
    for row in c.chunks(w.n()) {
        assert_same_bits(row, &c[..w.n()], "rows");
    }
    c.truncate(w.n());
    c
}

/// Twice the values of E2M1.
const DOUBLED: [f64; 16] = [0., 1., 2., 3., 4., 6., 8., 12., 0., -1., -2., -3., -4., -6., -8., -12.];

/// 256 rows of one block: row e has the exponent e, and code `code` at k = 9, the others 0.
fn exponents(code: u8) -> Vec<u8> {
    let mut blocks = vec![0; 256 * 17];
    for (e, block) in blocks.chunks_exact_mut(17).enumerate() {
        block[0] = e as u8;
        block[1 + 9] = code;
    }
    blocks
}

/// The weight by the OCP specification: exact in f64, rounded to f32 (infinite beyond its end); 255 is NaN.
fn by_specification(e: usize, code: u8) -> f32 {
    if e == 255 { f32::NAN } else { (2f64.powi(e as i32 - 128) * DOUBLED[usize::from(code)]) as f32 }
}

#[test]
fn every_exponent_of_mxfp4_gives_the_weights_of_the_specification() {
    for code in 0..16 {
        let blocks = exponents(code);
        let mut floats = vec![1e30; 256 * 32];
        dequantize(WeightFormat::Mxfp4, &blocks, &mut floats).unwrap();
        let w = PackedWeights::from_blocks(WeightFormat::Mxfp4, 256, 32, &blocks).unwrap();
        let mut row = [1e30; 32];
        for e in 0..256 {
            let mut want = [if e == 255 { f32::NAN } else { 0.0 }; 32];
            want[9] = by_specification(e, code);
            assert_same_bits(&positive(&floats[32 * e..32 * e + 32]), &positive(&want), "dequantize");
            w.dequantize_row(e, &mut row).unwrap();
            assert_same_bits(&positive(&row), &positive(&want), "dequantize_row");
        }
    }
}

/// Zeros without their sign.
fn positive(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| x + 0.0).collect()
}

#[test]
fn every_exponent_of_mxfp4_multiplies_at_every_tier() {
    let mut x = [0.0; 32];
    x[9] = 1.0;
    for_each_isa(|ctx| {
        for code in 0..16 {
            let w = PackedWeights::from_blocks(WeightFormat::Mxfp4, 256, 32, &exponents(code)).unwrap();
            for rows in ROWS {
                // The other terms are 0 * 0, so a product is the weight: its chain starts from +0.
                let want: Vec<f32> = (0..256).map(|e| by_specification(e, code) + 0.0).collect();
                let got = products(ctx, &w, Compute::F32, &x, rows);
                assert_same_bits(&got, &want, &format!("{} code {code}, {rows} rows, f32", ctx.isa()));
                // 1 becomes 127 * (1 / 127): three roundings, as long as the scale times 1 / 127 is normal.
                let got = products(ctx, &w, Compute::Int8, &x, rows);
                assert!(got[255].is_nan(), "{} code {code}, {rows} rows, int8: {}", ctx.isa(), got[255]);
                for e in 10..253 {
                    let near = (got[e] - want[e]).abs() <= 2e-7 * want[e].abs();
                    assert!(
                        near,
                        "{} code {code}, {rows} rows, e = {e}: {} for {}",
                        ctx.isa(),
                        got[e],
                        want[e]
                    );
                }
            }
        }
    });
}

#[test]
fn group_scales_up_to_the_end_of_f32_multiply_exactly() {
    let (n, k) = (33, 64);
    // Scales of 2^110 and more, so that 128 of them exceed f32, and the largest of all.
    let scale = |row: usize, g: usize| {
        let exponent = 110.0 + ((row * 7 + g * 3) % 18) as f32;
        if row == 5 { f32::MAX } else { 1.5 * exponent.exp2() }
    };
    for bits in [4, 8] {
        for symmetric in [true, false] {
            // One code of each group is not zero: 1 or -1.
            let code = |row: usize, p: usize| match (p % 32 == 4, row % 2) {
                (true, 0) => 1i8,
                (true, _) => -1,
                _ => 0,
            };
            let scales: Vec<f32> = (0..n * k / 32).map(|i| scale(i / 2, i % 2)).collect();
            let elements = || (0..n * k).map(|i| code(i / k, i % k));
            let groups = if symmetric {
                GroupWise::symmetric((n, k), bits, 32, &elements().collect::<Vec<i8>>(), &scales)
            } else {
                // 3 stands for zero.
                let codes: Vec<u8> = elements().map(|code| (code + 3) as u8).collect();
                GroupWise::with_zeros((n, k), bits, 32, &codes, &scales, &vec![3; n * k / 32])
            };
            let w = PackedWeights::from_groups_on(&Context::serial(), &groups.unwrap()).unwrap();
            for first in [4, 36] {
                let mut x = [0.0; 64];
                x[first] = 0.25;
                let want: Vec<f32> =
                    (0..n).map(|i| 0.25 * scale(i, first / 32) * f32::from(code(i, first))).collect();
                for_each_isa(|ctx| {
                    for rows in ROWS {
                        let got = products(ctx, &w, Compute::F32, &x, rows);
                        let what = format!("{} {bits} bits, symmetric {symmetric}, {rows} rows", ctx.isa());
                        assert_same_bits(&got, &want, &what);
                    }
                });
            }
        }
    }
}
