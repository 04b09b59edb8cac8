//! Quantised weights of every format and in groups through the C ABI: gates, shared activations, files.

use crate::capi::*;
use crate::support::{Random, assert_same_bits};
use kvern::capi::import::*;
use kvern::capi::matmul::*;
use kvern::capi::quant::*;
use kvern::capi::status::*;
use kvern::capi::weights::*;
use kvern::capi::workspace::*;
use kvern::quant::import::GroupWise;
use kvern::quant::{Compute, PackedWeights, Product, WeightFormat, multiply_many, workspace_bytes_many};
use kvern::{Activation, Context, Epilogue, MatMut, MatRef, Workspace};
use std::ptr::{null, null_mut};

const K2: usize = 256; // a block of the widest format

#[test]
fn weights_of_every_format_are_kept_and_gated_as_in_the_safe_api() {
    let (o, ctx, mut random) = (Objects::new(), Context::serial(), Random::new(61));
    let mut ws = Workspace::new(4 << 20).unwrap();
    let (w, a) = (random.vec(N * K2), random.vec(M * K2));
    let (path, name) = temporary("capi_weights");
    let e = kvern_epilogue { activation: KVERN_ACTIVATION_SILU, ..epilogue() };
    for format in WeightFormat::ALL {
        let mut blocks = vec![0u8; format.bytes(N, K2).unwrap()];
        kvern::quant::quantize(format, &w, &mut blocks).unwrap();
        let safe = PackedWeights::from_blocks(format, N, K2, &blocks).unwrap();
        let (number, mut n, mut kind) = (format as i32, 0, 0);
        let (mut weights, mut loaded, mut mapped) = (null_mut(), null_mut(), null_mut());
        let (mut got, mut want) = (vec![0.0; M * N], vec![0.0; M * N]);
        let (av, cv) = (MatRef::dense(&a, M, K2).unwrap(), MatMut::dense(&mut want, M, N).unwrap());
        let safe_e = Epilogue::default().activation(Activation::Silu);
        safe.multiply_gated(&ctx, &mut ws, Compute::Int8, av, &safe, cv, &safe_e).unwrap();
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            let (a, c) = (a.as_ptr(), got.as_mut_ptr());
            ok(kvern_weights_from_blocks(null(), number, N, K2, blocks.as_ptr(), blocks.len(), &mut weights));
            ok(kvern_weights_save(weights, name.as_ptr()));
            ok(kvern_weights_load(null(), name.as_ptr(), &mut loaded));
            ok(kvern_weights_map(name.as_ptr(), &mut mapped));
            for weights in [weights, loaded, mapped] {
                ok(kvern_weights_n(weights, &mut n));
                assert_eq!(n, N);
                ok(kvern_weights_k(weights, &mut n));
                assert_eq!(n, K2);
                ok(kvern_weights_get_format(weights, &mut kind));
                assert_eq!(kind, number);
            }
            ok(kvern_weights_workspace_bytes(o.ctx, mapped, 0, M, &mut n));
            ok(kvern_workspace_reserve(o.ws, n));
            ok(kvern_weights_multiply_gated(o.ctx, o.ws, mapped, loaded, 0, M, N, K2, a, K2, c, N, &e));
            [weights, loaded, mapped].into_iter().for_each(|x| kvern_weights_destroy(x));
        }
        assert_same_bits(&got, &want, format.name());
    }
    let mut none = null_mut();
    std::fs::write(&path, b"not weights").unwrap();
    // SAFETY: as above.
    unsafe {
        refused(kvern_weights_load(null(), name.as_ptr(), &mut none), KVERN_STATUS_BLOB, "stored");
        refused(kvern_weights_map(name.as_ptr(), &mut none), KVERN_STATUS_BLOB, "stored");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(none.is_null());
}

#[test]
fn products_with_one_input_have_the_bits_of_the_safe_api() {
    let (o, ctx, mut random) = (Objects::new(), Context::serial(), Random::new(62));
    let (mut ws, a, bias) = (Workspace::new(4 << 20).unwrap(), random.vec(M * K), random.vec(N));
    let (codes, scales) = (random.vec(N * K), random.vec(N * K / 32));
    let signed: Vec<i8> = codes.iter().map(|x| (x * 8.0).floor() as i8).collect();
    let unsigned: Vec<u8> = signed.iter().map(|&x| (i16::from(x) + 8) as u8).collect();
    let zeros: Vec<u8> = (0..N * K / 32).map(|i| (i % 16) as u8).collect();
    let symmetric = GroupWise::symmetric((N, K), 4, 32, &signed, &scales).unwrap();
    let with_zeros = GroupWise::with_zeros((N, K), 4, 32, &unsigned, &scales, &zeros).unwrap();
    let safe = [
        PackedWeights::quantize(WeightFormat::Q8_0, MatRef::dense(&o.w, N, K).unwrap()).unwrap(),
        PackedWeights::from_groups_on(&ctx, &symmetric).unwrap(),
        PackedWeights::from_groups_on(&ctx, &with_zeros).unwrap(),
    ];
    let (mut first, mut second, mut kind, mut bytes) = (null_mut(), null_mut(), 0, 0);
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        let (codes, scales) = (signed.as_ptr().cast(), scales.as_ptr());
        ok(kvern_weights_from_groups(o.ctx, 4, 32, N, K, codes, scales, null(), &mut first));
        let (codes, zeros) = (unsigned.as_ptr(), zeros.as_ptr());
        ok(kvern_weights_from_groups(o.ctx, 4, 32, N, K, codes, scales, zeros, &mut second));
        ok(kvern_weights_get_format(second, &mut kind));
    }
    assert_eq!(kind, KVERN_WEIGHT_FORMAT_GROUPS);
    let raw = [o.weights.cast_const(), first, second];
    let mut got = vec![vec![0.0; M * N]; 3];
    let mut want = got.clone();
    let mut products: Vec<Product<'_>> =
        safe.iter().zip(&mut want).map(|(w, c)| Product::new(w, MatMut::dense(c, M, N).unwrap())).collect();
    products[0].epilogue = Epilogue::default().bias(&bias);
    products[1].up = Some(&safe[2]);
    let av = MatRef::dense(&a, M, K).unwrap();
    multiply_many(&ctx, &mut ws, Compute::Int8, av, &mut products).unwrap();
    drop(products);

    let with_bias = kvern_epilogue { bias: bias.as_ptr(), ..epilogue() };
    let mut list: Vec<kvern_weights_product> = raw
        .iter()
        .zip(&mut got)
        .map(|(&weights, c)| kvern_weights_product {
            weights,
            up: null(),
            c: c.as_mut_ptr(),
            c_row_stride: N,
            n: N,
            epilogue: null(),
        })
        .collect();
    list[0].epilogue = &with_bias;
    list[1].up = second;
    let a = a.as_ptr();
    // SAFETY: as above.
    unsafe {
        ok(kvern_weights_many_workspace_bytes(o.ctx, 0, M, 3, raw.as_ptr(), &mut bytes));
        let safe: Vec<&PackedWeights> = safe.iter().collect();
        assert_eq!(bytes, workspace_bytes_many(&ctx, M, Compute::Int8, &safe).unwrap());
        ok(kvern_workspace_reserve(o.ws, bytes));
        ok(kvern_weights_multiply_many(o.ctx, o.ws, 0, M, K, a, K, 3, list.as_ptr()));
    }
    for (got, want) in got.iter().zip(&want) {
        assert_same_bits(got, want, "shared activations");
    }
    let before = got.clone();
    let run = |ctx, ws, compute, a, count, list: *const kvern_weights_product| {
        // SAFETY: what is not NULL is live; what is wrong about the rest is refused before it is read.
        unsafe { kvern_weights_multiply_many(ctx, ws, compute, M, K, a, K, count, list) }
    };
    let (ctx, ws, good) = (o.ctx.cast_const(), o.ws, list[0]);
    ok(run(ctx, ws, 0, a, 0, null()));
    refused(run(null(), ws, 0, a, 1, &good), KVERN_STATUS_NULL_POINTER, "ctx is NULL");
    refused(run(ctx, null_mut(), 0, a, 1, &good), KVERN_STATUS_NULL_POINTER, "ws is NULL");
    refused(run(ctx, ws, 5, a, 1, &good), KVERN_STATUS_OPTION, "compute = 5");
    refused(run(ctx, ws, 0, null(), 1, &good), KVERN_STATUS_NULL_POINTER, "a is NULL");
    refused(run(ctx, ws, 0, a, 1, null()), KVERN_STATUS_NULL_POINTER, "products is NULL");
    refused(run(ctx, ws, 0, a, 17, &good), KVERN_STATUS_OPTION, "count = 17 must be at most 16");
    type P = kvern_weights_product;
    for (bad, status, part) in [
        (P { weights: null(), ..good }, KVERN_STATUS_NULL_POINTER, "weights is NULL"),
        (P { c: null_mut(), ..good }, KVERN_STATUS_NULL_POINTER, "c is NULL"),
        (P { c: a.cast_mut(), ..good }, KVERN_STATUS_ALIASED, "c overlaps a"),
        (P { c: bias.as_ptr().cast_mut(), ..good }, KVERN_STATUS_ALIASED, "c overlaps epilogue->bias"),
        (P { c: list[1].c.wrapping_add(2), ..good }, KVERN_STATUS_ALIASED, "c overlaps c"),
        (P { n: N - 1, ..good }, KVERN_STATUS_SHAPE, "c.cols = 4"),
        (P { c_row_stride: N - 1, ..good }, KVERN_STATUS_SHAPE, "c_row_stride = 4"),
    ] {
        refused(run(ctx, ws, 0, a, 3, [list[1], list[2], bad].as_ptr()), status, part);
    }
    assert_eq!(got, before, "a refused call changes nothing");
    // SAFETY: nothing uses them any more.
    unsafe { [first, second].into_iter().for_each(|x| kvern_weights_destroy(x)) };
}

#[test]
fn null_and_garbage_are_refused() {
    let (o, mut y, mut n, mut out) = (Objects::new(), vec![2f32; 512], 0usize, null_mut());
    let (x, path) = (vec![1f32; 512], c"/nowhere/weights".as_ptr());
    let (ctx, w, c, a, e) = (o.ctx.cast_const(), o.weights.cast_const(), y.as_mut_ptr(), x.as_ptr(), null());
    let (ws, list) = (o.ws, [w, null()]);
    let (null_status, option) = (KVERN_STATUS_NULL_POINTER, KVERN_STATUS_OPTION);
    // SAFETY: what is not NULL is live; what is wrong about the rest is refused before it is read.
    unsafe {
        let n = &raw mut n;
        refused(kvern_weights_save(null(), path), null_status, "weights is NULL");
        refused(kvern_weights_save(w, null()), null_status, "path is NULL");
        refused(kvern_weights_save(w, path), KVERN_STATUS_IO, "/nowhere/weights");
        refused(kvern_weights_load(null(), null(), &mut out), null_status, "path is NULL");
        refused(kvern_weights_load(null(), path, null_mut()), null_status, "out is NULL");
        refused(kvern_weights_load(ctx, null(), &mut out), null_status, "path is NULL");
        refused(kvern_weights_load(ctx, path, null_mut()), null_status, "out is NULL");
        refused(kvern_weights_load(ctx, path, &mut out), KVERN_STATUS_IO, "/nowhere/weights");
        refused(kvern_weights_map(null(), &mut out), null_status, "path is NULL");
        refused(kvern_weights_map(path, null_mut()), null_status, "out is NULL");
        refused(kvern_weights_n(null(), n), null_status, "weights is NULL");
        refused(kvern_weights_n(w, null_mut()), null_status, "out is NULL");
        refused(kvern_weights_k(null(), n), null_status, "weights is NULL");
        refused(kvern_weights_k(w, null_mut()), null_status, "out is NULL");
        refused(kvern_weights_get_format(null(), &mut 0), null_status, "weights is NULL");
        refused(kvern_weights_get_format(w, null_mut()), null_status, "out is NULL");
        let gated = |ctx, ws, w, up, compute, a, c| {
            kvern_weights_multiply_gated(ctx, ws, w, up, compute, M, N, K, a, K, c, N, e)
        };
        refused(gated(null(), ws, w, w, 0, a, c), null_status, "ctx is NULL");
        refused(gated(ctx, null_mut(), w, w, 0, a, c), null_status, "ws is NULL");
        refused(gated(ctx, ws, null(), w, 0, a, c), null_status, "weights is NULL");
        refused(gated(ctx, ws, w, null(), 0, a, c), null_status, "up is NULL");
        refused(gated(ctx, ws, w, w, 2, a, c), option, "compute = 2");
        refused(gated(ctx, ws, w, w, 0, null(), c), null_status, "a is NULL");
        refused(gated(ctx, ws, w, w, 0, a, null_mut()), null_status, "c is NULL");
        refused(gated(ctx, ws, w, w, 0, c, c), KVERN_STATUS_ALIASED, "c overlaps a");
        let query =
            |ctx, compute, weights, out| kvern_weights_many_workspace_bytes(ctx, compute, M, 2, weights, out);
        refused(query(null(), 0, list.as_ptr(), n), null_status, "ctx is NULL");
        refused(query(ctx, 2, list.as_ptr(), n), option, "compute = 2");
        refused(query(ctx, 0, null(), n), null_status, "weights is NULL");
        refused(query(ctx, 0, list.as_ptr(), n), null_status, "weights[i] is NULL");
        refused(query(ctx, 0, [w, w].as_ptr(), null_mut()), null_status, "out is NULL");
    }
    assert!(out.is_null() && y.iter().all(|&y| y == 2.0));
}
