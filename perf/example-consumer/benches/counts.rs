//! Instructions of one token, at a tier that Valgrind has.

use iai_callgrind::{Callgrind, LibraryBenchmarkConfig};
use iai_callgrind::{library_benchmark, library_benchmark_group, main};
use kvern::{Context, ContextOptions, Isa, MatRef};
use kvern_consumer::FeedForward;

/// Everything that is not to be counted happens here; one token warms up first uses.
fn ready(width: usize) -> (FeedForward, Vec<f32>) {
    let w: Vec<f32> = (0..4 * width * width).map(|i| (i * 7 % 15) as f32 / 8.0 - 1.0).collect();
    let ctx = Context::new(&ContextOptions::default().isa_cap(Isa::Avx2)).expect("AVX2");
    let up = MatRef::dense(&w, 4 * width, width).expect("shape");
    let down = MatRef::dense(&w, width, 4 * width).expect("shape");
    let mut layer = FeedForward::new(ctx, up, down).expect("memory");
    let mut x = vec![0.5; width];
    layer.token(&mut x).expect("shape");
    (layer, x)
}

#[library_benchmark(setup = ready)]
#[bench::avx2_512(512)]
fn token((mut layer, mut x): (FeedForward, Vec<f32>)) -> (FeedForward, Vec<f32>) {
    layer.token(&mut x).expect("shape");
    (layer, x)
}

library_benchmark_group!(name = feed_forward_group; benchmarks = token);
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"]));
    library_benchmark_groups = feed_forward_group
);
