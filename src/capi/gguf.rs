//! GGUF files: opened, and their tensors.

use super::args::{Array, path, put, shared, utf8};
use super::context::{kvern_context, with_context};
use super::quant::kvern_weights;
use super::status::{Checked, kvern_status};
use super::{create, destroy, guard};
use crate::buffer::Unchanged;
use crate::error::Error;
use crate::gguf::{Gguf, Tensor};
use crate::quant::PackedWeights;
use std::ffi::c_char;

/// A GGUF file, or all parts of a split one. Immutable.
#[derive(Debug)]
pub struct kvern_gguf(pub(super) Gguf);

/// A tensor of a file. Its layout is final. What it points to belongs to the file, and lives as long as it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct kvern_gguf_tensor {
    /// The name, UTF-8, not NUL-terminated.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_bytes: usize,
    /// The type id of GGUF; of those that kvern computes with, a KVERN_WEIGHT_FORMAT_* number.
    pub kind: u32,
    /// Dimensions, 0 to 4.
    pub dims: u32,
    /// The dimensions, k first: (k), (k, n) or (k, n, experts). 1 behind the last one.
    pub shape: [usize; 4],
    /// The data as they lie in the file; NULL for a type whose size kvern does not know.
    pub data: *const u8,
    /// Bytes of the data; 0 for a type whose size kvern does not know.
    pub data_bytes: usize,
}

impl kvern_gguf_tensor {
    fn of(tensor: &Tensor<'_>) -> kvern_gguf_tensor {
        let (name, sizes) = (tensor.name(), tensor.shape());
        let mut shape = [1; 4];
        shape.iter_mut().zip(sizes).for_each(|(to, size)| *to = *size);
        let (data, data_bytes) = match tensor.bytes() {
            Ok(bytes) => (bytes.as_ptr(), bytes.len()),
            Err(_) => (std::ptr::null(), 0),
        };
        kvern_gguf_tensor {
            name: name.as_ptr().cast(),
            name_bytes: name.len(),
            kind: tensor.kind().id(),
            dims: sizes.len() as u32,
            shape,
            data,
            data_bytes,
        }
    }
}

/// Maps a GGUF file (version 2 or 3, little-endian) and reads its header; where it is the first part of
/// several (`NAME-00001-of-00003.gguf`), all of them, which lie beside it. Data are neither read nor copied.
/// Nobody may write into the files or shorten them while the object lives: a page that is gone ends the
/// process when it is touched.
///
/// `path`: NUL-terminated, in the encoding of the system's own file functions (UTF-8 on Windows). `out`:
/// receives the object, NULL on failure.
/// Errors: NULL_POINTER, IO (no regular file, for one), BLOB (cut off, foreign, big-endian, of another
/// version, a header that does not hold together, parts that do not belong together), OPTION (a first part
/// of another name), OVERFLOW, RESOURCE, UNSUPPORTED on systems without mmap. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_open(path: *const c_char, out: *mut *mut kvern_gguf) -> kvern_status {
    // SAFETY: both are NULL or live, `path` ends with a NUL, and nobody changes the files, by the header's
    // contract.
    guard(|| unsafe {
        create(out, || Ok(kvern_gguf(Gguf::open(self::path("path", path)?, Unchanged::promised())?)))
    })
}

/// As `kvern_gguf_open`, with the files read into memory, data included: for files that others may change.
///
/// Errors: as `kvern_gguf_open`. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_load(path: *const c_char, out: *mut *mut kvern_gguf) -> kvern_status {
    // SAFETY: both are NULL or live, and `path` ends with a NUL, by the header's contract.
    guard(|| unsafe { create(out, || Ok(kvern_gguf(Gguf::load(self::path("path", path)?)?))) })
}

/// Destroys a file; NULL is ignored. Weights that were packed from it stay.
///
/// Threads: `file` exclusive.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_destroy(file: *mut kvern_gguf) {
    // SAFETY: handed on to the caller.
    unsafe { destroy(file) }
}

/// `*out` = the tensors of all parts.
///
/// Errors: NULL_POINTER. Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_tensor_count(file: *const kvern_gguf, out: *mut usize) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe { put("out", out, shared("file", file)?.0.tensor_count()) })
}

/// `*out` = tensor `index` of `kvern_gguf_tensor_count`, in the order of the file, part after part.
///
/// Errors: NULL_POINTER, SHAPE (no such index). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_tensor_at(
    file: *const kvern_gguf,
    index: usize,
    out: *mut kvern_gguf_tensor,
) -> kvern_status {
    // SAFETY: both are NULL or live, by the header's contract.
    guard(|| unsafe {
        let file = &shared("file", file)?.0;
        let tensor = file.tensor_at(index).ok_or_else(|| beyond(index, file.tensor_count()))?;
        put("out", out, kvern_gguf_tensor::of(&tensor))
    })
}

/// An index that is not there.
pub(super) fn beyond(index: usize, count: usize) -> Error {
    Error::Shape { what: "index", got: index, relation: "must be below the count =", want: count }
}

/// `*out` = the tensor of a name, such as `blk.0.attn_q.weight`.
///
/// `name`: NUL-terminated, UTF-8.
/// Errors: NULL_POINTER, OPTION (no such tensor, no UTF-8). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_tensor_find(
    file: *const kvern_gguf,
    name: *const c_char,
    out: *mut kvern_gguf_tensor,
) -> kvern_status {
    // SAFETY: all are NULL or live, and `name` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        let tensor = self::tensor(file, name)?;
        put("out", out, kvern_gguf_tensor::of(&tensor))
    })
}

/// # Safety
/// - both are NULL or live for `'a`, and `name` ends with a NUL.
unsafe fn tensor<'a>(file: *const kvern_gguf, name: *const c_char) -> Checked<Tensor<'a>> {
    // SAFETY: handed on to the caller.
    unsafe { Ok(shared("file", file)?.0.tensor(utf8("name", name)?)?) }
}

/// Writes all elements of a tensor in f32, dequantised: norms, biases.
///
/// `name`: NUL-terminated, UTF-8. `out`: receives len elements, the product of the shape, k together.
/// Errors: NULL_POINTER, MISALIGNED, OVERFLOW, OPTION (no such tensor), BLOB (a type that kvern does not
/// compute with), SHAPE (a wrong `len`). Threads: any.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_gguf_read_f32(
    file: *const kvern_gguf,
    name: *const c_char,
    out: *mut f32,
    len: usize,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, sizes are true, and `name` ends with a NUL, by the header's
    // contract.
    guard(|| unsafe {
        let tensor = self::tensor(file, name)?;
        Ok(tensor.read_f32(Array::new("out", out, len)?.get_mut())?)
    })
}

/// Packs a tensor of a file: W (n output features, k input features) of shape (k, n), or one matrix of
/// (k, n, experts). The file is not needed afterwards.
///
/// `ctx`: whose threads it runs on and whose memory the object lies in; NULL for the calling thread and the
/// process's allocator. `name`: NUL-terminated, UTF-8. `expert`: which matrix, 0 where there is one. `out`:
/// receives the object, NULL on failure.
/// Errors: NULL_POINTER, OPTION (no such tensor), BLOB (a type that kvern does not compute with), SHAPE (no
/// such expert), OVERFLOW, RESOURCE. Threads: `ctx` and `file` shared.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvern_weights_from_gguf(
    ctx: *const kvern_context,
    file: *const kvern_gguf,
    name: *const c_char,
    expert: usize,
    out: *mut *mut kvern_weights,
) -> kvern_status {
    // SAFETY: pointers are NULL or live, and `name` ends with a NUL, by the header's contract.
    guard(|| unsafe {
        create(out, || {
            let (file, name) = (&shared("file", file)?.0, utf8("name", name)?);
            let pack = |ctx: &_| Ok(PackedWeights::from_gguf_expert_on(ctx, file, name, expert)?);
            Ok(kvern_weights(with_context(ctx, pack)?))
        })
    })
}
