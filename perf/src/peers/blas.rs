//! Peers that are shared libraries with the CBLAS interface, loaded where they are installed.
//!
//! Debian: `libopenblas0`, `libblis4` (or their -dev packages); MKL: the Python package `mkl`, whose
//! `libmkl_rt.so.2` or `.so.3` must be on the loader's path or named by `KVERN_MKL`.

#[path = "../../../tests/support/blas.rs"]
mod interface;

use super::Peer;
use interface::{CGemm, Library};
use std::ffi::c_int;

const ROW_MAJOR: c_int = 101;
const NO_TRANS: c_int = 111;

/// One CBLAS library.
struct Blas {
    name: &'static str,
    sgemm: CGemm,
}

/// File names of a library, and how the number of its threads is set.
struct Known {
    name: &'static str,
    files: &'static [&'static str],
    variable: Option<&'static str>,
    set_threads: &'static str,
}

const KNOWN: [Known; 3] = [
    Known {
        name: "OpenBLAS",
        files: &["libopenblas.so.0", "libopenblas.so"],
        variable: None,
        set_threads: "openblas_set_num_threads",
    },
    Known {
        name: "BLIS",
        files: &["libblis.so.4", "libblis.so"],
        variable: None,
        set_threads: "bli_thread_set_num_threads",
    },
    Known {
        name: "MKL",
        files: &["libmkl_rt.so.3", "libmkl_rt.so.2", "libmkl_rt.so"],
        variable: Some("KVERN_MKL"),
        set_threads: "MKL_Set_Num_Threads",
    },
];

pub fn installed(threads: usize) -> Vec<Box<dyn Peer>> {
    let mut found: Vec<Box<dyn Peer>> = Vec::new();
    for known in KNOWN {
        match load(&known, threads) {
            Some(blas) => found.push(Box::new(blas)),
            None => eprintln!("not installed: {}", known.name),
        }
    }
    found
}

fn load(known: &Known, threads: usize) -> Option<Blas> {
    let named = known.variable.and_then(|v| std::env::var(v).ok());
    let files = named.iter().map(String::as_str).chain(known.files.iter().copied());
    let library = files.into_iter().find_map(Library::open)?;
    // SAFETY: these are the documented signatures; BLIS takes a 64-bit count, whose low half is the same.
    unsafe {
        let set: unsafe extern "C" fn(i64) = library.routine(known.set_threads)?;
        set(threads as i64);
        Some(Blas { name: known.name, sgemm: library.routine("cblas_sgemm")? })
    }
}

impl Peer for Blas {
    fn name(&self) -> &str {
        self.name
    }

    fn sgemm(&self, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], c: &mut [f32]) {
        assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n);
        let (m, n, k) = (m as c_int, n as c_int, k as c_int);
        let (ap, bp, cp) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // SAFETY: the lengths were just checked; leading dimensions are those of dense matrices.
        unsafe { (self.sgemm)(ROW_MAJOR, NO_TRANS, NO_TRANS, m, n, k, 1.0, ap, k, bp, n, 0.0, cp, n) }
    }
}
