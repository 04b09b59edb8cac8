//! Trained weights are one hash on any number of threads and every tier.

use kvern::{Context, ContextOptions, Isa};
use mini::cli::ModelArgs;
use mini::model::Shape;
use mini::text::Dataset;
use mini::train::{Batches, Schedule, StepReport, Trainer};

/// The weights that `mini train` prints the hash of: the seed's network after the seed's training.
const GOLDEN: &str = "8bf9d272e6021a1bbd2d4470893cb74a59e3aeeecb8fcf99cff31307b888be44";

/// The same weights after three steps: the scalar tier computes its FMAs in software where the build has
/// none, at most of a second a step. `mini train --isa scalar --train-threads N` gives the hash above at any
/// N.
const GOLDEN_OF_THREE_STEPS: &str = "4462dfc82426c52a225893af43e75eb4c214f1a2001d6812252b7c4cccef60d4";

const SCHEDULE: Schedule = Schedule { rate: 1e-3, warmup: 10, decay: None };

fn context(isa: Isa, threads: usize) -> Context {
    Context::new(&ContextOptions::default().isa_cap(isa).threads(threads)).unwrap()
}

fn train(ctx: &Context, shape: Shape, batch: (usize, usize), steps: u64) -> (String, Vec<StepReport>) {
    let ids = Dataset::seed().training;
    let batches = Batches::new(&ids, 42, batch.0, batch.1).unwrap();
    let mut trainer = Trainer::initial(ctx, shape, 42, batch).unwrap();
    let step = |i| {
        let (inputs, targets) = batches.get(i);
        trainer.step((&inputs, &targets), &SCHEDULE, 1.0).unwrap()
    };
    let reports = (0..steps).map(step).collect();
    (trainer.weights().sha256(), reports)
}

#[test]
fn three_steps_give_the_golden_weights_on_every_tier_and_number_of_threads() {
    let shape = ModelArgs::default().shape();
    for &isa in Isa::available() {
        for threads in [1, 2, 8] {
            let ctx = context(isa, threads);
            assert_eq!(train(&ctx, shape, (4, 64), 3).0, GOLDEN_OF_THREE_STEPS, "{isa}, {threads} threads");
        }
    }
}

#[test]
fn the_default_training_gives_the_golden_weights_on_every_tier_and_number_of_threads() {
    let shape = ModelArgs::default().shape();
    for &isa in Isa::available().iter().filter(|&&isa| isa != Isa::Scalar) {
        for threads in [1, 2, 8] {
            let ctx = context(isa, threads);
            let (hash, reports) = train(&ctx, shape, (4, 64), 100);
            assert_eq!(hash, GOLDEN, "{isa}, {threads} threads");
            let loss = |range: std::ops::Range<usize>| {
                reports[range].iter().map(|report| report.loss).sum::<f64>() / 10.0
            };
            assert!(loss(90..100) < loss(0..10), "the loss falls");
        }
    }
}

#[test]
fn ragged_sizes_and_more_layers_change_nothing_in_that() {
    let args = ModelArgs { dim: 40, heads: 5, ffn: 72, layers: 2, context: 33, seed: 1 };
    let (expected, reports) = train(&Context::serial(), args.shape(), (3, 33), 5);
    for &isa in Isa::available() {
        for threads in [1, 3] {
            assert_eq!(
                train(&context(isa, threads), args.shape(), (3, 33), 5),
                (expected.clone(), reports.clone())
            );
        }
    }
}

#[test]
fn a_small_text_is_learnt_by_heart() {
    let ctx = Context::serial();
    let shape = Shape { vocabulary: 17, dim: 32, heads: 2, ffn: 64, layers: 1, context: 16 };
    let ids: Vec<u32> = (0..200).map(|i| i * i % 17).collect();
    let batches = Batches::new(&ids, 1, 4, 16).unwrap();
    let mut trainer = Trainer::initial(&ctx, shape, 1, (4, 16)).unwrap();
    // The rate falls to zero: at a constant one the loss of the last step is a matter of chance.
    let schedule = Schedule { rate: 1e-2, decay: Some(150), ..SCHEDULE };
    let mut last = f64::MAX;
    for i in 0..150 {
        let (inputs, targets) = batches.get(i);
        let report = trainer.step((&inputs, &targets), &schedule, 1.0).unwrap();
        assert!(report.norm > 0.0 && report.rate <= 1e-2);
        last = report.loss;
    }
    assert!(last < 0.2, "{last}");
    assert_eq!(trainer.adam().step, 150);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let ctx = Context::serial();
    let shape = Shape { vocabulary: 5, dim: 16, heads: 1, ffn: 16, layers: 1, context: 8 };
    let error = Trainer::initial(&ctx, shape, 1, (1, 9)).err().unwrap().to_string();
    assert_eq!(error, "--seq 9 is more than --context 8");
    let mut trainer = Trainer::initial(&ctx, shape, 1, (1, 4)).unwrap();
    let before = trainer.weights().sha256();
    assert!(trainer.gradients_of(&[1; 5], &[1; 5]).is_err());
    assert!(trainer.gradients_of(&[5; 4], &[1; 4]).is_err());
    assert!(trainer.gradients_of(&[1; 4], &[5; 4]).is_err());
    assert_eq!(trainer.weights().sha256(), before);
}
