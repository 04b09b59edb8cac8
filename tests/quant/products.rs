//! Products with weights of every format: equal to the definition, at every tier, tail and number of threads.

use crate::definition::{assert_exact, assert_int8};
use crate::support::{Random, assert_same_bits, context, for_each_isa, product};
use kvern::quant::{
    Compute, PackedWeights, Product, WeightFormat, dequantize, multiply_many, workspace_bytes_many,
};
use kvern::{Activation, Context, ContextOptions, Epilogue, Isa, MatMut, MatRef, Workspace};

/// The formats of blocks.
fn formats() -> impl Iterator<Item = WeightFormat> {
    WeightFormat::ALL.into_iter().filter(|f| f.block_len() > 1)
}

/// Random blocks with scales of ordinary size.
fn blocks(r: &mut Random, format: WeightFormat, n: usize, k: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..format.bytes(n, k).unwrap()).map(|_| (r.next() >> 40) as u8).collect();
    let scales: &[usize] = match format {
        WeightFormat::Q2K => &[80, 82],
        WeightFormat::Q3K => &[108],
        WeightFormat::Q6K => &[208],
        WeightFormat::Tq1_0 => &[52],
        WeightFormat::Tq2_0 => &[64],
        WeightFormat::Q4_1 | WeightFormat::Q5_1 | WeightFormat::Q4K | WeightFormat::Q5K => &[0, 2],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        if format == WeightFormat::Mxfp4 {
            block[0] = 110 + block[0] % 20;
            continue;
        }
        match format {
            // d lies in the upper bits of four words: 0x2800, 2^-5.
            WeightFormat::Iq1M => {
                [0, 0, 8, 2].iter().enumerate().for_each(|(w, bits)| {
                    block[49 + 2 * w] = block[49 + 2 * w] & 15 | bits << 4;
                });
                continue;
            }
            // The least of the bytes that mean the same five, or four, digits.
            WeightFormat::Tq1_0 => {
                for (i, byte) in block[..52].iter_mut().enumerate() {
                    let number = if i < 48 { u16::from(*byte) % 243 } else { u16::from(*byte) % 81 * 3 };
                    *byte = (number * 256).div_ceil(243) as u8;
                }
            }
            // The scales may be anything but for the one that is read as 0.
            WeightFormat::Nvfp4 => continue,
            _ => {}
        }
        for &at in scales {
            block[at..at + 2].copy_from_slice(&kvern::f16::from_f32(r.f32() / 8.0).to_le_bytes());
        }
    }
    bytes
}

/// Rows, columns and k: every number of rows of a tile, tails of panels, single and odd superblocks.
fn shapes(format: WeightFormat) -> Vec<(usize, usize, usize)> {
    let len = format.block_len();
    let mut shapes: Vec<_> =
        (1..=26).map(|m| (m, 1 + (m * 37) % 83, len * (1 + m % if len == 32 { 9 } else { 2 }))).collect();
    shapes.extend([
        (1, 200, len),
        (2, 16, 512),
        (3, 15, 1024),
        (40, 33, 512),
        (13, 70, 8192 + 512),
        (43, 50, 512),
        (131, 35, 512),
    ]);
    shapes
}

#[test]
fn packing_is_reversible_in_every_format() {
    let mut r = Random::new(11);
    for format in formats() {
        for (n, k) in [(1, format.block_len()), (7, 768), (33, 1536)] {
            let bytes = blocks(&mut r, format, n, k);
            let p = PackedWeights::from_blocks_on(&context(Isa::Scalar, 3), format, n, k, &bytes).unwrap();
            let mut back = vec![0; bytes.len()];
            p.to_blocks(&mut back).unwrap();
            assert!(back == bytes, "{format:?}");
            let (mut want, mut row) = (vec![0.0; n * k], vec![0.0; k]);
            dequantize(format, &bytes, &mut want).unwrap();
            for (i, want) in want.chunks_exact(k).enumerate() {
                p.dequantize_row(i, &mut row).unwrap();
                assert_same_bits(&row, want, format.name());
            }
            let bits = |bytes: usize, n: usize| bytes as f64 / n as f64;
            if n == 33 {
                let grown = bits(p.bytes(), 48 * k) / bits(bytes.len(), n * k);
                let most = match format {
                    WeightFormat::Q3K => 1.06,
                    WeightFormat::Iq1M => 1.04,
                    // In 2 bits instead of five digits a byte.
                    WeightFormat::Tq1_0 => 1.23,
                    _ => 1.03,
                };
                assert!(grown < most, "{format:?} grows by {grown}");
            }
        }
    }
}

#[test]
fn int8_products_equal_the_definition() {
    let mut r = Random::new(12);
    for format in formats() {
        for (m, n, k) in shapes(format) {
            let (x, bytes) = (r.vec(m * k), blocks(&mut r, format, n, k));
            let a = MatRef::dense(&x, m, k).unwrap();
            let p = PackedWeights::from_blocks(format, n, k, &bytes).unwrap();
            assert_int8(&p, a);
        }
    }
}

#[test]
fn exact_products_equal_dequantize_then_multiply() {
    let mut r = Random::new(13);
    for format in WeightFormat::ALL {
        for (m, n, k) in shapes(format) {
            let k = if format.block_len() == 1 { k % 1000 * 31 % 577 } else { k };
            let (x, bytes) = (r.vec(m * k), blocks(&mut r, format, n, k));
            let a = MatRef::dense(&x, m, k).unwrap();
            let p = PackedWeights::from_blocks(format, n, k, &bytes).unwrap();
            let mut wide = vec![0.0; n * k];
            dequantize(format, &bytes, &mut wide).unwrap();
            assert_exact(&p, &wide, a);
        }
    }
}

#[test]
fn threads_and_batches_do_not_change_bits() {
    let mut r = Random::new(14);
    let (m, n, k) = (130, 300, 512);
    let (a, bias, start) = (r.vec(m * k), r.vec(n), r.vec(m * n));
    let a = MatRef::dense(&a, m, k).unwrap();
    let e = Epilogue::default().scaled(0.5, 1.0).bias(&bias).activation(Activation::Relu);
    for format in formats() {
        let p = PackedWeights::from_blocks(format, n, k, &blocks(&mut r, format, n, k)).unwrap();
        for compute in [Compute::Int8, Compute::F32] {
            let mut want = start.clone();
            product(&context(Isa::detect(), 1), &p, compute, a, &e, &mut want);
            for threads in [1, 2, 3, 8] {
                let mut c = start.clone();
                product(&context(Isa::detect(), threads), &p, compute, a, &e, &mut c);
                assert_same_bits(&c, &want, &format!("{threads} threads"));
            }
            for_each_isa(|ctx| {
                for i in [0, 5, 63] {
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
fn shared_activations_and_gates_have_the_bits_of_separate_calls() {
    let mut r = Random::new(15);
    let k = 512;
    let of = |r: &mut Random, format, n| {
        PackedWeights::from_blocks(format, n, k, &blocks(r, format, n, k)).unwrap()
    };
    let q = of(&mut r, WeightFormat::Q4K, 130);
    let v = of(&mut r, WeightFormat::Q6K, 40);
    let gate = of(&mut r, WeightFormat::Q5_0, 130);
    let float = of(&mut r, WeightFormat::F16, 20);
    for (m, threads, compute) in [1, 2, 7, 30].into_iter().flat_map(|m| {
        [1, 2, 3, 8].into_iter().flat_map(move |t| [(m, t, Compute::Int8), (m, t, Compute::F32)])
    }) {
        let x = r.vec(m * k);
        let a = MatRef::dense(&x, m, k).unwrap();
        for_each_isa(|one| {
            let e = Epilogue::default().activation(Activation::Silu);
            let alone = |w: &PackedWeights, e: &Epilogue<'_>| {
                let mut c = vec![f32::NAN; m * w.n()];
                product(one, w, compute, a, e, &mut c);
                c
            };
            let want = [alone(&q, &Epilogue::default()), alone(&v, &e), alone(&float, &e)];
            let up = alone(&gate, &Epilogue::default());
            let gated: Vec<f32> = alone(&q, &e).iter().zip(&up).map(|(x, y)| x * y).collect();
            let ctx = context(one.isa(), threads);
            let bytes = workspace_bytes_many(&ctx, m, compute, &[&q, &v, &gate, &float]).unwrap();
            let mut ws = Workspace::new(bytes).unwrap();
            let mut c = [&want[0], &want[1], &want[2], &gated].map(|c| vec![f32::NAN; c.len()]);
            let [c0, c1, c2, c3] = &mut c;
            let mut products = [
                Product::new(&q, MatMut::dense(c0, m, 130).unwrap()),
                Product::new(&v, MatMut::dense(c1, m, 40).unwrap()),
                Product::new(&float, MatMut::dense(c2, m, 20).unwrap()),
                Product::new(&q, MatMut::dense(c3, m, 130).unwrap()),
            ];
            products[1].epilogue = e;
            products[2].epilogue = e;
            products[3].epilogue = e;
            products[3].up = Some(&gate);
            multiply_many(&ctx, &mut ws, compute, a, &mut products).unwrap();
            for (got, want) in c.iter().zip([&want[0], &want[1], &want[2], &gated]) {
                assert_same_bits(got, want, "together");
            }
            let mut c = vec![f32::NAN; gated.len()];
            let out = MatMut::dense(&mut c, m, 130).unwrap();
            q.multiply_gated(&ctx, &mut ws, compute, a, &gate, out, &e).unwrap();
            assert_same_bits(&c, &gated, "gated");
        });
    }
}

#[test]
fn products_without_dot_instructions_have_the_same_bits() {
    let mut r = Random::new(17);
    let options = ContextOptions::default().no_dot_instructions();
    let (with, without) = (Context::serial(), Context::new(&options).unwrap());
    for format in formats() {
        for (m, n, k) in [(1, 40, 512), (2, 33, 256), (3, 70, 768), (9, 20, 512), (31, 50, 256)] {
            let p = PackedWeights::from_blocks(format, n, k, &blocks(&mut r, format, n, k)).unwrap();
            let x = r.vec(m * k);
            let a = MatRef::dense(&x, m, k).unwrap();
            let [mut c, mut d] = [vec![0.0; m * n], vec![0.0; m * n]];
            product(&with, &p, Compute::Int8, a, &Epilogue::default(), &mut c);
            product(&without, &p, Compute::Int8, a, &Epilogue::default(), &mut d);
            assert_same_bits(&c, &d, format.name());
        }
    }
}
