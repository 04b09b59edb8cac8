//! Instructions of every public compute operation, counted by Callgrind, and of the pairs that prove a claim.
//!
//! `cargo run -p kvern-perf -- gate` runs this and compares it with `perf/icount.tsv`. A case is
//! `group::function::size`; the first part of a bench id is its tier (`any` where no tier is chosen).
//! Contexts are serial (instructions of other threads are not counted) and capped at `scalar` or `avx2`
//! (Valgrind knows no AVX-512). Each bench body is one call: allocation, packing, detection of the CPU and
//! first uses happen in its setup.

#[path = "icount/attention.rs"]
mod attention;
#[path = "icount/block.rs"]
mod block;
#[path = "icount/caches.rs"]
mod caches;
#[path = "icount/encoders.rs"]
mod encoders;
#[path = "icount/formats.rs"]
mod formats;
#[path = "icount/inputs.rs"]
mod inputs;
#[path = "icount/mixtures.rs"]
mod mixtures;
#[path = "icount/products.rs"]
mod products;
#[path = "icount/quantised.rs"]
mod quantised;
#[path = "icount/recurrent.rs"]
mod recurrent;
#[path = "icount/rivals.rs"]
mod rivals;
#[path = "icount/rows.rs"]
mod rows;
#[path = "icount/variants.rs"]
mod variants;

use attention::attention_group;
use block::block_group;
use caches::caches_group;
use encoders::encoders_group;
use formats::formats_group;
use iai_callgrind::{Callgrind, LibraryBenchmarkConfig, main};
use mixtures::mixtures_group;
use products::products_group;
use quantised::quantised_group;
use recurrent::recurrent_group;
use rivals::rivals_group;
use rows::rows_group;
use variants::variants_group;

main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"]));
    library_benchmark_groups =
        products_group,
        rivals_group,
        quantised_group,
        formats_group,
        attention_group,
        variants_group,
        caches_group,
        block_group,
        rows_group,
        mixtures_group,
        recurrent_group,
        encoders_group
);
