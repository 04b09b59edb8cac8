//! Files of other programs: GGUF.

use super::arguments::Arguments;
use super::world::World;
use super::{Call, call, lib, made};
use kvern::capi::gguf::*;
use kvern::capi::gguf_keys::*;
use kvern::capi::status::kvern_status;
use kvern::gguf::{GgufWriter, Value};
use kvern::quant::WeightFormat;
use std::ffi::c_char;
use std::path::Path;

/// The most elements of an array of the file.
const MOST: usize = 8;

/// A name that is in the file, unless it is hostile.
fn name(g: &mut Arguments, good: &[*const c_char]) -> *const c_char {
    match g.is_hostile() {
        true => g.one_of(&[std::ptr::null(), c"".as_ptr(), c"none".as_ptr(), c"\xFF\xFE".as_ptr()]),
        false => g.one_of(good),
    }
}

/// A tensor of the file: its name and its elements.
fn tensor(g: &mut Arguments) -> (*const c_char, usize) {
    let (tensor, len) =
        g.one_of(&[(c"a.weight".as_ptr(), 128), (c"experts".as_ptr(), 384), (c"norm".as_ptr(), 5)]);
    (name(g, &[tensor]), len)
}

/// A file with a value of every kind that is asked for, and three tensors.
pub fn write(path: &Path) {
    let mut w = GgufWriter::new();
    for (key, value) in [
        ("number", Value::U32(7)),
        ("float", Value::F32(0.5)),
        ("flag", Value::Bool(true)),
        ("text", Value::Str("a text")),
    ] {
        w.set(key, value).unwrap();
    }
    w.set_array("numbers", &[1i16, -2, 3, 4]).unwrap();
    w.set_array("floats", &[0.5f64, -2.0, 3.0, 4.0]).unwrap();
    w.set_array("flags", &[true, false, true, true]).unwrap();
    w.set_array("texts", &["a", "", "bc", "d"]).unwrap();
    w.tensor("a.weight", WeightFormat::Q8_0, &[64, 2]).unwrap();
    w.tensor("experts", WeightFormat::Q4_0, &[64, 3, 2]).unwrap();
    w.tensor("norm", WeightFormat::F32, &[5]).unwrap();
    w.save(path, |i, out| out.write(&vec![0x31 + i as u8; out.len()])).unwrap();
}

pub const CALLS: &[(&str, Call)] = &[
    call!(kvern_gguf_open, |w, g| {
        let path = w.file(g, "gguf");
        made!(w.ggufs, g, |out| lib!(kvern_gguf_open(path, out)))
    }),
    call!(kvern_gguf_load, |w, g| {
        let path = w.file(g, "gguf");
        made!(w.ggufs, g, |out| lib!(kvern_gguf_load(path, out)))
    }),
    call!(kvern_gguf_destroy, |w, g| {
        let file = w.ggufs.take(g);
        lib!(kvern_gguf_destroy(if file.is_null() { g.handle(file) } else { file }));
        0
    }),
    call!(kvern_gguf_tensor_count, |w, g| lib!(kvern_gguf_tensor_count(w.ggufs.any(g), g.value()))),
    call!(kvern_gguf_tensor_at, |w, g| {
        let i = g.below(3);
        lib!(kvern_gguf_tensor_at(w.ggufs.any(g), g.size(i), g.value()))
    }),
    call!(kvern_gguf_tensor_find, |w, g| {
        let (file, name) = (w.ggufs.any(g), tensor(g).0);
        lib!(kvern_gguf_tensor_find(file, name, g.value()))
    }),
    call!(kvern_gguf_read_f32, |w, g| {
        let (file, (name, len)) = (w.ggufs.any(g), tensor(g));
        let len = g.size(len);
        lib!(kvern_gguf_read_f32(file, name, g.output(len), len))
    }),
    call!(kvern_weights_from_gguf, |w, g| {
        let (ctx, file, name) = (w.optional_context(g), w.ggufs.any(g), tensor(g).0);
        let expert = g.size(0);
        made!(w.weights, g, |out| lib!(kvern_weights_from_gguf(ctx, file, name, expert, out)))
    }),
    call!(kvern_gguf_key_count, |w, g| lib!(kvern_gguf_key_count(w.ggufs.any(g), g.value()))),
    call!(kvern_gguf_key_at, |w, g| {
        let i = g.below(8);
        lib!(kvern_gguf_key_at(w.ggufs.any(g), g.size(i), g.value()))
    }),
    call!(kvern_gguf_key_find, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"number".as_ptr(), c"texts".as_ptr()]));
        lib!(kvern_gguf_key_find(file, key, g.value()))
    }),
    call!(kvern_gguf_get_u64, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"number".as_ptr()]));
        lib!(kvern_gguf_get_u64(file, key, g.value()))
    }),
    call!(kvern_gguf_get_i64, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"number".as_ptr()]));
        lib!(kvern_gguf_get_i64(file, key, g.value()))
    }),
    call!(kvern_gguf_get_f64, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"float".as_ptr()]));
        lib!(kvern_gguf_get_f64(file, key, g.value()))
    }),
    call!(kvern_gguf_get_bool, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"flag".as_ptr()]));
        lib!(kvern_gguf_get_bool(file, key, g.value()))
    }),
    call!(kvern_gguf_get_str, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"text".as_ptr()]));
        lib!(kvern_gguf_get_str(file, key, g.value(), g.value()))
    }),
    call!(kvern_gguf_get_i64s, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"numbers".as_ptr()]));
        let (first, count) = (g.below(3), g.below(3));
        let (first, count) = (g.size(first), g.size(count));
        lib!(kvern_gguf_get_i64s(file, key, first, count, g.output(count)))
    }),
    call!(kvern_gguf_get_f64s, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"floats".as_ptr()]));
        let (first, count) = (g.below(3), g.below(3));
        let (first, count) = (g.size(first), g.size(count));
        lib!(kvern_gguf_get_f64s(file, key, first, count, g.output(count)))
    }),
    call!(kvern_gguf_get_bools, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"flags".as_ptr()]));
        let (first, count) = (g.below(3), g.below(3));
        let (first, count) = (g.size(first), g.size(count));
        lib!(kvern_gguf_get_bools(file, key, first, count, g.output(count)))
    }),
    call!(kvern_gguf_get_strs, |w, g| {
        let (file, key) = (w.ggufs.any(g), name(g, &[c"texts".as_ptr()]));
        let (first, count) = (g.below(3), g.below(3));
        let (first, count) = (g.size(first), g.size(count));
        // Addresses differ from one world to the other: values, which are not compared. As many as any array
        // has, so that no count that is accepted is more.
        let (out, bytes) = (g.value::<[*const c_char; MOST]>(), g.value::<[usize; MOST]>());
        lib!(kvern_gguf_get_strs(file, key, first, count, out.cast(), bytes.cast()))
    }),
];
