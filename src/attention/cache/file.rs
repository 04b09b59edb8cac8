//! Caches as files.
//!
//! ```text
//! byte 0  magic "kvernKV\0"      8  version, u32         12  zeros
//!     16  kv_heads              24  head_dim             32  value_dim        40  capacity
//!     48  window (0: none)      56  sinks                64  type of keys     72  type of values
//!     80  sequences             88  entries of a table   96  pages stored    104  bytes of a page
//!    112  SHA-256 of bytes 0..112 and of all that follows the header
//!    144  zeros up to 192
//!    192  for each sequence: len, oldest position, u64; its table, u32 (2^32 - 1: no page); zeros up to 64
//!         the stored pages, as they lie in memory
//! ```
//! All numbers are little-endian, of 64 bits where nothing else is said. A file is read into a cache of the
//! same options, so that nothing of a size that the file claims is ever allocated; it is checked as a whole
//! before the cache is touched.

use super::pool::{NONE, vector};
use super::{CHUNK, KvCache, KvCacheOptions, Sequence};
use crate::blob::{hex, wrong};
use crate::error::{Error, Result, product};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

const MAGIC: [u8; 8] = *b"kvernKV\0";
const VERSION: u32 = 1;
const HEADER: usize = 192;
const NUMBERS: usize = 12;
const CHECKSUM: std::ops::Range<usize> = 112..144;
const ALIGN: usize = 64;

/// The names of the numbers of a header.
const NAMES: [&str; NUMBERS] = [
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
const PAGES: usize = 10;

impl KvCache {
    /// Writes all sequences to a file: the pages in use, as they are. What a page held before (of forgotten
    /// tokens) may be among them.
    ///
    /// **Errors**: `Io`; `Unsupported` on a big-endian machine. **Cost**: one pass for the checksum, one write.
    pub fn save(&self, path: &Path) -> Result<()> {
        if cfg!(target_endian = "big") {
            return Err(Error::Unsupported { what: "a cache file" });
        }
        let io =
            |e: std::io::Error| Error::Io { what: "write", path: path.display().to_string(), kind: e.kind() };
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

        let mut file = File::create(path).map_err(io)?;
        file.write_all(&header).map_err(io)?;
        file.write_all(&tables).map_err(io)?;
        for page in pages {
            file.write_all(self.pool.page(page)).map_err(io)?;
        }
        file.sync_all().map_err(io)
    }

    /// A cache made from `options` with what a file holds.
    ///
    /// **Errors**: as [`KvCache::new`] and [`KvCache::restore`].
    pub fn load(options: KvCacheOptions, path: &Path) -> Result<KvCache> {
        let mut cache = KvCache::new(options)?;
        cache.restore(path)?;
        Ok(cache)
    }

    /// Replaces all sequences by those of a file that [`KvCache::save`] wrote from a cache of the same options
    /// (the number of pages of the pool may differ).
    ///
    /// **Errors**: `Io`; `Blob` for a file that is truncated, too long, foreign, of another version, of other
    /// options or damaged, or that holds more pages than the pool; nothing is changed then. Where reading fails
    /// after the checksum was found right, the cache is empty. **Cost**: two passes over the file; allocates
    /// only as much as the page tables take.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        let io =
            |e: std::io::Error| Error::Io { what: "read", path: path.display().to_string(), kind: e.kind() };
        let mut file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let mut header = [0; HEADER];
        if bytes < HEADER as u64 {
            return wrong("length", bytes, format!("at least the header of {HEADER} bytes"));
        }
        file.read_exact(&mut header).map_err(io)?;
        let pages = self.check_header(&header)?;
        let table_bytes = self.table_bytes()?;
        let page_bytes = self.layout.page_bytes;
        let want = product("stored bytes", &[pages, page_bytes])?
            .checked_add(HEADER + table_bytes)
            .ok_or(Error::Overflow { what: "stored bytes" })?;
        if bytes != want as u64 {
            return wrong("length", bytes, want);
        }

        let mut tables: Vec<u8> = vector(table_bytes)?;
        tables.resize(table_bytes, 0);
        file.read_exact(&mut tables).map_err(io)?;
        let mut sha = Sha256::new();
        sha.update(&header[..CHECKSUM.start]);
        sha.update(&tables);
        let mut buffer = [0; 1 << 14];
        let mut left = pages * page_bytes;
        while left > 0 {
            let part = &mut buffer[..left.min(1 << 14)];
            file.read_exact(part).map_err(io)?;
            sha.update(&*part);
            left -= part.len();
        }
        let sum: [u8; 32] = sha.finalize().into();
        if header[CHECKSUM] != sum {
            return wrong("checksum", hex(&header[CHECKSUM]), hex(&sum));
        }
        if header[12..16].iter().chain(&header[CHECKSUM.end..]).any(|b| *b != 0) {
            return wrong("reserved bytes", hex(&header[CHECKSUM.end..]), "zeros");
        }
        let (sequences, entries) = self.check_tables(&tables, pages)?;

        self.clear();
        file.seek(SeekFrom::Start((HEADER + table_bytes) as u64)).map_err(io)?;
        for page in 0..pages as u32 {
            let mut entry = NONE;
            self.pool.own(&mut entry); // pages of an empty pool come in ascending order
            if let Err(e) = file.read_exact(self.pool.page_mut(entry)) {
                self.clear();
                return Err(io(e));
            }
            debug_assert_eq!(entry, page);
        }
        self.sequences.copy_from_slice(&sequences);
        self.tables.copy_from_slice(&entries);
        self.pool.count(&self.tables);
        Ok(())
    }

    /// The numbers of a header, in the order of [`NAMES`].
    fn numbers(&self, pages: usize) -> [u64; NUMBERS] {
        let o = &self.options;
        [
            o.kv_heads,
            o.head_dim,
            o.value_dim,
            o.capacity,
            o.window.unwrap_or(0),
            o.sinks,
            o.keys as usize,
            o.values as usize,
            o.sequences,
            self.geometry.entries(),
            pages,
            self.layout.page_bytes,
        ]
        .map(|n| n as u64)
    }

    /// Bytes of the stored tables.
    fn table_bytes(&self) -> Result<usize> {
        let one = 16 + 4 * self.geometry.entries();
        Ok(product("stored tables", &[self.options.sequences, one])?.next_multiple_of(ALIGN))
    }

    /// The tables with the pages numbered in the order in which they are stored, and that order.
    fn stored_tables(&self) -> Result<(Vec<u8>, Vec<u32>)> {
        let mut pages: Vec<u32> = self.tables.iter().copied().filter(|page| *page != NONE).collect();
        pages.sort_unstable();
        pages.dedup();
        let bytes = self.table_bytes()?;
        let mut out = Vec::with_capacity(bytes);
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

    /// Checks a header against this cache; the number of pages stored.
    fn check_header(&self, header: &[u8; HEADER]) -> Result<usize> {
        if header[..8] != MAGIC {
            return wrong("magic", header[..8].escape_ascii(), MAGIC.escape_ascii());
        }
        let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if version != VERSION {
            return wrong("version", version, VERSION);
        }
        let mut pages = 0;
        let stored = header[16..CHECKSUM.start].chunks_exact(8).map(u64_of);
        for (i, (got, want)) in stored.zip(self.numbers(0)).enumerate() {
            if i == PAGES {
                pages = usize::try_from(got).unwrap_or(usize::MAX);
                if pages > self.pool.pages() {
                    return wrong(NAMES[i], got, format!("at most the pool's {}", self.pool.pages()));
                }
            } else if got != want {
                return wrong(NAMES[i], got, want);
            }
        }
        Ok(pages)
    }

    /// Checks what the tables say: each held token has a stored page, and each page belongs to a sequence.
    fn check_tables(&self, bytes: &[u8], pages: usize) -> Result<(Vec<Sequence>, Vec<u32>)> {
        let entries = self.geometry.entries();
        let (mut sequences, mut tables) = (vector(self.options.sequences)?, vector(self.tables.len())?);
        let mut named: Vec<bool> = vector(pages)?;
        named.resize(pages, false);
        for one in bytes.chunks_exact(16 + 4 * entries).take(self.options.sequences) {
            let number = |at: usize| usize::try_from(u64_of(&one[at..at + 8])).unwrap_or(usize::MAX);
            let state = Sequence { len: number(0), oldest: number(8) };
            if !self.possible(&state) {
                return wrong(
                    "sequence",
                    format!("{}..{}", state.oldest, state.len),
                    format!("at most {} positions", self.options.capacity),
                );
            }
            for (entry, at) in one[16..].chunks_exact(4).enumerate() {
                let page = u32::from_le_bytes([at[0], at[1], at[2], at[3]]);
                if page != NONE {
                    match named.get_mut(page as usize) {
                        Some(named) => *named = true,
                        None => return wrong("page number", page, format!("below {pages}")),
                    }
                }
                if self.holds(&state, entry) != (page != NONE) {
                    return wrong(
                        "page table",
                        format!("{page} for entry {entry}"),
                        "a page where tokens are",
                    );
                }
                tables.push(page);
            }
            sequences.push(state);
        }
        if let Some(page) = named.iter().position(|named| !named) {
            return wrong("page table", format!("none with page {page}"), "every stored page");
        }
        Ok((sequences, tables))
    }

    /// Whether a sequence of this cache can be in this state.
    fn possible(&self, state: &Sequence) -> bool {
        let Sequence { len, oldest } = *state;
        let o = &self.options;
        match o.window {
            None => len <= o.capacity && oldest == 0,
            Some(window) => {
                let held = oldest == 0 && len <= o.capacity
                    || oldest > o.sinks && oldest <= len && len - oldest <= o.sliding();
                // A query at len sees nothing that was forgotten.
                held && len <= isize::MAX as usize && (oldest == 0 || len - (window - 1).min(len) >= oldest)
            }
        }
    }
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

// Pages are chunks: a file of another chunk size has other pages.
const _: () = assert!(CHUNK == 256);
