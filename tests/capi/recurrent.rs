//! Recurrent states in C: the bits of the safe API, and what is refused.

use crate::capi::*;
use crate::statuses::*;
use crate::support::{Random, assert_same_bits};
use kvern::capi::recurrent::*;
use kvern::ops::{TimeStepOptions, time_step};
use kvern::recurrent::*;
use kvern::{Activation, Context, MatMut, MatRef};
use std::ptr::{null, null_mut};

const HEADS: usize = 4;
const KEYS: usize = 6;
const VALUES: usize = 18;
const CHANNELS: usize = 5;
const TAPS: usize = 3;
const ROWS: usize = 6;

fn state() -> *mut kvern_state {
    let options = kvern_state_options {
        struct_size: size_of::<kvern_state_options>(),
        heads: HEADS,
        key_dim: KEYS,
        value_dim: VALUES,
        channels: CHANNELS,
        taps: TAPS,
        sequences: 3,
    };
    let mut out = null_mut();
    // SAFETY: both pointers are live.
    ok(unsafe { kvern_state_create(null(), &options, &mut out) });
    out
}

fn matrix(x: &[f32]) -> MatRef<'_> {
    MatRef::dense(x, ROWS, x.len() / ROWS).unwrap()
}

/// Every matrix of every sequence.
fn contents(state: *const kvern_state) -> Vec<f32> {
    let mut out = Vec::new();
    for (sequence, head) in (0..3).flat_map(|s| (0..HEADS).map(move |h| (s, h))) {
        let mut one = vec![0.0; KEYS * VALUES];
        // SAFETY: a live state, and as many elements as stated.
        ok(unsafe { kvern_state_read(state, sequence, head, one.len(), one.as_mut_ptr()) });
        out.extend(one);
    }
    out
}

#[test]
fn recurrences_have_the_bits_of_the_safe_api() {
    let (o, ctx, mut r) = (Objects::new(), Context::serial(), Random::new(81));
    let raw = state();
    let options = StateOptions::new(HEADS, KEYS, VALUES).convolution(CHANNELS, TAPS).sequences(3);
    let mut safe = RecurrentState::new(options).unwrap();
    let mut vec = |width: usize| r.vec(ROWS * width);
    let (q, k, v) = (vec(2 * KEYS), vec(2 * KEYS), vec(HEADS * VALUES));
    let (decay, each, beta) = (vec(HEADS), vec(HEADS * KEYS), vec(HEADS));
    let n = HEADS * VALUES;
    let sequences = [2usize, 0];
    let (mut got, mut want) = (vec![1e30; ROWS * n], vec![-1e30; ROWS * n]);
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        for decay in [&decay, &each] {
            let cols = decay.len() / ROWS;
            ok(kvern_delta_rule(
                o.ctx,
                raw,
                2,
                sequences.as_ptr(),
                ROWS,
                2,
                q.as_ptr(),
                2 * KEYS,
                k.as_ptr(),
                2 * KEYS,
                v.as_ptr(),
                n,
                cols,
                decay.as_ptr(),
                cols,
                beta.as_ptr(),
                HEADS,
                0.4,
                got.as_mut_ptr(),
                n,
            ));
            let tokens = DeltaTokens {
                q: matrix(&q),
                k: matrix(&k),
                v: matrix(&v),
                decay: matrix(decay),
                beta: matrix(&beta),
                scale: 0.4,
            };
            delta_rule(&ctx, &mut safe, &sequences, &tokens, MatMut::dense(&mut want, ROWS, n).unwrap())
                .unwrap();
            assert_same_bits(&got, &want, "delta rule");
        }
        let (a, d) = (&decay[..HEADS], &beta[..HEADS]);
        ok(kvern_selective_scan(
            o.ctx,
            raw,
            1,
            sequences.as_ptr(),
            ROWS,
            2,
            v.as_ptr(),
            n,
            beta.as_ptr(),
            HEADS,
            k.as_ptr(),
            2 * KEYS,
            q.as_ptr(),
            2 * KEYS,
            a.as_ptr(),
            d.as_ptr(),
            got.as_mut_ptr(),
            n,
        ));
        let tokens = ScanTokens { x: matrix(&v), dt: matrix(&beta), b: matrix(&k), c: matrix(&q), a, d };
        selective_scan(&ctx, &mut safe, &[2], &tokens, MatMut::dense(&mut want, ROWS, n).unwrap()).unwrap();
        assert_same_bits(&got, &want, "scan");

        let (weights, x) = (&v[..TAPS * CHANNELS], &q[..ROWS * CHANNELS]);
        let y = got.as_mut_ptr();
        ok(kvern_state_conv(
            o.ctx,
            raw,
            1,
            weights.as_ptr(),
            CHANNELS,
            beta.as_ptr(),
            2,
            ROWS,
            x.as_ptr(),
            CHANNELS,
            y,
            CHANNELS,
        ));
        let conv = kvern::ops::ConvOptions::new(MatRef::dense(weights, TAPS, CHANNELS).unwrap());
        let conv = conv.bias(&beta[..CHANNELS]).activation(Activation::ALL[2]);
        let out = MatMut::dense(&mut want[..ROWS * CHANNELS], ROWS, CHANNELS).unwrap();
        kvern::ops::causal_conv(&ctx, &conv, matrix(x), safe.inputs(1).unwrap(), out).unwrap();
        assert_same_bits(&got[..ROWS * CHANNELS], &want[..ROWS * CHANNELS], "convolution");

        let (least, most) = (0.2, f32::INFINITY);
        let y = got.as_mut_ptr();
        ok(kvern_time_step(
            o.ctx,
            v.as_ptr(),
            null(),
            least,
            most,
            ROWS,
            HEADS,
            beta.as_ptr(),
            HEADS,
            y,
            HEADS,
        ));
        let step = TimeStepOptions::default().bias(&v[..HEADS]).limits(least, most);
        let out = MatMut::dense(&mut want[..ROWS * HEADS], ROWS, HEADS).unwrap();
        time_step(&ctx, &step, matrix(&beta), out).unwrap();
        assert_same_bits(&got[..ROWS * HEADS], &want[..ROWS * HEADS], "steps");

        ok(kvern_state_fork(raw, 2, 1));
        safe.fork(2, 1).unwrap();
        ok(kvern_state_clear_in(raw, 0));
        safe.clear_in(0).unwrap();
        ok(kvern_state_write(raw, 0, 3, KEYS * VALUES, v.as_ptr()));
        safe.write(0, 3, &v[..KEYS * VALUES]).unwrap();
        let mut all = Vec::new();
        for (sequence, head) in (0..3).flat_map(|s| (0..HEADS).map(move |h| (s, h))) {
            let mut one = vec![0.0; KEYS * VALUES];
            safe.read(sequence, head, &mut one).unwrap();
            all.extend(one);
        }
        assert_same_bits(&contents(raw), &all, "states");
        let mut number = 0;
        for sequence in 0..3 {
            ok(kvern_state_len(raw, sequence, &mut number));
            assert_eq!(number, safe.len_of(sequence));
        }
        ok(kvern_state_bytes(raw, &mut number));
        assert_eq!(number, safe.bytes());
        let file = crate::support::temp("capi-state");
        let path = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
        ok(kvern_state_save(raw, path.as_ptr()));
        ok(kvern_state_clear(raw));
        ok(kvern_state_restore(raw, path.as_ptr()));
        assert_same_bits(&contents(raw), &all, "restored");
        std::fs::remove_file(&file).unwrap();
        ok(kvern_state_clear(raw));
        assert!(contents(raw).iter().all(|x| *x == 0.0));
        kvern_state_destroy(raw);
        kvern_state_destroy(null_mut());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (o, mut r) = (Objects::new(), Random::new(82));
    let raw = state();
    let (x, n) = (r.vec(ROWS * HEADS * VALUES), HEADS * VALUES);
    let mut y = vec![1e30; ROWS * n];
    let (p, out) = (x.as_ptr(), y.as_mut_ptr());
    let twice = [1usize, 1];
    let (s, mut none) = (twice.as_ptr(), null_mut());
    let options = kvern_state_options {
        struct_size: size_of::<kvern_state_options>(),
        heads: 1,
        key_dim: 0,
        value_dim: 1,
        channels: 0,
        taps: 0,
        sequences: 0,
    };
    macro_rules! delta {
        ($count:expr, $rows:expr, $key_heads:expr, $scale:expr, $y:expr) => {
            kvern_delta_rule(
                o.ctx,
                raw,
                $count,
                s,
                $rows,
                $key_heads,
                p,
                4 * KEYS,
                p,
                4 * KEYS,
                p,
                n,
                HEADS,
                p,
                HEADS,
                p,
                HEADS,
                $scale,
                $y,
                n,
            )
        };
    }
    macro_rules! scan {
        ($groups:expr, $a:expr, $d:expr) => {
            kvern_selective_scan(
                o.ctx,
                raw,
                1,
                s,
                ROWS,
                $groups,
                p,
                n,
                p,
                HEADS,
                p,
                4 * KEYS,
                p,
                4 * KEYS,
                $a,
                $d,
                out,
                n,
            )
        };
    }
    refuse! {
        OPTION "key_dim = 0 must be positive": kvern_state_create(null(), &options, &mut none);
        NULL_POINTER "options": kvern_state_create(null(), null(), &mut none);
        NULL_POINTER "out": kvern_state_create(null(), &options, null_mut());
        OPTION "sequence = 1 must be another one": delta!(2, ROWS, 2, 1.0, out);
        OPTION "y.rows = 5": delta!(2, 5, 2, 1.0, out);
        OPTION "q.cols = 18": delta!(1, ROWS, 3, 1.0, out);
        OPTION "q.cols = 0": delta!(1, ROWS, 0, 1.0, out);
        OPTION "scale": delta!(1, ROWS, 2, f32::INFINITY, out);
        NULL_POINTER "y": delta!(1, ROWS, 2, 1.0, null_mut());
        ALIASED "y overlaps": delta!(1, ROWS, 2, 1.0, p.cast_mut());
        OVERFLOW "key_heads": delta!(1, ROWS, usize::MAX, 1.0, out);
        OPTION "b.cols = 18": scan!(3, p, p);
        NULL_POINTER "a": scan!(2, null(), p);
        NULL_POINTER "d": scan!(2, p, null());
        OPTION "sequence = 3": kvern_state_fork(raw, 0, 3);
        OPTION "sequence = 3": kvern_state_clear_in(raw, 3);
        OPTION "head = 4": kvern_state_read(raw, 0, HEADS, KEYS * VALUES, out);
        SHAPE "x.len = 5 must equal": kvern_state_write(raw, 0, 0, 5, p);
        OPTION "sequence = 3": kvern_state_len(raw, 3, &mut 0);
        NULL_POINTER "state": kvern_state_clear(null_mut());
        NULL_POINTER "path": kvern_state_save(raw, null());
        NULL_POINTER "path": kvern_state_restore(raw, null());
        IO "nowhere": kvern_state_restore(raw, c"/nowhere/at/all".as_ptr());
        OPTION "sequence = 3": kvern_state_conv(o.ctx, raw, 3, p, 5, null(), 0, 1, p, 5, out, 5);
        NULL_POINTER "weights": kvern_state_conv(o.ctx, raw, 0, null(), 5, null(), 0, 1, p, 5, out, 5);
        OPTION "limits = 2..=1": kvern_time_step(o.ctx, null(), null(), 2.0, 1.0, 1, 4, p, 4, out, 4);
        ALIASED "y overlaps x": kvern_time_step(o.ctx, null(), null(), 1.0, 2.0, 1, 4, p, 4, p.cast_mut(), 4);
    }
    assert!(none.is_null() && y.iter().all(|y| *y == 1e30));
    assert!(contents(raw).iter().all(|x| *x == 0.0));
    // SAFETY: made above, and used by nothing any more.
    unsafe { kvern_state_destroy(raw) };
}
