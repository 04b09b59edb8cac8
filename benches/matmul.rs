//! Wall time of f32, f16 and bf16 products: `cargo bench --bench matmul`. For the peers beside them and the
//! share of the machine's limits see `cargo run --release -p kvern-perf -- speed matmul`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kvern::matmul::{matmul, matmul_workspace_bytes};
use kvern::{Context, ContextOptions, Epilogue, Isa, MatMut, MatRef, PackedB, Workspace, bf16, f16};

/// m x n x k, as in `kvern-perf`.
const SHAPES: [(usize, usize, usize); 11] = [
    (64, 64, 64),
    (128, 128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (128, 4096, 4096),
    (16, 4096, 4096),
    (8, 4096, 4096),
    (1, 4096, 4096),
    (50, 128, 512),
    (1, 128, 128),
];

fn products(criterion: &mut Criterion) {
    for &isa in Isa::available().iter().filter(|&&isa| isa != Isa::Scalar) {
        let ctx = Context::new(&ContextOptions::default().isa_cap(isa)).expect("an available tier");
        let mut group = criterion.benchmark_group(format!("matmul {isa}"));
        group.sample_size(10);
        for (m, n, k) in SHAPES {
            let values =
                |len: usize| -> Vec<f32> { (0..len).map(|i| (i % 13) as f32 / 8.0 - 0.75).collect() };
            let (a, b) = (values(m * k), values(k * n));
            let half: Vec<f16> = b.iter().map(|&x| f16::from_f32(x)).collect();
            let brain: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
            let a = MatRef::dense(&a, m, k).expect("shape");
            let plain = MatRef::dense(&b, k, n).expect("shape");
            let packed = [
                ("packed f32", PackedB::pack(&ctx, plain)),
                ("packed f16", PackedB::pack(&ctx, MatRef::dense(&half, k, n).expect("shape"))),
                ("packed bf16", PackedB::pack(&ctx, MatRef::dense(&brain, k, n).expect("shape"))),
            ];
            let bytes = matmul_workspace_bytes(&ctx, m, n, k).expect("a size");
            let mut ws = Workspace::new(bytes).expect("memory");
            let mut c = vec![0.0; m * n];
            group.throughput(Throughput::Elements((2 * m * n * k) as u64));
            let shape = format!("{m}x{n}x{k}");
            group.bench_function(BenchmarkId::new("f32", &shape), |bencher| {
                bencher.iter(|| {
                    let c = MatMut::dense(&mut c, m, n).expect("shape");
                    matmul(&ctx, &mut ws, a, plain, c, &Epilogue::default()).expect("valid call");
                });
            });
            for (name, b) in packed {
                let b = b.expect("memory");
                ws.reserve(b.workspace_bytes(&ctx, m).expect("a size")).expect("memory");
                group.bench_function(BenchmarkId::new(name, &shape), |bencher| {
                    bencher.iter(|| {
                        let c = MatMut::dense(&mut c, m, n).expect("shape");
                        b.multiply(&ctx, &mut ws, a, c, &Epilogue::default()).expect("valid call");
                    });
                });
            }
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
