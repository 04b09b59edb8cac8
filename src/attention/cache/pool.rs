//! The pages of a cache: preallocated, counted, handed out and taken back.

use crate::buffer::{AlignedBuf, vector, vector_of};
use crate::context::Context;
use crate::error::{Error, Result, product};

/// An entry of a page table that has no page.
pub(super) const NONE: u32 = u32::MAX;

/// Pages of equal size in one buffer.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    data: AlignedBuf<u8>, // (pages, page_bytes)
    page_bytes: usize,
    /// Entries of page tables that name each page.
    counts: Vec<u32>, // (pages)
    /// Pages that no entry names; the last of the list is handed out next.
    free: Vec<u32>,
}

impl Pool {
    pub fn new(ctx: &Context, pages: usize, page_bytes: usize) -> Result<Pool> {
        let data = AlignedBuf::zeroed_in(ctx.memory(), product("cache bytes", &[pages, page_bytes])?)?;
        let mut pool = Pool { data, page_bytes, counts: vector_of(0, pages)?, free: vector(pages)? };
        pool.reset();
        Ok(pool)
    }

    /// Takes every page back.
    pub fn reset(&mut self) {
        self.counts.fill(0);
        self.free.clear();
        self.free.extend((0..self.counts.len() as u32).rev()); // within the capacity: allocates nothing
    }

    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    pub fn pages(&self) -> usize {
        self.counts.len()
    }

    pub fn free_pages(&self) -> usize {
        self.free.len()
    }

    pub fn used_bytes(&self) -> usize {
        (self.counts.len() - self.free.len()) * self.page_bytes
    }

    pub fn is_shared(&self, page: u32) -> bool {
        self.counts[page as usize] > 1
    }

    pub fn page(&self, page: u32) -> &[u8] {
        let start = page as usize * self.page_bytes;
        &self.data.as_slice()[start..start + self.page_bytes]
    }

    pub fn page_mut(&mut self, page: u32) -> &mut [u8] {
        let start = page as usize * self.page_bytes;
        &mut self.data.as_mut_slice()[start..start + self.page_bytes]
    }

    /// Two different pages, the second one writable.
    pub fn two(&mut self, from: u32, to: u32) -> (&[u8], &mut [u8]) {
        let (bytes, data) = (self.page_bytes, self.data.as_mut_slice());
        let (from, to) = (from as usize * bytes, to as usize * bytes);
        if from < to {
            let (head, tail) = data.split_at_mut(to);
            (&head[from..from + bytes], &mut tail[..bytes])
        } else {
            let (head, tail) = data.split_at_mut(from);
            (&tail[..bytes], &mut head[to..to + bytes])
        }
    }

    /// Checks that `need` pages are free.
    pub fn check(&self, need: usize) -> Result<()> {
        let free = self.free.len();
        if need <= free { Ok(()) } else { Err(Error::PoolFull { need, free }) }
    }

    /// Makes the entry's page exclusive (copy on write): keeps it, allocates a page, or copies a shared one.
    /// Only after [`Pool::check`]: without a free page the entry stays as it is.
    pub fn make_unique(&mut self, entry: &mut u32) {
        if *entry != NONE && !self.is_shared(*entry) {
            return;
        }
        let Some(page) = self.free.pop() else { return };
        self.counts[page as usize] = 1;
        if *entry != NONE {
            let (from, bytes) = (*entry as usize * self.page_bytes, self.page_bytes);
            self.data.as_mut_slice().copy_within(from..from + bytes, page as usize * bytes);
            self.release(entry);
        }
        *entry = page;
    }

    /// Counts the entries of `tables` that name each page, all of them pages that were handed out.
    pub fn count(&mut self, tables: &[u32]) {
        self.counts.fill(0);
        for page in tables.iter().filter(|page| **page != NONE) {
            self.counts[*page as usize] += 1;
        }
    }

    /// Counts one more entry that names the page of `entry`.
    pub fn share(&mut self, entry: u32) {
        if entry != NONE {
            self.counts[entry as usize] += 1;
        }
    }

    /// Empties an entry; its page is free when no entry names it any more.
    pub fn release(&mut self, entry: &mut u32) {
        let page = std::mem::replace(entry, NONE);
        if page == NONE {
            return;
        }
        self.counts[page as usize] -= 1;
        if self.counts[page as usize] == 0 {
            self.free.push(page); // within the capacity: allocates nothing
        }
    }
}
