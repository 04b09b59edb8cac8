//! Safetensors files: one, and those of an index; what does not hold together; damage.

use crate::random::Random;
use crate::{Folder, memory};
use half::{bf16, f16};
use kvern::Error;
use kvern::buffer::{MappedFile, Unchanged};
use kvern::quant::{PackedWeights, WeightFormat};
use kvern::safetensors::{ElementType, SafeTensors};
use std::path::Path;

/// A file of a header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn read(bytes: &[u8]) -> kvern::Result<SafeTensors> {
    SafeTensors::from_memory(vec![memory(bytes)])
}

/// A tensor of a header.
fn entry(name: &str, kind: &str, shape: &str, begin: usize, end: usize) -> String {
    format!(r#""{name}":{{"dtype":"{kind}","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#)
}

fn header(entries: &[String]) -> String {
    format!("{{{}}}", entries.join(","))
}

/// A matrix of each type that is packed, and two tensors that are none; the header of an odd length, so that
/// the data are not aligned.
fn good() -> Vec<u8> {
    let entries = [
        entry("f32", "F32", "2,3", 0, 24),
        entry("f16", "F16", "2,3", 24, 36),
        entry("bf16", "BF16", "2,3", 36, 48),
        entry("ints", "I8", "5", 48, 53),
        entry("f8", "F8_E4M3", "3", 53, 56),
        entry("none", "F32", "0,7", 56, 56),
        entry("number", "F32", "", 56, 60),
    ];
    let mut header = header(&entries);
    header += [" ", ""][header.len() % 2];
    let x = [1.0f32, -2.0, 0.5, 4.0, 0.25, -8.0];
    let mut data = x.map(f32::to_le_bytes).concat();
    data.extend(x.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
    data.extend(x.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()));
    data.extend([1, 2, 3, 4, 255, 7, 8, 9]);
    data.extend(3.5f32.to_le_bytes());
    file(&header, &data)
}

#[test]
fn tensors_of_every_type_are_read_and_floats_packed() {
    let folder = Folder::new("safetensors");
    let path = folder.path("model.safetensors");
    std::fs::write(&path, good()).unwrap();
    // SAFETY: the folder is the test's own, and nobody writes to its files.
    let (unchanged, mapped) = unsafe { (Unchanged::promised(), MappedFile::open(&path).unwrap()) };
    let x = [1.0f32, -2.0, 0.5, 4.0, 0.25, -8.0];
    for file in [
        SafeTensors::open(&path, unchanged).unwrap(),
        SafeTensors::load(&path).unwrap(),
        SafeTensors::from_mapped(&[mapped]).unwrap(),
        read(&good()).unwrap(),
    ] {
        assert_eq!(file.tensor_count(), 7);
        let kinds: Vec<_> = file.tensors().map(|tensor| tensor.kind().name()).collect();
        assert_eq!(kinds[..5], ["F32", "F16", "BF16", "I8", "F8_E4M3"]);
        for (name, format) in
            [("f32", WeightFormat::F32), ("f16", WeightFormat::F16), ("bf16", WeightFormat::Bf16)]
        {
            let tensor = file.tensor(name).unwrap();
            assert_eq!((tensor.name(), tensor.shape(), tensor.len()), (name, &[2, 3][..], 6));
            assert_eq!((tensor.format(), tensor.to_f32()), (Ok(format), Ok(x.to_vec())));
            let packed = PackedWeights::from_safetensors(&file, name).unwrap();
            assert_eq!((packed.n(), packed.k(), packed.format()), (2, 3, Some(format)));
            let mut row = [0.0; 3];
            packed.dequantize_row(1, &mut row).unwrap();
            assert_eq!(row, x[3..]);
        }
        let ints = file.tensor("ints").unwrap();
        assert_eq!((ints.kind(), ints.bytes()), (ElementType::I8, &[1, 2, 3, 4, 255][..]));
        assert_eq!(file.tensor("number").unwrap().to_f32(), Ok(vec![3.5]));
        assert!(file.tensor("none").unwrap().is_empty() && file.find("nowhere").is_none());

        let says = |e: Error, text: &str| assert_eq!(e.to_string(), text);
        let floats = "must be F32, F16 or BF16";
        says(file.tensor("nowhere").unwrap_err(), "tensor = `nowhere` must be one of the file");
        says(ints.to_f32().unwrap_err(), &format!("stored type of a tensor = I8 of `ints` {floats}"));
        let pack = |name| PackedWeights::from_safetensors(&file, name).unwrap_err();
        says(pack("f8"), &format!("stored type of a tensor = F8_E4M3 of `f8` {floats}"));
        says(pack("number"), "stored dimensions of a tensor = 0 of `number` must be 2");
        says(
            file.tensor("f32").unwrap().read_f32(&mut [0.0; 5]).unwrap_err(),
            "out.len = 5 must equal the elements of the tensor = 6",
        );
    }
}

#[test]
fn headers_that_do_not_hold_together_are_refused() {
    let says = |bytes: &[u8], text: &str| {
        let e = read(bytes).unwrap_err().to_string();
        assert!(e.starts_with(text), "`{e}` is not `{text}`");
    };
    let one = |kind, shape, begin, end, data: usize| {
        file(&header(&[entry("w", kind, shape, begin, end)]), &vec![0; data])
    };
    assert!(read(&one("F32", "2", 0, 8, 8)).is_ok() && read(&file("{}", b"")).is_ok());
    says(b"", "stored bytes of the file = 0 must be at least the 8 that hold the header's length");
    says(
        &u64::MAX.to_le_bytes(),
        "stored bytes of the header = 18446744073709551615 must be at most 100000000",
    );
    says(&3u64.to_le_bytes(), "stored bytes of the header = 3 must be at most the 0 that follow");
    says(&file("{]", b""), "stored header = `");
    says(&file("\u{1}", b""), "stored header = `");
    says(&file(&"[".repeat(100_000), b""), "stored header = `");
    says(&one("F32", "2", 0, 8, 7), "stored bytes of data = 7 must be 8, the end of the last tensor");
    says(&one("F32", "2", 0, 8, 9), "stored bytes of data = 9 must be 8, the end of the last tensor");
    for bytes in [
        one("F32", "2", 0, 9, 9),
        one("F32", "2", 8, 0, 8),
        one("F32", "2", 4, 12, 12),
        one("F32", "-2", 0, 8, 8),
        one("F33", "2", 0, 8, 8),
        one("F4", "3", 0, 1, 1),
        one("F32", "4611686018427387904,2", 0, 0, 0),
        file(&header(&[entry("a", "F32", "1", 0, 4), entry("b", "F32", "1", 2, 6)]), &[0; 6]),
        file(&header(&[entry("a", "F32", "1", 0, 4), entry("b", "F32", "1", 8, 12)]), &[0; 12]),
    ] {
        says(&bytes, "stored header = `");
    }
    // Sizes whose sum is beyond the address space.
    let huge = 1usize << (usize::BITS - 4);
    let entries: Vec<_> = (0..15)
        .map(|i| entry(&format!("{i:02}"), "U8", &huge.to_string(), i * huge, (i + 1) * huge))
        .collect();
    says(&file(&header(&entries), b""), "stored bytes of data = 0 must be ");
    let two = [memory(&good()), memory(&good())].into();
    let e = SafeTensors::from_memory(two).unwrap_err().to_string();
    assert_eq!(e, "stored tensors = `bf16` twice must be there once");
}

fn write(folder: &Folder, name: &str, tensor: &str, value: f32) {
    let header = header(&[entry(tensor, "F32", "1,1", 0, 4)]);
    std::fs::write(folder.path(name), file(&header, &value.to_le_bytes())).unwrap();
}

#[test]
fn the_files_of_an_index_are_one_checkpoint() {
    let folder = Folder::new("safetensors_index");
    let index = folder.path("model.safetensors.index.json");
    write(&folder, "m-1.safetensors", "a", 1.0);
    write(&folder, "m-2.safetensors", "b", 2.0);
    let open = |text: &str| {
        std::fs::write(&index, text).unwrap();
        // SAFETY: the folder is the test's own, and its models are not written to.
        SafeTensors::open(&index, unsafe { Unchanged::promised() })
    };
    let map = |a: &str, b: &str| format!(r#"{{"metadata":{{}},"weight_map":{{"a":"{a}","b":"{b}"}}}}"#);
    let good = map("m-1.safetensors", "m-2.safetensors");
    for file in [open(&good).unwrap(), SafeTensors::load(&index).unwrap()] {
        assert_eq!(file.tensors().map(|tensor| tensor.name()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(file.tensor("b").unwrap().to_f32(), Ok(vec![2.0]));
        assert_eq!(PackedWeights::from_safetensors(&file, "a").unwrap().k(), 1);
    }
    let says = |text: &str, want: &str| {
        let e = open(text).unwrap_err().to_string();
        assert!(e.starts_with(want), "`{e}` is not `{want}`");
    };
    says("{", "stored index = `");
    says(r#"{"weight_map":[]}"#, "stored index = JSON without an object `weight_map`");
    says(r#"{"weight_map":{}}"#, "stored number of files = 0 must be at least 1");
    says(r#"{"weight_map":{"a":7}}"#, "stored file of a tensor = `7` of `a` must be a name");
    for name in ["../m", "/etc/passwd", "a/b", "", "..", ".hidden", "c:m", "a\\\\b"] {
        says(&map("m-1.safetensors", name), "stored file of a tensor = `");
    }
    let exchanged = map("m-2.safetensors", "m-1.safetensors");
    says(&exchanged, "stored tensor = `b` of the index must be in `m-1.safetensors`");
    says(&good.replace("\"a\"", "\"c\""), "stored tensor = `c` of the index must be in `m-1.safetensors`");
    says(&map("m-1.safetensors", "m-3.safetensors"), "cannot read ");
    assert!(matches!(SafeTensors::load(Path::new("/nowhere/a.safetensors")), Err(Error::Io { .. })));
}

#[test]
fn damaged_files_are_refused_or_files_like_any_other() {
    let (good, mut random, mut opened, mut refused) = (good(), Random::new(3), 0, 0);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = b'0' + random.below(10) as u8,
                2 => bytes[at] = random.of(b"{}[]\",:-.e "),
                3 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b'0' + random.below(10) as u8),
            }
        }
        match read(&bytes) {
            Ok(file) => {
                opened += 1;
                for tensor in file.tensors() {
                    assert_eq!(tensor.bytes().len() * 8, tensor.len() * tensor.kind().bits());
                    assert_eq!(file.tensor(tensor.name()).unwrap().kind(), tensor.kind());
                    assert_eq!(tensor.to_f32().is_ok(), tensor.format().is_ok());
                    let _ = PackedWeights::from_safetensors(&file, tensor.name());
                }
            }
            Err(e) => {
                refused += 1;
                let e = e.to_string();
                assert!(e.contains(" must be ") || e.contains(" does not fit "), "{e}");
            }
        }
    }
    assert!(opened > 500 && refused > 5000, "{opened} opened, {refused} refused");
}
