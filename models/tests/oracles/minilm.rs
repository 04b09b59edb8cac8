//! The sentence encoder all-MiniLM-L6-v2 with its published weights: `KVERN_MINILM_DIR` names the folder that
//! holds its `config.json` and `model.safetensors`.

use crate::folders::fixtures;
use crate::runs::everywhere;
use crate::values::{Values, assert_same_bits, error};
use kvern::Context;
use kvern_models::{Checkpoint, LoadOptions, Runtime, load_text_encoder};
use std::path::Path;

/// Tokens of a row of the fixture, and of the longest sentence.
const TOKENS: usize = 256;

/// Twelve sentences, 2 to 256 tokens long, in one batch and alone, against embeddings computed in f64.
#[test]
fn embeddings_of_the_published_minilm_are_right() {
    let Some(dir) = std::env::var_os("KVERN_MINILM_DIR") else {
        eprintln!("skipped: KVERN_MINILM_DIR names no folder of all-MiniLM-L6-v2");
        return;
    };
    let checkpoint = Checkpoint::open(Path::new(&dir)).unwrap();
    let values = Values::open(&fixtures().join("minilm"));
    let (rows, lengths) = (values.tokens("input_ids"), values.tokens("lengths"));
    let sentences: Vec<&[u32]> =
        rows.chunks(TOKENS).zip(&lengths).map(|(row, &len)| &row[..len as usize]).collect();
    let [embeddings] = everywhere("minilm", |rt| {
        let model = load_text_encoder(rt, &checkpoint, &LoadOptions::new(TOKENS)).unwrap();
        [model.encode(rt, &sentences).unwrap().mean(rt).unwrap().into_vec()]
    });
    let mut rt = Runtime::new(Context::serial()).unwrap();
    let model = load_text_encoder(&rt, &checkpoint, &LoadOptions::new(TOKENS)).unwrap();
    for (sentence, want) in sentences.iter().zip(embeddings.chunks(embeddings.len() / sentences.len())) {
        let alone = model.encode(&mut rt, &[sentence]).unwrap().mean(&rt).unwrap();
        assert_same_bits(alone.as_slice(), want, "a sentence alone");
    }
    let error = error(&embeddings, &values.floats("embeddings"));
    eprintln!("minilm: relative error {error:e}");
    assert!(error <= 1e-6, "relative error {error:e}");
}
