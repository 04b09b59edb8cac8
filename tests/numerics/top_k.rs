//! The greatest elements: against a sort, for every k, with equal elements, NaN and infinities.

use crate::support::{Random, context, for_each_isa};
use kvern::ops::{argmax, top_k};
use kvern::{Context, MatRef};

/// The definition: by value, NaN last, then by place.
fn sorted(x: &[f32], k: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(x.iter().copied()).collect();
    all.sort_by(|(i, x), (j, y)| {
        let value = match (x.is_nan(), y.is_nan()) {
            (false, false) => y.partial_cmp(x).unwrap(),
            (x, y) => x.cmp(&y),
        };
        value.then(i.cmp(j))
    });
    all.truncate(k);
    all
}

fn check(ctx: &Context, x: &[f32], rows: usize, k: usize, what: &str) {
    let n = x.len() / rows;
    let (mut indices, mut values) = (vec![77; rows * k], vec![-7.5f32; rows * k]);
    top_k(ctx, MatRef::dense(x, rows, n).unwrap(), k, &mut indices, &mut values).unwrap();
    for i in 0..rows {
        let want = sorted(&x[i * n..][..n], k);
        for (j, (index, value)) in want.into_iter().enumerate() {
            let got = (indices[i * k + j], values[i * k + j].to_bits());
            assert_eq!(got, (index, value.to_bits()), "{what}: {j} of {k} of row {i}, {n} elements");
        }
    }
}

#[test]
fn top_k_is_the_start_of_a_sort() {
    let mut r = Random::new(40);
    for n in (1..=130).chain([1000, 5000]) {
        let rows = 1 + n % 5;
        let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45, -f32::NAN];
        let kinds: [(&str, Vec<f32>); 5] = [
            ("any", r.vec(rows * n)),
            ("few values", (0..rows * n).map(|_| r.below(4) as f32).collect()),
            ("special", (0..rows * n).map(|_| r.of(&special)).collect()),
            ("ascending", (0..rows * n).map(|i| i as f32).collect()),
            ("descending", (0..rows * n).map(|i| -(i as f32)).collect()),
        ];
        for (kind, x) in &kinds {
            let mut sizes = vec![1, 2.min(n), 1 + r.below(n), n];
            sizes.dedup();
            for k in sizes {
                for_each_isa(|ctx| check(&context(ctx.isa(), 2), x, rows, k, kind));
            }
            let first = &x[..n];
            let (mut index, mut value) = ([0], [0.0]);
            top_k(&Context::serial(), MatRef::dense(first, 1, n).unwrap(), 1, &mut index, &mut value)
                .unwrap();
            if let Some(best) = argmax(&Context::serial(), first) {
                assert_eq!(index[0] as usize, best, "{kind}");
            }
        }
    }
    // Enough rows for several threads.
    let x = r.vec(900 * 128);
    check(&context(kvern::Isa::detect(), 3), &x, 900, 8, "many rows");
}

#[test]
fn bad_sizes_are_refused_and_change_nothing() {
    let (ctx, x) = (Context::serial(), [1.0f32; 12]);
    let (mut indices, mut values) = ([9u32; 8], [9.0f32; 8]);
    let xm = MatRef::dense(&x, 2, 6).unwrap();
    let mut refuse = |x: MatRef<'_>, k: usize, i: usize, v: usize| {
        top_k(&ctx, x, k, &mut indices[..i], &mut values[..v]).unwrap_err().to_string()
    };
    assert_eq!(refuse(xm, 7, 8, 8), "k = 7 must be at most x.cols = 6");
    assert_eq!(refuse(xm, 3, 5, 6), "indices.len = 5 must equal x.rows * k = 6");
    assert_eq!(refuse(xm, 3, 6, 7), "values.len = 7 must equal x.rows * k = 6");
    assert!(refuse(MatRef::dense(&x, 6, 2).unwrap().t(), 1, 2, 2).starts_with("x = a transposed view"));
    assert!(indices == [9; 8] && values == [9.0; 8]);
    top_k(&ctx, xm, 0, &mut [], &mut []).unwrap();
    top_k(&ctx, MatRef::dense(&[], 0, 6).unwrap(), 6, &mut [], &mut []).unwrap();
}
