//! Decoders: logits within a tolerance of the right ones, and the same bits however they are computed.

use crate::folders::{model_type, models};
use crate::runs::{TOLERANCE, everywhere, in_chunks, pieces};
use crate::values::{Values, assert_same_bits, error};
use kvern::quant::WeightFormat;
use kvern::{Context, ContextOptions};
use kvern_models::families::decoder_types;
use kvern_models::families::encoders::encoder_types;
use kvern_models::{Checkpoint, Decoder, LoadOptions, Runtime, load_decoder};

/// The largest error that a family may have, relative to its largest right logit.
fn tolerance(model_type: &str) -> f32 {
    match model_type {
        // A norm after the delta rule divides by small numbers.
        "qwen3_next" => 1.3e-5,
        _ => TOLERANCE,
    }
}

/// The logits of a new sequence that comes in chunks of these lengths.
fn logits(rt: &mut Runtime, model: &mut dyn Decoder, tokens: &[u32], chunks: &[usize]) -> Vec<f32> {
    model.reset();
    let all = in_chunks(tokens, chunks, |chunk| model.forward(rt, chunk).unwrap());
    assert_eq!(model.len(), tokens.len());
    all
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
        let [whole] = everywhere(name, |rt| {
            let mut model = load_decoder(rt, checkpoint, &LoadOptions::new(n)).unwrap();
            let whole = logits(rt, &mut *model, &tokens, &[n]);
            for chunks in [pieces(n), vec![1; n]] {
                let got = logits(rt, &mut *model, &tokens, &chunks);
                assert_same_bits(&got, &whole, &format!("{name}, chunks of {chunks:?}"));
            }
            [whole]
        });
        let error = error(&whole, &want);
        eprintln!("{name}: relative error {error:e}");
        assert!(error <= tolerance(model_type), "{name}: relative error {error:e}");
    });
}

/// Weights of 8 bits move the logits a little, and not at all with the chunks.
#[test]
fn quantised_weights_give_the_same_bits_in_any_chunks() {
    for_each_decoder(|name, _, checkpoint, values| {
        let (tokens, want) = (values.tokens("input_ids"), values.floats("logits"));
        let mut rt = Runtime::new(Context::new(&ContextOptions::default().threads(2)).unwrap()).unwrap();
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
