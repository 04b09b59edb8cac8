//! Checkpoints of several files: `{ "weight_map": { "name of a tensor": "name of a file", .. } }`.

use crate::blob::wrong;
use crate::error::{Result, text};
use crate::names::Shown;
use serde_json::Value;
use std::collections::BTreeMap;

/// The files of an index in the order of their names, each with the tensors that it has to hold.
///
/// **Errors**: `Blob` for what is no such JSON, and for a file that is not named plainly: an index may not
/// reach out of its folder.
pub(super) fn files(bytes: &[u8]) -> Result<BTreeMap<String, Vec<String>>> {
    let index: Value = match serde_json::from_slice(bytes) {
        Ok(index) => index,
        Err(e) => return wrong("index", Shown(&text(e)), "JSON"),
    };
    let Some(map) = index.get("weight_map").and_then(Value::as_object) else {
        return wrong("index", "JSON without an object `weight_map`", "the index of a checkpoint");
    };
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, file) in map {
        let Some(file) = file.as_str() else {
            return wrong(
                "file of a tensor",
                format_args!("{} of {}", Shown(&text(file)), Shown(tensor)),
                "a name",
            );
        };
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':', '\0']) {
            let want = "a name in the folder of the index";
            return wrong("file of a tensor", format_args!("{} of {}", Shown(file), Shown(tensor)), want);
        }
        files.entry(file.to_owned()).or_default().push(tensor.clone());
    }
    match files.is_empty() {
        true => wrong("number of files", 0, "at least 1"),
        false => Ok(files),
    }
}
