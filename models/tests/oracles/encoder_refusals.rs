//! Encoders refuse bad checkpoints and bad inputs with names and numbers; other names of the same tensors are
//! known.

use crate::folders::fixtures;
use crate::values::{Values, assert_same_bits};
use kvern::{Context, MatRef};
use kvern_models::{
    Checkpoint, Error, ImageEncoder, LoadOptions, Result, Runtime, load_dual_encoder, load_image_encoder,
    load_speech_decoder, load_text_encoder,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// A copy of a fixture with another configuration, and tensors of other names: `None` leaves one out.
fn copy(family: &str, config: impl FnOnce(&mut Value), rename: impl Fn(&str) -> Option<String>) -> TempDir {
    let (from, dir) = (fixtures().join(family), tempfile::tempdir().unwrap());
    let mut json: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    config(&mut json);
    std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    let weights = std::fs::read(from.join("weights.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&weights).unwrap().tensors();
    let renamed = tensors.into_iter().filter_map(|(name, tensor)| Some((rename(&name)?, tensor)));
    let bytes = safetensors::serialize(renamed.collect::<Vec<_>>(), None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

fn same(name: &str) -> Option<String> {
    Some(name.into())
}

/// Loads what the family is, and runs it on a little input of a size that the model asks for.
fn load(family: &str, dir: &Path) -> Result<()> {
    let mut rt = Runtime::new(Context::serial())?;
    let (checkpoint, options) = (Checkpoint::open(dir)?, LoadOptions::new(8));
    let pixels = |encoder: &dyn ImageEncoder| vec![0.5; encoder.channels() * encoder.size().pow(2)];
    match family {
        "bert" => {
            let bert = load_text_encoder(&rt, &checkpoint, &options)?;
            bert.encode(&mut rt, &[&[1, 2, 3], &[4]])?.mean(&rt).map(drop)
        }
        "clip" => {
            let clip = load_dual_encoder(&rt, &checkpoint, &options)?;
            let texts = clip.text().encode(&mut rt, &[&[94, 2, 95]])?.pooled.unwrap();
            let images = clip.image().encode(&mut rt, &pixels(clip.image()))?.pooled.unwrap();
            clip.logits(&mut rt, &texts, &images).map(drop)
        }
        "siglip" => {
            let siglip = load_image_encoder(&rt, &checkpoint, &options)?;
            siglip.encode(&mut rt, &pixels(&*siglip)).map(drop)
        }
        _ => {
            let mut whisper = load_speech_decoder(&rt, &checkpoint, &options)?;
            let noise = vec![0.5; whisper.bands() * whisper.frames()];
            let spectrogram = MatRef::dense(&noise, whisper.bands(), whisper.frames())?;
            whisper.listen(&mut rt, spectrogram)?;
            whisper.forward(&mut rt, &[1, 2]).map(drop)
        }
    }
}

fn field<'a>(config: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(config, |value, key| &mut value[key])
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let huge = || Value::from(u64::MAX);
    for (family, path, value, words) in [
        ("bert", "hidden_size", 0.into(), ["[64, 64]", "[0, 0]"]),
        ("bert", "hidden_size", huge(), ["[64, 64]", "18446744073709551615"]),
        ("bert", "num_attention_heads", 0.into(), ["0 heads", "64"]),
        ("bert", "num_attention_heads", 7.into(), ["7 heads", "64"]),
        ("bert", "hidden_act", "sine".into(), ["sine", "gelu"]),
        ("bert", "max_position_embeddings", 65.into(), ["[64, 64]", "[65, 64]"]),
        ("bert", "num_hidden_layers", huge(), ["encoder.layer.2", "missing"]),
        ("bert", "layer_norm_eps", Value::Null, ["invalid type", "f32"]),
        ("clip", "projection_dim", 33.into(), ["text_projection.weight", "[33, 64]"]),
        ("clip", "text_config.num_attention_heads", 5.into(), ["5 heads", "64"]),
        ("clip", "vision_config.patch_size", 0.into(), ["patch_size = 0", "image_size = 32"]),
        ("clip", "vision_config.patch_size", 33.into(), ["patch_size = 33", "image_size = 32"]),
        ("clip", "vision_config.image_size", huge(), ["position_embedding", "[17, 64]"]),
        ("clip", "vision_config.hidden_size", 0.into(), ["hidden_size = 0", "at least 1"]),
        ("clip", "vision_config", Value::Null, ["invalid type", "VisionConfig"]),
        ("siglip", "image_size", 40.into(), ["[16, 64]", "[25, 64]"]),
        ("siglip", "num_channels", 0.into(), ["num_channels = 0", "at least 1"]),
        ("siglip", "patch_size", 16.into(), ["[64, 3, 8, 8]", "[64, 3, 16, 16]"]),
        ("whisper", "d_model", huge(), ["shape = [64]", "18446744073709551615"]),
        ("whisper", "num_mel_bins", 80.into(), ["[64, 16, 3]", "[64, 80, 3]"]),
        ("whisper", "max_source_positions", huge(), ["encoder.embed_positions", "[24, 64]"]),
        ("whisper", "max_target_positions", huge(), ["decoder.embed_positions", "[32, 64]"]),
        ("whisper", "decoder_attention_heads", 0.into(), ["0 heads", "64"]),
        ("whisper", "decoder_layers", 3.into(), ["decoder.layers.2", "missing"]),
        ("whisper", "activation_function", "sine".into(), ["sine", "gelu"]),
    ] {
        let dir = copy(family, |config| *field(config, path) = value.clone(), same);
        let error = load(family, dir.path()).expect_err(path).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{family}: {path} = {value}: {error}");
    }
}

/// The paths of all fields, those of nested configurations with a dot.
fn fields(config: &Value) -> Vec<String> {
    let all = config.as_object().unwrap().iter();
    all.flat_map(|(name, value)| match value {
        Value::Object(_) => {
            let inner = fields(value).into_iter().map(|inner| format!("{name}.{inner}"));
            inner.chain([name.clone()]).collect()
        }
        _ => vec![name.clone()],
    })
    .collect()
}

/// Whatever one field holds, an error says so or the model runs.
#[test]
fn no_value_of_any_field_of_any_encoder_panics() {
    let values = [json!(null), json!(0), json!(3), json!(-1.5), json!(u64::MAX), json!("word"), json!([])];
    for family in ["bert", "clip", "siglip", "whisper"] {
        let (mut refused, mut ran) = (0, 0);
        let dir = copy(family, |_| (), same);
        let file = dir.path().join("config.json");
        let whole: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for path in fields(&whole) {
            for value in &values {
                let mut config = whole.clone();
                *field(&mut config, &path) = value.clone();
                std::fs::write(&file, config.to_string()).unwrap();
                *(if load(family, dir.path()).is_ok() { &mut ran } else { &mut refused }) += 1;
            }
        }
        assert!(refused > 0 && ran > 0, "{family}: {refused} configurations were refused, {ran} ran");
    }
}

#[test]
fn missing_tensors_and_other_families_are_named() {
    for (family, name) in [
        ("bert", "encoder.layer.1.output.LayerNorm.bias"),
        ("clip", "logit_scale"),
        ("clip", "vision_model.embeddings.class_embedding"),
        ("siglip", "head.attention.in_proj_bias"),
        ("whisper", "model.encoder.conv2.weight"),
    ] {
        let dir = copy(family, |_| (), |known| (known != name).then(|| known.into()));
        let error = load(family, dir.path()).expect_err(name);
        assert!(matches!(&error, Error::MissingTensor { name: got } if got == name), "{error}");
    }
    for (family, other) in [("bert", "whisper"), ("clip", "bert"), ("siglip", "bert"), ("whisper", "bert")] {
        let error = load(family, &fixtures().join(other)).expect_err(other).to_string();
        assert!(error.contains(&format!("model_type = {other}")), "{error}");
    }
}

#[test]
fn texts_that_do_not_fit_are_refused() {
    let mut rt = Runtime::new(Context::serial()).unwrap();
    let checkpoint = Checkpoint::open(&fixtures().join("bert")).unwrap();
    let bert = load_text_encoder(&rt, &checkpoint, &LoadOptions::new(3)).unwrap();
    let mut refusal = |texts: &[&[u32]]| bert.encode(&mut rt, texts).unwrap_err();
    let error = refusal(&[&[1], &[2, 96]]);
    assert!(matches!(error, Error::Token { id: 96, vocabulary: 96 }), "{error}");
    let error = refusal(&[&[1], &[2, 3, 4, 5]]);
    assert!(matches!(error, Error::Full { len: 0, adding: 4, capacity: 3 }), "{error}");
    let error = refusal(&[&[1], &[]]).to_string();
    assert!(error.contains("tokens of a sequence"), "{error}");
    let none = bert.encode(&mut rt, &[]).unwrap();
    assert_eq!((none.hidden.rows(), none.pooled.as_ref().unwrap().rows(), none.starts.len()), (0, 0, 1));
    assert_eq!(none.mean(&rt).unwrap().rows(), 0);
}

#[test]
fn images_that_are_not_whole_are_refused() {
    let mut rt = Runtime::new(Context::serial()).unwrap();
    for family in ["clip", "siglip"] {
        let checkpoint = Checkpoint::open(&fixtures().join(family)).unwrap();
        let encoder = load_image_encoder(&rt, &checkpoint, &LoadOptions::new(0)).unwrap();
        assert_eq!((encoder.channels(), encoder.size()), (3, 32));
        let error = encoder.encode(&mut rt, &[0.0; 3 * 32 * 32 + 5]).unwrap_err().to_string();
        assert!(error.contains("pixels.len modulo channels * size^2 = 5"), "{error}");
        assert_eq!(encoder.encode(&mut rt, &[]).unwrap().pooled.unwrap().rows(), 0);
    }
}

#[test]
fn speech_that_does_not_fit_is_refused() {
    let mut rt = Runtime::new(Context::serial()).unwrap();
    let checkpoint = Checkpoint::open(&fixtures().join("whisper")).unwrap();
    let mut whisper = load_speech_decoder(&rt, &checkpoint, &LoadOptions::new(4)).unwrap();
    let error = whisper.forward(&mut rt, &[1]).unwrap_err().to_string();
    assert!(error.contains("rows of the encoder = 0"), "{error}");
    let noise = [0.25; 17 * 49];
    for (bands, frames, word) in [
        (17, 48, "spectrogram.rows = 17"),
        (16, 49, "spectrogram.cols = 49"),
        (16, 0, "spectrogram.cols = 0"),
    ] {
        let spectrogram = MatRef::dense(&noise, bands, frames).unwrap();
        let error = whisper.listen(&mut rt, spectrogram).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    whisper.listen(&mut rt, MatRef::dense(&noise, 16, 48).unwrap()).unwrap();
    let first = whisper.forward(&mut rt, &[1, 2]).unwrap();
    let error = whisper.forward(&mut rt, &[3, 4, 5]).unwrap_err();
    assert!(matches!(error, Error::Full { len: 2, adding: 3, capacity: 4 }), "{error}");
    assert!(whisper.forward(&mut rt, &[]).unwrap().is_empty());
    whisper.reset();
    assert_eq!(whisper.forward(&mut rt, &[1, 2]).unwrap(), first);
}

/// Models for a task, and models of texts and images, hold an encoder below a name.
#[test]
fn tensors_below_a_name_are_found() {
    let mut rt = Runtime::new(Context::serial()).unwrap();
    let options = LoadOptions::new(24);

    let dir = copy("bert", |_| (), |name| Some(format!("bert.{name}")));
    let mut encode = |dir: &Path| {
        let model = load_text_encoder(&rt, &Checkpoint::open(dir).unwrap(), &options).unwrap();
        model.encode(&mut rt, &[&[1, 2, 3]]).unwrap()
    };
    let whole = encode(&fixtures().join("bert"));
    assert_eq!(encode(dir.path()), whole);
    let dir = copy("bert", |_| (), |name| (!name.starts_with("pooler")).then(|| name.into()));
    let unpooled = encode(dir.path());
    assert_eq!((unpooled.hidden, unpooled.pooled), (whole.hidden, None));

    let pixels = Values::open(&fixtures().join("siglip")).floats("input_pixels");
    let mut encode = |dir: &Path| {
        let model = load_image_encoder(&rt, &Checkpoint::open(dir).unwrap(), &options).unwrap();
        model.encode(&mut rt, &pixels).unwrap().pooled.unwrap().into_vec()
    };
    let nest = |config: &mut Value| {
        *config = json!({"model_type": "siglip", "vision_config": config.clone()});
    };
    let dir = copy("siglip", nest, |name| Some(format!("vision_model.{name}")));
    assert_same_bits(&encode(dir.path()), &encode(&fixtures().join("siglip")), "siglip");
}
