//! Element-wise operations of the C ABI: the bits of the safe API, and what is refused.

use crate::capi::*;
use crate::support::{Random, assert_same_bits};
use kvern::capi::elementwise::*;
use kvern::capi::matmul::*;
use kvern::capi::status::{
    KVERN_STATUS_ALIASED as ALIASED, KVERN_STATUS_MISALIGNED as MISALIGNED,
    KVERN_STATUS_NULL_POINTER as NULL_POINTER, KVERN_STATUS_OPTION as OPTION,
    KVERN_STATUS_OVERFLOW as OVERFLOW, KVERN_STATUS_SHAPE as SHAPE, kvern_status,
};
use kvern::{Activation, Context, MatMut, MatRef, ops};
use std::ptr::{null, null_mut};

#[test]
fn element_wise_operations_have_the_bits_of_the_safe_api() {
    const ROWS: usize = 4;
    let (o, ctx, mut random) = (Objects::new(), Context::serial(), Random::new(4));
    let (x, z) = (random.vec(ROWS * WIDTH), random.vec(ROWS * WIDTH));
    let zv = MatRef::dense(&z, ROWS, WIDTH).unwrap();
    let compare = |what: &str, got: &dyn Fn(*mut f32) -> kvern_status, want: &dyn Fn(MatMut<'_>)| {
        let (mut a, mut b) = (x.clone(), x.clone());
        ok(got(a.as_mut_ptr()));
        want(MatMut::dense(&mut b, ROWS, WIDTH).unwrap());
        assert_same_bits(&a, &b, what);
        assert_ne!(a, x, "{what} did nothing");
    };
    let zp = z.as_ptr();
    for activation in Activation::ALL {
        let number = activation as i32;
        compare(
            "activate_mul",
            // SAFETY: every pointer is live and of the stated size.
            &|x| unsafe { kvern_activate_mul(o.ctx, number, ROWS, WIDTH, x, WIDTH, zp, WIDTH) },
            &|x| ops::activate_mul(&ctx, activation, x, zv).unwrap(),
        );
        if activation != Activation::Identity {
            compare(
                "activate",
                // SAFETY: as above.
                &|x| unsafe { kvern_activate(o.ctx, number, ROWS, WIDTH, x, WIDTH) },
                &|x| ops::activate(&ctx, activation, x),
            );
        }
    }
    compare(
        "swiglu_oai",
        // SAFETY: as above.
        &|x| unsafe { kvern_swiglu_oai(o.ctx, 1.702, 7.0, ROWS, WIDTH, x, WIDTH, zp, WIDTH) },
        &|x| ops::swiglu_oai(&ctx, 1.702, 7.0, x, zv).unwrap(),
    );
    compare(
        "mul",
        // SAFETY: as above.
        &|x| unsafe { kvern_mul(o.ctx, ROWS, WIDTH, x, WIDTH, zp, WIDTH) },
        &|x| ops::mul(&ctx, x, zv).unwrap(),
    );
    compare(
        "add_scaled",
        // SAFETY: as above.
        &|x| unsafe { kvern_add_scaled(o.ctx, 0.22, ROWS, WIDTH, x, WIDTH, zp, WIDTH) },
        &|x| ops::add_scaled(&ctx, x, 0.22, zv).unwrap(),
    );
    compare(
        "scale",
        // SAFETY: as above.
        &|x| unsafe { kvern_scale(o.ctx, 12.0, ROWS, WIDTH, x, WIDTH) },
        &|x| ops::scale(&ctx, x, 12.0),
    );
    compare(
        "softcap",
        // SAFETY: as above.
        &|x| unsafe { kvern_softcap(o.ctx, 1.5, ROWS, WIDTH, x, WIDTH) },
        &|x| ops::softcap(&ctx, 1.5, x).unwrap(),
    );
}

#[test]
fn element_wise_operations_refuse_bad_arguments() {
    let (o, w, silu) = (Objects::new(), WIDTH, KVERN_ACTIVATION_SILU);
    let (mut outputs, inputs) = (vec![2.0f32; 512], vec![1.0f32; 512]);
    let (y, x, no, nom) = (outputs.as_mut_ptr(), inputs.as_ptr(), null::<f32>(), null_mut::<f32>());
    let (later, odd) = (y.wrapping_add(8).cast_const(), y.wrapping_byte_add(1));
    let huge = usize::MAX / 2;
    refuse! {
        NULL_POINTER "ctx is NULL": kvern_activate_mul(null(), silu, 2, w, y, w, x, w);
        NULL_POINTER "x is NULL": kvern_activate_mul(o.ctx, silu, 2, w, nom, w, x, w);
        NULL_POINTER "z is NULL": kvern_activate_mul(o.ctx, silu, 2, w, y, w, no, w);
        ALIASED "x overlaps z": kvern_activate_mul(o.ctx, silu, 2, w, y, w, later, w);
        OPTION "activation = 11": kvern_activate_mul(o.ctx, 11, 2, w, y, w, x, w);
        OPTION "activation = -1": kvern_activate_mul(o.ctx, -1, 2, w, y, w, x, w);
        NULL_POINTER "ctx is NULL": kvern_swiglu_oai(null(), 1.702, 7.0, 2, w, y, w, x, w);
        NULL_POINTER "x is NULL": kvern_swiglu_oai(o.ctx, 1.702, 7.0, 2, w, nom, w, x, w);
        NULL_POINTER "z is NULL": kvern_swiglu_oai(o.ctx, 1.702, 7.0, 2, w, y, w, no, w);
        ALIASED "x overlaps z": kvern_swiglu_oai(o.ctx, 1.702, 7.0, 2, w, y, w, later, w);
        OPTION "alpha = 0.5 must be finite and at least 1":
            kvern_swiglu_oai(o.ctx, 0.5, 7.0, 2, w, y, w, x, w);
        OPTION "limit = 0 must be positive": kvern_swiglu_oai(o.ctx, 1.702, 0.0, 2, w, y, w, x, w);
        NULL_POINTER "ctx is NULL": kvern_mul(null(), 2, w, y, w, x, w);
        NULL_POINTER "x is NULL": kvern_mul(o.ctx, 2, w, nom, w, x, w);
        NULL_POINTER "z is NULL": kvern_mul(o.ctx, 2, w, y, w, no, w);
        ALIASED "x overlaps z": kvern_mul(o.ctx, 2, w, y, w, later, w);
        NULL_POINTER "ctx is NULL": kvern_add_scaled(null(), 0.5, 2, w, y, w, x, w);
        NULL_POINTER "x is NULL": kvern_add_scaled(o.ctx, 0.5, 2, w, nom, w, x, w);
        NULL_POINTER "z is NULL": kvern_add_scaled(o.ctx, 0.5, 2, w, y, w, no, w);
        ALIASED "x overlaps z": kvern_add_scaled(o.ctx, 0.5, 2, w, y, w, later, w);
        NULL_POINTER "ctx is NULL": kvern_scale(null(), 0.5, 2, w, y, w);
        NULL_POINTER "x is NULL": kvern_scale(o.ctx, 0.5, 2, w, nom, w);
        SHAPE "x": kvern_scale(o.ctx, 0.5, 2, w, y, w - 1);
        OVERFLOW "x": kvern_scale(o.ctx, 0.5, huge, huge, y, huge);
        MISALIGNED "x = ": kvern_scale(o.ctx, 0.5, 2, w, odd, w);
        NULL_POINTER "ctx is NULL": kvern_softcap(null(), 0.5, 2, w, y, w);
        NULL_POINTER "x is NULL": kvern_softcap(o.ctx, 0.5, 2, w, nom, w);
        OPTION "cap = -1 must be positive and finite": kvern_softcap(o.ctx, -1.0, 2, w, y, w);
    }
    assert!(outputs.iter().all(|&y| y == 2.0));
}
