//! Tensors of `tests/fixtures/ops/*.safetensors`: a header of JSON, whose entries name type, shape and place.
#![allow(dead_code)] // each test binary uses its own part

/// The tensors of one file.
pub struct Tensors {
    name: String,
    header: String,
    data: Vec<u8>,
}

impl Tensors {
    pub fn of(name: &str) -> Tensors {
        let path = format!("{}/tests/fixtures/ops/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let (len, rest) = bytes.split_at(8);
        let (header, data) = rest.split_at(u64::from_le_bytes(len.try_into().unwrap()) as usize);
        let header = String::from_utf8(header.to_vec()).unwrap();
        Tensors { name: name.to_owned(), header, data: data.to_vec() }
    }

    /// The entry of a tensor.
    fn entry(&self, tensor: &str) -> Option<&str> {
        let start = self.header.find(&format!("\"{tensor}\":{{"))?;
        self.header[start..].split_once('}').map(|(entry, _)| entry)
    }

    pub fn has(&self, tensor: &str) -> bool {
        self.entry(tensor).is_some()
    }

    /// A list of numbers of an entry.
    fn list(&self, tensor: &str, key: &str) -> Vec<usize> {
        let entry = self.entry(tensor).unwrap_or_else(|| panic!("{} has no {tensor}", self.name));
        let (_, rest) = entry.split_once(&format!("\"{key}\":[")).unwrap();
        let (list, _) = rest.split_once(']').unwrap();
        list.split(',').filter(|part| !part.is_empty()).map(|part| part.trim().parse().unwrap()).collect()
    }

    pub fn shape(&self, tensor: &str) -> Vec<usize> {
        self.list(tensor, "shape")
    }

    fn words<T>(&self, tensor: &str, dtype: &str, of: impl Fn([u8; 4]) -> T) -> Vec<T> {
        let place = self.list(tensor, "data_offsets");
        assert!(self.entry(tensor).unwrap().contains(&format!("\"dtype\":\"{dtype}\"")), "{tensor}");
        self.data[place[0]..place[1]].chunks_exact(4).map(|b| of(b.try_into().unwrap())).collect()
    }

    pub fn f32(&self, tensor: &str) -> Vec<f32> {
        self.words(tensor, "F32", f32::from_le_bytes)
    }

    pub fn i32(&self, tensor: &str) -> Vec<i32> {
        self.words(tensor, "I32", i32::from_le_bytes)
    }
}
