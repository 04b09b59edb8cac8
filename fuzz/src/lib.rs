//! What the targets share: files that are damaged on purpose, contexts, inputs and comparisons.
//!
//! A checksum would turn away almost everything that a fuzzer makes. So a target begins with a file that the
//! library wrote, damages it, and mends the checksum as the documented format says: what lies behind it is
//! then reached as by an attacker, who can compute SHA-256 too.

use kvern::buffer::MappedFile;
use kvern::{Context, ContextOptions, Isa};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// How a file is damaged. Places are taken modulo its length, those of 2 bytes and more at multiples of their
/// size, where fields and elements lie.
#[derive(Arbitrary, Debug)]
pub struct Damage {
    changes: Vec<Change>,
    /// Bytes that the file is longer (shorter where negative); most inputs leave it as it is.
    grow: Option<i8>,
    /// Leaves the checksum of the good file.
    stale_checksum: bool,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Byte {
        at: u16,
        to: u8,
    },
    Half {
        at: u16,
        to: u16,
    },
    Word {
        at: u16,
        to: u32,
    },
    /// A size of a header: small numbers first, any number where `any` is there.
    Size {
        at: u8,
        to: u16,
        any: Option<u64>,
    },
    /// Adds to a number of 32 bits.
    Add {
        at: u16,
        by: i8,
    },
    /// The same 2 bytes over a part of the data.
    Fill {
        at: u16,
        len: u16,
        to: u16,
    },
    /// Exchanges two words.
    Swap {
        at: u16,
        with: u16,
    },
}

/// Where a format keeps its header and its checksum.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// Bytes of the header.
    pub header: usize,
    /// First byte of the SHA-256 of the bytes before it and of all that follows the header.
    pub checksum: usize,
}

/// Packed weights and matrices.
pub const BLOB: Format = Format { header: 128, checksum: 80 };
/// Caches.
pub const CACHE: Format = Format { header: 192, checksum: 112 };

impl Damage {
    /// The damaged file. `None` where nothing changed.
    pub fn apply(&self, good: &[u8], format: Format) -> Option<Vec<u8>> {
        let mut bytes = good.to_vec();
        for change in &self.changes {
            change.apply(&mut bytes, format);
        }
        if let Some(by) = self.grow {
            bytes.resize(bytes.len().saturating_add_signed(by.into()), by as u8);
        }
        if !self.stale_checksum && bytes.len() >= format.header {
            let mut sha = Sha256::new();
            sha.update(&bytes[..format.checksum]);
            sha.update(&bytes[format.header..]);
            bytes[format.checksum..format.checksum + 32].copy_from_slice(&sha.finalize());
        }
        (bytes != good).then_some(bytes)
    }

    /// The damaged file of a format without a checksum.
    pub fn apply_plain(&self, good: &[u8]) -> Vec<u8> {
        // Sizes lie anywhere in such a file.
        let format = Format { header: 0, checksum: 512 };
        let mut bytes = good.to_vec();
        self.changes.iter().for_each(|change| change.apply(&mut bytes, format));
        if let Some(by) = self.grow {
            bytes.resize(bytes.len().saturating_add_signed(by.into()), by as u8);
        }
        bytes
    }

    /// Whether a file that [`Damage::apply`] changed can only be refused.
    pub fn is_certain(&self) -> bool {
        self.stale_checksum
    }
}

/// `len` bytes from `at` on, as far as they are there, at a multiple of `len`.
fn field(bytes: &[u8], at: u16, len: usize) -> Range<usize> {
    match bytes.len() / len {
        0 => 0..0,
        fields => {
            let start = usize::from(at) % fields * len;
            start..start + len
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut [u8], format: Format) {
        let put = |bytes: &mut [u8], at, value: &[u8]| {
            let place = field(bytes, at, value.len());
            if !place.is_empty() {
                bytes[place].copy_from_slice(value);
            }
        };
        let word = |bytes: &[u8], at| {
            let place = field(bytes, at, 4);
            place.clone().rev().fold(0u32, |word, i| word << 8 | u32::from(bytes[i]))
        };
        match *self {
            Change::Byte { at, to } => put(bytes, at, &[to]),
            Change::Half { at, to } => put(bytes, at, &to.to_le_bytes()),
            Change::Word { at, to } => put(bytes, at, &to.to_le_bytes()),
            Change::Size { at, to, any } => {
                let sizes = (format.checksum / 8) as u16;
                put(bytes, u16::from(at) % sizes, &any.unwrap_or(to.into()).to_le_bytes());
            }
            Change::Add { at, by } => {
                let sum = word(bytes, at).wrapping_add_signed(by.into());
                put(bytes, at, &sum.to_le_bytes());
            }
            Change::Fill { at, len, to } => {
                let data = &mut bytes[format.header..];
                let start = field(data, at, 2).start;
                for pair in data[start..].chunks_exact_mut(2).take(len.into()) {
                    pair.copy_from_slice(&to.to_le_bytes());
                }
            }
            Change::Swap { at, with } => {
                let (a, b) = (word(bytes, at), word(bytes, with));
                put(bytes, at, &b.to_le_bytes());
                put(bytes, with, &a.to_le_bytes());
            }
        }
    }
}

/// The path of the one file of this process.
pub fn path() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    dir.join(format!("kvern-fuzz-{}", std::process::id()))
}

/// Writes the one file of this process.
///
/// # Panics
/// When the file cannot be written: the machine is at fault, not the library.
pub fn write(bytes: &[u8]) -> PathBuf {
    let path = path();
    std::fs::write(&path, bytes).expect("a file in the memory of the machine");
    path
}

/// Maps the one file of this process. It must not be written while the mapping lives.
///
/// # Panics
/// When it cannot be mapped.
pub fn map(path: &Path) -> MappedFile {
    // SAFETY: nobody else knows the file, and the targets drop the mapping before they write again.
    unsafe { MappedFile::open(path) }.expect("a mapped file")
}

/// Runs `make` and reads what it wrote to the path.
///
/// # Panics
/// When `make` fails.
pub fn file_of(make: impl FnOnce(&Path) -> kvern::Result<()>) -> Vec<u8> {
    let path = path();
    make(&path).expect("a good file");
    std::fs::read(&path).expect("the file that was just written")
}

/// A context of each tier of the machine on one thread, the scalar one first, and one on two threads.
pub fn contexts() -> &'static [Context] {
    static CONTEXTS: LazyLock<Vec<Context>> = LazyLock::new(|| {
        let serial = Isa::available().iter().map(|isa| ContextOptions::default().isa_cap(*isa));
        let all = serial.chain([ContextOptions::default().threads(2)]);
        all.map(|options| Context::new(&options).expect("a tier of this machine")).collect()
    });
    &CONTEXTS
}

/// Reproducible values in -1..1.
pub fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / 2f32.powi(31) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Asserts that both have the same bits; any NaN is as good as another.
///
/// # Panics
/// When they differ: that is a find.
#[track_caller]
pub fn assert_same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (x, y)) in got.iter().zip(want).enumerate() {
        let same = x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
        assert!(same, "{what}: element {i}: {x:e} != {y:e}");
    }
}
