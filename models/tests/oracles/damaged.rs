//! Every family without each of its tensors.

use crate::folders::{model_type, models};
use kvern::Context;
use kvern_models::families::decoder_types;
use kvern_models::{Checkpoint, LoadOptions, Runtime, load_decoder};
use safetensors::SafeTensors;

#[test]
fn every_tensor_of_every_family_is_needed() {
    let rt = Runtime::new(Context::serial()).unwrap();
    for from in models().into_iter().filter(|dir| decoder_types().any(|known| known == model_type(dir))) {
        let (name, dir) = (from.display(), tempfile::tempdir().unwrap());
        std::fs::copy(from.join("config.json"), dir.path().join("config.json")).unwrap();
        let bytes = std::fs::read(from.join("weights.safetensors")).unwrap();
        let all = SafeTensors::deserialize(&bytes).unwrap();
        for missing in all.names() {
            let kept = all.tensors().into_iter().filter(|(known, _)| known != missing);
            let changed = safetensors::serialize(kept, None).unwrap();
            std::fs::write(dir.path().join("model.safetensors"), changed).unwrap();
            let loaded = load_decoder(&rt, &Checkpoint::open(dir.path()).unwrap(), &LoadOptions::new(8));
            let Err(error) = loaded else { panic!("{name}: loaded without {missing}") };
            assert!(error.to_string().contains(missing), "{name}: without {missing}: {error}");
        }
    }
}
