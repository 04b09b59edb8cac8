//! Sequences of recurrent states: forks, what is refused, and nothing at all.

use super::{SENTINEL, Tokens, matrices};
use crate::support::{ABSURD, Random, assert_same_bits, context};
use kvern::ops::{TimeStepOptions, time_step};
use kvern::recurrent::{DeltaTokens, RecurrentState, ScanTokens, StateOptions, delta_rule, selective_scan};
use kvern::{Isa, MatMut, MatRef};

#[test]
fn a_fork_can_be_come_back_to() {
    let mut r = Random::new(79);
    let tokens = Tokens::random(&mut r, [2, 1, 20, 40, 10], false);
    let ctx = context(Isa::Scalar, 1);
    let mut state = RecurrentState::new(tokens.options().sequences(3).convolution(6, 4)).unwrap();
    tokens.take(&ctx, &mut state, false, &[0], (0, 4));
    state.inputs(0).unwrap().copy_from_slice(&r.vec(18));
    let (kept, inputs) = (matrices(&state, 0), state.inputs(0).unwrap().to_vec());
    state.fork(0, 2).unwrap();
    let once = tokens.take(&ctx, &mut state, false, &[0], (4, 10));
    state.inputs(0).unwrap().fill(7.0);
    assert_eq!((state.len_of(0), state.len_of(1), state.len_of(2)), (10, 0, 4));
    assert_same_bits(&matrices(&state, 2), &kept, "fork");
    state.fork(2, 0).unwrap();
    assert_eq!(state.inputs(0).unwrap(), inputs);
    assert_same_bits(&tokens.take(&ctx, &mut state, false, &[0], (4, 10)), &once, "again");
    state.fork(2, 2).unwrap();
    assert_same_bits(&matrices(&state, 2), &kept, "onto itself");
    state.clear_in(2).unwrap();
    assert!(matrices(&state, 2).iter().all(|x| *x == 0.0) && state.inputs(2).unwrap() == [0.0; 18]);
    assert_eq!((state.len_of(0), state.len_of(2)), (10, 0));
    // A copy of what was written is read.
    let x = r.vec(800);
    state.write(1, 1, &x).unwrap();
    let mut back = vec![SENTINEL; 800];
    state.read(1, 1, &mut back).unwrap();
    assert_same_bits(&back, &x, "read");
    state.clear();
    assert!((0..3).all(|s| matrices(&state, s).iter().all(|x| *x == 0.0)) && state.is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let bad = |o: StateOptions| RecurrentState::new(o).unwrap_err().to_string();
    assert_eq!(bad(StateOptions::new(0, 8, 8)), "heads = 0 must be positive");
    assert_eq!(bad(StateOptions::new(1, 8, 8).sequences(0)), "sequences = 0 must be positive");
    assert_eq!(bad(StateOptions::new(1, 8, 8).convolution(4, 9)), "taps = 9 must be 2..=8");
    assert_eq!(bad(StateOptions::new(1, 8, 8).convolution(0, 3)), "taps = 3 must be 0 without channels");
    assert!(bad(StateOptions::new(ABSURD, ABSURD, ABSURD)).contains("does not fit the address space"));
    RecurrentState::new(StateOptions::new(1, usize::MAX, 1)).unwrap_err();
    RecurrentState::new(StateOptions::new(1, 1, usize::MAX)).unwrap_err();

    let mut r = Random::new(80);
    let t = Tokens::random(&mut r, [4, 2, 8, 20, 6], false);
    let ctx = context(Isa::Scalar, 1);
    let mut state = RecurrentState::new(t.options().sequences(3)).unwrap();
    t.take(&ctx, &mut state, false, &[1], (0, 6));
    let before = matrices(&state, 1);
    let m = |x, cols| MatRef::dense(x, 6, cols).unwrap();
    let good = DeltaTokens {
        q: m(&t.q, 16),
        k: m(&t.k, 16),
        v: m(&t.v, 80),
        decay: m(&t.decay, 4),
        beta: m(&t.beta, 4),
        scale: 1.0,
    };
    let mut refused = |sequences: &[usize], tokens: DeltaTokens<'_>, cols: usize, want: &str| {
        let mut y = vec![SENTINEL; 6 * cols];
        let out = MatMut::dense(&mut y, 6, cols).unwrap();
        let error = delta_rule(&ctx, &mut state, sequences, &tokens, out).unwrap_err().to_string();
        assert_eq!(error, want);
        assert!(y.iter().all(|y| *y == SENTINEL));
        assert_same_bits(&matrices(&state, 1), &before, want);
        assert_eq!((state.len_of(0), state.len_of(1)), (0, 6));
    };
    refused(&[3], good, 80, "sequence = 3 must be below the state's number of sequences");
    refused(&[1, 0, 1], good, 80, "sequence = 1 must be another one than those before it");
    refused(&[0, 1, 2, 0], good, 80, "y.rows = 6 must be a multiple of the number of sequences");
    refused(&[], good, 80, "y.rows = 6 must be a multiple of the number of sequences");
    refused(&[0], good, 81, "y.cols = 81 must equal heads * value_dim = 80");
    refused(&[0], DeltaTokens { scale: f32::NAN, ..good }, 80, "scale = NaN must be finite");
    let three = vec![0.0; 6 * 24];
    let q = m(&three, 24);
    let want = "q.cols = 24 must be key_dim times a number that divides the state's heads";
    refused(&[0], DeltaTokens { q, k: q, ..good }, 80, want);
    let want = "k.cols = 24 must equal what the state's options give = 16";
    refused(&[0], DeltaTokens { k: q, ..good }, 80, want);
    let want = "decay.cols = 24 must equal what the state's options give = 32";
    refused(&[0], DeltaTokens { decay: q, ..good }, 80, want);
    let square = [0.0; 36];
    let decay = MatRef::dense(&square[..24], 4, 6).unwrap().t();
    refused(
        &[0],
        DeltaTokens { decay, ..good },
        80,
        "decay = a transposed view must be plain: tokens are rows",
    );

    let (x, dt) = (m(&t.v, 80), m(&t.beta, 4));
    let (b, c) = (m(&t.k, 16), m(&t.q, 16));
    let mut y = vec![SENTINEL; 480];
    for (a, d, want) in [
        (&t.a[..3], &t.d[..], "a.len = 3 must equal the state's heads = 4"),
        (&t.a[..], &t.d[..2], "d.len = 2 must equal the state's heads = 4"),
    ] {
        let out = MatMut::dense(&mut y, 6, 80).unwrap();
        let tokens = ScanTokens { x, dt, b, c, a, d };
        assert_eq!(selective_scan(&ctx, &mut state, &[0], &tokens, out).unwrap_err().to_string(), want);
    }
    let mut out = [SENTINEL; 160];
    assert!(state.read(3, 0, &mut out).is_err() && state.read(0, 4, &mut out).is_err());
    assert!(state.read(0, 0, &mut out[1..]).is_err() && state.write(0, 0, &out[1..]).is_err());
    assert!(state.fork(0, 3).is_err() && state.fork(3, 0).is_err() && state.clear_in(3).is_err());
    assert!(out.iter().all(|x| *x == SENTINEL) && y.iter().all(|x| *x == SENTINEL));
    let options = TimeStepOptions::default().limits(1.0, 0.5);
    let error = time_step(&ctx, &options, dt, MatMut::dense(&mut y[..24], 6, 4).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "limits = 1..=0.5 must be in ascending order");
}

#[test]
fn nothing_is_nothing() {
    let ctx = context(Isa::Scalar, 1);
    let mut state = RecurrentState::new(StateOptions::new(2, 3, 4)).unwrap();
    let none = |cols| MatRef::dense(&[], 0, cols).unwrap();
    let tokens =
        DeltaTokens { q: none(6), k: none(6), v: none(8), decay: none(2), beta: none(2), scale: 1.0 };
    for sequences in [&[][..], &[0]] {
        delta_rule(&ctx, &mut state, sequences, &tokens, MatMut::dense(&mut [], 0, 8).unwrap()).unwrap();
    }
    assert!(state.is_empty() && state.options().taps == 0 && state.inputs(0).unwrap().is_empty());
}
