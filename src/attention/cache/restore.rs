//! Caches from files: what another cache held, in the page tables of this one.
//!
//! The cache that was saved and the one that restores agree in everything but capacity, sequences and pages.
//! Their rings may have different numbers of pages, so a page of this cache is made of at most two stored
//! ones: where the ring is the shorter one, its newest tokens share a page with its oldest. Pages that
//! sequences shared stay shared.

use super::codec;
use super::file::{CHECKSUM, HEADER, MAGIC, NAMES, NUMBERS, VERSION, table_bytes, u64_of};
use super::kv_cache::KvCache;
use super::layout::Geometry;
use super::options::KvCacheOptions;
use super::plan::Plan;
use super::pool::NONE;
use super::sequence::Sequence;
use crate::attention::options::CHUNK;
use crate::blob::{Hex, wrong};
use crate::buffer::{vector, vector_of};
use crate::context::Context;
use crate::error::{Error, Result, product};
use crate::file;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 14;

/// What a header says of the cache that was saved.
struct Saved {
    options: KvCacheOptions,
    geometry: Geometry,
    pages: usize,
}

/// What a page of this cache is made of. Sequences whose pages are made of the same share one. The order is
/// that of the stored pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Recipe {
    page: u32,
    /// The chunk whose tokens the page is for; 0 where all chunks of the stored page go together.
    chunk: usize,
    /// The stored page of the tokens that came round to the first slots, or `NONE`.
    newer: u32,
    /// How many slots those are.
    slots: usize,
}

impl Recipe {
    const EMPTY: Recipe = Recipe { page: NONE, chunk: 0, newer: NONE, slots: 0 };
}

impl KvCache {
    /// A cache made from `options`, with what a file holds.
    ///
    /// - **Errors**: as [`KvCache::new`] and [`KvCache::restore`].
    pub fn load(options: KvCacheOptions, path: &Path) -> Result<KvCache> {
        KvCache::load_on(&Context::serial(), options, path)
    }

    /// [`KvCache::load`] into the context's [`Memory`](crate::buffer::Memory).
    pub fn load_on(ctx: &Context, options: KvCacheOptions, path: &Path) -> Result<KvCache> {
        let mut cache = KvCache::new_on(ctx, options)?;
        cache.restore(path)?;
        Ok(cache)
    }

    /// Replaces all sequences by those of a file that [`KvCache::save`] wrote from a cache of the same heads,
    /// sizes, types, window and sinks. Capacity, number of sequences and pages may differ where everything
    /// fits: a sequence without a window in the capacity, sequences beyond this cache's number empty, the
    /// pages in the pool. With a window a sequence beyond the capacity keeps its last tokens, as if it had
    /// been appended here; what the saved cache had forgotten stays forgotten.
    ///
    /// - **Errors**: `Io`, for what is no regular file too; `Blob` for a file that is truncated, too long,
    ///   foreign, of another version, of other options or damaged, or that does not fit; `Resource`;
    ///   `Unsupported` on a big-endian machine; nothing is changed then. Where reading fails after the
    ///   checksum was found right, the cache is empty.
    /// - **Cost**: two passes over the file; allocates page tables, and one page where rings differ.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        if cfg!(target_endian = "big") {
            return Err(Error::Unsupported { what: "a cache file" });
        }
        let mut input = Input::open(path)?;
        let mut header = [0; HEADER];
        if input.left < HEADER as u64 {
            return wrong("length", input.left, format_args!("at least the header of {HEADER} bytes"));
        }
        input.file.read_exact(&mut header).map_err(|e| input.io(&e))?;
        let saved = self.check_header(&header)?;
        let tables = table_bytes(saved.options.sequences, saved.geometry.entries())?;
        let first_page = HEADER + tables;
        let want = product("stored bytes", &[saved.pages, self.layout.page_bytes])?
            .checked_add(first_page)
            .ok_or(Error::Overflow { what: "stored bytes" })?;
        if input.left != want as u64 {
            return wrong("length", input.left, want);
        }
        input.check_sum(&header, want - HEADER)?;

        input.seek(HEADER, tables)?;
        let (sequences, recipes) = self.read_tables(&saved, &mut input)?;
        let (pages, tables) = number(&recipes)?;
        if pages.len() > self.pool.pages() {
            return wrong(NAMES[10], pages.len(), format_args!("at most the pool's {}", self.pool.pages()));
        }
        let mut newer: Vec<u8> = vector(self.layout.page_bytes)?;
        if pages.iter().any(|page| page.newer != NONE) {
            newer.resize(self.layout.page_bytes, 0);
        }

        self.clear();
        for page in &pages {
            if let Err(e) = self.read_page(&mut input, first_page, page, &mut newer) {
                self.clear();
                return Err(e);
            }
        }
        self.sequences.copy_from_slice(&sequences);
        self.tables.copy_from_slice(&tables);
        self.pool.count(&self.tables);
        Ok(())
    }

    /// Checks a header against this cache.
    fn check_header(&self, header: &[u8; HEADER]) -> Result<Saved> {
        if header[..8] != MAGIC {
            return wrong("magic", header[..8].escape_ascii(), MAGIC.escape_ascii());
        }
        let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if version != VERSION {
            return wrong("version", version, VERSION);
        }
        let mut stored = [0u64; NUMBERS];
        for (number, at) in stored.iter_mut().zip(header[16..CHECKSUM.start].chunks_exact(8)) {
            *number = u64_of(at);
        }
        let ours = self.numbers(0);
        for i in (0..NUMBERS).filter(|i| ![3, 8, 9, 10].contains(i)) {
            if stored[i] != ours[i] {
                return wrong(NAMES[i], stored[i], ours[i]);
            }
        }
        let [capacity, sequences, pages] =
            [3, 8, 10].map(|i| usize::try_from(stored[i]).unwrap_or(usize::MAX));
        let options = KvCacheOptions { capacity, sequences, pages: Some(1), ..self.options };
        let geometry = match Plan::new(&options) {
            Ok(plan) => plan.geometry,
            Err(e) => return wrong("options", format_args!("{capacity} tokens, {sequences} sequences"), e),
        };
        if stored[9] != geometry.entries() as u64 {
            return wrong(NAMES[9], stored[9], geometry.entries());
        }
        if pages as u64 > stored[8].saturating_mul(stored[9]) {
            return wrong(NAMES[10], pages, "at most one for each table entry");
        }
        Ok(Saved { options, geometry, pages })
    }

    /// Checks the stored tables: each held token has a stored page, each page belongs to a sequence, and
    /// everything fits. The sequences, and what each entry of the tables is made of.
    fn read_tables(&self, saved: &Saved, input: &mut Input<'_>) -> Result<(Vec<Sequence>, Vec<Recipe>)> {
        let mut sequences = vector_of(Sequence::default(), self.options.sequences)?;
        let mut recipes = vector_of(Recipe::EMPTY, self.tables.len())?;
        let mut named = vector_of(false, saved.pages)?;
        let entries = self.geometry.entries();
        for s in 0..saved.options.sequences {
            let mut number = || Ok(usize::try_from(u64_of(input.take(8)?)).unwrap_or(usize::MAX));
            let state = Sequence { len: number()?, oldest: number()? };
            if !state.possible(&saved.options) {
                let want = format_args!("a state of a sequence of {} tokens", saved.options.capacity);
                return wrong("sequence", format_args!("{}..{}", state.oldest, state.len), want);
            }
            let ours = self.fitting(s, &state)?;
            if s < sequences.len() {
                sequences[s] = ours;
            }
            for entry in 0..saved.geometry.entries() {
                let at = input.take(4)?;
                let page = u32::from_le_bytes([at[0], at[1], at[2], at[3]]);
                if page != NONE {
                    match named.get_mut(page as usize) {
                        Some(named) => *named = true,
                        None => return wrong("page number", page, format_args!("below {}", saved.pages)),
                    }
                }
                if state.holds(&saved.geometry, saved.options.sinks, entry) != (page != NONE) {
                    let got = format_args!("{page} for entry {entry}");
                    return wrong("page table", got, "a page where tokens are");
                }
                if page != NONE && s < self.options.sequences {
                    self.place(saved, &ours, (entry, page), &mut recipes[s * entries..(s + 1) * entries]);
                }
            }
        }
        if let Some(page) = named.iter().position(|named| !named) {
            return wrong("page table", format_args!("none with page {page}"), "every stored page");
        }
        Ok((sequences, recipes))
    }

    /// A stored sequence as one of this cache, the `s`th.
    fn fitting(&self, s: usize, state: &Sequence) -> Result<Sequence> {
        let Sequence { len, oldest } = *state;
        let most = if s < self.options.sequences { self.options.capacity } else { 0 };
        let slides = s < self.options.sequences && self.options.window.is_some();
        if len > most && !slides {
            return wrong("sequence", format_args!("{oldest}..{len}"), format_args!("at most {most} tokens"));
        }
        Ok(Sequence { len, oldest: oldest.max(self.forgotten(len)) })
    }

    /// Puts a stored page into the recipes of the entries whose tokens it holds.
    fn place(&self, saved: &Saved, ours: &Sequence, (entry, page): (usize, u32), recipes: &mut [Recipe]) {
        let alike = saved.geometry == self.geometry;
        for held in ours.held(self.options.sinks) {
            for chunk in saved.geometry.chunks_of(entry, &held) {
                let recipe = &mut recipes[self.geometry.entry(chunk)];
                if alike {
                    *recipe = Recipe { page, ..Recipe::EMPTY };
                } else if recipe.page == NONE || recipe.chunk == chunk {
                    *recipe = Recipe { page, chunk, ..*recipe };
                } else if chunk > recipe.chunk {
                    // The newer chunk of an entry is the one that the sequence ends in.
                    (recipe.newer, recipe.slots) = (page, ours.len - chunk * CHUNK);
                } else {
                    let slots = ours.len - recipe.chunk * CHUNK;
                    *recipe = Recipe { page, chunk, newer: recipe.page, slots };
                }
            }
        }
    }

    /// Makes the next page of an empty pool from stored ones.
    fn read_page(
        &mut self,
        input: &mut Input<'_>,
        first_page: usize,
        recipe: &Recipe,
        newer: &mut [u8],
    ) -> Result<()> {
        let mut page = NONE;
        self.pool.make_unique(&mut page); // pages of an empty pool come in ascending order
        let bytes = self.layout.page_bytes;
        input.read_at(first_page + recipe.page as usize * bytes, self.pool.page_mut(page))?;
        if recipe.newer == NONE {
            return Ok(());
        }
        input.read_at(first_page + recipe.newer as usize * bytes, newer)?;
        let heads = newer
            .chunks_exact(self.layout.head_bytes)
            .zip(self.pool.page_mut(page).chunks_exact_mut(self.layout.head_bytes));
        for (from, to) in heads {
            for slot in 0..recipe.slots {
                codec::copy(&self.layout, from, slot, to, slot);
            }
        }
        Ok(())
    }
}

/// The distinct recipes in order, and for each of `recipes` its number among them, or `NONE`.
fn number(recipes: &[Recipe]) -> Result<(Vec<Recipe>, Vec<u32>)> {
    let mut distinct: Vec<Recipe> = vector(recipes.len())?;
    distinct.extend(recipes.iter().filter(|recipe| recipe.page != NONE)); // within the capacity
    distinct.sort_unstable();
    distinct.dedup();
    let mut numbers: Vec<u32> = vector(recipes.len())?;
    numbers.extend(recipes.iter().map(|recipe| distinct.binary_search(recipe).map_or(NONE, |i| i as u32)));
    Ok((distinct, numbers))
}

/// A file that is read in pieces.
struct Input<'a> {
    path: &'a Path,
    file: File,
    /// Bytes of the part being read that were not read yet.
    left: u64,
    buffer: Vec<u8>,
    /// What of the buffer was read and not taken.
    ready: Range<usize>,
}

impl<'a> Input<'a> {
    fn open(path: &'a Path) -> Result<Input<'a>> {
        let buffer = vector_of(0, BUFFER)?;
        let (file, left) = file::open(path)?;
        Ok(Input { path, file, left, buffer, ready: 0..0 })
    }

    fn io(&self, e: &std::io::Error) -> Error {
        file::failed("read", self.path, e)
    }

    /// Goes to a byte of the file, `len` bytes from which are of interest.
    fn seek(&mut self, at: usize, len: usize) -> Result<()> {
        (self.left, self.ready) = (len as u64, 0..0);
        self.file.seek(SeekFrom::Start(at as u64)).map_err(|e| self.io(&e))?;
        Ok(())
    }

    /// The next `n` bytes, at most as many as the buffer holds.
    fn take(&mut self, n: usize) -> Result<&[u8]> {
        if self.ready.len() < n {
            let kept = self.ready.len();
            self.buffer.copy_within(self.ready.clone(), 0);
            let more = self.left.min((BUFFER - kept) as u64) as usize;
            let read = self.file.read_exact(&mut self.buffer[kept..kept + more]);
            read.map_err(|e| self.io(&e))?;
            self.left -= more as u64;
            self.ready = 0..kept + more;
        }
        let start = self.ready.start;
        if self.ready.len() < n {
            return wrong("length", "too short", "what the header says");
        }
        self.ready.start += n;
        Ok(&self.buffer[start..start + n])
    }

    /// Reads bytes from a place in the file.
    fn read_at(&mut self, at: usize, bytes: &mut [u8]) -> Result<()> {
        self.seek(at, 0)?;
        self.file.read_exact(bytes).map_err(|e| self.io(&e))
    }

    /// Checks the checksum of the header over `len` bytes behind it, and the bytes of it that mean nothing.
    fn check_sum(&mut self, header: &[u8; HEADER], len: usize) -> Result<()> {
        self.seek(HEADER, len)?;
        let mut sha = Sha256::new();
        sha.update(&header[..CHECKSUM.start]);
        let mut left = len;
        while left > 0 {
            let part = self.take(left.min(BUFFER))?;
            sha.update(part);
            left -= part.len();
        }
        let sum: [u8; 32] = sha.finalize().into();
        if header[CHECKSUM] != sum {
            return wrong("checksum", Hex(&header[CHECKSUM]), Hex(&sum));
        }
        if header[12..16].iter().chain(&header[CHECKSUM.end..]).any(|b| *b != 0) {
            return wrong("reserved bytes", Hex(&header[CHECKSUM.end..]), "zeros");
        }
        Ok(())
    }
}
