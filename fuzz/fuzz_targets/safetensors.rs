//! Safetensors files: refused with an error, or files all of whose tensors can be read.
#![no_main]

use kvern::quant::PackedWeights;
use kvern::safetensors::SafeTensors;
use kvern_fuzz::{Damage, write};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// A good file, damaged.
    Damaged(Damage),
    /// A header as it comes, and so many bytes of data.
    Header { text: &'a str, data: u8 },
    /// Two tensors of any shape and place.
    Tensors { shapes: [[u64; 2]; 2], ends: [u64; 2], data: u8 },
    /// The whole file as it comes.
    Raw(&'a [u8]),
}

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    bytes.resize(bytes.len() + data, 0x3C);
    bytes
}

fn tensors(shapes: [[u64; 2]; 2], ends: [u64; 2]) -> String {
    let one = |name: &str, kind: &str, [n, k]: [u64; 2], begin: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"{kind}","shape":[{n},{k}],"data_offsets":[{begin},{end}]}}"#)
    };
    let (a, b) = (one("a", "F32", shapes[0], 0, ends[0]), one("b", "BF16", shapes[1], ends[0], ends[1]));
    format!("{{{a},{b}}}")
}

fuzz_target!(|input: Input<'_>| {
    let bytes = match &input {
        Input::Damaged(damage) => damage.apply_plain(&file(&tensors([[2, 3], [4, 2]], [24, 40]), 40)),
        Input::Header { text, data } => file(text, (*data).into()),
        Input::Tensors { shapes, ends, data } => file(&tensors(*shapes, *ends), (*data).into()),
        Input::Raw(bytes) => bytes.to_vec(),
    };
    let Ok(file) = SafeTensors::load(&write(&bytes)) else { return };
    for tensor in file.tensors() {
        assert_eq!(file.tensor(tensor.name()).expect("a tensor").shape(), tensor.shape());
        assert_eq!(8 * tensor.bytes().len(), tensor.len() * tensor.kind().bits());
        std::hint::black_box(tensor.bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
        assert_eq!(tensor.to_f32().is_ok(), tensor.format().is_ok());
        let packed = tensor.format().is_ok();
        if let ([n, k], true) = (tensor.shape(), packed && !tensor.is_empty()) {
            let w = PackedWeights::from_safetensors(&file, tensor.name()).expect("a matrix");
            assert_eq!((w.n(), w.k()), (*n, *k));
        }
    }
});
