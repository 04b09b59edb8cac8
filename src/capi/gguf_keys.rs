//! GGUF files: their metadata.

use super::args::{Array, check, put, shared, utf8};
use super::gguf::{beyond, kvern_gguf};
use super::guard;
use super::status::{Checked, kvern_status};
use crate::error::{Error, text};
use crate::gguf::{Value, ValueType};
use bytemuck::Pod;
use std::ffi::c_char;

/// The type of a value: a `KVERN_GGUF_*` number, that of the GGUF specification.
pub type kvern_gguf_type = i32;

/// 8 bits without sign.
pub const KVERN_GGUF_U8: kvern_gguf_type = 0;
/// 8 bits with sign.
pub const KVERN_GGUF_I8: kvern_gguf_type = 1;
/// 16 bits without sign.
pub const KVERN_GGUF_U16: kvern_gguf_type = 2;
/// 16 bits with sign.
pub const KVERN_GGUF_I16: kvern_gguf_type = 3;
/// 32 bits without sign.
pub const KVERN_GGUF_U32: kvern_gguf_type = 4;
/// 32 bits with sign.
pub const KVERN_GGUF_I32: kvern_gguf_type = 5;
/// A float.
pub const KVERN_GGUF_F32: kvern_gguf_type = 6;
/// A flag.
pub const KVERN_GGUF_BOOL: kvern_gguf_type = 7;
/// A text.
pub const KVERN_GGUF_STR: kvern_gguf_type = 8;
/// Values of one type.
pub const KVERN_GGUF_ARRAY: kvern_gguf_type = 9;
/// 64 bits without sign.
pub const KVERN_GGUF_U64: kvern_gguf_type = 10;
/// 64 bits with sign.
pub const KVERN_GGUF_I64: kvern_gguf_type = 11;
/// A double.
pub const KVERN_GGUF_F64: kvern_gguf_type = 12;

/// A key of the metadata, and the type of its value. Its layout is final. The text belongs to the file, and
/// lives as long as it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_gguf_key {
    /// The key, UTF-8, not NUL-terminated.
    pub key: *const c_char,
    /// Bytes of the key.
    pub key_bytes: usize,
    /// The type of the value.
    pub kind: kvern_gguf_type,
    /// Of an array the type of its elements, else `kind`.
    pub element: kvern_gguf_type,
    /// Of an array its elements, else 1.
    pub len: usize,
}

fn about(key: &str, value: &Value<'_>) -> kvern_gguf_key {
    let (element, len) = value.to_array().map_or((value.kind(), 1), |array| (array.kind(), array.len()));
    let (kind, element) = (value.kind() as kvern_gguf_type, element as kvern_gguf_type);
    kvern_gguf_key { key: key.as_ptr().cast(), key_bytes: key.len(), kind, element, len }
}

/// `*out` = the keys of the metadata (of the first part).
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_key_count(file: *const kvern_gguf, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("file", file)?.0.key_count()) })
}

/// `*out` = key `index` of `kvern_gguf_key_count`, in the order of the file.
///
/// Errors: NULL_POINTER, SHAPE (no such index). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_key_at(
    file: *const kvern_gguf,
    index: usize,
    out: *mut kvern_gguf_key,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe {
        let file = &shared("file", file)?.0;
        let (key, value) = file.key(index).ok_or_else(|| beyond(index, file.key_count()))?;
        put("out", out, about(key, &value))
    })
}

/// `*out` = a key by name, with the type of its value; `out->key` is that of the file.
///
/// `key`: NUL-terminated, UTF-8 (the same for all that follow).
/// Errors: NULL_POINTER, OPTION (no such key, no UTF-8). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_key_find(
    file: *const kvern_gguf,
    key: *const c_char,
    out: *mut kvern_gguf_key,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `key` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        let (file, key) = (&shared("file", file)?.0, utf8("key", key)?);
        let found = file.entry(key).ok_or_else(|| {
            let got = text(format_args!("`{}`", key.escape_debug()));
            Error::Option { what: "key", got, allowed: "a key of the file" }
        });
        let (key, value) = found?;
        put("out", out, about(key, &value))
    })
}

/// Writes what `get` reads of a key.
///
/// # Safety
/// - pointers are NULL or live, and `key` ends with a NUL.
unsafe fn value<'a, T: Copy>(
    file: *const kvern_gguf,
    key: *const c_char,
    out: *mut T,
    get: impl FnOnce(&'a crate::gguf::Gguf, &'a str) -> crate::Result<T>,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    guard(|| unsafe { put("out", out, get(&shared("file", file)?.0, utf8("key", key)?)?) })
}

/// `*out` = the value of a key whose type is any integer.
///
/// Errors: NULL_POINTER, OPTION (no such key), BLOB (another type, a negative value). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_get_u64(
    file: *const kvern_gguf,
    key: *const c_char,
    out: *mut u64,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `key` ends with a NUL, by the header's contract.
    unsafe { value(file, key, out, |file, key| file.u64(key)) }
}

/// `*out` = the value of a key whose type is any integer.
///
/// Errors: NULL_POINTER, OPTION (no such key), BLOB (another type, a value beyond int64_t). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_get_i64(
    file: *const kvern_gguf,
    key: *const c_char,
    out: *mut i64,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `key` ends with a NUL, by the header's contract.
    unsafe { value(file, key, out, |file, key| file.i64(key)) }
}

/// `*out` = the value of a key of type f32 or f64.
///
/// Errors: NULL_POINTER, OPTION (no such key), BLOB (another type). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_get_f64(
    file: *const kvern_gguf,
    key: *const c_char,
    out: *mut f64,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `key` ends with a NUL, by the header's contract.
    unsafe { value(file, key, out, |file, key| file.f64(key)) }
}

/// `*out` = the value of a key of type bool, 0 or 1.
///
/// Errors: NULL_POINTER, OPTION (no such key), BLOB (another type). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_get_bool(
    file: *const kvern_gguf,
    key: *const c_char,
    out: *mut i32,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `key` ends with a NUL, by the header's contract.
    unsafe { value(file, key, out, |file, key| file.bool(key).map(i32::from)) }
}

/// `*out` and `*bytes` = the value of a key of type str: UTF-8, not NUL-terminated, of the file, as long as
/// it lives.
///
/// Errors: NULL_POINTER, OPTION (no such key), BLOB (another type). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_get_str(
    file: *const kvern_gguf,
    key: *const c_char,
    out: *mut *const c_char,
    bytes: *mut usize,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `key` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        let text = shared("file", file)?.0.str(utf8("key", key)?)?;
        check("out", out, 1)?;
        put("bytes", bytes, text.len())?;
        put("out", out, text.as_ptr().cast())
    })
}

/// The elements `first..first + count` of the array of a key.
///
/// # Safety
/// - pointers are NULL or live for `'a`, and `key` ends with a NUL.
unsafe fn elements<'a>(
    file: *const kvern_gguf,
    key: *const c_char,
    (first, count): (usize, usize),
) -> Checked<impl Iterator<Item = Value<'a>> + Clone> {
    // SAFETY: handed on to the caller.
    let array = unsafe { shared("file", file)?.0.array(utf8("key", key)?)? };
    let end = first.checked_add(count).ok_or(Error::Overflow { what: "first + count" })?;
    if end > array.len() {
        let relation = "must be at most the elements of the array =";
        return Err(Error::Shape { what: "first + count", got: end, relation, want: array.len() }.into());
    }
    Ok(array.iter().skip(first).take(count))
}

/// The elements of an array as numbers; none is written unless all of them are of the type.
///
/// # Safety
/// - pointers are NULL or live, sizes are true, and `key` ends with a NUL.
unsafe fn numbers<T: Pod>(
    file: *const kvern_gguf,
    key: *const c_char,
    range: (usize, usize),
    out: *mut T,
    wanted: &'static str,
    to: impl Fn(&Value<'_>) -> Option<T>,
) -> kvern_status {
    // SAFETY: handed on to the caller.
    guard(|| unsafe {
        let values = elements(file, key, range)?;
        let out = Array::new("out", out, range.1)?;
        if let Some(other) = values.clone().find(|value| to(value).is_none()) {
            let got = text(format_args!("an element of type {}", other.kind()));
            return Err(Error::Blob { what: "array", got, want: text(wanted) }.into());
        }
        out.get_mut().iter_mut().zip(values.filter_map(|value| to(&value))).for_each(|(to, x)| *to = x);
        Ok(())
    })
}

/// Writes count elements from number first on of an array of any integers.
///
/// `out`: (count).
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (no such key), SHAPE (elements that are not there),
/// BLOB (another type, a value beyond int64_t). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_get_i64s(
    file: *const kvern_gguf,
    key: *const c_char,
    first: usize,
    count: usize,
    out: *mut i64,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, sizes are true, and `key` ends with a NUL, by the header's contract.
    unsafe {
        numbers(file, key, (first, count), out, "integers of 64 bits with sign", |value| value.to_i64())
    }
}

/// Writes count elements from number first on of an array of f32 or f64.
///
/// `out`: (count).
/// Errors: as `kvern_gguf_get_i64s`. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_get_f64s(
    file: *const kvern_gguf,
    key: *const c_char,
    first: usize,
    count: usize,
    out: *mut f64,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, sizes are true, and `key` ends with a NUL, by the header's contract.
    unsafe { numbers(file, key, (first, count), out, "f32 or f64", |value| value.to_f64()) }
}

/// Writes count elements from number first on of an array of flags, each 0 or 1.
///
/// `out`: (count).
/// Errors: as `kvern_gguf_get_i64s`. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_get_bools(
    file: *const kvern_gguf,
    key: *const c_char,
    first: usize,
    count: usize,
    out: *mut u8,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, sizes are true, and `key` ends with a NUL, by the header's contract.
    unsafe { numbers(file, key, (first, count), out, "bool", |value| value.to_bool().map(u8::from)) }
}

/// Writes count elements from number first on of an array of texts: UTF-8, not NUL-terminated, of the file,
/// as long as it lives. Texts are counted from the first one on: all of them in one call are read once.
///
/// `out`: (count), the texts. `bytes`: (count), their lengths; must not overlap `out`.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (no such key), SHAPE (elements that are not there),
/// BLOB (another type), ALIASED. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_get_strs(
    file: *const kvern_gguf,
    key: *const c_char,
    first: usize,
    count: usize,
    out: *mut *const c_char,
    bytes: *mut usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, sizes are true, and `key` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        let values = elements(file, key, (first, count))?;
        // A pointer is as large and as aligned as its address.
        let texts = Array::new("out", out.cast::<usize>(), count)?;
        let lens = Array::new("bytes", bytes, count)?.apart_from(&[texts.span()])?;
        if let Some(other) = values.clone().find(|value| value.kind() != ValueType::Str) {
            let got = text(format_args!("an element of type {}", other.kind()));
            return Err(Error::Blob { what: "array", got, want: text("str") }.into());
        }
        for (i, (len, value)) in lens.get_mut().iter_mut().zip(values.filter_map(|v| v.to_str())).enumerate()
        {
            *len = value.len();
            out.add(i).write(value.as_ptr().cast());
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_numbers_of_the_safe_api() {
        let numbers = [
            KVERN_GGUF_U8,
            KVERN_GGUF_I8,
            KVERN_GGUF_U16,
            KVERN_GGUF_I16,
            KVERN_GGUF_U32,
            KVERN_GGUF_I32,
            KVERN_GGUF_F32,
            KVERN_GGUF_BOOL,
            KVERN_GGUF_STR,
            KVERN_GGUF_ARRAY,
            KVERN_GGUF_U64,
            KVERN_GGUF_I64,
            KVERN_GGUF_F64,
        ];
        assert_eq!(ValueType::ALL.map(|kind| kind as kvern_gguf_type), numbers);
    }
}
