//! Files byte by byte, as the specification lays them out: right ones and wrong ones.

/// A file that is being written, field by field.
#[derive(Clone, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// The start of a file of version 3.
    pub fn new(tensors: u64, keys: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(3).u64(tensors).u64(keys)
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Raw {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn u32(self, x: u32) -> Raw {
        self.bytes(&x.to_le_bytes())
    }

    pub fn u64(self, x: u64) -> Raw {
        self.bytes(&x.to_le_bytes())
    }

    pub fn text(self, text: &str) -> Raw {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }

    /// A key with the number of its type, without its value.
    pub fn key(self, key: &str, kind: u32) -> Raw {
        self.text(key).u32(kind)
    }

    /// A tensor.
    pub fn tensor(self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Raw {
        let raw = self.text(name).u32(shape.len() as u32);
        shape.iter().fold(raw, |raw, size| raw.u64(*size)).u32(kind).u64(offset)
    }

    /// Zeros up to a multiple of `alignment`, then the data.
    pub fn data(mut self, alignment: usize, data: &[u8]) -> Raw {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self.bytes(data)
    }
}
