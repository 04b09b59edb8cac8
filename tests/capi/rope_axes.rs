//! Rotation by positions on several axes in C: the bits of the safe API, and what is refused.

use crate::capi::*;
use crate::statuses::*;
use crate::support::{Random, assert_same_bits};
use kvern::capi::rope::*;
use kvern::capi::rope_axes::*;
use kvern::ops::{RopePairs, RopeTable, rope_axes, rope_sections};
use kvern::{Context, MatMut};
use std::ptr::{null, null_mut};

#[test]
fn axes_have_the_bits_of_the_safe_api() {
    let (o, ctx, half) = (Objects::new(), Context::serial(), HEAD_DIM / 2);
    let (factors, sections) = ([1.0, 2.0, 3.0, 4.0], [2usize, 1, 1]);
    let positions = [0usize, 5, 9, 1, 7, 3, 2, 8, 4];
    let safe = RopeTable::with_factors(&factors, 10, 1e4, 1.25).unwrap();
    let x = Random::new(91).vec(3 * WIDTH);
    for interleaved in [false, true] {
        let (mut axes, mut safe_axes, mut table) = (vec![9u8; half], vec![9u8; half], null_mut());
        let (mut got, mut want) = (x.clone(), x.clone());
        rope_sections(&sections, interleaved, &mut safe_axes).unwrap();
        let view = MatMut::dense(&mut want, 3, WIDTH).unwrap();
        rope_axes(&ctx, &safe, RopePairs::Halves, HEAD_DIM, &safe_axes, &positions, view).unwrap();
        // SAFETY: every pointer is live and of the stated size; objects are destroyed once.
        unsafe {
            ok(kvern_rope_table_with_factors(half, factors.as_ptr(), 10, 1e4, 1.25, &mut table));
            ok(kvern_rope_sections(3, sections.as_ptr(), interleaved.into(), half, axes.as_mut_ptr()));
            let (a, p, y, kind) = (axes.as_ptr(), positions.as_ptr(), got.as_mut_ptr(), KVERN_ROPE_HALVES);
            ok(kvern_rope_axes(o.ctx, table, kind, 3, a, p, 3, KV_HEADS, HEAD_DIM, y, WIDTH));
            kvern_rope_table_destroy(table);
        }
        assert_eq!(axes, safe_axes);
        assert_same_bits(&got, &want, "kvern_rope_axes");
    }
}

#[test]
fn axes_refuse_bad_arguments() {
    let (o, w, half) = (Objects::new(), WIDTH, HEAD_DIM / 2);
    let (mut outputs, mut bytes, at) = (vec![2.0f32; 512], vec![0u8; 64], [0usize, 1, 16, 2]);
    let (y, a, p, out) = (outputs.as_mut_ptr(), bytes.as_mut_ptr(), at.as_ptr(), &mut null_mut());
    let (t, h, d, one, zero) = (o.table.cast_const(), KV_HEADS, HEAD_DIM, [1.0f64; 4], [0.0f64; 4]);
    let (one, zero) = (one.as_ptr(), zero.as_ptr());
    refuse! {
        NULL_POINTER "factors is NULL": kvern_rope_table_with_factors(4, null(), 8, 1e4, 1.0, out);
        NULL_POINTER "out is NULL": kvern_rope_table_with_factors(4, one, 8, 1e4, 1.0, null_mut());
        OPTION "factors = 0 must be positive": kvern_rope_table_with_factors(4, zero, 8, 1e4, 1.0, out);
        OPTION "base = -1": kvern_rope_table_with_factors(4, one, 8, -1.0, 1.0, out);
        NULL_POINTER "sections is NULL": kvern_rope_sections(2, null(), 0, 1, a);
        NULL_POINTER "axes is NULL": kvern_rope_sections(2, p, 0, 1, null_mut());
        SHAPE "the sum of sections = 1 must equal the pairs = 2": kvern_rope_sections(2, p, 0, 2, a);
        OPTION "interleaved = 2": kvern_rope_sections(2, p, 2, 1, a);
        OPTION "sections.len = 0": kvern_rope_sections(0, p, 0, 0, a);
        NULL_POINTER "ctx is NULL": kvern_rope_axes(null(), t, 0, 1, a, p, 2, h, d, y, w);
        NULL_POINTER "table is NULL": kvern_rope_axes(o.ctx, null(), 0, 1, a, p, 2, h, d, y, w);
        NULL_POINTER "axes is NULL": kvern_rope_axes(o.ctx, t, 0, 1, null(), p, 2, h, d, y, w);
        NULL_POINTER "positions is NULL": kvern_rope_axes(o.ctx, t, 0, 1, a, null(), 2, h, d, y, w);
        NULL_POINTER "x is NULL": kvern_rope_axes(o.ctx, t, 0, 1, a, p, 2, h, d, null_mut(), w);
        OPTION "pairs = 7": kvern_rope_axes(o.ctx, t, 7, 1, a, p, 2, h, d, y, w);
        SHAPE "positions = 16 must be below": kvern_rope_axes(o.ctx, t, 0, 2, a, p, 2, h, d, y, w);
        ALIASED "x overlaps positions": kvern_rope_axes(o.ctx, t, 0, 1, a, y.cast(), 2, h, d, y, w);
        ALIASED "x overlaps axes": kvern_rope_axes(o.ctx, t, 0, 1, y.cast(), p, 2, h, d, y, w);
        OVERFLOW "axis_count * tokens": kvern_rope_axes(o.ctx, t, 0, usize::MAX, a, p, 2, h, d, y, w);
    }
    assert!(outputs.iter().all(|&y| y == 2.0) && half == 4);
}
