//! The right values of a model's folder, and comparisons with them.

use safetensors::SafeTensors;
use std::path::Path;

/// `io.safetensors` of a folder.
pub struct Values {
    bytes: Vec<u8>,
}

impl Values {
    /// Reads the file.
    pub fn open(dir: &Path) -> Values {
        Values { bytes: std::fs::read(dir.join("io.safetensors")).unwrap() }
    }

    fn words(&self, name: &str) -> Vec<[u8; 4]> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        tensor.data().as_chunks().0.to_vec()
    }

    /// A tensor of f32.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name).into_iter().map(f32::from_le_bytes).collect()
    }

    /// A tensor of i32 that holds tokens.
    pub fn tokens(&self, name: &str) -> Vec<u32> {
        self.words(name).into_iter().map(u32::from_le_bytes).collect()
    }
}

/// The largest difference, relative to the largest right value.
pub fn error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len(), "lengths");
    let largest = |values: &mut dyn Iterator<Item = f32>| {
        values.fold(0.0f32, |most, x| if x.is_nan() { f32::NAN } else { most.max(x.abs()) })
    };
    largest(&mut got.iter().zip(want).map(|(x, y)| x - y)) / largest(&mut want.iter().copied())
}

/// Asserts equal bits and names the first difference.
#[track_caller]
pub fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    if let Some(i) = (0..got.len()).find(|&i| got[i].to_bits() != want[i].to_bits()) {
        panic!("{what}: element {i}: {} is not {}", got[i], want[i]);
    }
}
