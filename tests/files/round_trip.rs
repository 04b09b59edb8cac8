//! What the writer writes, the reader reads; mapped, loaded and copied.

use crate::Folder;
use kvern::Error;
use kvern::buffer::Unchanged;
use kvern::gguf::{Gguf, GgufWriter, TensorType, Value, ValueType};
use kvern::quant::WeightFormat;
use std::path::Path;

/// Mapped under a promise that each test keeps.
fn map(path: &Path) -> kvern::Result<Gguf> {
    // SAFETY: the folder is the test's own, and its files are replaced, not written to.
    Gguf::open(path, unsafe { Unchanged::promised() })
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn every_value() -> GgufWriter {
    let mut w = GgufWriter::new();
    for (key, value) in [
        ("general.architecture", Value::Str("llama")),
        ("u8", Value::U8(255)),
        ("i8", Value::I8(-1)),
        ("u16", Value::U16(65535)),
        ("i16", Value::I16(-2)),
        ("u32", Value::U32(1 << 31)),
        ("i32", Value::I32(-3)),
        ("u64", Value::U64(1 << 63)),
        ("i64", Value::I64(-4)),
        ("f32", Value::F32(0.5)),
        ("f64", Value::F64(-1e300)),
        ("true", Value::Bool(true)),
        ("", Value::Str("")),
    ] {
        w.set(key, value).unwrap();
    }
    w.set_array("tokens", &["<s>", "", "\u{2581}a"]).unwrap();
    w.set_array("scores", &[0.5f32, -1.0]).unwrap();
    w.set_array("flags", &[true, false]).unwrap();
    w.set_array::<u64>("none", &[]).unwrap();
    w
}

#[test]
fn metadata_and_tensors_come_back() {
    let (folder, mut w) = (Folder::new("gguf_round_trip"), every_value());
    let shapes: [(&str, TensorType, &[usize]); 6] = [
        ("a.weight", WeightFormat::Q4_0.into(), &[64, 3]),
        ("norm", WeightFormat::F32.into(), &[5]),
        ("experts", WeightFormat::Q8_0.into(), &[32, 2, 3]),
        ("empty", WeightFormat::F16.into(), &[0, 7]),
        ("number", WeightFormat::Bf16.into(), &[]),
        ("ids", TensorType::new(26), &[3, 1, 1, 2]),
    ];
    for (name, kind, shape) in shapes {
        w.tensor(name, kind, shape).unwrap();
    }
    let path = folder.path("whole.gguf");
    // In pieces of 7 bytes: data are streamed.
    w.save(&path, |i, out| bytes(out.len(), i as u8).chunks(7).try_for_each(|part| out.write(part))).unwrap();
    for file in [map(&path).unwrap(), Gguf::load(&path).unwrap()] {
        assert_eq!((file.version(), file.alignment(), file.part_count()), (3, 32, 1));
        assert_eq!((file.key_count(), file.tensor_count()), (17, 6));
        assert_eq!(file.str("general.architecture"), Ok("llama"));
        assert_eq!((file.u64("u64"), file.i64("i64"), file.f64("f64")), (Ok(1 << 63), Ok(-4), Ok(-1e300)));
        let tokens = file.array("tokens").unwrap();
        assert_eq!(tokens.iter().filter_map(|v| v.to_str()).collect::<Vec<_>>(), ["<s>", "", "\u{2581}a"]);
        assert_eq!(file.array("scores").unwrap().get(1), Some(Value::F32(-1.0)));
        assert_eq!(file.array("none").unwrap().kind(), ValueType::U64);
        for (i, (name, kind, shape)) in shapes.into_iter().enumerate() {
            let (by_name, by_place) = (file.tensor(name).unwrap(), file.tensor_at(i).unwrap());
            assert_eq!((by_name.name(), by_place.name()), (name, name));
            assert_eq!((by_name.kind(), by_name.shape()), (kind, shape));
            let data = by_name.bytes().unwrap();
            assert_eq!(data, bytes(data.len(), i as u8));
            assert!(data.is_empty() || data.as_ptr().addr() % 32 == 0);
        }
        assert_eq!(file.tensor("experts").unwrap().bytes().unwrap().len(), 34 * 2 * 3);
    }
}

#[test]
fn a_file_is_copied_with_any_alignment() {
    let folder = Folder::new("gguf_copied");
    let (path, copy) = (folder.path("a.gguf"), folder.path("b.gguf"));
    let mut w = every_value();
    w.tensor("t", WeightFormat::Q8_0, &[32, 5]).unwrap();
    w.tensor("u", WeightFormat::F32, &[3]).unwrap();
    w.save(&path, |i, out| out.write(&bytes(out.len(), i as u8))).unwrap();
    let file = map(&path).unwrap();
    let mut w = GgufWriter::new();
    file.keys().try_for_each(|(key, value)| w.set(key, value)).unwrap();
    file.tensors().try_for_each(|t| w.tensor(t.name(), t.kind(), t.shape())).unwrap();
    w.set("general.alignment", Value::U32(512)).unwrap();
    w.save(&copy, |i, out| out.write(file.tensor_at(i).unwrap().bytes()?)).unwrap();
    let copied = map(&copy).unwrap();
    assert_eq!((copied.alignment(), copied.key_count()), (512, file.key_count() + 1));
    assert!(file.keys().zip(copied.keys()).all(|(a, b)| a == b));
    for (a, b) in file.tensors().zip(copied.tensors()) {
        assert_eq!((a.name(), a.shape(), a.bytes()), (b.name(), b.shape(), b.bytes()));
        assert_eq!(b.bytes().unwrap().as_ptr().addr() % 512, 0);
    }
}

#[test]
fn what_cannot_be_written_is_refused_and_changes_nothing() {
    let (folder, mut w) = (Folder::new("gguf_refused"), GgufWriter::new());
    let path = folder.path("a.gguf");
    let says = |r: kvern::Result<()>, text: &str| assert_eq!(r.unwrap_err().to_string(), text);
    w.set("k", Value::U8(1)).unwrap();
    w.tensor("t", WeightFormat::Q8_0, &[32]).unwrap();
    says(w.set("k", Value::U8(2)), "key = `k` must be a new one");
    says(w.set(&"k".repeat(65536), Value::U8(2)), "bytes of a key = 65536 must be at most 65535");
    says(
        w.set("general.alignment", Value::U32(24)),
        "stored general.alignment = 24 must be a power of two and a multiple of 8",
    );
    says(w.set("general.alignment", Value::U64(32)), "stored general.alignment = u64 must be u32");
    says(w.set_array("general.alignment", &[32u32]), "stored general.alignment = an array must be u32");
    says(w.tensor("t", WeightFormat::F32, &[1]), "tensor = `t` must be a new one");
    says(
        w.tensor(&"t".repeat(64), WeightFormat::F32, &[1]),
        "bytes of a tensor's name = 64 must be at most 63",
    );
    says(w.tensor("u", WeightFormat::F32, &[1; 5]), "dimensions of a tensor = 5 must be at most 4");
    says(w.tensor("u", TensorType::new(99), &[1]), "type of a tensor = 99 must be a type of known size");
    says(
        w.tensor("u", WeightFormat::Q8_0, &[33]),
        "stored k of a tensor = 33 of `u` must be a multiple of the block of 32 (q8_0)",
    );
    assert!(matches!(w.tensor("u", WeightFormat::F32, &[usize::MAX, 2]), Err(Error::Overflow { .. })));

    std::fs::write(&path, "old").unwrap();
    let few = |_, out: &mut kvern::gguf::TensorData<'_>| out.write(&[0; 33]);
    says(w.save(&path, few), "bytes of data = 33 must equal the bytes of the tensor = 34");
    let many = |_, out: &mut kvern::gguf::TensorData<'_>| out.write(&[0; 30]).and(out.write(&[0; 5]));
    says(w.save(&path, many), "bytes of data = 5 must be at most the bytes that are missing = 4");
    says(w.save(&path, |_, _| Err(Error::Overflow { what: "mine" })), "mine does not fit the address space");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
    w.save(&path, |_, out| out.write(&[0; 34])).unwrap();
    let file = map(&path).unwrap();
    assert_eq!((file.key_count(), file.tensor_count(), file.alignment()), (1, 1, 32));
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = Folder::new("gguf_no_file");
    for path in [folder.path("nowhere.gguf"), folder.0.clone()] {
        assert!(matches!(map(&path), Err(Error::Io { .. })), "{}", path.display());
        assert!(matches!(Gguf::load(&path), Err(Error::Io { .. })), "{}", path.display());
    }
    let empty = folder.path("empty.gguf");
    std::fs::write(&empty, "").unwrap();
    assert!(matches!(Gguf::load(&empty), Err(Error::Blob { .. })));
    assert!(map(&empty).is_err());
    assert_eq!(
        Gguf::from_memory(Vec::new()).unwrap_err().to_string(),
        "stored number of parts = 0 must be at least 1"
    );
}
