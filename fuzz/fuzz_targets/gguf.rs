//! GGUF files: refused with an error, or files all of whose values and tensors can be read.
#![no_main]

use kvern::gguf::{Array, Gguf, GgufWriter, TensorType, Value};
use kvern::quant::{PackedWeights, WeightFormat};
use kvern_fuzz::{Damage, file_of, map, write};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// A good file, damaged.
    Damaged(Damage),
    /// Keys and tensors as they come, behind the first fields of a header.
    Fields { tensors: u8, keys: u8, rest: &'a [u8] },
    /// The whole file as it comes.
    Raw(&'a [u8]),
}

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut w = GgufWriter::new();
    let made = (|| {
        w.set("general.architecture", Value::Str("llama"))?;
        w.set("general.alignment", Value::U32(8))?;
        w.set("f", Value::F32(0.5))?;
        w.set("b", Value::Bool(true))?;
        w.set_array("s", &["a", "", "bc"])?;
        w.set_array("n", &[1u16, 2, 3])?;
        w.set_array("flags", &[true, false])?;
        w.tensor("q8", WeightFormat::Q8_0, &[32, 2])?;
        w.tensor("experts", WeightFormat::F16, &[2, 2, 3])?;
        w.tensor("ints", TensorType::new(26), &[3])?;
        w.tensor("none", WeightFormat::F32, &[0, 5])
    })();
    made.expect("a good file");
    file_of(|path| w.save(path, |i, data| data.write(&vec![i as u8; data.len()])))
});

fn elements(array: Array<'_>) {
    let mut count = 0;
    for value in array {
        count += 1;
        if let Value::Array(inner) = value {
            elements(inner);
        }
    }
    assert_eq!(count, array.len(), "an array ends early");
    assert_eq!(array.get(0).is_some(), !array.is_empty());
}

fn check(file: &Gguf, bytes: usize) {
    assert_eq!(file.keys().count(), file.key_count());
    for (key, value) in file.keys() {
        assert_eq!(file.get(key).map(|value| value.kind()), Some(value.kind()));
        let _ = (file.u64(key), file.i64(key), file.f64(key), file.bool(key), file.str(key));
        if let Value::Array(array) = value {
            elements(array);
        }
    }
    assert_eq!(file.tensors().count(), file.tensor_count());
    for tensor in file.tensors() {
        assert_eq!(file.tensor(tensor.name()).expect("a tensor").shape(), tensor.shape());
        let Ok(data) = tensor.bytes() else { continue };
        assert!(data.len() <= bytes);
        // Every byte can be read.
        std::hint::black_box(data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
        if tensor.format().is_ok() {
            assert_eq!(tensor.to_f32().expect("values").len(), tensor.len());
            for expert in 0..tensor.experts().min(2) {
                if tensor.k() > 0 {
                    let w = PackedWeights::from_gguf_expert(file, tensor.name(), expert);
                    assert_eq!(w.expect("a matrix").n(), tensor.n());
                }
            }
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let bytes = match &input {
        Input::Damaged(damage) => damage.apply_plain(&GOOD),
        Input::Fields { tensors, keys, rest } => {
            let counts = [u64::from(*tensors) % 4, u64::from(*keys) % 8].map(u64::to_le_bytes).concat();
            [b"GGUF\x03\0\0\0", &counts[..], rest].concat()
        }
        Input::Raw(bytes) => bytes.to_vec(),
    };
    let path = write(&bytes);
    let loaded = Gguf::load(&path);
    if let Ok(file) = &loaded {
        check(file, bytes.len());
    }
    if !bytes.is_empty() {
        let mapped = Gguf::from_mapped(&[map(&path)]);
        // A part of a split file looks for the others beside it.
        let is_part =
            loaded.as_ref().err().is_some_and(|e| e.to_string().starts_with("path of the first part"));
        assert!(is_part || mapped.is_ok() == loaded.is_ok(), "mapped or loaded");
    }
});
