//! Files of several parts.

use crate::{Folder, memory};
use kvern::buffer::{MappedFile, Unchanged};
use kvern::gguf::{Gguf, GgufWriter, Value};
use kvern::quant::WeightFormat;
use std::path::Path;

/// What a part says of itself: its number, the count of parts, the tensors of all parts.
type Says = (Option<u16>, Option<u16>, Option<i32>);

fn write(path: &Path, (number, count, all): Says, tensors: &[&str]) {
    let mut w = GgufWriter::new();
    w.set("name", Value::Str(path.file_name().unwrap().to_str().unwrap())).unwrap();
    for (key, value) in [
        ("split.no", number.map(Value::U16)),
        ("split.count", count.map(Value::U16)),
        ("split.tensors.count", all.map(Value::I32)),
    ] {
        if let Some(value) = value {
            w.set(key, value).unwrap();
        }
    }
    tensors.iter().for_each(|name| w.tensor(name, WeightFormat::F32, &[2]).unwrap());
    let value = |i: usize| f32::from(tensors[i].as_bytes()[0]);
    w.save(path, |i, out| out.write(bytemuck::bytes_of(&[value(i), -1.0]))).unwrap();
}

fn good(i: u16) -> Says {
    (Some(i), Some(3), Some(4))
}

/// Three parts with the tensors a, b; c; d, of which one says something else.
fn folder(name: &str, odd: Option<(usize, Says)>) -> Folder {
    let folder = Folder::new(name);
    for (i, tensors) in [&["a", "b"][..], &["c"], &["d"]].into_iter().enumerate() {
        let says = odd.filter(|(odd, _)| *odd == i).map_or(good(i as u16), |(_, says)| says);
        write(&folder.path(&format!("m-0000{}-of-00003.gguf", i + 1)), says, tensors);
    }
    folder
}

fn open(folder: &Folder, name: &str) -> kvern::Result<Gguf> {
    // SAFETY: the folder is the test's own, and nobody writes to its files.
    Gguf::open(&folder.path(name), unsafe { Unchanged::promised() })
}

const FIRST: &str = "m-00001-of-00003.gguf";

#[test]
fn the_first_part_opens_all_of_them() {
    let folder = folder("gguf_parts", None);
    let parts: Vec<Vec<u8>> =
        (1..=3).map(|i| std::fs::read(folder.path(&format!("m-0000{i}-of-00003.gguf"))).unwrap()).collect();
    // SAFETY: as above.
    let map = |i: usize| unsafe { MappedFile::open(&folder.path(&format!("m-0000{i}-of-00003.gguf"))) };
    let mapped = [map(1).unwrap(), map(2).unwrap(), map(3).unwrap()];
    for file in [
        open(&folder, FIRST),
        Gguf::load(&folder.path(FIRST)),
        Gguf::from_mapped(&mapped),
        Gguf::from_memory(parts.iter().map(|part| memory(part)).collect()),
    ] {
        let file = file.unwrap();
        assert_eq!((file.part_count(), file.tensor_count()), (3, 4));
        assert_eq!(file.str("name"), Ok(FIRST));
        assert_eq!(file.tensors().map(|t| t.name()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        for name in ["a", "b", "c", "d"] {
            let tensor = file.tensor(name).unwrap();
            assert_eq!(tensor.to_f32().unwrap(), [f32::from(name.as_bytes()[0]), -1.0]);
        }
    }
    let says = |e: kvern::Result<Gguf>| e.unwrap_err().to_string();
    let later = says(open(&folder, "m-00002-of-00003.gguf"));
    assert_eq!(later, "stored split.no = 1 must be 0: the first part is opened");
    let missing = says(Gguf::from_mapped(&mapped[..2]));
    assert_eq!(missing, "stored split.count = 3 of part 1 must be 2");
    let order = says(Gguf::from_mapped(&[mapped[0].clone(), mapped[2].clone(), mapped[1].clone()]));
    assert_eq!(order, "stored split.no = 2 of part 2 must be 1");
}

#[test]
fn disagreements_are_refused_with_both_numbers() {
    for (i, (odd, says, text)) in [
        (0, (Some(0), Some(3), Some(5)), "stored split.tensors.count = 5 of part 1 must be 4"),
        (0, (Some(0), Some(3), None), "stored split.tensors.count = nothing in part 1 must be 4"),
        (
            0,
            (Some(0), Some(3), Some(-4)),
            "stored split.tensors.count = a value of type i32 must be an integer from 0 on",
        ),
        (1, (Some(1), Some(2), Some(4)), "stored split.count = 2 of part 2 must be 3"),
        (1, (Some(2), Some(3), Some(4)), "stored split.no = 2 of part 2 must be 1"),
        (1, (None, Some(3), Some(4)), "stored split.no = nothing in part 2 must be 1"),
        (2, (Some(2), None, Some(4)), "stored split.count = nothing in part 3 must be 3"),
        (2, (Some(2), Some(3), Some(3)), "stored split.tensors.count = 3 of part 3 must be 4"),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = folder(&format!("gguf_parts_{i}"), Some((odd, says)));
        assert_eq!(open(&folder, FIRST).unwrap_err().to_string(), text);
    }
    // Only the first part has to say how many tensors there are.
    let folder = folder("gguf_parts_silent", Some((1, (Some(1), Some(3), None))));
    assert!(open(&folder, FIRST).is_ok());
}

#[test]
fn parts_that_are_not_there_or_named_otherwise_are_refused() {
    let folder = folder("gguf_parts_missing", None);
    std::fs::copy(folder.path(FIRST), folder.path("renamed.gguf")).unwrap();
    let e = open(&folder, "renamed.gguf").unwrap_err().to_string();
    let must = "must be named NAME-00001-of-COUNT.gguf, with the count of split.count";
    assert!(e.starts_with("path of the first part = ") && e.ends_with(must), "{e}");
    std::fs::remove_file(folder.path("m-00003-of-00003.gguf")).unwrap();
    let e = open(&folder, FIRST).unwrap_err().to_string();
    assert!(e.starts_with("cannot read ") && e.contains("m-00003-of-00003.gguf"), "{e}");
    write(&folder.path("m-00003-of-00003.gguf"), good(2), &["a"]);
    let e = open(&folder, FIRST).unwrap_err().to_string();
    assert_eq!(e, "stored tensors = `a` twice must be there once");
}
