//! The new file holds what `kvern::quant::quantize` makes of the old weights, and all else as it was.

use crate::program::{names, quantize as run, run as words};
use crate::sample::{self, Given};
use kvern::gguf::{Gguf, GgufWriter, TensorType, Value};
use kvern::quant::{WeightFormat, dequantize, quantize};
use std::path::Path;

use WeightFormat::{F16, F32, Iq4Nl, Mxfp4, Q4_0, Q5_0, Q5_1, Q8_0};

/// The tensors that stay whatever the format is.
const KEPT: [&str; 5] = [
    "blk.0.attn_norm.weight",
    "blk.0.attn_q.bias",
    "blk.0.ffn_gate_inp.weight",
    "blk.0.ssm_conv1d.weight",
    "blk.0.ids.weight",
];

/// The weights of a tensor in another format, by the library.
fn converted(given: &Given, to: WeightFormat) -> Vec<u8> {
    let len = given.shape.iter().product();
    let (mut floats, mut out) = (vec![0.0; len], vec![0; to.bytes(1, len).unwrap()]);
    dequantize(given.kind.format().unwrap(), &given.bytes, &mut floats).unwrap();
    quantize(to, &floats, &mut out).unwrap();
    out
}

/// The format of a tensor where `goal` is asked for, written down by hand.
fn expected(given: &Given, goal: WeightFormat) -> Option<WeightFormat> {
    let of_32 = match goal {
        WeightFormat::Q4K => Q5_0,
        WeightFormat::Q5K => Q5_1,
        WeightFormat::Q6K => Q8_0,
        WeightFormat::Nvfp4 => Mxfp4,
        WeightFormat::Tq1_0 | WeightFormat::Tq2_0 | WeightFormat::Q1_0 | WeightFormat::Q2_0 => Q4_0,
        large if large.block_len() > 32 => Iq4Nl,
        small => small,
    };
    match given.shape[0] {
        _ if KEPT.contains(&given.name) => None,
        80 if goal.block_len() > 1 => (given.kind == F32.into()).then_some(F16),
        288 => Some(of_32),
        _ => Some(goal),
    }
}

/// Compares every tensor of a file with what is right, and its keys.
fn check(path: &Path, goal: WeightFormat, file_type: u32) {
    let (file, given) = (Gguf::load(path).unwrap(), sample::tensors());
    assert_eq!(file.tensor_count(), given.len());
    for (tensor, given) in file.tensors().zip(&given) {
        let what = format!("{goal:?}: {}", given.name);
        let from = given.kind.format();
        let to = expected(given, goal).filter(|to| Some(*to) != from);
        let kind = to.map_or(given.kind, TensorType::from);
        assert_eq!(
            (tensor.name(), tensor.shape(), tensor.kind()),
            (given.name, &*given.shape, kind),
            "{what}"
        );
        let want = to.map_or(given.bytes.clone(), |to| converted(given, to));
        assert!(tensor.bytes().unwrap() == want, "{what}: other bytes");
    }
    let mut writer = GgufWriter::new();
    sample::keys(&mut writer);
    let dir = tempfile::tempdir().unwrap();
    sample::save(&dir.path().join("keys.gguf"), writer, &[]);
    let keys = Gguf::load(&dir.path().join("keys.gguf")).unwrap();
    let want = keys.keys().map(|(key, value)| match key {
        "general.file_type" => (key, Value::U32(file_type)),
        _ => (key, value),
    });
    let added = ("general.quantization_version", Value::U32(2));
    assert_eq!(file.keys().collect::<Vec<_>>(), want.chain([added]).collect::<Vec<_>>(), "{goal:?}");
    assert_eq!(file.alignment(), 64);
}

#[test]
fn every_format_is_that_of_the_library() {
    let numbers = [0, 1, 2, 3, 8, 9, 7, 10, 11, 14, 16, 18, 19, 20, 23, 24, 25, 26, 28, 30, 31, 32, 36, 37];
    let numbers = [&numbers[..], &[38, 39, 40, 41]].concat();
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.gguf"), dir.path().join("out.gguf"));
    sample::write(&input);
    assert_eq!(numbers.len(), WeightFormat::ALL.len());
    for (format, number) in WeightFormat::ALL.into_iter().zip(numbers) {
        run(&input, &output, format.name());
        check(&output, format, number);
    }
    assert_eq!(names(dir.path()), ["in.gguf", "out.gguf"]);
}

#[test]
fn a_split_file_becomes_one() {
    let dir = tempfile::tempdir().unwrap();
    sample::write_split(dir.path());
    let output = dir.path().join("one.gguf");
    run(&dir.path().join("m-00001-of-00002.gguf"), &output, "Q4_K");
    check(&output, WeightFormat::Q4K, 14);
    assert_eq!(Gguf::load(&output).unwrap().part_count(), 1);
}

#[test]
fn each_tensor_has_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.gguf"), dir.path().join("out.gguf"));
    sample::write(&input);
    let lines = run(&input, &output, "q4_k");
    for line in [
        "`token_embd.weight` [256, 10] f16 -> q4_k, 5120 -> 1440 bytes",
        "`blk.0.attn_norm.weight` [256] f32 kept, 1024 bytes",
        "`blk.0.ffn_gate_exps.weight` [256, 6, 3] f32 -> q4_k, 18432 -> 2592 bytes",
        "`blk.0.ffn_down.weight` [288, 5] q8_0 -> q5_0, 1530 -> 990 bytes: \
         k = 288 is no multiple of 256, the block of q4_k",
        "`blk.0.ffn_up.weight` [80, 4] f32 -> f16, 1280 -> 640 bytes: \
         k = 80 is no multiple of 256, the block of q4_k",
        "`blk.0.ffn_gate.weight` [80, 3] bf16 kept, 480 bytes: \
         k = 80 is no multiple of 256, the block of q4_k",
        "`blk.0.ids.weight` [7] i32 kept, 28 bytes",
    ] {
        assert!(lines.lines().any(|found| found == line), "{line} is not in\n{lines}");
    }
    let sum = |path| -> usize {
        Gguf::load(path).unwrap().tensors().map(|tensor| tensor.bytes().unwrap().len()).sum()
    };
    let (count, last) = (sample::tensors().len(), lines.lines().last().unwrap());
    assert_eq!(lines.lines().count(), count + 1);
    let bytes = format!("out.gguf: {count} tensors, {} -> {} bytes", sum(&input), sum(&output));
    assert!(last.ends_with(&bytes), "{last}");
}

#[test]
fn embeddings_and_the_output_stay_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.gguf"), dir.path().join("out.gguf"));
    sample::write(&input);
    let options = ["quantize".as_ref(), "--keep-output".as_ref(), input.as_os_str(), output.as_os_str()];
    let ran = words(options.into_iter().chain(["q8_0".as_ref()]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let (old, new) = (Gguf::load(&input).unwrap(), Gguf::load(&output).unwrap());
    for name in ["token_embd.weight", "output.weight"] {
        let (old, new) = (old.tensor(name).unwrap(), new.tensor(name).unwrap());
        assert_eq!((new.kind(), new.bytes().unwrap()), (old.kind(), old.bytes().unwrap()), "{name}");
    }
    assert_eq!(new.tensor("blk.0.attn_q.weight").unwrap().kind(), Q8_0.into());
}

#[test]
fn an_old_file_is_replaced_and_a_file_without_tensors_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.gguf"), dir.path().join("out.gguf"));
    sample::save(&input, GgufWriter::new(), &[]);
    std::fs::write(&output, "old").unwrap();
    run(&input, &output, "bf16");
    let file = Gguf::load(&output).unwrap();
    assert_eq!((file.tensor_count(), file.u64("general.file_type")), (0, Ok(32)));
}
