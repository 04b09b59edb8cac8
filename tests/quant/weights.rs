//! Quantised weights: blocks byte for byte as the oracle, packing reversible, products equal at every tier.

use crate::definition::{assert_exact, assert_int8};
use crate::support::{Random, assert_same_bits, context, for_each_isa, product};
use kvern::quant::{Compute, PackedWeights, WeightFormat, dequantize, quantize};
use kvern::{Activation, Context, Epilogue, Isa, MatMut, MatRef, Workspace};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/quant/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn blocks_and_floats_match_the_oracle_byte_for_byte() {
    let input = floats(&fixture("input.f32"));
    for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
        let blocks = fixture(&format!("{}.blocks", format.name()));
        let want = floats(&fixture(&format!("{}.f32", format.name())));
        let mut got = vec![0u8; format.bytes(7, 512).unwrap()];
        quantize(format, &input, &mut got).unwrap();
        let first = got.iter().zip(&blocks).position(|(a, b)| a != b);
        assert_eq!((got.len(), first), (blocks.len(), None), "{format:?}");
        let mut back = vec![0.0; input.len()];
        dequantize(format, &blocks, &mut back).unwrap();
        assert_same_bits(&back, &want, format.name());
        let packed = PackedWeights::from_blocks(format, 7, 512, &blocks).unwrap();
        let direct = PackedWeights::quantize(format, MatRef::dense(&input, 7, 512).unwrap()).unwrap();
        for p in [packed, direct] {
            let mut again = vec![0u8; blocks.len()];
            p.to_blocks(&mut again).unwrap();
            assert_eq!(again, blocks);
            for i in 0..7 {
                let mut row = vec![0.0; 512];
                p.dequantize_row(i, &mut row).unwrap();
                assert_same_bits(&row, &want[i * 512..(i + 1) * 512], "row");
            }
        }
    }
}

#[test]
fn packed_weights_are_as_small_as_their_blocks() {
    for (format, bits) in [(WeightFormat::Q4_0, 4.5), (WeightFormat::Q8_0, 8.5)] {
        let w = vec![1.0; 512 * 256];
        let p = PackedWeights::quantize(format, MatRef::dense(&w, 512, 256).unwrap()).unwrap();
        assert_eq!(p.bytes() as f64 * 8.0 / (512.0 * 256.0), bits);
        assert_eq!((p.n(), p.k(), p.format()), (512, 256, Some(format)));
    }
}

#[test]
fn int8_products_equal_the_definition_at_every_tail() {
    let mut r = Random::new(1);
    let shapes = (1..=130).map(|n| (1 + n * 3 % 14, n, 32 * (1 + n % 5))).chain([
        (1, 64, 4096),
        (40, 33, 96),
        (129, 70, 96),
        (134, 37, 64),
    ]);
    for (m, n, k) in shapes {
        let (a, w) = (r.vec(m * k), r.vec(n * k));
        let a = MatRef::dense(&a, m, k).unwrap();
        for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
            let p = PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap();
            assert_int8(&p, a);
        }
    }
}

#[test]
fn exact_products_equal_dequantize_then_multiply() {
    let mut r = Random::new(2);
    for (m, n, k) in (1..=70).map(|n| (1 + n * 5 % 19, n, 32 * (1 + n % 4))) {
        let (a, w) = (r.vec(m * k), r.vec(n * k));
        let a = MatRef::dense(&a, m, k).unwrap();
        for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
            let p = PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap();
            let mut wide = vec![0.0; n * k];
            for (i, row) in wide.chunks_exact_mut(k).enumerate() {
                p.dequantize_row(i, row).unwrap();
            }
            assert_exact(&p, &wide, a);
        }
    }
}

#[test]
fn threads_and_batches_do_not_change_bits() {
    let mut r = Random::new(3);
    let (m, n, k) = (130, 600, 256);
    let (a, w, bias, start) = (r.vec(m * k), r.vec(n * k), r.vec(n), r.vec(m * n));
    let a = MatRef::dense(&a, m, k).unwrap();
    let e = Epilogue::default().scaled(0.5, 1.0).bias(&bias).activation(Activation::Relu);
    for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
        let p = PackedWeights::quantize(format, MatRef::dense(&w, n, k).unwrap()).unwrap();
        for compute in [Compute::Int8, Compute::F32] {
            let mut want = start.clone();
            product(&context(Isa::Scalar, 1), &p, compute, a, &e, &mut want);
            for_each_isa(|ctx| {
                for threads in [1, 2, 3, 8] {
                    let mut c = start.clone();
                    product(&context(ctx.isa(), threads), &p, compute, a, &e, &mut c);
                    assert_same_bits(&c, &want, &format!("{threads} threads"));
                }
                for i in [0, 1, 5, 63, 129] {
                    let row = MatRef::dense(a.row(i).unwrap(), 1, k).unwrap();
                    let mut c = start[i * n..(i + 1) * n].to_vec();
                    product(ctx, &p, compute, row, &e, &mut c);
                    assert_same_bits(&c, &want[i * n..(i + 1) * n], "one row");
                }
            });
        }
    }
}

#[test]
fn odd_activations_behave_as_documented() {
    let w: Vec<f32> = (0..32 * 64).map(|x| (x % 17) as f32 - 8.0).collect();
    for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
        let p = PackedWeights::quantize(format, MatRef::dense(&w, 32, 64).unwrap()).unwrap();
        for_each_isa(|ctx| {
            let mut a = vec![1e-39f32; 64];
            let mut c = vec![1.0; 32];
            let run = |a: &[f32], c: &mut [f32]| {
                product(ctx, &p, Compute::Int8, MatRef::dense(a, 1, 64).unwrap(), &Epilogue::default(), c);
            };
            run(&a, &mut c);
            assert_eq!(c, [0.0; 32], "subnormal blocks are zeros");
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                a[40] = bad;
                run(&a, &mut c);
                assert!(c.iter().all(|x| x.is_nan()), "{bad} spreads");
            }
        });
    }
    let mut blocks = vec![0u8; 34];
    quantize(WeightFormat::Q8_0, &[f32::NAN; 32], &mut blocks).unwrap();
    let mut back = vec![0.0; 32];
    dequantize(WeightFormat::Q8_0, &blocks, &mut back).unwrap();
    assert!(back.iter().all(|x| x.is_nan()));
    let mut blocks = vec![0u8; 18];
    quantize(WeightFormat::Q4_0, &[f32::INFINITY; 32], &mut blocks).unwrap();
    dequantize(WeightFormat::Q4_0, &blocks, &mut back).unwrap();
    assert!(back.iter().all(|x| x.is_nan()));
}

/// A part of a larger tensor, along n and along k, where it is.
#[test]
fn rows_of_blocks_may_lie_apart() {
    let mut r = Random::new(98);
    let (rows, cols) = (40, 4 * 256);
    let x = r.vec(rows * cols);
    for format in WeightFormat::ALL {
        let mut tensor = vec![0; format.bytes(rows, cols).unwrap()];
        quantize(format, &x, &mut tensor).unwrap();
        let stride = format.bytes(1, cols).unwrap();
        for (first, n, from, k) in [(0, 40, 0, 1024), (3, 33, 256, 512), (39, 1, 768, 256), (7, 0, 0, 256)] {
            let (start, bytes) = (format.bytes(1, from).unwrap(), format.bytes(1, k).unwrap());
            let part = &tensor[first * stride + start..];
            // Not a byte behind the last row.
            let part = if n == 0 { &[] } else { &part[..(n - 1) * stride + bytes] };
            let ctx = context(Isa::Scalar, 2);
            let w = PackedWeights::from_block_rows_on(&ctx, format, (n, k), part, stride).unwrap();
            let together: Vec<u8> =
                (0..n).flat_map(|i| part[i * stride..i * stride + bytes].to_vec()).collect();
            let want = PackedWeights::from_blocks(format, n, k, &together).unwrap();
            let [mut got, mut back] = [(); 2].map(|()| vec![0xA5; together.len()]);
            w.to_blocks(&mut got).unwrap();
            want.to_blocks(&mut back).unwrap();
            assert!(got == back && w.bytes() == want.bytes(), "{}", format.name());
        }
        let refused = |n, row_bytes, len: usize| {
            let blocks = &tensor[..len];
            let w =
                PackedWeights::from_block_rows_on(&Context::serial(), format, (n, 256), blocks, row_bytes);
            w.unwrap_err().to_string()
        };
        let bytes = format.bytes(1, 256).unwrap();
        assert_eq!(
            refused(2, bytes - 1, 2 * bytes),
            format!("row_bytes = {} must be at least the bytes of k weights = {bytes}", bytes - 1)
        );
        let few = refused(2, stride, stride + bytes - 1);
        assert!(few.starts_with("blocks.len") && few.contains(&format!("{}", stride + bytes)), "{few}");
        assert!(refused(usize::MAX, stride, bytes).contains("does not fit the address space"));
    }
}

#[test]
fn bad_input_is_refused() {
    let ctx = Context::serial();
    let w = vec![1.0; 8 * 64];
    let q4 = WeightFormat::Q4_0;
    let say = |e: kvern::Error| e.to_string();
    assert_eq!(
        say(PackedWeights::quantize(q4, MatRef::dense(&w, 8, 33).unwrap()).unwrap_err()),
        "k = 33 must be a multiple of the block of 32"
    );
    let m = MatRef::dense(&w, 8, 64).unwrap();
    assert!(say(PackedWeights::quantize(q4, m.t().t().t()).unwrap_err()).contains("multiple"));
    let square = MatRef::dense(&w[..32 * 16], 16, 32).unwrap();
    assert!(PackedWeights::quantize(q4, MatRef::dense(&w, 32, 16).unwrap().t()).is_err());
    assert_eq!(
        say(PackedWeights::from_blocks(q4, 2, 32, &[0; 35]).unwrap_err()),
        "blocks.len = 35 must equal the bytes of n * k weights = 36"
    );
    assert!(PackedWeights::from_blocks(q4, usize::MAX, 64, &[]).is_err());
    assert!(quantize(q4, &[0.0; 31], &mut [0; 18]).is_err());
    assert_eq!(
        say(dequantize(q4, &[0; 17], &mut [0.0; 32]).unwrap_err()),
        "blocks.len = 17 must equal the bytes of the blocks = 18"
    );
    let p = PackedWeights::quantize(q4, m).unwrap();
    assert!(p.to_blocks(&mut [0; 3]).is_err());
    assert!(p.dequantize_row(0, &mut [0.0; 3]).is_err());
    assert_eq!(say(p.dequantize_row(8, &mut [0.0; 64]).unwrap_err()), "row = 8 must be below n = 8");
    let mut ws = Workspace::new(1 << 16).unwrap();
    let mut c = [5.0; 32];
    let e = Epilogue::default();
    let mut run = |a: MatRef<'_>, rows, cols, ws: &mut Workspace| {
        let out = MatMut::dense(&mut c[..rows * cols], rows, cols).unwrap();
        p.multiply(&ctx, ws, Compute::Int8, a, out, &e).unwrap_err().to_string()
    };
    let a = MatRef::dense(&w[..64], 1, 64).unwrap();
    assert_eq!(run(square, 16, 2, &mut ws), "a.cols = 32 must equal the weights' k = 64");
    assert_eq!(run(a, 1, 9, &mut ws), "c.cols = 9 must equal the weights' n = 8");
    assert_eq!(run(a, 2, 8, &mut ws), "c.rows = 2 must equal a.rows = 1");
    assert!(run(MatRef::dense(&w[..64], 64, 1).unwrap().t(), 1, 8, &mut ws).contains("transposed"));
    assert!(run(a, 1, 8, &mut Workspace::new(0).unwrap()).starts_with("workspace = 0 bytes"));
    assert_eq!(c, [5.0; 32]);
}

#[test]
fn a_workspace_for_the_largest_batch_serves_every_smaller_one() {
    let mut r = Random::new(4);
    for (largest, n, k) in [(40, 1004, 128), (600, 70, 32), (9, 33, 4096), (20, 5000, 32)] {
        let (a, w) = (r.vec(largest * k), r.vec(n * k));
        let p = PackedWeights::quantize(WeightFormat::Q4_0, MatRef::dense(&w, n, k).unwrap()).unwrap();
        let ctx = context(Isa::detect(), 3);
        let bytes = |m| p.workspace_bytes(&ctx, m, Compute::Int8).unwrap();
        let mut ws = Workspace::new(bytes(largest)).unwrap();
        let mut c = vec![0.0; largest * n];
        for m in (1..=largest).filter(|m| m % 5 == 1 || largest - m < 3 || *m < 8) {
            let a = MatRef::dense(&a[..m * k], m, k).unwrap();
            let c = MatMut::dense(&mut c[..m * n], m, n).unwrap();
            let e = Epilogue::default().scaled(1.0, 1.0);
            p.multiply(&ctx, &mut ws, Compute::Int8, a, c, &e).unwrap();
        }
        assert!((1..700).all(|m| bytes(m) <= bytes(m + 1)), "{n} {k}");
    }
}
