//! Every family with every number of its configuration replaced, and without each of its tensors: loading and
//! a pass give results or errors, and never panic.

use crate::folders::{model_type, models};
use kvern::Context;
use kvern_models::families::decoder_types;
use kvern_models::{Checkpoint, LoadOptions, Result, Runtime, load_decoder};
use safetensors::SafeTensors;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Sizes that fit nothing else, and those whose products overflow.
const NUMBERS: [u64; 8] = [0, 1, 2, 3, 5, 1 << 32, 1 << 61, u64::MAX];

fn load_and_run(dir: &Path) -> Result<()> {
    let mut rt = Runtime::new(Context::serial())?;
    let mut model = load_decoder(&rt, &Checkpoint::open(dir)?, &LoadOptions::new(8))?;
    model.forward(&mut rt, &[1, 2, 3])?;
    model.forward(&mut rt, &[4]).map(|_| ())
}

#[track_caller]
fn does_not_panic(dir: &Path, what: &str) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| load_and_run(dir))).unwrap_or_else(|_| panic!("{what}: panicked"))
}

/// Where the numbers of a configuration are, as JSON pointers.
fn numbers(at: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(at.into()),
        Value::Array(all) => {
            all.iter().enumerate().for_each(|(i, part)| numbers(&format!("{at}/{i}"), part, found));
        }
        Value::Object(all) => {
            all.iter().for_each(|(name, part)| numbers(&format!("{at}/{name}"), part, found));
        }
        _ => {}
    }
}

/// A copy of each decoder's folder, with its configuration.
fn for_each_copy(mut test: impl FnMut(&str, &Path, &Value)) {
    for from in models().into_iter().filter(|dir| decoder_types().any(|known| known == model_type(dir))) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "weights.safetensors"] {
            std::fs::copy(from.join(name), dir.path().join(name)).unwrap();
        }
        let config = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
        test(&from.display().to_string(), dir.path(), &config);
    }
}

#[test]
fn no_number_of_a_configuration_makes_a_family_panic() {
    for_each_copy(|name, dir, config| {
        let mut places = Vec::new();
        numbers("", config, &mut places);
        assert!(places.len() > 10, "{name}: only {places:?}");
        let mut refused = 0;
        for place in places {
            for number in NUMBERS {
                let mut changed = config.clone();
                *changed.pointer_mut(&place).unwrap() = number.into();
                std::fs::write(dir.join("config.json"), changed.to_string()).unwrap();
                let result = does_not_panic(dir, &format!("{name}: {place} = {number}"));
                refused += usize::from(result.is_err());
            }
        }
        assert!(refused > 10, "{name}: only {refused} were refused");
    });
}

#[test]
fn every_tensor_of_every_family_is_needed() {
    for_each_copy(|name, dir, _| {
        let bytes = std::fs::read(dir.join("weights.safetensors")).unwrap();
        let all = SafeTensors::deserialize(&bytes).unwrap();
        for missing in all.names() {
            let kept = all.tensors().into_iter().filter(|(known, _)| known != missing);
            let changed = safetensors::serialize(kept, None).unwrap();
            std::fs::write(dir.join("weights.safetensors"), changed).unwrap();
            let error = does_not_panic(dir, &format!("{name}: without {missing}")).expect_err(missing);
            assert!(error.to_string().contains(missing), "{name}: without {missing}: {error}");
        }
    });
}
