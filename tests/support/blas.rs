//! BLAS libraries, loaded where they are installed: for the tests, and for kvern-perf, which times them.
#![allow(dead_code)] // each program uses its own part

use std::ffi::{CString, c_char, c_int, c_void};

/// `cblas_sgemm`.
pub type CGemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);

/// `cblas_sgemv`.
pub type CGemv = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);

/// `sgemm_`.
pub type FGemm = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const c_int,
    *const c_int,
    *const c_int,
    *const f32,
    *const f32,
    *const c_int,
    *const f32,
    *const c_int,
    *const f32,
    *mut f32,
    *const c_int,
);

/// `sgemv_`.
pub type FGemv = unsafe extern "C" fn(
    *const c_char,
    *const c_int,
    *const c_int,
    *const f32,
    *const f32,
    *const c_int,
    *const f32,
    *const c_int,
    *const f32,
    *mut f32,
    *const c_int,
);

/// A shared library, which stays loaded.
pub struct Library(*mut c_void);

impl Library {
    /// Loads a library and runs its initialisers, which is what it was installed for; `None` where it is not.
    pub fn open(file: &str) -> Option<Library> {
        let file = CString::new(file).ok()?;
        // SAFETY: the name is a C string; what the initialisers of a BLAS do is its user's wish.
        let library = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        (!library.is_null()).then_some(Library(library))
    }

    /// A function of the library; `None` for a name that it lacks.
    ///
    /// # Safety
    /// - `F` is the type of a pointer to the function of this name.
    pub unsafe fn routine<F: Copy>(&self, name: &str) -> Option<F> {
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
        let name = CString::new(name).ok()?;
        // SAFETY: the library is loaded and stays so.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        // SAFETY: of one size, and not null; the type is the caller's promise.
        (!found.is_null()).then(|| unsafe { std::mem::transmute_copy(&found) })
    }
}
