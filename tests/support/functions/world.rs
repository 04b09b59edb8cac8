//! The objects that calls use: some of each type, made and destroyed by the calls themselves.

use super::answers::{contents, ok};
use super::arguments::Arguments;
use kvern::capi::cache::*;
use kvern::capi::context::*;
use kvern::capi::gguf::*;
use kvern::capi::import::*;
use kvern::capi::isa::*;
use kvern::capi::packed_b::*;
use kvern::capi::quant::*;
use kvern::capi::quantized_rows::*;
use kvern::capi::recurrent::*;
use kvern::capi::rope::*;
use kvern::capi::threads::*;
use kvern::capi::weights::*;
use kvern::capi::workspace::*;
use std::alloc::Layout;
use std::ffi::{CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The caller's own threads: all workers on the calling one, backwards.
pub unsafe extern "C" fn backwards(
    _: *mut c_void,
    workers: usize,
    body: kvern_worker_body,
    arg: *mut c_void,
) {
    for worker in (0..workers).rev() {
        // SAFETY: `body` is called with its `arg` during the region.
        unsafe { body(arg, worker) };
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, 64).ok()
}

/// The caller's own memory.
pub unsafe extern "C" fn allocate(_: *mut c_void, bytes: usize, _: usize) -> *mut c_void {
    // SAFETY: never of size 0.
    layout(bytes).map_or(null_mut(), |layout| unsafe { std::alloc::alloc(layout) }).cast()
}

pub unsafe extern "C" fn release(_: *mut c_void, start: *mut c_void, bytes: usize) {
    if let Some(layout) = layout(bytes) {
        // SAFETY: what `allocate` gave for as many bytes.
        unsafe { std::alloc::dealloc(start.cast(), layout) };
    }
}

/// Options with their size and zeros.
pub fn defaults<T: Copy>() -> T {
    // SAFETY: options are plain C structs, which are valid when all their bytes are zero, and start with
    // their size.
    unsafe {
        let mut options: T = std::mem::zeroed();
        std::ptr::from_mut(&mut options).cast::<usize>().write(size_of::<T>());
        options
    }
}

/// Objects of one type, and how they end.
pub struct Objects<T> {
    list: Vec<*mut T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Objects<T> {
    fn new(destroy: unsafe extern "C" fn(*mut T)) -> Objects<T> {
        Objects { list: Vec::with_capacity(16), destroy }
    }

    /// One of them, as an argument.
    pub fn any(&self, g: &mut Arguments) -> *mut T {
        let good = self.one(g);
        g.handle(good)
    }

    /// One of them.
    pub fn one(&self, g: &mut Arguments) -> *mut T {
        self.list[g.below(self.list.len())]
    }

    /// The largest of workspaces where calls are to succeed.
    pub fn enough(&self, g: &mut Arguments) -> *mut T {
        if g.may_be_hostile() { self.any(g) } else { self.list[5] }
    }

    /// The first of them.
    pub fn first(&self) -> *mut T {
        self.list[0]
    }

    /// Keeps what a call has made, instead of another one when there are many.
    pub fn keep(&mut self, g: &mut Arguments, made: *mut T) {
        if self.list.len() < 12 {
            return self.list.push(made);
        }
        let i = g.below(self.list.len());
        let old = std::mem::replace(&mut self.list[i], made);
        // SAFETY: no longer in the list, and used by nothing.
        unsafe { (self.destroy)(old) };
    }

    /// One of them to be destroyed, as long as some are left.
    pub fn take(&mut self, g: &mut Arguments) -> *mut T {
        match g.below(self.list.len()) {
            i if self.list.len() > 6 => self.list.swap_remove(i),
            _ => null_mut(),
        }
    }
}

impl<T> Drop for Objects<T> {
    fn drop(&mut self) {
        for object in self.list.drain(..) {
            // SAFETY: used by nothing any more.
            unsafe { (self.destroy)(object) };
        }
    }
}

pub struct World {
    pub caches: Objects<kvern_kv_cache>,
    pub weights: Objects<kvern_weights>,
    pub packed: Objects<kvern_packed_b>,
    pub ggufs: Objects<kvern_gguf>,
    pub tables: Objects<kvern_rope_table>,
    pub states: Objects<kvern_state>,
    pub rows: Objects<kvern_quantized_rows>,
    pub workspaces: Objects<kvern_workspace>,
    pub contexts: Objects<kvern_context>,
    /// Files that loads read: good and bad ones.
    pub files: Vec<CString>,
    /// Files that saves write.
    pub targets: Vec<CString>,
    /// A context of its own, for questions between calls.
    pub plain_context: *mut kvern_context,
    /// A cache that the current call changes, and what it held.
    watched: Option<(*const kvern_kv_cache, Vec<usize>)>,
    folder: PathBuf,
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

impl World {
    /// Objects of every kind; files in a new folder of the name.
    pub fn new(name: &str) -> World {
        // Memory where there is some: a save flushes its file.
        let base = Some(Path::new("/dev/shm")).filter(|path| path.is_dir());
        let base = base.map_or_else(std::env::temp_dir, Path::to_owned);
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let folder = base.join(format!("kvern-{name}-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut w = World {
            caches: Objects::new(kvern_kv_cache_destroy),
            weights: Objects::new(kvern_weights_destroy),
            packed: Objects::new(kvern_packed_b_destroy),
            ggufs: Objects::new(kvern_gguf_destroy),
            tables: Objects::new(kvern_rope_table_destroy),
            states: Objects::new(kvern_state_destroy),
            rows: Objects::new(kvern_quantized_rows_destroy),
            workspaces: Objects::new(kvern_workspace_destroy),
            contexts: Objects::new(kvern_context_destroy),
            files: Vec::new(),
            targets: (0..4).map(|i| c_path(&folder.join(format!("target{i}")))).collect(),
            plain_context: null_mut(),
            watched: None,
            folder,
        };
        w.fill();
        w
    }

    fn fill(&mut self) {
        let x: Vec<f32> = (0..64 * 256).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
        let x = x.as_ptr();
        let mut made = null_mut();
        // SAFETY: every pointer is live and of the stated size.
        unsafe {
            let none = defaults::<kvern_context_options>();
            for options in [
                none,
                kvern_context_options { threads: 2, ..none },
                kvern_context_options { isa_cap: KVERN_ISA_SCALAR, ..none },
                kvern_context_options { parallel_for: Some(backwards), max_threads: 3, ..none },
                kvern_context_options { allocate: Some(allocate), release: Some(release), ..none },
                none,
            ] {
                ok(kvern_context_create(&options, &mut made));
                self.contexts.list.push(made);
            }
            ok(kvern_context_create(&none, &mut self.plain_context));
            let ctx = self.plain_context;
            let mut ws = null_mut();
            for bytes in [0, 64, 1 << 12, 1 << 14, 1 << 21, 1 << 21] {
                ok(kvern_workspace_create(null(), bytes, &mut ws));
                self.workspaces.list.push(ws);
            }
            let mut b = null_mut();
            for (dtype, k, n) in
                [(0, 64, 17), (1, 64, 17), (30, 31, 5), (30, 64, 17), (0, 0, 3), (0, 256, 64)]
            {
                ok(kvern_packed_b_pack_dtype(ctx, dtype, k, n, x.cast(), k, 1, &mut b));
                self.packed.list.push(b);
            }
            let mut weights = null_mut();
            for (format, n, k) in [
                (KVERN_WEIGHT_FORMAT_Q8_0, 5, 64),
                (KVERN_WEIGHT_FORMAT_Q4_0, 17, 64),
                (KVERN_WEIGHT_FORMAT_Q4_K, 16, 256),
                (KVERN_WEIGHT_FORMAT_F32, 17, 64),
                (KVERN_WEIGHT_FORMAT_BF16, 5, 64),
                (KVERN_WEIGHT_FORMAT_F32, 5, 0),
                (KVERN_WEIGHT_FORMAT_F32, 64, 256),
                (KVERN_WEIGHT_FORMAT_Q8_0, 64, 64),
                (KVERN_WEIGHT_FORMAT_Q4_0, 64, 64),
                (KVERN_WEIGHT_FORMAT_BF16, 64, 64),
            ] {
                ok(kvern_weights_quantize(null(), format, n, k, x, k, &mut weights));
                self.weights.list.push(weights);
            }
            let (codes, scales) = ([7u8; 5 * 64], [0.5f32; 10]);
            let (codes, scales) = (codes.as_ptr(), scales.as_ptr());
            ok(kvern_weights_from_groups(ctx, 4, 32, 5, 64, codes, scales, null(), &mut weights));
            self.weights.list.push(weights);
            let (gguf, mut file) = (self.folder.join("gguf"), null_mut());
            super::files::write(&gguf);
            for _ in 0..6 {
                ok(kvern_gguf_load(c_path(&gguf).as_ptr(), &mut file));
                self.ggufs.list.push(file);
            }
            let mut table = null_mut();
            for (dim, positions) in [(8, 700), (16, 64), (4, 0), (8, 3), (2, 1), (8, 700)] {
                ok(kvern_rope_table_create(dim, positions, 10000.0, &mut table));
                self.tables.list.push(table);
            }
            let mut rows = null_mut();
            for most in [9, 5, 1, 0, 9, 9] {
                ok(kvern_quantized_rows_create(null(), most, 64, &mut rows));
                ok(kvern_quantized_rows_quantize(ctx, rows, most.min(5), 64, 0, x.cast(), 64));
                self.rows.list.push(rows);
            }
            let mut state = null_mut();
            for sequences in [3, 2, 1, 3, 3, 4] {
                ok(kvern_state_create(null(), &super::states::options(sequences), &mut state));
                self.states.list.push(state);
            }
            let mut cache = null_mut();
            let none = kvern_kv_cache_options { kv_heads: 2, head_dim: 8, capacity: 40, ..defaults() };
            for options in [
                none,
                kvern_kv_cache_options { window: 8, ..none },
                kvern_kv_cache_options { window: 4, sinks: 2, capacity: 12, ..none },
                kvern_kv_cache_options { keys: KVERN_KV_INT8, values: KVERN_KV_F16, value_dim: 16, ..none },
                kvern_kv_cache_options { sequences: 3, pages: 4, capacity: 520, keys: KVERN_KV_BF16, ..none },
                kvern_kv_cache_options { sequences: 2, ..none },
            ] {
                ok(kvern_kv_cache_create(null(), &options, &mut cache));
                ok(kvern_kv_cache_append(cache, 3, x, 64, x.add(7), 64));
                self.caches.list.push(cache);
            }
        }
    }

    /// Files of every kind, whole and damaged, and what is no file; from the objects that there are at the
    /// first use.
    pub fn write_files(&mut self) {
        if !self.files.is_empty() {
            return;
        }
        let folder = self.folder.clone();
        let mut good = vec![folder.join("gguf")];
        // SAFETY: objects are live, and paths are C strings.
        unsafe {
            for (i, &weights) in self.weights.list.iter().enumerate() {
                good.push(folder.join(format!("weights{i}")));
                ok(kvern_weights_save(weights, c_path(&good[good.len() - 1]).as_ptr()));
            }
            for (i, &b) in self.packed.list.iter().enumerate() {
                good.push(folder.join(format!("packed{i}")));
                ok(kvern_packed_b_save(b, c_path(&good[good.len() - 1]).as_ptr()));
            }
            for (i, &cache) in self.caches.list.iter().enumerate() {
                good.push(folder.join(format!("cache{i}")));
                ok(kvern_kv_cache_save(cache, c_path(&good[good.len() - 1]).as_ptr()));
            }
            for (i, &state) in self.states.list.iter().enumerate() {
                good.push(folder.join(format!("state{i}")));
                ok(kvern_state_save(state, c_path(&good[good.len() - 1]).as_ptr()));
            }
        }
        let mut bad = vec![folder.clone(), folder.join("nowhere"), folder.join("no/where"), PathBuf::new()];
        bad.push(folder.join("pipe"));
        #[cfg(unix)]
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::mkfifo(c_path(&bad[4]).as_ptr(), 0o600) }, 0);
        for (i, path) in good.iter().enumerate() {
            let bytes = std::fs::read(path).unwrap();
            let mut flipped = bytes.clone();
            flipped[(i * 37) % bytes.len()] ^= 1 << (i % 8);
            for (what, bytes) in [("short", &bytes[..bytes.len() * (i % 4) / 4]), ("flipped", &flipped)] {
                bad.push(folder.join(format!("{what}{i}")));
                std::fs::write(&bad[bad.len() - 1], bytes).unwrap();
            }
        }
        self.files = good.iter().map(|path| c_path(path)).collect();
        self.files.extend(bad.iter().map(|path| c_path(path)));
    }

    /// The path of a file whose name starts with `kind`, or any.
    pub fn file(&mut self, g: &mut Arguments, kind: &str) -> *const c_char {
        self.write_files();
        let hostile = g.is_hostile();
        if hostile && g.below(8) == 0 {
            return null();
        }
        let of_kind = |path: &&CString| {
            let name = Path::new(path.to_str().unwrap()).file_name().unwrap_or_default();
            hostile || name.to_str().unwrap().starts_with(kind)
        };
        let count = self.files.iter().filter(of_kind).count();
        let i = g.below(count);
        self.files.iter().filter(of_kind).nth(i).unwrap().as_ptr()
    }

    /// The path of a file that a save writes: never one of those that loads read.
    pub fn target(&mut self, g: &mut Arguments) -> *const c_char {
        match g.is_hostile() {
            true => g.one_of(&[null(), c"/nowhere/at/all".as_ptr(), c"/".as_ptr(), c"".as_ptr()]),
            false => self.targets[g.below(self.targets.len())].as_ptr(),
        }
    }

    /// A context of a call that makes an object: often none.
    pub fn optional_context(&self, g: &mut Arguments) -> *mut kvern_context {
        if g.below(2) == 0 { null_mut() } else { self.contexts.any(g) }
    }

    /// Starts a call.
    pub fn start(&mut self) {
        self.watched = None;
    }

    /// Remembers what a cache holds before a call.
    pub fn watch(&mut self, cache: *const kvern_kv_cache) {
        self.watched = Some((cache, contents(cache)));
    }

    /// After a call that was refused: the cache that it would have changed holds what it held.
    pub fn check(&self, what: &dyn Fn() -> String) {
        if let Some((cache, before)) = &self.watched {
            assert_eq!(&contents(*cache), before, "{}: the cache changed", what());
        }
    }

    /// Names in the folder of files: a save that failed left none.
    pub fn temporary_files(&self) -> usize {
        let entries = std::fs::read_dir(&self.folder).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b"."))
            .count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: used by nothing any more.
        unsafe { kvern_context_destroy(self.plain_context) };
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
