//! Bad checkpoints and bad tokens are refused with their names and numbers, and nothing panics.

use crate::folders::{fixtures, models};
use kvern::Context;
use kvern_models::{Checkpoint, Error, LoadOptions, Result, Runtime, load_decoder};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// A copy of the Llama fixture with another configuration and other tensors.
fn copy<'a>(
    weights: &'a [u8],
    config: impl FnOnce(&mut Value),
    tensors: impl FnOnce(&mut Vec<(String, TensorView<'a>)>),
) -> TempDir {
    let (from, dir) = (fixtures().join("llama"), tempfile::tempdir().unwrap());
    let mut json: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    config(&mut json);
    std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    let mut all = SafeTensors::deserialize(weights).unwrap().tensors();
    tensors(&mut all);
    let bytes = safetensors::serialize(all, None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

fn weights() -> Vec<u8> {
    std::fs::read(fixtures().join("llama/weights.safetensors")).unwrap()
}

fn load(dir: &Path) -> Result<()> {
    let rt = Runtime::new(Context::serial())?;
    load_decoder(&rt, &Checkpoint::open(dir)?, &LoadOptions::new(24)).map(|_| ())
}

#[track_caller]
fn refuses(result: Result<()>, words: &[&str]) {
    let error = result.expect_err("refused").to_string();
    for word in words {
        assert!(error.contains(word), "{error} lacks {word}");
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let name = "model.layers.1.self_attn.k_proj.weight";
    let weights = weights();
    let dir = copy(&weights, |_| (), |all| all.retain(|(known, _)| known != name));
    refuses(load(dir.path()), &[name, "is missing"]);
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let weights = weights();
    let dir = copy(&weights, |config| config["intermediate_size"] = 80.into(), |_| ());
    let name = "model.layers.0.mlp.gate_proj.weight";
    refuses(load(dir.path()), &[name, "[96, 64]", "[80, 64]"]);
}

#[test]
fn a_tensor_of_another_type_is_named() {
    let (weights, bytes) = (weights(), [0u8; 64]);
    let dir = copy(
        &weights,
        |_| (),
        |all| {
            let gain = all.iter_mut().find(|(name, _)| name == "model.norm.weight").unwrap();
            gain.1 = TensorView::new(Dtype::I8, vec![64], &bytes).unwrap();
        },
    );
    refuses(load(dir.path()), &["model.norm.weight", "I8", "must be F32, F16 or BF16"]);
}

#[test]
fn a_model_type_that_no_family_has_is_named() {
    let weights = weights();
    let dir = copy(&weights, |config| config["model_type"] = "abacus".into(), |_| ());
    refuses(load(dir.path()), &["model_type = abacus", "llama"]);
    let dir = copy(&weights, |config| config["model_type"] = Value::Null, |_| ());
    refuses(load(dir.path()), &["missing field `model_type`"]);
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let weights = weights();
    for (field, value, word) in [
        ("hidden_size", Value::Null, "invalid type"),
        ("hidden_act", "sine".into(), "sine"),
        ("num_attention_heads", 0.into(), "q_proj"),
        ("num_key_value_heads", 3.into(), "k_proj"),
        ("head_dim", 0.into(), "q_proj"),
        ("head_dim", u64::MAX.into(), "q_proj"),
        ("vocab_size", u64::MAX.into(), "embed_tokens"),
        ("num_hidden_layers", u64::MAX.into(), "model.layers.2"),
        ("rms_norm_eps", "small".into(), "invalid type"),
        ("rope_parameters", json!({"rope_type": "spiral"}), "spiral"),
    ] {
        let dir = copy(&weights, |config| config[field] = value.clone(), |_| ());
        let error = load(dir.path()).expect_err(field).to_string();
        assert!(error.contains(word), "{field} = {value}: {error}");
    }
    let dir = copy(&weights, |config| drop(config.as_object_mut().unwrap().remove("vocab_size")), |_| ());
    refuses(load(dir.path()), &["vocab_size"]);
}

/// A copy of a fixture whose configuration may be changed.
fn configurable(from: &Path) -> (TempDir, Value) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(from.join("weights.safetensors"), dir.path().join("weights.safetensors")).unwrap();
    (dir, serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap())
}

fn write(dir: &TempDir, config: &Value) {
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
}

#[test]
fn parts_that_single_families_have_are_refused_with_their_numbers() {
    for (family, field, value, words) in [
        ("mixtral", "num_experts_per_tok", json!(5), ["experts of a token = 5", "experts = 4"]),
        ("gpt_oss", "num_local_experts", json!(3), ["router.weight", "[3, 64]"]),
        ("phi3", "num_key_value_heads", json!(4), ["qkv_proj.weight", "[192, 64]"]),
        ("gemma4", "per_layer_config", json!({"1": {"head_dim": 32}}), ["layers.3", "[64, 128]"]),
        ("gemma4", "num_kv_shared_layers", json!(4), ["num_kv_shared_layers: layer = 0", "layers before"]),
        ("gemma4_moe", "top_k_experts", Value::Null, ["missing field", "top_k_experts"]),
        ("gemma3n", "altup_active_idx", json!(3), ["altup_active_idx = 3", "streams = 3"]),
        ("gemma3n", "intermediate_size", json!([64]), ["intermediate_size.len = 1", "above 1"]),
        ("gemma3n", "activation_sparsity_pattern", json!(1.0), ["= 1 must be", "below 1"]),
    ] {
        let (dir, mut config) = configurable(&fixtures().join(family));
        config[field] = value;
        write(&dir, &config);
        refuses(load(dir.path()), &words);
    }
}

/// Whatever one field holds, an error says so or the model runs.
#[test]
fn no_value_of_any_field_of_any_family_panics() {
    let values = [json!(null), json!(0), json!(3), json!(-1.5), json!(u64::MAX), json!("word"), json!([])];
    let mut rt = Runtime::new(Context::serial()).unwrap();
    for from in models().into_iter().filter(|dir| dir.starts_with(fixtures())) {
        let (dir, whole) = configurable(&from);
        let (mut refused, mut ran) = (0, 0);
        for field in whole.as_object().unwrap().keys() {
            for value in &values {
                let mut config = whole.clone();
                config[field] = value.clone();
                write(&dir, &config);
                let checkpoint = Checkpoint::open(dir.path()).unwrap();
                let run = load_decoder(&rt, &checkpoint, &LoadOptions::new(8))
                    .and_then(|mut model| model.forward(&mut rt, &[1, 2]));
                *(if run.is_ok() { &mut ran } else { &mut refused }) += 1;
            }
        }
        assert!(refused > 0, "{}: {ran} configurations ran, none was refused", from.display());
    }
}

#[test]
fn files_that_are_damaged_or_absent_are_named() {
    let weights = weights();
    let dir = copy(&weights, |_| (), |_| ());
    let file = dir.path().join("model.safetensors");
    for len in [0, 7, 100, weights.len() - 1] {
        std::fs::write(&file, &weights[..len]).unwrap();
        refuses(load(dir.path()), &["model.safetensors"]);
    }
    std::fs::remove_file(&file).unwrap();
    refuses(load(dir.path()), &["model.safetensors"]);
    std::fs::write(dir.path().join("config.json"), "{").unwrap();
    refuses(load(dir.path()), &["config.json"]);
}

#[test]
fn a_checkpoint_of_several_files_is_one() {
    let weights = weights();
    let dir = copy(&weights, |_| (), |_| ());
    std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("part.safetensors")).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"model.norm.weight": "part.safetensors"}}"#).unwrap();
    load(dir.path()).unwrap();
    std::fs::write(&index, "{}").unwrap();
    refuses(load(dir.path()), &["weight_map"]);
}

#[test]
fn tokens_that_do_not_fit_change_nothing() {
    let mut rt = Runtime::new(Context::serial()).unwrap();
    let checkpoint = Checkpoint::open(&fixtures().join("llama")).unwrap();
    let mut model = load_decoder(&rt, &checkpoint, &LoadOptions::new(4)).unwrap();
    let first = model.forward(&mut rt, &[1, 2]).unwrap();
    let error = model.forward(&mut rt, &[3, 96]).unwrap_err();
    assert!(matches!(error, Error::Token { id: 96, vocabulary: 96 }), "{error}");
    let error = model.forward(&mut rt, &[3, 4, 5]).unwrap_err();
    assert!(matches!(error, Error::Full { len: 2, adding: 3, capacity: 4 }), "{error}");
    assert!(model.forward(&mut rt, &[]).unwrap().is_empty());
    assert_eq!(model.len(), 2);
    model.reset();
    assert!(model.is_empty());
    assert_eq!(model.forward(&mut rt, &[1, 2]).unwrap(), first);
}
