//! Encoders of texts and images: right values, and for each sequence and each image the same bits in any
//! batch.

use crate::runs::{Model, assert_right, everywhere, models_of};
use crate::values::{Values, assert_same_bits};
use kvern_models::families::encoders::encoder_types;
use kvern_models::{
    Encoding, ImageEncoder, LoadOptions, Runtime, TextEncoder, load_dual_encoder, load_image_encoder,
    load_text_encoder,
};

/// The rows of tokens without padding.
fn sequences(values: &Values) -> Vec<Vec<u32>> {
    let (tokens, mask) = (values.tokens("input_ids"), values.tokens("attention_mask"));
    let rows = tokens.chunks(24).zip(mask.chunks(24));
    rows.map(|(row, mask)| row.iter().zip(mask).filter(|(_, seen)| **seen == 1).map(|(id, _)| *id).collect())
        .collect()
}

/// The rows of `all`, (sequences, 24, n), that are no padding.
fn real_rows(all: &[f32], sequences: &[Vec<u32>]) -> Vec<f32> {
    let n = all.len() / 24 / sequences.len();
    all.chunks(24 * n).zip(sequences).flat_map(|(rows, ids)| &rows[..ids.len() * n]).copied().collect()
}

fn pooled(encoding: &Encoding) -> &[f32] {
    encoding.pooled.as_ref().unwrap().as_slice()
}

/// A batch of texts; each of them alone, and in a batch of two, has the same bits.
fn encode_texts(rt: &mut Runtime, model: &dyn TextEncoder, texts: &[Vec<u32>]) -> Encoding {
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let all = model.encode(rt, &texts).unwrap();
    for (s, &text) in texts.iter().enumerate() {
        let alone = model.encode(rt, &[text]).unwrap();
        let of_two = model.encode(rt, &[texts[0], text]).unwrap();
        assert_eq!(alone.starts, [0, text.len()]);
        let part = |all: &Encoding, s: usize| {
            let (n, m) = (all.hidden.cols(), all.pooled.as_ref().unwrap().cols());
            let hidden = &all.hidden.as_slice()[all.starts[s] * n..all.starts[s + 1] * n];
            [hidden.to_vec(), pooled(all)[s * m..(s + 1) * m].to_vec()]
        };
        for (others, at) in [(&all, s), (&of_two, 1)] {
            for (got, want) in part(others, at).iter().zip(part(&alone, 0)) {
                assert_same_bits(got, &want, &format!("text {s} among others"));
            }
        }
    }
    all
}

/// A batch of images; each of them alone has the same bits.
fn encode_images(rt: &mut Runtime, model: &dyn ImageEncoder, pixels: &[f32]) -> Encoding {
    let all = model.encode(rt, pixels).unwrap();
    let images = pixels.chunks(model.channels() * model.size() * model.size());
    let (mut hidden, mut vectors) = (Vec::new(), Vec::new());
    for image in images {
        let alone = model.encode(rt, image).unwrap();
        hidden.extend_from_slice(alone.hidden.as_slice());
        vectors.extend_from_slice(pooled(&alone));
    }
    assert_same_bits(&hidden, all.hidden.as_slice(), "images alone");
    assert_same_bits(&vectors, pooled(&all), "images alone");
    all
}

#[test]
fn every_encoder_has_a_fixture() {
    // The images' half of siglip is what siglip_vision_model is: see the test of names.
    encoder_types().filter(|known| *known != "siglip").for_each(|known| drop(models_of(known)));
}

#[test]
fn bert_is_right_and_a_text_has_the_same_bits_in_any_batch() {
    for model in models_of("bert") {
        let texts = sequences(&model.values);
        assert_eq!(texts.iter().map(Vec::len).collect::<Vec<_>>(), [24, 13, 1]);
        let [hidden, pooled] = everywhere(&model.name, |rt| {
            let bert = load_text_encoder(rt, &model.checkpoint, &LoadOptions::new(24)).unwrap();
            let all = encode_texts(rt, &*bert, &texts);
            [all.hidden.as_slice().to_vec(), pooled(&all).to_vec()]
        });
        let want = real_rows(&model.values.floats("last_hidden_state"), &texts);
        assert_right(&model, "last_hidden_state", &hidden, &want);
        assert_right(&model, "pooler_output", &pooled, &model.values.floats("pooler_output"));
    }
}

/// Both halves and the logits.
fn clip(model: &Model, rt: &mut Runtime, texts: &[Vec<u32>], pixels: &[f32]) -> [Vec<f32>; 5] {
    let clip = load_dual_encoder(rt, &model.checkpoint, &LoadOptions::new(24)).unwrap();
    let text = encode_texts(rt, clip.text(), texts);
    let image = encode_images(rt, clip.image(), pixels);
    let (t, i) = (text.pooled.as_ref().unwrap(), image.pooled.as_ref().unwrap());
    let logits = clip.logits(rt, t, i).unwrap();
    let hidden = [&text, &image].map(|encoding| encoding.hidden.as_slice().to_vec());
    let [text_rows, image_rows] = hidden;
    [text_rows, pooled(&text).to_vec(), image_rows, pooled(&image).to_vec(), logits.into_vec()]
}

#[test]
fn clip_is_right_and_texts_and_images_have_the_same_bits_in_any_batch() {
    for model in models_of("clip") {
        let (texts, pixels) = (sequences(&model.values), model.values.floats("input_pixels"));
        let [text, text_embeds, image, image_embeds, logits] =
            everywhere(&model.name, |rt| clip(&model, rt, &texts, &pixels));
        let want = real_rows(&model.values.floats("text.last_hidden_state"), &texts);
        assert_right(&model, "text.last_hidden_state", &text, &want);
        for (what, got) in [
            ("text_embeds", text_embeds),
            ("vision.last_hidden_state", image),
            ("image_embeds", image_embeds),
            ("logits_per_text", logits),
        ] {
            assert_right(&model, what, &got, &model.values.floats(what));
        }
    }
}

/// The halves load alone, and what fills a row behind the end of the text changes nothing.
#[test]
fn clip_pools_at_the_end_of_the_text() {
    for model in models_of("clip") {
        let (texts, tokens) = (sequences(&model.values), model.values.tokens("input_ids"));
        let padded: Vec<_> = tokens.chunks(24).map(<[u32]>::to_vec).collect();
        let mut rt = Runtime::new(kvern::Context::serial()).unwrap();
        let options = LoadOptions::new(24);
        let half = load_text_encoder(&rt, &model.checkpoint, &options).unwrap();
        let (real, filled) = (encode_texts(&mut rt, &*half, &texts), encode_texts(&mut rt, &*half, &padded));
        assert_same_bits(pooled(&filled), pooled(&real), &model.name);
        let pixels = model.values.floats("input_pixels");
        let [.., image_embeds, _] = clip(&model, &mut rt, &texts, &pixels);
        let half = load_image_encoder(&rt, &model.checkpoint, &options).unwrap();
        assert_same_bits(pooled(&encode_images(&mut rt, &*half, &pixels)), &image_embeds, &model.name);
    }
}

#[test]
fn siglip_is_right_and_an_image_has_the_same_bits_in_any_batch() {
    for model in models_of("siglip_vision_model") {
        let pixels = model.values.floats("input_pixels");
        let [hidden, pooled] = everywhere(&model.name, |rt| {
            let siglip = load_image_encoder(rt, &model.checkpoint, &LoadOptions::new(0)).unwrap();
            let all = encode_images(rt, &*siglip, &pixels);
            [all.hidden.as_slice().to_vec(), pooled(&all).to_vec()]
        });
        assert_right(&model, "last_hidden_state", &hidden, &model.values.floats("last_hidden_state"));
        assert_right(&model, "pooler_output", &pooled, &model.values.floats("pooler_output"));
    }
}
