//! Arguments: the only place where what C passes becomes references. Everything that can be checked without
//! reading memory is checked first, in constant time, and a refusal names the argument.

use super::status::*;
use crate::error::{Error, product, text};
use crate::view::{MatMut, MatRef};
use bytemuck::Pod;
use std::alloc::Layout;
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::path::Path;

/// The largest options struct that a caller may pass: a size beyond it is taken for garbage.
const MAX_OPTIONS: usize = 4096;

/// `len` elements at `ptr` can be a slice: they fit the address space, and unless there are none, `ptr` is
/// aligned and not NULL.
#[inline(always)]
pub(super) fn check<T>(what: &str, ptr: *const T, len: usize) -> Checked<()> {
    Place::of(ptr).check(what, len)
}

/// A pointer and the layout of its elements. What is checked of them is compiled once, not for each type and
/// in each exported function.
#[derive(Clone, Copy)]
struct Place {
    address: usize,
    layout: Layout,
}

impl Place {
    #[inline(always)]
    fn of<T>(ptr: *const T) -> Place {
        Place { address: ptr.addr(), layout: Layout::new::<T>() }
    }

    /// [`check`].
    #[inline(always)]
    fn check(self, what: &str, len: usize) -> Checked<()> {
        let (size, align) = (self.layout.size(), self.layout.align());
        let bytes = len.checked_mul(size).filter(|bytes| *bytes <= isize::MAX as usize);
        let fits = bytes.is_some_and(|bytes| self.address.checked_add(bytes).is_some());
        // An alignment is a power of two, and a division would take as long as the other checks.
        if fits && (len == 0 || (self.address != 0 && self.address & (align - 1) == 0)) {
            return Ok(());
        }
        Err(self.refused(what, len, fits))
    }

    /// Why [`Place::check`] refuses.
    #[cold]
    #[inline(never)]
    fn refused(self, what: &str, len: usize, fits: bool) -> Failure {
        if !fits {
            return Failure::new(
                KVERN_STATUS_OVERFLOW,
                format_args!("{what} = {len} elements does not fit the address space"),
            );
        }
        if self.address == 0 {
            return Failure::new(KVERN_STATUS_NULL_POINTER, format_args!("{what} is NULL"));
        }
        Failure::new(
            KVERN_STATUS_MISALIGNED,
            format_args!("{what} = {:#x} must be aligned to {} bytes", self.address, self.layout.align()),
        )
    }

    /// Elements from the first to the last one of a matrix, which can be a slice: see [`check`].
    #[inline(never)]
    fn extent(self, what: &'static str, rows: usize, cols: usize, row_stride: usize) -> Checked<usize> {
        if rows > 1 && row_stride < cols {
            return Err(Failure::new(
                KVERN_STATUS_SHAPE,
                format_args!("{what}_row_stride = {row_stride} must be at least {cols}"),
            ));
        }
        let overflow =
            || Failure::new(KVERN_STATUS_OVERFLOW, format_args!("{what} does not fit the address space"));
        let len = match (rows, cols) {
            (0, _) | (_, 0) => 0,
            _ => {
                let body = product(what, &[rows - 1, row_stride]).map_err(|_| overflow())?;
                body.checked_add(cols).ok_or_else(overflow)?
            }
        };
        self.check(what, len)?;
        Ok(len)
    }
}

/// An object to read.
///
/// # Safety
/// - `ptr` is NULL or points to a live `T` that nobody changes meanwhile.
#[inline(always)]
pub(super) unsafe fn shared<'a, T>(what: &str, ptr: *const T) -> Checked<&'a T> {
    check(what, ptr, 1)?;
    // SAFETY: not NULL and aligned; the rest is the caller's promise.
    Ok(unsafe { &*ptr })
}

/// An object to change.
///
/// # Safety
/// - `ptr` is NULL or points to a live `T` that nobody else uses meanwhile.
#[inline(always)]
pub(super) unsafe fn exclusive<'a, T>(what: &str, ptr: *mut T) -> Checked<&'a mut T> {
    check(what, ptr, 1)?;
    // SAFETY: not NULL and aligned; the rest is the caller's promise.
    Ok(unsafe { &mut *ptr })
}

/// Writes a result.
///
/// # Safety
/// - `ptr` is NULL or points to writable memory of a `T`, initialised or not.
#[inline(always)]
pub(super) unsafe fn put<T: Copy>(what: &str, ptr: *mut T, value: T) -> Checked<()> {
    check(what, ptr, 1)?;
    // SAFETY: not NULL and aligned; the rest is the caller's promise.
    unsafe { ptr.write(value) };
    Ok(())
}

/// A range of memory with the name of its argument.
pub(super) type Span = (&'static str, std::ops::Range<usize>);

/// The first range has no byte in common with the others.
#[inline(never)]
fn apart((what, own): &Span, others: &[Span]) -> Checked<()> {
    for (other, range) in others {
        let empty = own.is_empty() || range.is_empty();
        if !empty && own.start < range.end && range.start < own.end {
            return Err(Failure::new(KVERN_STATUS_ALIASED, format_args!("{what} overlaps {other}")));
        }
    }
    Ok(())
}

/// A checked array or row-major matrix of the caller.
#[derive(Clone, Copy)]
pub(super) struct Array<T> {
    what: &'static str,
    ptr: *mut T, // (rows, cols), row i at ptr + i * row_stride
    rows: usize,
    cols: usize,
    row_stride: usize,
    len: usize,
}

impl<T: Pod> Array<T> {
    /// `len` elements in a row.
    #[inline(always)]
    pub fn new(what: &'static str, ptr: *const T, len: usize) -> Checked<Array<T>> {
        check(what, ptr, len)?;
        Ok(Array { what, ptr: ptr.cast_mut(), rows: 1, cols: len, row_stride: len, len })
    }

    /// `rows * cols` elements, rows `row_stride` apart.
    #[inline(always)]
    pub fn matrix(
        what: &'static str,
        ptr: *const T,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Checked<Array<T>> {
        let len = Place::of(ptr).extent(what, rows, cols, row_stride)?;
        Ok(Array { what, ptr: ptr.cast_mut(), rows, cols, row_stride, len })
    }

    /// The bytes from the first element to the last one.
    #[inline(always)]
    pub fn span(&self) -> Span {
        let start = self.ptr.addr();
        (self.what, start..start + self.len * size_of::<T>())
    }

    /// This output shares no byte range with `others`.
    #[inline(always)]
    pub fn apart_from(self, others: &[Span]) -> Checked<Array<T>> {
        apart(&self.span(), others)?;
        Ok(self)
    }

    /// The elements, to read.
    ///
    /// # Safety
    /// - the memory is readable, initialised, and unchanged for `'a`.
    #[inline(always)]
    pub unsafe fn get<'a>(&self) -> &'a [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `check` saw a pointer that is aligned, not NULL, and a length that fits.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }

    /// The elements, to write.
    ///
    /// # Safety
    /// - the memory is writable and reached through nothing else for `'a`.
    #[inline(always)]
    pub unsafe fn get_mut<'a>(&self) -> &'a mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: `check` saw a pointer that is aligned, not NULL, and a length that fits.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.len) }
    }

    /// The matrix, to read.
    ///
    /// # Safety
    /// - as [`Array::get`].
    #[inline(always)]
    pub unsafe fn view<'a>(&self) -> Checked<MatRef<'a, T>> {
        // SAFETY: handed on to the caller.
        Ok(MatRef::new(unsafe { self.get() }, self.rows, self.cols, self.row_stride)?)
    }

    /// The matrix, to write.
    ///
    /// # Safety
    /// - as [`Array::get_mut`].
    #[inline(always)]
    pub unsafe fn view_mut<'a>(&self) -> Checked<MatMut<'a, T>> {
        // SAFETY: handed on to the caller.
        Ok(MatMut::new(unsafe { self.get_mut() }, self.rows, self.cols, self.row_stride)?)
    }
}

impl Array<u8> {
    /// The flags of a boolean matrix, to read: bytes 0 and 1, those between two rows included.
    ///
    /// # Safety
    /// - as [`Array::get`].
    pub unsafe fn flags<'a>(&self) -> Checked<MatRef<'a, bool>> {
        // SAFETY: handed on to the caller.
        let bytes: &'a [u8] = unsafe { self.get() };
        // Another byte is no bool, and rows are slices of the whole: so gaps are looked at too.
        let flags: &'a [bool] = bytemuck::checked::try_cast_slice(bytes).map_err(|_| {
            let (i, got) = bytes.iter().enumerate().find(|(_, b)| **b > 1).unwrap_or((0, &0));
            Failure::new(KVERN_STATUS_OPTION, format_args!("{}[{i}] = {got} must be 0 or 1", self.what))
        })?;
        Ok(MatRef::new(flags, self.rows, self.cols, self.row_stride)?)
    }
}

/// Rows of heads side by side: (rows, heads * dim).
#[inline(always)]
pub(super) fn heads_of<T: Pod>(
    what: &'static str,
    x: *const T,
    rows: usize,
    (heads, dim): (usize, usize),
    row_stride: usize,
) -> Checked<Array<T>> {
    Array::matrix(what, x, rows, product("heads * head_dim", &[heads, dim])?, row_stride)
}

/// A matrix that is stored transposed when the flag says so: stored `(cols, rows)` then.
#[inline(always)]
pub(super) fn stored<T: Pod>(
    what: &'static str,
    ptr: *const T,
    (rows, cols): (usize, usize),
    row_stride: usize,
    transposed: bool,
) -> Checked<Array<T>> {
    let (rows, cols) = if transposed { (cols, rows) } else { (rows, cols) };
    Array::matrix(what, ptr, rows, cols, row_stride)
}

/// An options struct: plain old C, first field `struct_size`, valid when all its bytes are zero.
///
/// # Safety
/// - every bit pattern that a C caller can store in the struct is a valid value of it.
pub(super) unsafe trait Options: Copy {}

/// Reads the options that the caller's header knows; fields that it does not know are zero.
///
/// # Safety
/// - `ptr` is NULL or points to `struct_size` readable bytes, of which `struct_size` is the first field.
pub(super) unsafe fn read<T: Options>(what: &str, ptr: *const T) -> Checked<T> {
    check(what, ptr, 1)?;
    // SAFETY: not NULL and aligned; every options struct starts with its size.
    let size = unsafe { ptr.cast::<usize>().read() };
    if !(size_of::<usize>()..=MAX_OPTIONS).contains(&size) || !size.is_multiple_of(align_of::<T>()) {
        // A struct's size is a multiple of its alignment; another one would cut a pointer in two.
        return Err(Failure::new(
            KVERN_STATUS_OPTION,
            format_args!("{what}->struct_size = {size} must be sizeof the struct: {}", size_of::<T>()),
        ));
    }
    for i in size_of::<T>()..size {
        // SAFETY: byte i lies inside of the size that the caller gave.
        if unsafe { ptr.cast::<u8>().add(i).read() } != 0 {
            return Err(Failure::new(
                KVERN_STATUS_UNSUPPORTED,
                format_args!("{what} uses a field of a newer kvern (byte {i} is not zero)"),
            ));
        }
    }
    let mut options = MaybeUninit::<T>::zeroed();
    let known = size.min(size_of::<T>());
    // SAFETY: `known` bytes are readable at `ptr` and writable in `options`; a trait bound makes every
    // pattern of them, with zeroes behind, a value.
    Ok(unsafe {
        std::ptr::copy_nonoverlapping(ptr.cast::<u8>(), options.as_mut_ptr().cast(), known);
        options.assume_init()
    })
}

/// [`read`], with NULL for all defaults.
///
/// # Safety
/// - as [`read`].
#[inline(always)]
pub(super) unsafe fn read_or_default<T: Options>(what: &str, ptr: *const T) -> Checked<T> {
    if ptr.is_null() {
        // SAFETY: all zeroes are a value by the trait's contract.
        return Ok(unsafe { MaybeUninit::zeroed().assume_init() });
    }
    // SAFETY: handed on to the caller.
    unsafe { read(what, ptr) }
}

/// `Some` array where there is one, `None` for NULL.
#[inline(always)]
pub(super) fn optional<T: Pod>(
    ptr: *const T,
    array: impl FnOnce(*const T) -> Checked<Array<T>>,
) -> Checked<Option<Array<T>>> {
    if ptr.is_null() { Ok(None) } else { array(ptr).map(Some) }
}

/// The memory of an array that may be absent.
#[inline(always)]
pub(super) fn span_of<T: Pod>(array: &Option<Array<T>>) -> Span {
    array.as_ref().map_or(("", 0..0), Array::span)
}

/// `Some` number, `None` for the zero that stands for a default.
pub(super) fn nonzero<T: PartialEq + Default>(x: T) -> Option<T> {
    (x != T::default()).then_some(x)
}

/// A file name: NUL-terminated, in the system's encoding (UTF-8 where it has none for C strings).
///
/// # Safety
/// - `path` is NULL or points to a NUL-terminated string that nobody changes for `'a`.
pub(super) unsafe fn path<'a>(what: &str, path: *const c_char) -> Checked<&'a Path> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        check(what, path, 1)?;
        // SAFETY: not NULL; the rest is the caller's promise.
        let text = unsafe { CStr::from_ptr(path) };
        Ok(Path::new(std::ffi::OsStr::from_bytes(text.to_bytes())))
    }
    #[cfg(not(unix))]
    // SAFETY: handed on to the caller.
    unsafe { utf8(what, path) }.map(Path::new)
}

/// A text: NUL-terminated UTF-8.
///
/// # Safety
/// - `text` is NULL or points to a NUL-terminated string that nobody changes for `'a`.
pub(super) unsafe fn utf8<'a>(what: &str, text: *const c_char) -> Checked<&'a str> {
    check(what, text, 1)?;
    // SAFETY: not NULL; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::new(KVERN_STATUS_OPTION, format_args!("{what} must be UTF-8")))
}

/// Options without a meaning yet must be 0.
#[inline(never)]
pub(super) fn no_flags(what: &str, flags: u32) -> Checked<()> {
    if flags == 0 {
        return Ok(());
    }
    Err(Failure::new(KVERN_STATUS_UNSUPPORTED, format_args!("{what} = {flags} must be 0")))
}

/// The value that an enum number stands for.
#[inline(never)]
pub(super) fn choose<T: Copy>(
    what: &'static str,
    number: i32,
    allowed: &'static str,
    values: &[(i32, T)],
) -> Checked<T> {
    let found = values.iter().find(|(n, _)| *n == number);
    found.map(|&(_, value)| value).ok_or_else(|| Error::Option { what, got: text(number), allowed }.into())
}

/// A flag: 0 or 1.
#[inline(never)]
pub(super) fn flag(what: &'static str, number: i32) -> Checked<bool> {
    choose(what, number, "0 or 1", &[(0, false), (1, true)])
}

#[cfg(test)]
mod tests {
    use super::super::status::message;
    use super::*;

    #[test]
    fn arrays_are_checked_without_being_read() {
        let status = |r: Checked<Array<f32>>| r.err().map(|f| (f.status, message())).unwrap_or_default();
        let far = std::ptr::without_provenance::<f32>(0x1000);
        assert_eq!(status(Array::new("x", std::ptr::null(), 0)).0, KVERN_STATUS_OK);
        assert_eq!(status(Array::new("x", std::ptr::null(), 1)), (-1, "x is NULL".into()));
        assert_eq!(status(Array::new("x", far, isize::MAX as usize / 4 + 1)).0, KVERN_STATUS_OVERFLOW);
        assert_eq!(status(Array::new("x", far.with_addr(usize::MAX - 7), 4)).0, KVERN_STATUS_OVERFLOW);
        let (code, text) = status(Array::new("x", far.with_addr(0x1002), 4));
        assert_eq!((code, text.as_str()), (KVERN_STATUS_MISALIGNED, "x = 0x1002 must be aligned to 4 bytes"));
        let (code, text) = status(Array::matrix("x", far, 2, 5, 4));
        assert_eq!((code, text.as_str()), (KVERN_STATUS_SHAPE, "x_row_stride = 4 must be at least 5"));
        for (rows, cols, stride) in [(usize::MAX, 2, usize::MAX), (3, 2, usize::MAX / 2), (1, usize::MAX, 0)]
        {
            assert_eq!(status(Array::matrix("x", far, rows, cols, stride)).0, KVERN_STATUS_OVERFLOW);
        }
        assert_eq!(status(Array::matrix("x", std::ptr::null(), usize::MAX, 0, 0)).0, KVERN_STATUS_OK);
    }

    #[test]
    fn flags_are_zero_and_one() {
        // SAFETY: the arrays are live.
        let flags = |x: &[u8; 4]| unsafe { Array::matrix("seen", x.as_ptr(), 2, 1, 3)?.flags() };
        assert_eq!(flags(&[1, 0, 1, 0]).ok().and_then(|m| m.row(1).map(<[bool]>::to_vec)), Some(vec![false]));
        let e = flags(&[1, 0, 7, 1]).err().unwrap();
        assert_eq!((e.status, message().as_str()), (KVERN_STATUS_OPTION, "seen[2] = 7 must be 0 or 1"));
    }

    #[test]
    fn overlaps_are_found_by_bytes() {
        let x = [0f32; 8];
        let part = |from: usize, len| Array::new("y", &x[from], len).unwrap();
        assert!(part(0, 4).apart_from(&[part(4, 4).span()]).is_ok());
        assert!(part(4, 4).apart_from(&[part(0, 4).span(), part(4, 0).span()]).is_ok());
        let e = part(0, 5).apart_from(&[part(4, 4).span()]).err().unwrap();
        assert_eq!((e.status, message().as_str()), (KVERN_STATUS_ALIASED, "y overlaps y"));
    }
}
