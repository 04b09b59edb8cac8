//! GGUF files through the C ABI: what the safe API reads, and what is refused.

use crate::capi::*;
use crate::statuses::*;
use kvern::capi::gguf::*;
use kvern::capi::gguf_keys::*;
use kvern::capi::quant::*;
use kvern::gguf::{Gguf, GgufWriter, TensorType, Value};
use kvern::quant::{PackedWeights, WeightFormat, quantize};
use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

/// A file, removed at the end of its test.
struct Written {
    path: PathBuf,
    text: CString,
}

impl Drop for Written {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

fn written(name: &str) -> Written {
    let (path, text) = temporary(name);
    let mut w = GgufWriter::new();
    for (key, value) in [
        ("u16", Value::U16(7)),
        ("i32", Value::I32(-7)),
        ("f32", Value::F32(0.5)),
        ("bool", Value::Bool(true)),
        ("str", Value::Str("gr\u{fc}n")),
        ("u64", Value::U64(u64::MAX)),
    ] {
        w.set(key, value).unwrap();
    }
    w.set_array("strs", &["a", "", "bc"]).unwrap();
    w.set_array("i8s", &[-1i8, 2, 3]).unwrap();
    w.set_array("u64s", &[1, u64::MAX]).unwrap();
    w.set_array("f64s", &[0.5f64, 1.5]).unwrap();
    w.set_array("bools", &[false, true]).unwrap();
    w.tensor("experts", WeightFormat::Q8_0, &[K, N, 3]).unwrap();
    w.tensor("norm", WeightFormat::Bf16, &[3]).unwrap();
    w.tensor("ints", TensorType::new(26), &[4]).unwrap();
    let x: Vec<f32> = (0..N * K * 3).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
    let mut blocks = vec![0; WeightFormat::Q8_0.bytes(3 * N, K).unwrap()];
    quantize(WeightFormat::Q8_0, &x, &mut blocks).unwrap();
    w.save(&path, |i, out| match i {
        0 => out.write(&blocks),
        1 => out.write(&[0x80, 0x3F, 0x00, 0x40, 0x40, 0x40]),
        _ => out.write(&[1; 16]),
    })
    .unwrap();
    Written { path, text }
}

fn bytes<'a>(start: *const c_char, len: usize) -> &'a [u8] {
    // SAFETY: a text of a file that lives.
    unsafe { std::slice::from_raw_parts(start.cast(), len) }
}

#[test]
fn files_are_read_as_by_the_safe_api() {
    let (o, written) = (Objects::new(), written("capi_read.gguf"));
    let safe = Gguf::load(&written.path).unwrap();
    // SAFETY: every pointer is live and of the stated size; objects are destroyed once.
    unsafe {
        for open in [kvern_gguf_open, kvern_gguf_load] {
            let (mut file, mut count) = (null_mut(), 0);
            ok(open(written.text.as_ptr(), &mut file));
            ok(kvern_gguf_tensor_count(file, &mut count));
            assert_eq!(count, 3);
            for (i, tensor) in safe.tensors().enumerate() {
                let mut found = [std::mem::zeroed::<kvern_gguf_tensor>(); 2];
                let name = CString::new(tensor.name()).unwrap();
                ok(kvern_gguf_tensor_at(file, i, &mut found[0]));
                ok(kvern_gguf_tensor_find(file, name.as_ptr(), &mut found[1]));
                for found in found {
                    assert_eq!(bytes(found.name, found.name_bytes), tensor.name().as_bytes());
                    assert_eq!((found.kind, found.dims as usize), (tensor.kind().id(), tensor.shape().len()));
                    let mut shape = [1; 4];
                    shape[..tensor.shape().len()].copy_from_slice(tensor.shape());
                    assert_eq!(found.shape, shape);
                    assert_eq!(bytes(found.data.cast(), found.data_bytes), tensor.bytes().unwrap());
                }
            }
            let mut norm = [0f32; 3];
            ok(kvern_gguf_read_f32(file, c"norm".as_ptr(), norm.as_mut_ptr(), 3));
            assert_eq!(norm, [1.0, 2.0, 3.0]);
            for expert in 0..3 {
                let want = PackedWeights::from_gguf_expert(&safe, "experts", expert).unwrap();
                let size = WeightFormat::Q8_0.bytes(N, K).unwrap();
                let (mut want_blocks, mut got) = (vec![0; size], vec![0; size]);
                want.to_blocks(&mut want_blocks).unwrap();
                for ctx in [null(), o.ctx.cast_const()] {
                    let mut weights = null_mut();
                    ok(kvern_weights_from_gguf(ctx, file, c"experts".as_ptr(), expert, &mut weights));
                    ok(kvern_weights_to_blocks(weights, got.as_mut_ptr(), size));
                    kvern_weights_destroy(weights);
                    assert_eq!(got, want_blocks);
                }
            }
            keys(file, &safe);
            kvern_gguf_destroy(file);
        }
        kvern_gguf_destroy(null_mut());
    }
}

unsafe fn keys(file: *const kvern_gguf, safe: &Gguf) {
    let mut count = 0;
    // SAFETY: every pointer is live and of the stated size.
    unsafe {
        ok(kvern_gguf_key_count(file, &mut count));
        assert_eq!(count, safe.key_count());
        for (i, (key, value)) in safe.keys().enumerate() {
            let mut found = [std::mem::zeroed::<kvern_gguf_key>(); 2];
            let name = CString::new(key).unwrap();
            ok(kvern_gguf_key_at(file, i, &mut found[0]));
            ok(kvern_gguf_key_find(file, name.as_ptr(), &mut found[1]));
            for found in found {
                assert_eq!(bytes(found.key, found.key_bytes), key.as_bytes());
                assert_eq!(found.kind, value.kind() as i32);
                let (element, len) = value.to_array().map_or((value.kind(), 1), |a| (a.kind(), a.len()));
                assert_eq!((found.element, found.len), (element as i32, len));
            }
        }
        let (mut u, mut i, mut f, mut b, mut s, mut len) = (0, 0, 0.0, 7, null(), 0);
        ok(kvern_gguf_get_u64(file, c"u16".as_ptr(), &mut u));
        ok(kvern_gguf_get_i64(file, c"i32".as_ptr(), &mut i));
        ok(kvern_gguf_get_f64(file, c"f32".as_ptr(), &mut f));
        ok(kvern_gguf_get_bool(file, c"bool".as_ptr(), &mut b));
        ok(kvern_gguf_get_str(file, c"str".as_ptr(), &mut s, &mut len));
        assert_eq!((u, i, f, b, bytes(s, len)), (7, -7, 0.5, 1, "gr\u{fc}n".as_bytes()));
        let (mut texts, mut lens, mut numbers, mut floats, mut flags) =
            ([null(); 3], [9; 3], [9; 2], [9.0; 2], [9; 2]);
        ok(kvern_gguf_get_strs(file, c"strs".as_ptr(), 0, 3, texts.as_mut_ptr(), lens.as_mut_ptr()));
        assert_eq!([0, 1, 2].map(|i| bytes(texts[i], lens[i])), [&b"a"[..], b"", b"bc"]);
        ok(kvern_gguf_get_i64s(file, c"i8s".as_ptr(), 1, 2, numbers.as_mut_ptr()));
        ok(kvern_gguf_get_f64s(file, c"f64s".as_ptr(), 0, 2, floats.as_mut_ptr()));
        ok(kvern_gguf_get_bools(file, c"bools".as_ptr(), 0, 2, flags.as_mut_ptr()));
        assert_eq!((numbers, floats, flags), ([2, 3], [0.5, 1.5], [0, 1]));
        // None of them, at the end.
        ok(kvern_gguf_get_i64s(file, c"i8s".as_ptr(), 3, 0, null_mut()));
        ok(kvern_gguf_get_strs(file, c"strs".as_ptr(), 3, 0, null_mut(), null_mut()));
    }
}

#[test]
fn what_is_wrong_is_refused() {
    let (written, mut file) = (written("capi_refused.gguf"), null_mut());
    // SAFETY: every pointer is live.
    unsafe { ok(kvern_gguf_load(written.text.as_ptr(), &mut file)) };
    let f = file.cast_const();
    let (mut other, mut weights) = (null_mut::<kvern_gguf>(), null_mut::<kvern_weights>());
    let (mut n, mut u, mut i, mut d, mut b, mut text) = (9usize, 9u64, 9i64, 9.0f64, 9i32, null());
    // SAFETY: plain C structs.
    let (mut tensor, mut key) =
        unsafe { (std::mem::zeroed::<kvern_gguf_tensor>(), std::mem::zeroed::<kvern_gguf_key>()) };
    let (mut x, mut texts, mut ints, mut odd) = ([2f32; 4], [null(); 4], [9i64; 4], [0u64; 4]);
    let (x, odd) = (x.as_mut_ptr(), odd.as_mut_ptr().cast::<u8>().wrapping_add(1));
    let (t, l) = (texts.as_mut_ptr(), ints.as_mut_ptr().cast::<usize>());
    let (norm, no, no_text) = (c"norm".as_ptr(), c"none".as_ptr(), c"\xFF".as_ptr());
    let (nul, strs, i8s) = (null::<c_char>(), c"strs".as_ptr(), c"i8s".as_ptr());
    refuse! {
        NULL_POINTER "path is NULL": kvern_gguf_open(nul, &mut other);
        NULL_POINTER "out is NULL": kvern_gguf_open(written.text.as_ptr(), null_mut());
        NULL_POINTER "path is NULL": kvern_gguf_load(nul, &mut other);
        NULL_POINTER "out is NULL": kvern_gguf_load(written.text.as_ptr(), null_mut());
        IO "cannot read /nowhere/a.gguf": kvern_gguf_open(c"/nowhere/a.gguf".as_ptr(), &mut other);
        IO "cannot read /nowhere/a.gguf": kvern_gguf_load(c"/nowhere/a.gguf".as_ptr(), &mut other);
        NULL_POINTER "file is NULL": kvern_gguf_tensor_count(null(), &mut n);
        NULL_POINTER "out is NULL": kvern_gguf_tensor_count(f, null_mut());
        NULL_POINTER "file is NULL": kvern_gguf_tensor_at(null(), 0, &mut tensor);
        NULL_POINTER "out is NULL": kvern_gguf_tensor_at(f, 0, null_mut());
        SHAPE "index = 3 must be below the count = 3": kvern_gguf_tensor_at(f, 3, &mut tensor);
        NULL_POINTER "file is NULL": kvern_gguf_tensor_find(null(), norm, &mut tensor);
        NULL_POINTER "name is NULL": kvern_gguf_tensor_find(f, nul, &mut tensor);
        NULL_POINTER "out is NULL": kvern_gguf_tensor_find(f, norm, null_mut());
        OPTION "tensor = `none` must be one of the file": kvern_gguf_tensor_find(f, no, &mut tensor);
        OPTION "name must be UTF-8": kvern_gguf_tensor_find(f, no_text, &mut tensor);
        NULL_POINTER "file is NULL": kvern_gguf_read_f32(null(), norm, x, 3);
        NULL_POINTER "name is NULL": kvern_gguf_read_f32(f, nul, x, 3);
        NULL_POINTER "out is NULL": kvern_gguf_read_f32(f, norm, null_mut(), 3);
        MISALIGNED "out = ": kvern_gguf_read_f32(f, norm, odd.cast(), 3);
        SHAPE "out.len = 4 must equal the elements of the tensor = 3": kvern_gguf_read_f32(f, norm, x, 4);
        BLOB "stored type of a tensor = 26 (i32) of `ints`": kvern_gguf_read_f32(f, c"ints".as_ptr(), x, 4);
        NULL_POINTER "file is NULL": kvern_weights_from_gguf(null(), null(), norm, 0, &mut weights);
        NULL_POINTER "name is NULL": kvern_weights_from_gguf(null(), f, nul, 0, &mut weights);
        NULL_POINTER "out is NULL": kvern_weights_from_gguf(null(), f, norm, 0, null_mut());
        OPTION "tensor = `none`": kvern_weights_from_gguf(null(), f, no, 0, &mut weights);
        SHAPE "expert = 1 must be below the matrices of the tensor = 1":
            kvern_weights_from_gguf(null(), f, norm, 1, &mut weights);
        BLOB "stored type of a tensor = 26 (i32)":
            kvern_weights_from_gguf(null(), f, c"ints".as_ptr(), 0, &mut weights);
        NULL_POINTER "file is NULL": kvern_gguf_key_count(null(), &mut n);
        NULL_POINTER "out is NULL": kvern_gguf_key_count(f, null_mut());
        NULL_POINTER "file is NULL": kvern_gguf_key_at(null(), 0, &mut key);
        NULL_POINTER "out is NULL": kvern_gguf_key_at(f, 0, null_mut());
        SHAPE "index = 11 must be below the count = 11": kvern_gguf_key_at(f, 11, &mut key);
        NULL_POINTER "file is NULL": kvern_gguf_key_find(null(), strs, &mut key);
        NULL_POINTER "key is NULL": kvern_gguf_key_find(f, nul, &mut key);
        NULL_POINTER "out is NULL": kvern_gguf_key_find(f, strs, null_mut());
        OPTION "key = `none` must be a key of the file": kvern_gguf_key_find(f, no, &mut key);
        NULL_POINTER "file is NULL": kvern_gguf_get_u64(null(), strs, &mut u);
        NULL_POINTER "key is NULL": kvern_gguf_get_u64(f, nul, &mut u);
        NULL_POINTER "out is NULL": kvern_gguf_get_u64(f, c"u16".as_ptr(), null_mut());
        BLOB "`i32` of type i32 (-7) must be an integer from 0 on":
            kvern_gguf_get_u64(f, c"i32".as_ptr(), &mut u);
        OPTION "key = `none`": kvern_gguf_get_u64(f, no, &mut u);
        BLOB "`u64` of type u64": kvern_gguf_get_i64(f, c"u64".as_ptr(), &mut i);
        NULL_POINTER "out is NULL": kvern_gguf_get_i64(f, c"i32".as_ptr(), null_mut());
        BLOB "`u16` of type u16 (7) must be f32 or f64": kvern_gguf_get_f64(f, c"u16".as_ptr(), &mut d);
        NULL_POINTER "out is NULL": kvern_gguf_get_f64(f, c"f32".as_ptr(), null_mut());
        BLOB "`u16` of type u16 (7) must be bool": kvern_gguf_get_bool(f, c"u16".as_ptr(), &mut b);
        NULL_POINTER "out is NULL": kvern_gguf_get_bool(f, c"bool".as_ptr(), null_mut());
        BLOB "`u16` of type u16 (7) must be str": kvern_gguf_get_str(f, c"u16".as_ptr(), &mut text, &mut n);
        NULL_POINTER "out is NULL": kvern_gguf_get_str(f, c"str".as_ptr(), null_mut(), &mut n);
        NULL_POINTER "bytes is NULL": kvern_gguf_get_str(f, c"str".as_ptr(), &mut text, null_mut());
        BLOB "`u16` of type u16 (7) must be array": kvern_gguf_get_i64s(f, c"u16".as_ptr(), 0, 1, l.cast());
        BLOB "stored array = an element of type str must be integers":
            kvern_gguf_get_i64s(f, strs, 0, 1, l.cast());
        BLOB "stored array = an element of type u64":
            kvern_gguf_get_i64s(f, c"u64s".as_ptr(), 0, 2, l.cast());
        BLOB "stored array = an element of type i8 must be f32 or f64":
            kvern_gguf_get_f64s(f, i8s, 0, 1, l.cast());
        BLOB "stored array = an element of type i8 must be bool":
            kvern_gguf_get_bools(f, i8s, 0, 1, l.cast());
        BLOB "stored array = an element of type i8 must be str": kvern_gguf_get_strs(f, i8s, 0, 1, t, l);
        SHAPE "first + count = 4 must be at most the elements of the array = 3":
            kvern_gguf_get_i64s(f, i8s, 2, 2, l.cast());
        SHAPE "first + count = 4": kvern_gguf_get_strs(f, strs, 4, 0, t, l);
        OVERFLOW "first + count": kvern_gguf_get_strs(f, strs, usize::MAX, 2, t, l);
        NULL_POINTER "out is NULL": kvern_gguf_get_i64s(f, i8s, 0, 1, null_mut());
        NULL_POINTER "out is NULL": kvern_gguf_get_f64s(f, c"f64s".as_ptr(), 0, 1, null_mut());
        NULL_POINTER "out is NULL": kvern_gguf_get_bools(f, c"bools".as_ptr(), 0, 1, null_mut());
        NULL_POINTER "out is NULL": kvern_gguf_get_strs(f, strs, 0, 1, null_mut(), l);
        NULL_POINTER "bytes is NULL": kvern_gguf_get_strs(f, strs, 0, 1, t, null_mut());
        MISALIGNED "out = ": kvern_gguf_get_strs(f, strs, 0, 1, odd.cast(), l);
        ALIASED "bytes overlaps out": kvern_gguf_get_strs(f, strs, 0, 3, l.cast(), l.wrapping_add(1));
    }
    assert!(other.is_null() && weights.is_null() && text.is_null());
    assert_eq!((n, u, i, d, b, ints, texts), (9, 9, 9, 9.0, 9, [9; 4], [null(); 4]));
    // SAFETY: made above.
    unsafe { kvern_gguf_destroy(file) };
}

#[test]
fn what_is_no_gguf_file_is_refused() {
    let (path, text) = temporary("capi_no.gguf");
    let mut file = null_mut();
    std::fs::write(&path, b"GGUF and no more").unwrap();
    refuse! {
        BLOB "stored version = 1684955424 must be 2..=3": kvern_gguf_load(text.as_ptr(), &mut file);
        BLOB "stored version = 1684955424 must be 2..=3": kvern_gguf_open(text.as_ptr(), &mut file);
    }
    std::fs::remove_file(Path::new(&path)).unwrap();
    assert!(file.is_null());
}
