//! Files that were damaged at random: refused with an error, or files like any other.

use crate::random::Random;
use crate::{Folder, memory, read};
use kvern::gguf::{Array, Gguf, GgufWriter, Value};
use kvern::quant::{PackedWeights, WeightFormat};

/// Reads all elements of an array.
fn elements(array: Array<'_>, bytes: usize) {
    assert!(array.len() <= bytes);
    let mut seen = 0;
    for value in array {
        seen += 1;
        if let Value::Array(inner) = value {
            elements(inner, bytes);
        }
    }
    assert_eq!(seen, array.len());
    assert_eq!(array.get(0).is_some(), !array.is_empty());
    assert!(array.get(array.len()).is_none());
}

/// Reads everything that a file can be asked for. The least number of bytes that it takes up is known, so
/// that nothing may be larger than the file.
fn walk(file: &Gguf, bytes: usize) {
    assert_eq!(file.keys().count(), file.key_count());
    for (key, value) in file.keys() {
        assert_eq!(file.get(key).map(|value| value.kind()), Some(value.kind()));
        let _ = (file.u64(key), file.i64(key), file.f64(key), file.bool(key), file.str(key));
        if let Value::Array(inner) = value {
            elements(inner, bytes);
        }
    }
    assert_eq!(file.tensors().count(), file.tensor_count());
    for tensor in file.tensors() {
        assert_eq!(file.tensor(tensor.name()).unwrap().kind(), tensor.kind());
        let Ok(data) = tensor.bytes() else { continue };
        assert!(data.len() <= bytes);
        // Every byte is there.
        let _ = data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if let Ok(values) = tensor.to_f32() {
            assert_eq!(values.len(), tensor.len());
        }
        if tensor.k() > 0 {
            for expert in 0..tensor.experts().min(3) {
                if let Ok(w) = PackedWeights::from_gguf_expert(file, tensor.name(), expert) {
                    assert_eq!((w.n(), w.k()), (tensor.n(), tensor.k()));
                }
            }
        }
    }
}

/// A file with every kind of value and of tensor, in about a kilobyte.
fn good(name: &str) -> Vec<u8> {
    let (folder, mut w) = (Folder::new(name), GgufWriter::new());
    for (key, value) in [
        ("general.architecture", Value::Str("llama")),
        ("general.alignment", Value::U32(16)),
        ("a", Value::U8(1)),
        ("b", Value::I16(-1)),
        ("c", Value::F64(0.5)),
        ("d", Value::Bool(true)),
    ] {
        w.set(key, value).unwrap();
    }
    w.set_array("tokens", &["a", "bc", ""]).unwrap();
    w.set_array("flags", &[true, false, true]).unwrap();
    w.set_array("numbers", &[1u16, 2, 3]).unwrap();
    w.tensor("q4", WeightFormat::Q4_0, &[32, 3]).unwrap();
    w.tensor("f32", WeightFormat::F32, &[4]).unwrap();
    w.tensor("experts", WeightFormat::F16, &[2, 3, 2]).unwrap();
    w.tensor("q4_k", WeightFormat::Q4K, &[256]).unwrap();
    let path = folder.path("good.gguf");
    w.save(&path, |i, out| out.write(&vec![i as u8; out.len()])).unwrap();
    std::fs::read(&path).unwrap()
}

/// One change: a bit, a byte, a number at any place, a part taken out or doubled, or an end cut off.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => {
            let number = match random.below(4) {
                0 => random.next(),
                1 => random.below(300) as u64,
                2 => u64::MAX - random.below(40) as u64,
                _ => 1 << random.below(64),
            };
            let number = number.to_le_bytes();
            let len = random.of(&[1, 2, 4, 8]).min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&number[..len]);
        }
        3 => bytes.truncate(at.max(1)),
        4 => drop(bytes.drain(at..(at + 1 + random.below(16)).min(bytes.len() - 1).max(at))),
        5 => {
            let part = bytes[at..(at + 1 + random.below(32)).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        _ => {
            let with = random.below(bytes.len());
            bytes.swap(at, with);
        }
    }
}

#[test]
fn thousands_of_damaged_files_are_refused_or_files_like_any_other() {
    let good = good("gguf_damaged");
    walk(&read(&good).unwrap(), good.len());
    let (mut random, mut opened, mut refused) = (Random::new(7), 0, 0);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(4) {
            damage(&mut bytes, &mut random);
        }
        match read(&bytes) {
            Ok(file) => {
                opened += 1;
                walk(&file, bytes.len());
            }
            Err(e) => {
                refused += 1;
                let e = e.to_string();
                assert!(e.contains(" must be ") || e.contains(" does not fit "), "{e}");
            }
        }
    }
    // Both ends of the test are reached.
    assert!(opened > 1000 && refused > 5000, "{opened} opened, {refused} refused");
}

#[test]
fn every_byte_of_the_header_takes_any_value() {
    let good = good("gguf_every_byte");
    let header = good.len() - 400;
    for at in 0..header {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bytes = good.clone();
            bytes[at] = value;
            if let Ok(file) = Gguf::from_memory(vec![memory(&bytes)]) {
                walk(&file, bytes.len());
            }
        }
    }
}
