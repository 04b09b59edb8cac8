//! RoPE: scaled tables against numbers computed independently, positions for each token, softmax options.

use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::ops::*;
use kvern::{Context, Isa, MatMut, MatRef};

/// Frequency of pair `i` as the table has it: the angle of position 1, and its amplitude.
fn pair(table: &RopeTable, i: usize) -> (f64, f64) {
    let (cos, sin) = table.row(1).unwrap();
    let (cos, sin) = (f64::from(cos[i]), f64::from(sin[i]));
    (sin.atan2(cos), cos.hypot(sin))
}

/// Checks frequencies against `want`: (pair, radians a position).
fn check(table: &RopeTable, want: &[(usize, f64)], amplitude: f64) {
    for &(i, f) in want {
        let (got, size) = pair(table, i);
        assert!((got - f).abs() <= 1.5e-7 * f, "pair {i}: {got} is not {f}");
        assert!((size - amplitude).abs() < 1.5e-7 * amplitude, "pair {i}: amplitude {size}");
    }
}

#[test]
fn scaled_frequencies_follow_the_published_formulas() {
    // The numbers come from the formulas of the papers and model cards, written out in another language.
    let plain = |dim: usize, base: f64, i: usize| base.powf(-2.0 * i as f64 / dim as f64);
    let linear = RopeTable::scaled(64, 4, 1e4, &RopeScaling::Linear { factor: 4.0 }).unwrap();
    let want: Vec<_> = [0, 5, 31].map(|i| (i, plain(64, 1e4, i) / 4.0)).into();
    check(&linear, &want, 1.0);

    let ntk = RopeTable::scaled(64, 4, 1e4, &RopeScaling::Ntk { factor: 8.0 }).unwrap();
    let want = [(0, 1.0), (1, 0.7012422344790011), (16, 0.003418920788815981), (31, 1.6669017902041553e-05)];
    check(&ntk, &want, 1.0);
    // What the method is about: the highest frequency stays, the lowest is divided by the factor.
    assert!((pair(&ntk, 31).0 - plain(64, 1e4, 31) / 8.0).abs() < 1e-11);

    // YaRN by 4 over 32768 positions, base 1e6: the long-context setting of Qwen 2.5.
    let yarn = RopeTable::scaled(128, 4, 1e6, &RopeScaling::yarn(4.0, 32768)).unwrap();
    let want = [
        (0, 1.0),
        (20, 0.01333521432163324),
        (25, 0.004131738022518394),
        (30, 0.0010643609812470017),
        (36, 0.00017984115587395423),
        (40, 4.445698525097307e-05),
        (50, 5.133812566142866e-06),
        (63, 3.102344401879299e-07),
    ];
    check(&yarn, &want, 1.138629436111989);
    let plainly = RopeScaling::Yarn {
        factor: 4.0,
        original_positions: 32768,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: Some(1.0),
        round_ramp: true,
    };
    check(&RopeTable::scaled(128, 4, 1e6, &plainly).unwrap(), &want, 1.0);

    // Llama 3.1: by 8 over 8192 positions, base 5e5.
    let llama = RopeTable::scaled(128, 4, 5e5, &RopeScaling::llama3(8.0, 8192)).unwrap();
    let want = [
        (0, 1.0),
        (20, 0.016560440080994446),
        (28, 0.0032114459947525913),
        (30, 0.0013718935677611381),
        (32, 0.0005248461609929547),
        (34, 0.00017850781276799638),
        (36, 7.78465527393245e-05),
        (50, 4.411534674558404e-06),
        (63, 3.068925988914511e-07),
    ];
    check(&llama, &want, 1.0);
}

#[test]
fn no_scaling_and_given_frequencies_are_the_plain_table() {
    let table = RopeTable::new(48, 30, 1e4).unwrap();
    let none = RopeTable::scaled(48, 30, 1e4, &RopeScaling::None).unwrap();
    let frequencies: Vec<f64> = (0..24).map(|i| libm::pow(1e4, -2.0 * f64::from(i) / 48.0)).collect();
    let given = RopeTable::from_frequencies(&frequencies, 30, 1.0).unwrap();
    let double = RopeTable::from_frequencies(&frequencies, 30, 2.0).unwrap();
    assert_eq!((given.rotary_dim(), given.positions(), given.bytes()), (48, 30, 8 * 24 * 30));
    for position in 0..30 {
        let (cos, sin) = table.row(position).unwrap();
        for other in [&none, &given] {
            let (c, s) = other.row(position).unwrap();
            assert_same_bits(c, cos, "cos");
            assert_same_bits(s, sin, "sin");
        }
        let (c, _) = double.row(position).unwrap();
        assert!(c.iter().zip(cos).all(|(c, cos)| *c == 2.0 * cos), "an amplitude of 2 is exact");
    }
    assert!(table.row(30).is_none());
}

#[test]
fn a_position_for_each_token_gives_the_bits_of_a_run_of_positions() {
    let table = RopeTable::scaled(16, 50, 1e4, &RopeScaling::yarn(2.0, 25)).unwrap();
    let x = Random::new(1).vec(6 * 3 * 24);
    let positions = [7usize, 49, 0, 7, 30, 31];
    let mut all: Option<Vec<f32>> = None;
    for_each_isa(|ctx| {
        for threads in [1, 2, 3, 8] {
            let ctx = context(ctx.isa(), threads);
            for pairs in [RopePairs::Halves, RopePairs::Interleaved] {
                let mut got = x.clone();
                rope_at(&ctx, &table, pairs, 24, &positions, MatMut::dense(&mut got, 6, 72).unwrap())
                    .unwrap();
                for (i, &position) in positions.iter().enumerate() {
                    let mut one = x[i * 72..(i + 1) * 72].to_vec();
                    rope(&ctx, &table, pairs, 24, position, MatMut::dense(&mut one, 1, 72).unwrap()).unwrap();
                    assert_same_bits(&got[i * 72..(i + 1) * 72], &one, "one token");
                }
                if pairs == RopePairs::Halves {
                    assert_same_bits(&got, all.get_or_insert_with(|| got.clone()), "tiers");
                }
            }
        }
    });
}

#[test]
fn bad_tables_and_positions_are_refused() {
    let bad = |dim, base, s: RopeScaling| RopeTable::scaled(dim, 4, base, &s).unwrap_err().to_string();
    assert_eq!(bad(8, 1e4, RopeScaling::Linear { factor: 0.0 }), "factor = 0 must be positive and finite");
    assert_eq!(
        bad(2, 1e4, RopeScaling::Ntk { factor: 2.0 }),
        "rotary_dim = 2 must be more than 2 for NTK scaling"
    );
    assert_eq!(bad(8, 1.0, RopeScaling::yarn(2.0, 9)), "base = 1 must be more than 1 for YaRN");
    assert_eq!(bad(8, 1e4, RopeScaling::yarn(2.0, 0)), "original_positions = 0 must be at least 1");
    assert_eq!(bad(8, 1e4, RopeScaling::llama3(f64::NAN, 9)), "factor = NaN must be positive and finite");
    assert_eq!(bad(7, 1e4, RopeScaling::None), "rotary_dim = 7 must be even and at least 2");
    let llama = |low_frequency, high_frequency| RopeScaling::Llama3 {
        factor: 8.0,
        original_positions: 8192,
        low_frequency,
        high_frequency,
    };
    assert_eq!(bad(8, 1e4, llama(4.0, 1.0)), "high_frequency = 1 must be at least low_frequency");
    assert!(RopeTable::from_frequencies(&[], 4, 1.0).is_err());
    assert!(RopeTable::from_frequencies(&[f64::INFINITY], 4, 1.0).is_err());
    assert!(RopeTable::from_frequencies(&[1.0], 4, f64::NAN).is_err());

    let table = RopeTable::new(8, 4, 1e4).unwrap();
    let ctx = Context::serial();
    let mut x = [1.0f32; 16];
    let mut say = |positions: &[usize], dim| {
        let x = MatMut::dense(&mut x, 2, 8).unwrap();
        rope_at(&ctx, &table, RopePairs::Halves, dim, positions, x).unwrap_err().to_string()
    };
    assert_eq!(say(&[0, 4], 8), "positions = 4 must be below the table's positions = 4");
    assert_eq!(say(&[0], 8), "positions.len = 1 must equal x.rows = 2");
    assert_eq!(say(&[0, 0], 3), "x.cols = 8 must be a multiple of head_dim = 3");
    assert_eq!(x, [1.0; 16]);
}

#[test]
fn softmax_scales_caps_and_masks() {
    let mut r = Random::new(9);
    for n in [1, 5, 16, 33, 300] {
        let x: Vec<f32> = r.vec(4 * n).iter().map(|x| 40.0 * x).collect();
        let mut mask: Vec<f32> = r.vec(2 * n);
        (0..2 * n).step_by(3).for_each(|i| mask[i] = f32::NEG_INFINITY);
        for (cap, masked) in [(None, false), (Some(7.5f32), false), (None, true), (Some(50.0), true)] {
            let mut options = SoftmaxOptions::default().scale(0.3);
            options.softcap = cap;
            if masked {
                options = options.mask(MatRef::dense(&mask, 2, n).unwrap());
            }
            let mut first: Option<Vec<f32>> = None;
            for_each_isa(|ctx| {
                for threads in [1, 2, 3, 8] {
                    // Strides on both sides.
                    let (mut wide, mut y) = (vec![f32::NAN; 4 * (n + 3)], vec![9.0f32; 4 * (n + 1)]);
                    for i in 0..4 {
                        wide[i * (n + 3)..][..n].copy_from_slice(&x[i * n..(i + 1) * n]);
                    }
                    let wide = MatRef::new(&wide, 4, n, n + 3).unwrap();
                    let out = MatMut::new(&mut y, 4, n, n + 1).unwrap();
                    softmax_with(&context(ctx.isa(), threads), &options, wide, out).unwrap();
                    assert!((0..4).all(|i| y[i * (n + 1) + n] == 9.0), "beyond the rows");
                    assert_same_bits(&y, first.get_or_insert_with(|| y.clone()), "tiers");
                }
            });
            let y = first.unwrap();
            for i in 0..4 {
                let score = |j: usize| {
                    let s = f64::from(x[i * n + j]) * f64::from(0.3f32);
                    let s = cap.map_or(s, |c| f64::from(c) * (s / f64::from(c)).tanh());
                    s + if masked { f64::from(mask[i % 2 * n + j]) } else { 0.0 }
                };
                let max = (0..n).map(score).fold(f64::MIN, f64::max);
                let sum: f64 = (0..n).map(|j| (score(j) - max).exp()).sum();
                for j in 0..n {
                    let want = if sum > 0.0 { (score(j) - max).exp() / sum } else { 0.0 };
                    let got = f64::from(y[i * (n + 1) + j]);
                    assert!((got - want).abs() <= 8e-6 * want + 1e-37, "{n} {cap:?} {masked}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn masked_elements_of_a_softmax_count_for_nothing() {
    let x = [f32::NAN, 1.0, f32::INFINITY, 1.0];
    let mask = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.0];
    for_each_isa(|ctx| {
        let mut y = [9.0; 4];
        let options = SoftmaxOptions::default().mask(MatRef::dense(&mask, 1, 4).unwrap());
        let x = MatRef::dense(&x, 1, 4).unwrap();
        softmax_with(ctx, &options, x, MatMut::dense(&mut y, 1, 4).unwrap()).unwrap();
        assert_eq!(y, [0.0, 0.5, 0.0, 0.5]);
        let all = [f32::NEG_INFINITY; 4];
        let options = SoftmaxOptions::default().mask(MatRef::dense(&all, 1, 4).unwrap());
        softmax_with(ctx, &options, x, MatMut::dense(&mut y, 1, 4).unwrap()).unwrap();
        assert_eq!(y, [0.0; 4]);
    });
    let ctx = context(Isa::Scalar, 1);
    let mut y = [9.0; 4];
    let mut say = |options: SoftmaxOptions<'_>| {
        let x = MatRef::dense(&x, 2, 2).unwrap();
        softmax_with(&ctx, &options, x, MatMut::dense(&mut y, 2, 2).unwrap()).unwrap_err().to_string()
    };
    let m = |rows, cols| MatRef::dense(&mask[..rows * cols], rows, cols).unwrap();
    assert_eq!(say(SoftmaxOptions::default().mask(m(1, 3))), "mask.cols = 3 must equal x.cols = 2");
    assert_eq!(
        say(SoftmaxOptions::default().mask(m(0, 2))),
        "x.rows = 2 must be a multiple of mask.rows = 0"
    );
    assert!(say(SoftmaxOptions::default().mask(m(2, 2).t())).contains("transposed"));
    assert_eq!(say(SoftmaxOptions::default().softcap(0.0)), "softcap = 0 must be positive and finite");
    assert_eq!(y, [9.0; 4]);
}

/// A table that moves on has the rows of one that covers everything.
#[test]
fn a_table_that_moves_has_the_rows_of_a_longer_one() {
    let all = RopeTable::scaled(16, 900, 1e4, &RopeScaling::yarn(4.0, 64)).unwrap();
    let mut table = RopeTable::scaled(16, 40, 1e4, &RopeScaling::yarn(4.0, 64)).unwrap();
    for first in [0, 40, 39, 860, 1, 0] {
        table.move_to(first).unwrap();
        assert_eq!((table.first(), table.positions()), (first, 40));
        for position in first..first + 40 {
            let ((cos, sin), (want_cos, want_sin)) =
                (table.row(position).unwrap(), all.row(position).unwrap());
            assert_same_bits(cos, want_cos, &format!("cosines of {position}"));
            assert_same_bits(sin, want_sin, &format!("sines of {position}"));
        }
        assert!(table.row(first + 40).is_none() && (first == 0 || table.row(first - 1).is_none()));
    }
    // Beyond any table that would fit into memory.
    let far = usize::MAX >> 24;
    table.move_to(far).unwrap();
    let mut one = RopeTable::from_frequencies(&[1.0], 3, 1.0).unwrap();
    one.move_to(far).unwrap();
    let (got, want) = (one.row(far + 2).unwrap().0[0], ((far + 2) as f64).cos());
    assert!((f64::from(got) - want).abs() < 1e-7, "{got} is not {want}");

    let before = table.row(far + 3).unwrap().0.to_vec();
    let inexact = usize::try_from((1u64 << 53) - 39).ok();
    for first in [usize::MAX, usize::MAX - 39].into_iter().chain(inexact) {
        assert_eq!(
            table.move_to(first).unwrap_err().to_string(),
            "first + positions does not fit the address space"
        );
    }
    assert_same_bits(table.row(far + 3).unwrap().0, &before, "an error changes nothing");
}

#[test]
fn positions_outside_of_a_moved_table_are_refused() {
    let mut table = RopeTable::new(8, 10, 1e4).unwrap();
    table.move_to(100).unwrap();
    let mut x = vec![1.0; 3 * 8];
    let ctx = Context::serial();
    let mut say = |positions: &[usize]| {
        let x = MatMut::dense(&mut x, 3, 8).unwrap();
        rope_at(&ctx, &table, RopePairs::Halves, 8, positions, x).unwrap_err().to_string()
    };
    assert_eq!(say(&[100, 110, 101]), "positions = 110 must be below the end of the table's positions = 110");
    assert!(say(&[100, 99, 101]).contains("99"));
    for (first, part) in [(99, "99"), (108, "111")] {
        let y = MatMut::dense(&mut x, 3, 8).unwrap();
        let e = rope(&ctx, &table, RopePairs::Halves, 8, first, y).unwrap_err().to_string();
        assert!(e.contains(part), "{e}");
    }
    assert_eq!(x, vec![1.0; 24]);
    let y = MatMut::dense(&mut x, 3, 8).unwrap();
    rope(&ctx, &table, RopePairs::Halves, 8, 107, y).unwrap();
    assert_ne!(x, vec![1.0; 24]);
}
