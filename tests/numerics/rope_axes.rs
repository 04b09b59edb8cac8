//! Rotation by positions on several axes, and tables with a factor for each pair: against values that were
//! computed elsewhere, against rotations by one position, and bad input.

use crate::support::safetensors::Tensors;
use crate::support::{Random, assert_same_bits, context, for_each_isa};
use kvern::ops::{RopePairs, RopeTable, rope_at, rope_axes, rope_sections};
use kvern::{Context, Isa, MatMut};

/// The axes of sections.
fn axes(sections: &[usize], interleaved: bool) -> Vec<u8> {
    let mut axes = vec![77; sections.iter().sum()];
    rope_sections(sections, interleaved, &mut axes).unwrap();
    axes
}

/// Rotates rows of heads, with gaps, at every tier on 1 and 3 threads.
fn everywhere(
    table: &RopeTable,
    pairs: RopePairs,
    dim: usize,
    axes: &[u8],
    positions: &[usize],
    x: &[f32],
    tokens: usize,
) -> Vec<f32> {
    let cols = x.len() / tokens;
    let run = |ctx: &Context| {
        let mut y = vec![1.25e30f32; tokens * (cols + 3)];
        y.chunks_exact_mut(cols + 3)
            .zip(x.chunks_exact(cols))
            .for_each(|(y, x)| y[..cols].copy_from_slice(x));
        let view = MatMut::new(&mut y, tokens, cols, cols + 3).unwrap();
        rope_axes(ctx, table, pairs, dim, axes, positions, view).unwrap();
        assert!(y.chunks_exact(cols + 3).all(|row| row[cols..] == [1.25e30; 3]));
        y.chunks_exact(cols + 3).flat_map(|row| row[..cols].to_vec()).collect::<Vec<f32>>()
    };
    let want = run(&context(Isa::Scalar, 1));
    for_each_isa(|ctx| {
        for threads in [1, 3] {
            assert_same_bits(&run(&context(ctx.isa(), threads)), &want, &format!("axes at {}", ctx.isa()));
        }
    });
    want
}

#[test]
fn sections_have_the_axes_of_the_published_models() {
    assert_eq!(axes(&[2, 3, 1], false), [0, 0, 1, 1, 1, 2]);
    assert_eq!(axes(&[0, 2], false), [1, 1]);
    assert_eq!(axes(&[4, 2, 2], true), [0, 1, 2, 0, 1, 2, 0, 0]);
    assert_eq!(axes(&[3], true), [0, 0, 0]);
    let refuse = |sections: &[usize], pairs: usize| {
        let mut axes = vec![9; pairs];
        let e = rope_sections(sections, false, &mut axes).unwrap_err();
        assert!(axes.iter().all(|&axis| axis == 9));
        e.to_string()
    };
    assert_eq!(refuse(&[2, 3], 6), "the sum of sections = 5 must equal the pairs = 6");
    assert_eq!(refuse(&[], 0), "sections.len = 0 must be 1..=255");
    assert_eq!(refuse(&[0; 256], 0), "sections.len = 256 must be 1..=255");
    assert_eq!(refuse(&[usize::MAX, 1], 0), "the sum of sections does not fit the address space");
}

#[test]
fn families_match_the_reference() {
    let t = Tensors::of("rope");
    let long: Vec<f64> = (0..24).map(|i| 1.0 + 0.02 * f64::from(i)).collect();
    let own: Vec<f64> = (0..16).map(|i| libm::pow(1e4, -2.0 * f64::from(i % 8) / 16.0)).collect();
    let cases = [
        ("mrope_sections", RopeTable::new(64, 1100, 1e6), axes(&[8, 12, 12], false)),
        ("mrope_interleaved", RopeTable::new(64, 1100, 1e6), axes(&[12, 10, 10], true)),
        ("mrope_interleaved_partial", RopeTable::new(16, 1100, 1e7), axes(&[4, 2, 2], true)),
        ("axial_2d", RopeTable::from_frequencies(&own, 4, 1.0), axes(&[8, 8], false)),
        ("longrope_short", RopeTable::with_factors(&long, 4096, 1e4, 1.1902380714238083), vec![0; 24]),
    ];
    for (name, table, axes) in cases {
        let (table, of) = (table.unwrap(), |part: &str| format!("{name}/{part}"));
        let shape = t.shape(&of("x"));
        let positions: Vec<usize> = t.i32(&of("positions")).iter().map(|&p| p as usize).collect();
        let (x, want) = (t.f32(&of("x")), t.f32(&of("y")));
        let got = everywhere(&table, RopePairs::Halves, shape[2], &axes, &positions, &x, shape[0]);
        let error = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0f32, f32::max);
        assert!(error <= 6e-7, "{name}: {error:e}");
        eprintln!("{name}: error {error:e}");
    }
}

#[test]
fn each_pair_turns_as_it_does_at_one_position() {
    let mut r = Random::new(90);
    for half in (1..=40).chain([64, 256]) {
        let (tokens, heads, dim) = (1 + half % 7, 1 + half % 3, 2 * half + half % 2);
        let count = 1 + half % 4;
        let table = RopeTable::new(2 * half, 50, 1e4).unwrap();
        let axes: Vec<u8> = (0..half).map(|_| r.below(count) as u8).collect();
        let positions: Vec<usize> = (0..count * tokens).map(|_| r.below(50)).collect();
        let x = r.vec(tokens * heads * dim);
        for pairs in [RopePairs::Halves, RopePairs::Interleaved] {
            let got = everywhere(&table, pairs, dim, &axes, &positions, &x, tokens);
            let rotated: Vec<Vec<f32>> = positions
                .chunks_exact(tokens)
                .map(|positions| {
                    let mut y = x.clone();
                    let view = MatMut::dense(&mut y, tokens, heads * dim).unwrap();
                    rope_at(&Context::serial(), &table, pairs, dim, positions, view).unwrap();
                    y
                })
                .collect();
            let want: Vec<f32> = (0..x.len())
                .map(|i| match (i % dim, pairs) {
                    (at, _) if at >= 2 * half => x[i],
                    (at, RopePairs::Halves) => rotated[axes[at % half] as usize][i],
                    (at, _) => rotated[axes[at / 2] as usize][i],
                })
                .collect();
            assert_same_bits(&got, &want, &format!("{half} pairs, {pairs:?}"));
        }
    }
}

#[test]
fn factors_divide_the_frequencies() {
    let ones = RopeTable::with_factors(&[1.0; 8], 30, 1e4, 1.0).unwrap();
    let plain = RopeTable::new(16, 30, 1e4).unwrap();
    let twice = RopeTable::with_factors(&[2.0; 8], 59, 1e4, 1.0).unwrap();
    let still = RopeTable::with_factors(&[f64::INFINITY; 8], 30, 1e4, 0.5).unwrap();
    for position in 0..30 {
        assert_eq!(ones.row(position), plain.row(position));
        assert_eq!(twice.row(2 * position), plain.row(position));
        assert_eq!(still.row(position), Some((&[0.5f32; 8][..], &[0.0f32; 8][..])));
    }
    let refuse = |factors: &[f64], base: f64, amplitude: f64| {
        RopeTable::with_factors(factors, 4, base, amplitude).unwrap_err().to_string()
    };
    assert_eq!(refuse(&[], 1e4, 1.0), "factors.len = 0 must be at least 1");
    for bad in [0.0, -1.0, f64::NAN] {
        assert_eq!(refuse(&[1.0, bad], 1e4, 1.0), format!("factors = {bad} must be positive"));
    }
    assert_eq!(refuse(&[1.0], 0.0, 1.0), "base = 0 must be positive and finite");
    assert_eq!(refuse(&[1.0], 1e4, f64::NAN), "amplitude = NaN must be finite");
}

#[test]
fn bad_axes_are_refused_and_change_nothing() {
    let (ctx, table) = (Context::serial(), RopeTable::new(8, 10, 1e4).unwrap());
    let mut x = [1.0f32; 16];
    let mut refuse = |table: &RopeTable, dim: usize, axes: &[u8], positions: &[usize]| {
        let view = MatMut::dense(&mut x, 2, 8).unwrap();
        let halves = RopePairs::Halves;
        rope_axes(&ctx, table, halves, dim, axes, positions, view).unwrap_err().to_string()
    };
    let good = [0, 1, 0, 1];
    assert_eq!(refuse(&table, 8, &good[..3], &[0; 4]), "axes.len = 3 must equal rotary_dim / 2 = 4");
    assert_eq!(
        refuse(&table, 8, &good, &[0; 3]),
        "positions.len = 3 must be a multiple of x.rows, such as 2"
    );
    assert_eq!(refuse(&table, 8, &good, &[0; 2]), "axes = 1 must be below the rows of positions = 1");
    let e = refuse(&table, 8, &good, &[0, 1, 10, 2]);
    assert_eq!(e, "positions = 10 must be below the table's positions = 10");
    assert_eq!(refuse(&table, 4, &good, &[0; 4]), "rotary_dim = 8 must be at most head_dim = 4");
    let wide = RopeTable::new(514, 1, 1e4).unwrap();
    let mut y = [1.0f32; 514];
    let view = MatMut::dense(&mut y, 1, 514).unwrap();
    let e = rope_axes(&ctx, &wide, RopePairs::Halves, 514, &[0; 257], &[0], view).unwrap_err();
    assert_eq!(e.to_string(), "rotary_dim / 2 = 257 must be at most 256 for positions on axes");
    assert!(x == [1.0; 16] && y == [1.0; 514]);
}
