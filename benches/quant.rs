//! Wall time of products with quantised weights: `cargo bench --bench quant`. An element of the throughput is
//! one operation (a multiply-add counts as two), so Gelem/s are GOP/s.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kvern::quant::{Compute, PackedWeights, WeightFormat};
use kvern::{Context, ContextOptions, Epilogue, Isa, MatMut, MatRef, Workspace};

/// Rows of activations against 4096 x 4096 weights.
const ROWS: [usize; 3] = [1, 8, 512];
const SIDE: usize = 4096;

fn products(criterion: &mut Criterion) {
    let values = |len: usize| -> Vec<f32> { (0..len).map(|i| (i % 13) as f32 / 8.0 - 0.75).collect() };
    let w = values(SIDE * SIDE);
    for &isa in Isa::available().iter().filter(|&&isa| isa != Isa::Scalar) {
        let ctx = Context::new(&ContextOptions::default().isa_cap(isa)).expect("an available tier");
        let mut group = criterion.benchmark_group(format!("quant {isa}"));
        group.sample_size(10);
        for format in [WeightFormat::Q4_0, WeightFormat::Q8_0] {
            let w = MatRef::dense(&w, SIDE, SIDE).expect("shape");
            let weights = PackedWeights::quantize(format, w).expect("memory");
            for m in ROWS {
                let a = values(m * SIDE);
                let a = MatRef::dense(&a, m, SIDE).expect("shape");
                let bytes = weights.workspace_bytes(&ctx, m, Compute::Int8).expect("a size");
                let mut ws = Workspace::new(bytes).expect("memory");
                let mut c = vec![0.0; m * SIDE];
                group.throughput(Throughput::Elements((2 * m * SIDE * SIDE) as u64));
                group.bench_function(BenchmarkId::new(format.name(), m), |bencher| {
                    bencher.iter(|| {
                        let c = MatMut::dense(&mut c, m, SIDE).expect("shape");
                        let e = Epilogue::default();
                        weights.multiply(&ctx, &mut ws, Compute::Int8, a, c, &e).expect("valid call");
                    });
                });
            }
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
