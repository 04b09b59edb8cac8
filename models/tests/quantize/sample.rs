//! A small model: tensors of every kind that the program tells apart.

use kvern::gguf::{GgufWriter, TensorType, Value};
use kvern::quant::{WeightFormat, quantize};
use std::path::Path;

use WeightFormat::{Bf16, F16, F32, Q8_0};

/// A tensor: name, shape, data, and its type.
pub struct Given {
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub kind: TensorType,
    pub bytes: Vec<u8>,
}

/// Weights between -1 and 1 that are rounded by every format.
pub fn weights(seed: u32, len: usize) -> Vec<f32> {
    let word = |i: u32| (i ^ seed).wrapping_mul(0x9e37_79b9).wrapping_add(seed) >> 8;
    (0..len as u32).map(|i| word(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The tensors: those that are converted at blocks of 256, those that such blocks do not divide, and those
/// that are kept.
pub fn tensors() -> Vec<Given> {
    let floats: [(&'static str, &[usize], WeightFormat); 13] = [
        ("token_embd.weight", &[256, 10], F16),
        ("blk.0.attn_norm.weight", &[256], F32),
        ("blk.0.attn_q.weight", &[256, 8], F32),
        ("blk.0.attn_q.bias", &[256], F32),
        ("blk.0.attn_k.weight", &[512, 3], Bf16),
        ("blk.0.attn_v.weight", &[256, 4], Q8_0),
        ("blk.0.ffn_gate_inp.weight", &[256, 4], F32),
        ("blk.0.ffn_gate_exps.weight", &[256, 6, 3], F32),
        ("blk.0.ffn_down.weight", &[288, 5], Q8_0),
        ("blk.0.ffn_up.weight", &[80, 4], F32),
        ("blk.0.ffn_gate.weight", &[80, 3], Bf16),
        ("blk.0.ssm_conv1d.weight", &[4, 256], F32),
        ("output.weight", &[256, 12], F32),
    ];
    let mut all: Vec<_> = floats
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape, format))| {
            let len = shape.iter().product();
            let mut bytes = vec![0; format.bytes(1, len).unwrap()];
            quantize(format, &weights(i as u32, len), &mut bytes).unwrap();
            Given { name, shape: shape.into(), kind: format.into(), bytes }
        })
        .collect();
    let bytes = (0..28).collect();
    all.push(Given { name: "blk.0.ids.weight", shape: vec![7], kind: TensorType::new(26), bytes });
    all
}

/// The keys of the model, of every kind that a file has.
pub fn keys(writer: &mut GgufWriter) {
    writer.set("general.architecture", Value::Str("llama")).unwrap();
    writer.set("general.file_type", Value::U32(1)).unwrap();
    writer.set("general.alignment", Value::U32(64)).unwrap();
    writer.set("llama.block_count", Value::U64(1)).unwrap();
    writer.set("llama.rope.freq_base", Value::F32(1e4)).unwrap();
    writer.set("tokenizer.ggml.add_bos_token", Value::Bool(true)).unwrap();
    writer.set_array("tokenizer.ggml.tokens", &["<s>", "", "a\nb", "\u{2581}the"]).unwrap();
    writer.set_array("tokenizer.ggml.scores", &[0.0f32, -1.5, f32::MIN_POSITIVE]).unwrap();
}

/// Writes a file of these tensors.
pub fn save(path: &Path, mut writer: GgufWriter, tensors: &[Given]) {
    for tensor in tensors {
        writer.tensor(tensor.name, tensor.kind, &tensor.shape).unwrap();
    }
    writer.save(path, |i, data| data.write(&tensors[i].bytes)).unwrap();
}

/// Writes the model as one file.
pub fn write(path: &Path) {
    let mut writer = GgufWriter::new();
    keys(&mut writer);
    save(path, writer, &tensors());
}

/// Writes the model as `m-00001-of-00002.gguf` and so on: 5 tensors, and the others.
pub fn write_split(dir: &Path) {
    let mut tensors = tensors();
    let all = tensors.len();
    let rest = tensors.split_off(5);
    for (i, tensors) in [tensors, rest].iter().enumerate() {
        let mut writer = GgufWriter::new();
        if i == 0 {
            keys(&mut writer);
        }
        writer.set("split.no", Value::U16(i as u16)).unwrap();
        writer.set("split.count", Value::U16(2)).unwrap();
        writer.set("split.tensors.count", Value::I32(all as i32)).unwrap();
        save(&dir.join(format!("m-{:05}-of-00002.gguf", i + 1)), writer, tensors);
    }
}
