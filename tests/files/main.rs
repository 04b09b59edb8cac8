//! Files that other programs write: GGUF, safetensors. What a header says is read as it was written, or
//! refused with the relation and both numbers.

#[path = "../support/folder.rs"]
mod folder;
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

use folder::Folder;
use kvern::buffer::AlignedBuf;
use kvern::gguf::Gguf;

/// Bytes as a file in memory.
fn memory(bytes: &[u8]) -> AlignedBuf<u8> {
    let mut file = AlignedBuf::zeroed(bytes.len()).unwrap();
    file.as_mut_slice().copy_from_slice(bytes);
    file
}

fn read(bytes: &[u8]) -> kvern::Result<Gguf> {
    Gguf::from_memory(vec![memory(bytes)])
}
