//! A linear layer with int4 weights: quantised once, multiplied by one token and by a batch.
//!
//! `cargo run --release --example int4_linear`

use kvern::quant::{Compute, PackedWeights, WeightFormat};
use kvern::{Activation, Context, Epilogue, MatMut, MatRef, Workspace};

pub(crate) fn main() -> kvern::Result<()> {
    let ctx = Context::serial();
    let (tokens, n, k) = (5, 256, 512); // 512 features in, 256 out
    let w: Vec<f32> = (0..n * k).map(|i| (i * 37 % 251) as f32 / 2500.0 - 0.05).collect();
    let bias = vec![0.1f32; n];
    let x: Vec<f32> = (0..tokens * k).map(|i| (i * 53 % 241) as f32 / 120.0 - 1.0).collect();
    let epilogue = Epilogue::default().bias(&bias).activation(Activation::Silu);

    let layer = PackedWeights::quantize(WeightFormat::Q4_0, MatRef::dense(&w, n, k)?)?;
    let exact = PackedWeights::quantize(WeightFormat::F32, MatRef::dense(&w, n, k)?)?;
    println!("{} bytes instead of {}", layer.bytes(), exact.bytes());

    let run = |layer: &PackedWeights, x: &[f32]| {
        let rows = x.len() / k;
        let mut ws = Workspace::new(layer.workspace_bytes(&ctx, rows, Compute::Int8)?)?;
        let mut y = vec![0.0; rows * n];
        let (a, c) = (MatRef::dense(x, rows, k)?, MatMut::dense(&mut y, rows, n)?);
        layer.multiply(&ctx, &mut ws, Compute::Int8, a, c, &epilogue)?;
        kvern::Result::Ok(y)
    };
    let (batch, right) = (run(&layer, &x)?, run(&exact, &x)?);
    for (i, token) in x.chunks_exact(k).enumerate() {
        assert_eq!(
            run(&layer, token)?,
            batch[i * n..(i + 1) * n],
            "a row has the same bits alone and in a batch"
        );
    }

    let squares = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
    let miss = squares(&mut batch.iter().zip(&right).map(|(x, y)| x - y));
    let error = (miss / squares(&mut right.iter().copied())).sqrt();
    println!("error of the layer: {:.1} %", 100.0 * error);
    assert!(error < 0.15);
    Ok(())
}
