//! Files that other programs write: GGUF, safetensors. What a header says is read as it was written, or
//! refused with the relation and both numbers.

#[path = "../support/random.rs"]
mod random;

mod damaged;
mod parts;
mod raw;
mod refusals;
mod round_trip;
mod safetensors;
mod values;
mod weights;

use kvern::buffer::AlignedBuf;
use kvern::gguf::Gguf;
use std::path::{Path, PathBuf};

/// Bytes as a file in memory.
fn memory(bytes: &[u8]) -> AlignedBuf<u8> {
    let mut file = AlignedBuf::zeroed(bytes.len()).unwrap();
    file.as_mut_slice().copy_from_slice(bytes);
    file
}

fn read(bytes: &[u8]) -> kvern::Result<Gguf> {
    Gguf::from_memory(vec![memory(bytes)])
}

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
