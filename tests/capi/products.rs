//! Packed matrices, rotary tables, softmax and the context through the C ABI: the bits of the safe API.

use crate::capi::*;
use crate::support::{Random, assert_same_bits};
use kvern::capi::context::*;
use kvern::capi::dtype::*;
use kvern::capi::isa::*;
use kvern::capi::matmul::*;
use kvern::capi::ops::*;
use kvern::capi::packed_b::*;
use kvern::capi::patches::*;
use kvern::capi::rope::*;
use kvern::capi::status::*;
use kvern::capi::workspace::*;
use kvern::matmul::{Element, Patches, Window};
use kvern::ops::{self, RopePairs, RopeScaling, RopeTable, SoftmaxOptions};
use kvern::{Activation, Context, Epilogue, MatMut, MatRef, PackedB, Precision, Workspace, bf16, f16};
use std::ptr::{null, null_mut};

/// Result of the safe API, as bytes.
fn want<T: Element>(b: &PackedB, up: Option<&PackedB>, precision: Precision, a: &[f32]) -> Vec<u8> {
    let (ctx, mut ws) = (Context::serial(), Workspace::new(1 << 20).unwrap());
    let mut c = vec![T::zeroed(); M * N];
    let (av, cv) = (MatRef::dense(a, M, K).unwrap(), MatMut::dense(&mut c, M, N).unwrap());
    let e = Epilogue::default().activation(Activation::Silu);
    match up {
        Some(up) => b.multiply_gated(&ctx, &mut ws, precision, av, up, cv, &e).unwrap(),
        None => b.multiply_with(&ctx, &mut ws, precision, av, cv, &e).unwrap(),
    }
    bytemuck_bytes(&c)
}

fn bytemuck_bytes<T: Element>(x: &[T]) -> Vec<u8> {
    // SAFETY: an output type is plain numbers without padding.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast::<u8>(), size_of_val(x)) }.to_vec()
}

#[test]
fn packed_products_of_every_type_have_the_bits_of_the_safe_api() {
    let (o, ctx) = (Objects::new(), Context::serial());
    let a = Random::new(31).vec(M * K);
    let halves: Vec<f16> = o.w.iter().map(|&x| f16::from_f32(x)).collect();
    let brains: Vec<bf16> = o.w.iter().map(|&x| bf16::from_f32(x)).collect();
    let kinds = [
        (KVERN_DTYPE_F32, o.w.as_ptr().cast(), PackedB::pack(&ctx, MatRef::dense(&o.w, N, K).unwrap().t())),
        (
            KVERN_DTYPE_F16,
            halves.as_ptr().cast(),
            PackedB::pack(&ctx, MatRef::dense(&halves, N, K).unwrap().t()),
        ),
        (
            KVERN_DTYPE_BF16,
            brains.as_ptr().cast(),
            PackedB::pack(&ctx, MatRef::dense(&brains, N, K).unwrap().t()),
        ),
    ];
    let e = kvern_epilogue { activation: KVERN_ACTIVATION_SILU, ..epilogue() };
    let (path, name) = temporary("capi_packed_b");
    for (number, w, safe) in kinds {
        let (safe, mut b, mut up, mut mapped) = (safe.unwrap(), null_mut(), null_mut(), null_mut());
        let (mut x, mut id, mut kind) = (0, null(), -1);
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            ok(kvern_packed_b_pack_dtype(o.ctx, number, K, N, w, K, 1, &mut b));
            ok(kvern_packed_b_save(b, name.as_ptr()));
            ok(kvern_packed_b_load(null(), name.as_ptr(), &mut up));
            ok(kvern_packed_b_map(name.as_ptr(), &mut mapped));
            for b in [b, up, mapped] {
                ok(kvern_packed_b_k(b, &mut x));
                assert_eq!(x, K);
                ok(kvern_packed_b_n(b, &mut x));
                assert_eq!(x, N);
                ok(kvern_packed_b_bytes(b, &mut x));
                assert_eq!(x, safe.bytes());
                ok(kvern_packed_b_dtype(b, &mut kind));
                assert_eq!(kind, number);
                ok(kvern_packed_b_kernel_id(b, &mut id));
                assert_eq!(text(id), safe.kernel_id());
                ok(kvern_packed_b_workspace_bytes(o.ctx, b, M, &mut x));
                assert_eq!(x, safe.workspace_bytes(&ctx, M).unwrap());
            }
        }
        for (precision_number, precision) in
            [(KVERN_PRECISION_EXACT, Precision::Exact), (KVERN_PRECISION_FAST, Precision::Fast)]
        {
            type Want = fn(&PackedB, Option<&PackedB>, Precision, &[f32]) -> Vec<u8>;
            let types: [(kvern_dtype, Want); 3] = [
                (KVERN_DTYPE_F32, want::<f32>),
                (KVERN_DTYPE_F16, want::<f16>),
                (KVERN_DTYPE_BF16, want::<bf16>),
            ];
            for (c_dtype, want) in types {
                for gated in [false, true] {
                    let want = want(&safe, gated.then_some(&safe), precision, &a);
                    let mut c = vec![0f32; M * N];
                    let (p, a, out) = (precision_number, a.as_ptr(), c.as_mut_ptr().cast());
                    // SAFETY: as above.
                    unsafe {
                        let ws = o.ws;
                        if gated {
                            ok(kvern_packed_b_multiply_gated(
                                o.ctx, ws, mapped, up, p, M, N, K, a, K, c_dtype, out, N, &e,
                            ));
                        } else {
                            ok(kvern_packed_b_multiply_with(
                                o.ctx, ws, mapped, p, M, N, K, a, K, c_dtype, out, N, &e,
                            ));
                        }
                    }
                    assert_eq!(&bytemuck_bytes(&c)[..want.len()], want, "{number} {p} {c_dtype} {gated}");
                }
            }
        }
        // SAFETY: nothing uses them any more.
        unsafe { [b, up, mapped].into_iter().for_each(|x| kvern_packed_b_destroy(x)) };
    }
    let mut none = null_mut();
    // SAFETY: as above.
    unsafe {
        std::fs::write(&path, b"not a matrix").unwrap();
        refused(kvern_packed_b_load(null(), name.as_ptr(), &mut none), KVERN_STATUS_BLOB, "stored");
        refused(kvern_packed_b_map(name.as_ptr(), &mut none), KVERN_STATUS_BLOB, "stored");
        std::fs::remove_file(&path).unwrap();
        refused(kvern_packed_b_load(null(), name.as_ptr(), &mut none), KVERN_STATUS_IO, "cannot read");
        refused(kvern_packed_b_save(o.packed, c"/".as_ptr()), KVERN_STATUS_IO, "cannot");
    }
    assert!(none.is_null());
}

#[test]
fn rotary_tables_have_the_bits_of_the_safe_api() {
    const POSITIONS: usize = 40;
    let (o, ctx, half) = (Objects::new(), Context::serial(), HEAD_DIM / 2);
    let yarn =
        kvern_rope_scaling { factor: 4.0, original_positions: 16, ..rope_scaling(KVERN_ROPE_SCALING_YARN) };
    let llama = kvern_rope_scaling { kind: KVERN_ROPE_SCALING_LLAMA3, ..yarn };
    let own = kvern_rope_scaling { beta_fast: 8.0, beta_slow: 2.0, attention_factor: 1.5, ..yarn };
    let own_safe = RopeScaling::Yarn {
        factor: 4.0,
        original_positions: 16,
        beta_fast: 8.0,
        beta_slow: 2.0,
        attention_factor: Some(1.5),
        round_ramp: true,
    };
    let unrounded = kvern_rope_scaling { flags: KVERN_ROPE_SCALING_FLAG_UNROUNDED, ..own };
    let unrounded_safe = RopeScaling::Yarn {
        factor: 4.0,
        original_positions: 16,
        beta_fast: 8.0,
        beta_slow: 2.0,
        attention_factor: Some(1.5),
        round_ramp: false,
    };
    let step = kvern_rope_scaling { low_frequency: 1.0, high_frequency: 1.0, ..llama };
    let step_safe =
        RopeScaling::Llama3 { factor: 4.0, original_positions: 16, low_frequency: 1.0, high_frequency: 1.0 };
    let with = |kind| kvern_rope_scaling { factor: 2.0, ..rope_scaling(kind) };
    let mut tables = Vec::new();
    for (raw, safe) in [
        (with(KVERN_ROPE_SCALING_NONE), RopeScaling::None),
        (with(KVERN_ROPE_SCALING_LINEAR), RopeScaling::Linear { factor: 2.0 }),
        (with(KVERN_ROPE_SCALING_NTK), RopeScaling::Ntk { factor: 2.0 }),
        (yarn, RopeScaling::yarn(4.0, 16)),
        (llama, RopeScaling::llama3(4.0, 16)),
        (own, own_safe),
        (unrounded, unrounded_safe),
        (step, step_safe),
    ] {
        let mut table = null_mut();
        // SAFETY: every pointer is live.
        unsafe { ok(kvern_rope_table_create_scaled(HEAD_DIM, POSITIONS, 1e4, &raw, &mut table)) };
        tables.push((table, RopeTable::scaled(HEAD_DIM, POSITIONS, 1e4, &safe).unwrap()));
    }
    let (frequencies, mut table) = ([1.0, 0.5, 0.25, 0.125], null_mut());
    // SAFETY: every pointer is live and of the stated size.
    unsafe { ok(kvern_rope_table_from_frequencies(4, frequencies.as_ptr(), POSITIONS, 1.25, &mut table)) };
    tables.push((table, RopeTable::from_frequencies(&frequencies, POSITIONS, 1.25).unwrap()));
    let (x, at) = (Random::new(8).vec(3 * WIDTH), [9usize, 2, 39]);
    for (table, safe) in &tables {
        let (table, mut n) = (*table, 0);
        let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
        let (mut got, mut want) = (x.clone(), x.clone());
        let xv = MatMut::dense(&mut want, 3, WIDTH).unwrap();
        ops::rope_at(&ctx, safe, RopePairs::Interleaved, HEAD_DIM, &at, xv).unwrap();
        // SAFETY: as above.
        unsafe {
            ok(kvern_rope_table_positions(table, &mut n));
            assert_eq!(n, POSITIONS);
            ok(kvern_rope_table_rotary_dim(table, &mut n));
            assert_eq!(n, HEAD_DIM);
            ok(kvern_rope_table_bytes(table, &mut n));
            assert_eq!(n, safe.bytes());
            for position in 0..POSITIONS {
                ok(kvern_rope_table_row(table, position, half, cos.as_mut_ptr(), sin.as_mut_ptr()));
                let row = safe.row(position).unwrap();
                assert_same_bits(&cos, row.0, "cos");
                assert_same_bits(&sin, row.1, "sin");
            }
            let (at, x, pairs) = (at.as_ptr(), got.as_mut_ptr(), KVERN_ROPE_INTERLEAVED);
            ok(kvern_rope_at(o.ctx, table, pairs, at, 3, KV_HEADS, HEAD_DIM, x, WIDTH));
            kvern_rope_table_destroy(table);
        }
        assert_same_bits(&got, &want, "rope_at");
    }
}

#[test]
fn softmax_with_options_has_the_bits_of_the_safe_api() {
    const R: usize = 6;
    let (o, ctx, mut random) = (Objects::new(), Context::serial(), Random::new(12));
    let (x, mut mask) = (random.vec(R * WIDTH), random.vec(R * WIDTH));
    mask[3] = f32::NEG_INFINITY;
    let dense = |rows| MatRef::dense(&mask[..rows * WIDTH], rows, WIDTH).unwrap();
    let raw = softmax_options();
    let masked =
        |mask_rows| kvern_softmax_options { mask: mask.as_ptr(), mask_rows, mask_row_stride: WIDTH, ..raw };
    let plain = SoftmaxOptions::default();
    let cases = [
        (raw, plain),
        (kvern_softmax_options { scale: 0.5, ..raw }, plain.scale(0.5)),
        (kvern_softmax_options { scale: 3.0, softcap: 2.0, ..raw }, plain.scale(3.0).softcap(2.0)),
        (masked(2), plain.mask(dense(2))),
        (masked(0), plain.mask(dense(R))),
    ];
    for (raw, options) in cases {
        let (mut got, mut want) = (vec![0.0; R * WIDTH], vec![0.0; R * WIDTH]);
        let (xv, yv) = (MatRef::dense(&x, R, WIDTH).unwrap(), MatMut::dense(&mut want, R, WIDTH).unwrap());
        ops::softmax_with(&ctx, &options, xv, yv).unwrap();
        let (x, y) = (x.as_ptr(), got.as_mut_ptr());
        // SAFETY: every pointer is live and of the stated size.
        unsafe { ok(kvern_softmax_with(o.ctx, &raw, R, WIDTH, x, WIDTH, y, WIDTH)) };
        assert_same_bits(&got, &want, "softmax");
    }
    let (mut a, mut b) = (x.clone(), vec![0.0; R * WIDTH]);
    let (x, y) = (x.as_ptr(), b.as_mut_ptr());
    // SAFETY: as above; NULL is all defaults.
    unsafe {
        ok(kvern_softmax(o.ctx, R, WIDTH, a.as_mut_ptr(), WIDTH));
        ok(kvern_softmax_with(o.ctx, null(), R, WIDTH, x, WIDTH, y, WIDTH));
    }
    assert_same_bits(&a, &b, "defaults");
}

#[test]
fn kernels_and_tiers_are_listed() {
    let (o, ctx, mut n) = (Objects::new(), Context::serial(), 0);
    // SAFETY: every pointer is live.
    unsafe {
        ok(kvern_context_kernel_count(o.ctx, &mut n));
        assert_eq!(n, ctx.kernel_names().len());
        let (mut operation, mut id) = (null(), null());
        for (i, names) in ctx.kernel_names().iter().enumerate() {
            ok(kvern_context_kernel(o.ctx, i, &mut operation, &mut id));
            assert_eq!((text(operation).as_str(), text(id).as_str()), *names);
        }
        refused(kvern_context_kernel(o.ctx, n, &mut operation, &mut id), KVERN_STATUS_SHAPE, "index = ");
        assert!(operation.is_null() && id.is_null());
        ok(kvern_workspace_reserve(o.ws, 1));
    }
    for isa in kvern::Isa::ALL {
        assert_eq!(kvern_isa_is_available(isa as i32), i32::from(isa.is_available()));
    }
    assert_eq!((kvern_isa_is_available(0), kvern_isa_is_available(77)), (0, 0));
}

#[test]
fn a_convolution_has_the_bits_of_the_safe_api_and_refuses_bad_arguments() {
    let (o, ctx) = (Objects::new(), Context::serial());
    // Two images of 4 x 5 pixels of 16 channels under a kernel of 2 x 2: K elements.
    let x = Random::new(33).vec(2 * 20 * 16);
    let window = Window { kernel: (2, 2), stride: (2, 1), padding: (1, 0) };
    let patches = Patches::new(MatRef::dense(&x, 40, 16).unwrap(), (4, 5), window).unwrap();
    let rows = patches.rows();
    let b = PackedB::pack(&ctx, MatRef::dense(&o.w, N, K).unwrap().t()).unwrap();
    let (mut ws, mut want) = (Workspace::new(1 << 20).unwrap(), vec![0.0; rows * N]);
    let e = Epilogue::default().activation(Activation::Silu);
    b.convolve(&ctx, &mut ws, &patches, MatMut::dense(&mut want, rows, N).unwrap(), &e).unwrap();

    let raw = kvern_patches {
        struct_size: size_of::<kvern_patches>(),
        images: 2,
        height: 4,
        width: 5,
        channels: 16,
        kernel_height: 2,
        kernel_width: 2,
        stride_y: 2,
        stride_x: 0,
        padding_y: 1,
        padding_x: 0,
    };
    let e = kvern_epilogue { activation: KVERN_ACTIVATION_SILU, ..epilogue() };
    let (mut got, mut count) = (vec![f32::NAN; rows * N], 0);
    let (from, to) = (x.as_ptr(), got.as_mut_ptr());
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        ok(kvern_patches_count(&raw, &mut count));
        assert_eq!(count, rows);
        ok(kvern_packed_b_convolve(o.ctx, o.ws, o.packed, &raw, from, 16, N, to, N, &e));
    }
    assert_same_bits(&got, &want, "kvern_packed_b_convolve");

    let (wide, none) = (kvern_patches { kernel_width: 6, ..raw }, kvern_patches { height: 0, ..raw });
    let (other, huge) = (kvern_patches { channels: 8, ..raw }, kvern_patches { images: usize::MAX, ..raw });
    macro_rules! run {
        ($ctx:expr, $ws:expr, $b:expr, $patches:expr, $x:expr, $n:expr, $c:expr) => {
            kvern_packed_b_convolve($ctx, $ws, $b, $patches, $x, 16, $n, $c, N, null())
        };
    }
    let good = (o.ctx, o.ws, o.packed);
    // SAFETY: what is not NULL is live; what is wrong about the rest is refused before it is read.
    unsafe {
        let null_pointer = KVERN_STATUS_NULL_POINTER;
        refused(kvern_patches_count(null(), &mut count), null_pointer, "patches is NULL");
        refused(kvern_patches_count(&raw, null_mut()), null_pointer, "out is NULL");
        refused(kvern_patches_count(&wide, &mut count), KVERN_STATUS_SHAPE, "kernel width = 6");
        refused(kvern_patches_count(&none, &mut count), KVERN_STATUS_OPTION, "height * width = 0");
        refused(kvern_patches_count(&huge, &mut count), KVERN_STATUS_OVERFLOW, "images * height * width");
        refused(run!(null(), good.1, good.2, &raw, from, N, to), null_pointer, "ctx is NULL");
        refused(run!(good.0, null_mut(), good.2, &raw, from, N, to), null_pointer, "ws is NULL");
        refused(run!(good.0, good.1, null(), &raw, from, N, to), null_pointer, "b is NULL");
        refused(run!(good.0, good.1, good.2, null(), from, N, to), null_pointer, "patches is NULL");
        refused(run!(good.0, good.1, good.2, &raw, null(), N, to), null_pointer, "x is NULL");
        refused(run!(good.0, good.1, good.2, &raw, from, N, null_mut()), null_pointer, "c is NULL");
        let status = run!(good.0, good.1, good.2, &raw, to.cast_const(), N, to);
        refused(status, KVERN_STATUS_ALIASED, "c overlaps x");
        refused(run!(good.0, good.1, good.2, &other, from, N, to), KVERN_STATUS_SHAPE, "a.cols = 32");
        refused(run!(good.0, good.1, good.2, &raw, from, N - 1, to), KVERN_STATUS_SHAPE, "c.cols = 4");
    }
    assert_same_bits(&got, &want, "a refusal changes nothing");
}
