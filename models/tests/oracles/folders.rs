//! The folders of models that the tests run over.

use std::path::{Path, PathBuf};

/// Every folder of a model, by name: those of the repository, then those of `KVERN_MODELS_DIR`.
pub fn models() -> Vec<PathBuf> {
    let mut found = models_of(&fixtures());
    assert!(!found.is_empty(), "tests/fixtures is empty");
    if let Some(dir) = std::env::var_os("KVERN_MODELS_DIR") {
        found.extend(models_of(Path::new(&dir)));
    }
    found
}

/// The folder of the repository's models.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn models_of(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.join("config.json").exists() && path.join("io.safetensors").exists());
    found.sort();
    found
}

/// `model_type` of a folder's configuration.
pub fn model_type(dir: &Path) -> String {
    let text = std::fs::read(dir.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    config["model_type"].as_str().unwrap().into()
}
