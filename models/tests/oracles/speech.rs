//! Whisper: what the encoder gives, and logits that are the same in any chunks.

use crate::runs::{assert_right, everywhere, in_chunks, models_of, pieces};
use crate::values::assert_same_bits;
use kvern::{Context, MatRef};
use kvern_models::{LoadOptions, Runtime, SpeechDecoder, load_speech_decoder};

/// The logits of a new sequence over the same spectrogram, in chunks of these lengths.
fn logits(rt: &mut Runtime, model: &mut dyn SpeechDecoder, tokens: &[u32], chunks: &[usize]) -> Vec<f32> {
    model.reset();
    let all = in_chunks(tokens, chunks, |chunk| model.forward(rt, chunk).unwrap());
    assert_eq!(model.len(), tokens.len());
    all
}

#[test]
fn whisper_is_right_and_the_same_in_any_chunks() {
    for model in models_of("whisper") {
        let (tokens, features) = (model.values.tokens("input_ids"), model.values.floats("input_features"));
        let n = tokens.len();
        let [encoder, decoder] = everywhere(&model.name, |rt| {
            let mut whisper = load_speech_decoder(rt, &model.checkpoint, &LoadOptions::new(n)).unwrap();
            let spectrogram = MatRef::dense(&features, whisper.bands(), whisper.frames()).unwrap();
            let rows = whisper.listen(rt, spectrogram).unwrap();
            let whole = logits(rt, &mut *whisper, &tokens, &[n]);
            for chunks in [pieces(n), vec![1; n], vec![5, n - 5]] {
                let got = logits(rt, &mut *whisper, &tokens, &chunks);
                assert_same_bits(&got, &whole, &format!("{}, chunks of {chunks:?}", model.name));
            }
            [rows.into_vec(), whole]
        });
        assert_right(&model, "encoder.final", &encoder, &model.values.floats("encoder.final"));
        assert_right(&model, "logits", &decoder, &model.values.floats("logits"));
    }
}

/// A second spectrogram takes the place of the first one, whatever their lengths.
#[test]
fn whisper_forgets_what_it_heard_before() {
    for model in models_of("whisper") {
        let (tokens, features) = (model.values.tokens("input_ids"), model.values.floats("input_features"));
        let mut rt = Runtime::new(Context::serial()).unwrap();
        let options = LoadOptions::new(tokens.len());
        let mut whisper = load_speech_decoder(&rt, &model.checkpoint, &options).unwrap();
        let (bands, frames) = (whisper.bands(), whisper.frames());
        let whole = MatRef::dense(&features, bands, frames).unwrap();
        let part = MatRef::new(&features, bands, 7, frames).unwrap();
        whisper.listen(&mut rt, whole).unwrap();
        let of_whole = whisper.forward(&mut rt, &tokens).unwrap();
        // Frames in pairs, the last one alone.
        assert_eq!(whisper.listen(&mut rt, part).unwrap().rows(), 4);
        assert_eq!(whisper.len(), 0);
        assert_ne!(whisper.forward(&mut rt, &tokens).unwrap(), of_whole);
        whisper.listen(&mut rt, whole).unwrap();
        assert_same_bits(&whisper.forward(&mut rt, &tokens).unwrap(), &of_whole, &model.name);
    }
}
