//! A matrix product with a packed B: the same bits on every thread count, against a sum in f64.
//!
//! `cargo run --release --example matmul`

use kvern::{Context, ContextOptions, Epilogue, MatMut, MatRef, PackedB, Workspace};

pub(crate) fn main() -> kvern::Result<()> {
    let (m, n, k) = (64, 96, 200);
    let a: Vec<f32> = (0..m * k).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
    let b: Vec<f32> = (0..k * n).map(|i| (i * 53 % 241) as f32 / 120.0 - 1.0).collect();
    let (a, b) = (MatRef::dense(&a, m, k)?, MatRef::dense(&b, k, n)?);

    let mut first: Option<Vec<f32>> = None;
    for threads in [1, 2] {
        let ctx = Context::new(&ContextOptions::default().threads(threads))?;
        // Once for a matrix that is multiplied often: B in the order in which the kernel reads it.
        let packed = PackedB::pack(&ctx, b)?;
        let mut ws = Workspace::new(packed.workspace_bytes(&ctx, m)?)?;
        let mut c = vec![0.0; m * n];
        packed.multiply(&ctx, &mut ws, a, MatMut::dense(&mut c, m, n)?, &Epilogue::default())?;
        println!("{threads} threads, {}: c[0][0] = {}", ctx.isa(), c[0]);
        assert_eq!(&c, first.get_or_insert_with(|| c.clone()), "the same bits on any number of threads");
    }

    let c = first.unwrap_or_default();
    let error = |i: usize, j: usize| {
        let terms = (0..k)
            .map(|p| f64::from(a.row(i).unwrap_or_default()[p]) * f64::from(b.row(p).unwrap_or_default()[j]));
        (f64::from(c[i * n + j]) - terms.sum::<f64>()).abs()
    };
    let worst =
        (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).fold(0.0, |worst, (i, j)| error(i, j).max(worst));
    println!("largest error against f64: {worst:.1e}");
    assert!(worst < 1e-4);
    Ok(())
}
