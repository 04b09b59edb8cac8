//! Files through the C ABI: replaced as a whole, and only where they are files.

use crate::capi::*;
use crate::folder::Folder;
use kvern::capi::cache::*;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::status::*;
use kvern::capi::weights::*;
use std::ffi::{CString, c_char};
use std::path::PathBuf;
use std::ptr::{null, null_mut};

/// A path in a folder, for Rust and for C.
fn named(folder: &Folder, name: &str) -> (PathBuf, CString) {
    let path = folder.path(name);
    let text = CString::new(path.to_str().unwrap()).unwrap();
    (path, text)
}

fn names(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(&folder.0).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Large enough that the pages behind the first are read from the file when they are needed.
const ROWS: usize = 512;

/// A save onto a file that is mapped, which Windows may refuse.
#[track_caller]
fn ok_or_in_use(status: kvern_status) {
    if cfg!(windows) && status != KVERN_STATUS_OK {
        return refused(status, KVERN_STATUS_IO, "cannot write ");
    }
    ok(status);
}

#[test]
fn a_mapped_object_is_saved_onto_its_own_file() {
    let (o, folder) = (Objects::new(), Folder::new("saved_onto_itself"));
    let (path, text) = named(&folder, "object");
    let w: Vec<f32> = (0..ROWS * K).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
    let (mut weights, mut mapped, mut b, mut mapped_b) = (null_mut(), null_mut(), null_mut(), null_mut());
    let (a, mut want, mut got) = ([0.5f32; K], vec![0f32; ROWS], vec![f32::NAN; ROWS]);
    // SAFETY: every pointer is live and of the stated size; objects are destroyed once.
    unsafe {
        ok(kvern_weights_quantize(null(), KVERN_WEIGHT_FORMAT_Q8_0, ROWS, K, w.as_ptr(), K, &mut weights));
        let multiply = |weights, out: &mut Vec<f32>| {
            let (a, c) = (a.as_ptr(), out.as_mut_ptr());
            kvern_weights_multiply(o.ctx, o.ws, weights, 1, 1, ROWS, K, a, K, c, ROWS, null())
        };
        ok(multiply(weights, &mut want));
        ok(kvern_weights_save(weights, text.as_ptr()));
        let saved = std::fs::read(&path).unwrap();
        ok(kvern_weights_map(text.as_ptr(), &mut mapped));
        ok_or_in_use(kvern_weights_save(mapped, text.as_ptr()));
        assert_eq!(std::fs::read(&path).unwrap(), saved);
        // What lies at the path by now is nothing to the mapped object, not even an empty file.
        ok_or_in_use(kvern_packed_b_save(o.packed, text.as_ptr()));
        ok(multiply(mapped, &mut got));
        assert_eq!(got, want);
        kvern_weights_destroy(mapped);
        kvern_weights_destroy(weights);

        ok(kvern_packed_b_pack(o.ctx, K, ROWS, w.as_ptr(), K, 1, &mut b));
        ok(kvern_packed_b_save(b, text.as_ptr()));
        let saved = std::fs::read(&path).unwrap();
        ok(kvern_packed_b_map(text.as_ptr(), &mut mapped_b));
        ok_or_in_use(kvern_packed_b_save(mapped_b, text.as_ptr()));
        assert_eq!(std::fs::read(&path).unwrap(), saved);
        kvern_packed_b_destroy(mapped_b);
        kvern_packed_b_destroy(b);
    }
    assert_eq!(names(&folder), ["object"]);
}

#[test]
fn what_is_no_regular_file_is_neither_read_nor_written() {
    let (o, folder) = (Objects::new(), Folder::new("no_regular_file"));
    let directory = CString::new(folder.0.to_str().unwrap()).unwrap();
    let (mut w, mut b, mut cache) = (null_mut(), null_mut(), null_mut());
    let options = cache_options(8, 0);
    let mut check = |path: *const c_char, why: &str| {
        // SAFETY: every pointer is live; nothing is made.
        unsafe {
            for status in [
                kvern_weights_load(null(), path, &mut w),
                kvern_weights_map(path, &mut w),
                kvern_packed_b_load(null(), path, &mut b),
                kvern_packed_b_map(path, &mut b),
                kvern_kv_cache_load(null(), &options, path, &mut cache),
                kvern_kv_cache_restore(o.cache, path),
                kvern_weights_save(o.weights, path),
                kvern_packed_b_save(o.packed, path),
                kvern_kv_cache_save(o.cache, path),
            ] {
                refused(status, KVERN_STATUS_IO, why);
            }
        }
        assert!(w.is_null() && b.is_null() && cache.is_null());
    };
    let not_regular = "cannot take for a regular file";
    check(directory.as_ptr(), not_regular);
    #[cfg(unix)]
    {
        let (_, pipe) = named(&folder, "pipe");
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        [pipe.as_ptr(), c"/dev/zero".as_ptr(), c"/dev/null".as_ptr()]
            .into_iter()
            .for_each(|path| check(path, not_regular));
        assert_eq!(names(&folder), ["pipe"]);
    }
    #[cfg(windows)]
    check(c"NUL".as_ptr(), "cannot ");
}

#[test]
fn a_save_that_cannot_be_made_leaves_nothing() {
    let (o, folder) = (Objects::new(), Folder::new("cannot_be_made"));
    let (path, _) = named(&folder, "file");
    std::fs::write(&path, "a file, not a folder").unwrap();
    let (_, inside) = named(&folder, "file/inside");
    let (_, nowhere) = named(&folder, "nowhere/inside");
    for path in [inside.as_ptr(), nowhere.as_ptr(), c"".as_ptr()] {
        // SAFETY: every pointer is live.
        unsafe {
            refused(kvern_weights_save(o.weights, path), KVERN_STATUS_IO, "cannot write ");
            refused(kvern_packed_b_save(o.packed, path), KVERN_STATUS_IO, "cannot write ");
            refused(kvern_kv_cache_save(o.cache, path), KVERN_STATUS_IO, "cannot write ");
        }
    }
    assert_eq!(names(&folder), ["file"]);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "a file, not a folder");
}

#[test]
fn names_of_files_are_in_any_script() {
    let (o, folder) = (Objects::new(), Folder::new("any_script"));
    let (path, text) = named(&folder, "gewicht-\u{e4}-\u{91cd}\u{307f}-\u{1f40c}");
    let mut b = null_mut();
    // SAFETY: every pointer is live.
    unsafe {
        ok(kvern_packed_b_save(o.packed, text.as_ptr()));
        assert!(path.is_file());
        ok(kvern_packed_b_load(null(), text.as_ptr(), &mut b));
        kvern_packed_b_destroy(b);
        if cfg!(windows) {
            let status = kvern_packed_b_load(null(), c"\xff".as_ptr(), &mut b);
            refused(status, KVERN_STATUS_OPTION, "path must be UTF-8");
        }
    }
}
