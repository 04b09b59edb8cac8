//! Caches as files.
//!
//! ```text
//! byte 0  magic "kvernKV\0"      8  version, u32         12  zeros
//!     16  kv_heads              24  head_dim             32  value_dim        40  capacity
//!     48  window (0: none)      56  sinks                64  type of keys
//!     72  type of values (256: they are part of the keys)
//!     80  sequences             88  entries of a table   96  pages stored    104  bytes of a page
//!    112  SHA-256 of bytes 0..112 and of all that follows the header
//!    144  zeros up to 192
//!    192  for each sequence: len, oldest position, u64; its table, u32 (2^32 - 1: no page); zeros up to 64
//!         the stored pages, as they lie in memory
//! ```
//! All numbers are little-endian, of 64 bits where nothing else is said. A file is read into a cache that
//! exists, so that nothing of a size that the file claims is ever allocated; it is checked as a whole before
//! the cache is touched: see `restore`.

use super::kv_cache::KvCache;
use super::pool::NONE;
use crate::attention::options::CHUNK;
use crate::buffer::vector;
use crate::error::{Error, Result, product};
use crate::file;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;

pub(super) const MAGIC: [u8; 8] = *b"kvernKV\0";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER: usize = 192;
pub(super) const NUMBERS: usize = 12;
pub(super) const CHECKSUM: std::ops::Range<usize> = 112..144;
const ALIGN: usize = 64;
/// The type of values that are part of the keys.
const PART_OF_KEYS: usize = 256;

/// The names of the numbers of a header.
pub(super) const NAMES: [&str; NUMBERS] = [
    "kv_heads",
    "head_dim",
    "value_dim",
    "capacity",
    "window",
    "sinks",
    "type of keys",
    "type of values",
    "sequences",
    "table entries",
    "pages",
    "page bytes",
];

impl KvCache {
    /// Writes all sequences to a file: the pages in use, as they are. What a page held before (of forgotten
    /// tokens) may be among them.
    ///
    /// The file is replaced as a whole: an error leaves the old one.
    ///
    /// - **Errors**: `Io`; `Resource`; `Unsupported` on a big-endian machine.
    /// - **Cost**: one pass for the checksum, one write.
    pub fn save(&self, path: &Path) -> Result<()> {
        if cfg!(target_endian = "big") {
            return Err(Error::Unsupported { what: "a cache file" });
        }
        let (tables, pages) = self.stored_tables()?;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (at, number) in header[16..CHECKSUM.start].chunks_exact_mut(8).zip(self.numbers(pages.len())) {
            at.copy_from_slice(&number.to_le_bytes());
        }
        let mut sha = Sha256::new();
        sha.update(&header[..CHECKSUM.start]);
        sha.update(&tables);
        pages.iter().for_each(|page| sha.update(self.pool.page(*page)));
        header[CHECKSUM].copy_from_slice(&sha.finalize());

        file::replace(path, |file| {
            file.write_all(&header)?;
            file.write_all(&tables)?;
            pages.iter().try_for_each(|page| file.write_all(self.pool.page(*page)))
        })
    }

    /// The numbers of a header, in the order of [`NAMES`].
    pub(super) fn numbers(&self, pages: usize) -> [u64; NUMBERS] {
        let o = &self.options;
        [
            o.kv_heads,
            o.head_dim,
            o.value_dim,
            o.capacity,
            o.window.unwrap_or(0),
            o.sinks,
            o.keys as usize,
            if o.latent { PART_OF_KEYS } else { o.values as usize },
            o.sequences,
            self.geometry.entries(),
            pages,
            self.layout.page_bytes,
        ]
        .map(|n| n as u64)
    }

    /// The tables with the pages numbered in the order in which they are stored, and that order.
    fn stored_tables(&self) -> Result<(Vec<u8>, Vec<u32>)> {
        let named = || self.tables.iter().copied().filter(|page| *page != NONE);
        let mut pages: Vec<u32> = vector(named().count())?;
        pages.extend(named());
        pages.sort_unstable();
        pages.dedup();
        let bytes = table_bytes(self.options.sequences, self.geometry.entries())?;
        let mut out = vector(bytes)?; // no write below goes beyond it
        for (state, table) in self.sequences.iter().zip(self.tables.chunks_exact(self.geometry.entries())) {
            out.extend((state.len as u64).to_le_bytes());
            out.extend((state.oldest as u64).to_le_bytes());
            for page in table {
                let number = pages.binary_search(page).map_or(NONE, |i| i as u32);
                out.extend(number.to_le_bytes());
            }
        }
        out.resize(bytes, 0);
        Ok((out, pages))
    }
}

/// Bytes of the stored tables of `sequences` sequences of `entries` entries.
pub(super) fn table_bytes(sequences: usize, entries: usize) -> Result<usize> {
    let one = product("stored table", &[4, entries])?.checked_add(16);
    let one = one.ok_or(Error::Overflow { what: "stored table" })?;
    Ok(product("stored tables", &[sequences, one])?.next_multiple_of(ALIGN))
}

pub(super) fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

// Pages are chunks: a file of another chunk size has other pages.
const _: () = assert!(CHUNK == 256);
