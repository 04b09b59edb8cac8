//! Decoders: logits within a tolerance of the right ones, and the same bits however they are computed.

use crate::folders::{model_type, models};
use crate::values::{Values, assert_same_bits, error};
use kvern::quant::WeightFormat;
use kvern::{Context, ContextOptions, Isa};
use kvern_models::families::decoder_types;
use kvern_models::families::encoders::encoder_types;
use kvern_models::{Checkpoint, Decoder, LoadOptions, Runtime, load_decoder};

/// The largest error that a family may have, relative to its largest right logit: about three times the error
/// of an f32 implementation of it in another order of operations.
fn tolerance(model_type: &str) -> f32 {
    match model_type {
        // A norm after the delta rule divides by small numbers.
        "qwen3_next" => 1.3e-5,
        _ => 4e-6,
    }
}

fn runtime(isa: Isa, threads: usize) -> Runtime {
    Runtime::new(Context::new(&ContextOptions::default().isa_cap(isa).threads(threads)).unwrap()).unwrap()
}

/// The logits of a new sequence that comes in chunks of these lengths.
fn logits(rt: &mut Runtime, model: &mut dyn Decoder, tokens: &[u32], chunks: &[usize]) -> Vec<f32> {
    model.reset();
    let (mut all, mut rest) = (Vec::new(), tokens);
    for &len in chunks {
        let (chunk, after) = rest.split_at(len);
        all.extend(model.forward(rt, chunk).unwrap());
        rest = after;
    }
    assert!(rest.is_empty() && model.len() == tokens.len(), "chunks cover the tokens");
    all
}

/// 11 and 6 tokens, then one by one.
fn pieces(tokens: usize) -> Vec<usize> {
    let first = tokens.min(11);
    let second = (tokens - first).min(6);
    let mut pieces = vec![first, second];
    pieces.extend(vec![1; tokens - first - second]);
    pieces
}

/// Each decoder of the folders, whose families the registry has.
fn for_each_decoder(mut test: impl FnMut(&str, &str, &Checkpoint, &Values)) {
    let mut seen = 0;
    for dir in models() {
        let (name, model_type) = (dir.display().to_string(), model_type(&dir));
        if encoder_types().any(|known| known == model_type) {
            continue;
        }
        if !decoder_types().any(|known| known == model_type) {
            eprintln!("skipped: {name}: no decoder has the model_type {model_type}");
            continue;
        }
        test(&name, &model_type, &Checkpoint::open(&dir).unwrap(), &Values::open(&dir));
        seen += 1;
    }
    assert!(seen > 0, "no decoder was found");
}

#[test]
fn every_decoder_has_a_fixture() {
    let mut found = Vec::new();
    for_each_decoder(|_, model_type, _, _| found.push(model_type.to_string()));
    for known in decoder_types() {
        assert!(found.iter().any(|model_type| model_type == known), "no fixture of {known}");
    }
}

#[test]
fn logits_are_right_and_the_same_at_every_tier_on_any_threads_in_any_chunks() {
    for_each_decoder(|name, model_type, checkpoint, values| {
        let (tokens, want) = (values.tokens("input_ids"), values.floats("logits"));
        let n = tokens.len();
        let mut whole: Option<Vec<f32>> = None;
        for isa in Isa::ALL {
            if !isa.is_available() {
                eprintln!("skipped: this machine has no {isa}");
                continue;
            }
            for threads in [1, 2, 3, 8] {
                let mut rt = runtime(isa, threads);
                let mut model = load_decoder(&rt, checkpoint, &LoadOptions::new(n)).unwrap();
                for chunks in [vec![n], pieces(n), vec![1; n]] {
                    let got = logits(&mut rt, &mut *model, &tokens, &chunks);
                    let what = format!("{name}, {isa}, {threads} threads, chunks of {chunks:?}");
                    assert_same_bits(&got, whole.get_or_insert_with(|| got.clone()), &what);
                }
            }
        }
        let error = error(whole.as_deref().unwrap_or_default(), &want);
        eprintln!("{name}: relative error {error:e}");
        assert!(error <= tolerance(model_type), "{name}: relative error {error:e}");
    });
}

/// Weights of 8 bits move the logits a little, and not at all with the chunks.
#[test]
fn quantised_weights_give_the_same_bits_in_any_chunks() {
    for_each_decoder(|name, _, checkpoint, values| {
        let (tokens, want) = (values.tokens("input_ids"), values.floats("logits"));
        let mut rt = runtime(Isa::detect(), 2);
        let options = LoadOptions::new(tokens.len()).format(WeightFormat::Q8_0);
        let Ok(mut model) = load_decoder(&rt, checkpoint, &options) else {
            eprintln!("skipped: {name}: a width that is no multiple of the block");
            return;
        };
        let whole = logits(&mut rt, &mut *model, &tokens, &[tokens.len()]);
        let parts = logits(&mut rt, &mut *model, &tokens, &pieces(tokens.len()));
        assert_same_bits(&parts, &whole, name);
        let error = error(&whole, &want);
        assert!(error > 0.0 && error < 0.5, "{name}: relative error {error:e}");
    });
}
