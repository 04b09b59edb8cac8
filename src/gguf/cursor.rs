//! The bytes of a header, one field after the other.

use crate::blob::wrong;
use crate::error::{Error, Result};
use crate::names::Shown;

/// Reads little-endian fields from the start of a slice on, and never beyond its end.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Bytes that were read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `len` bytes.
    ///
    /// **Errors**: `Blob` where there are fewer.
    pub fn take(&mut self, len: u64, what: &'static str) -> Result<&'a [u8]> {
        let found = usize::try_from(len).ok().and_then(|len| {
            let end = self.at.checked_add(len)?;
            Some((self.bytes.get(self.at..end)?, end))
        });
        let Some((taken, end)) = found else {
            let want = format_args!("at least {} + {len}, the end of {what}", self.at);
            return wrong("bytes of the file", self.bytes.len(), want);
        };
        self.at = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let bytes = self.take(N as u64, what)?;
        bytes.try_into().map_err(|_| Error::Overflow { what })
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `least` bytes each: as many as the rest could hold.
    ///
    /// **Errors**: `Blob` for more.
    pub fn count(&mut self, least: usize, what: &'static str) -> Result<usize> {
        let count = self.u64(what)?;
        self.holds(count, least, what)
    }

    /// `count`, if the rest could hold so many things of at least `least` bytes each.
    pub fn holds(&self, count: u64, least: usize, what: &'static str) -> Result<usize> {
        let most = self.left() / least.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => wrong(what, count, format_args!("at most the {most} that the rest of the file could hold")),
        }
    }

    /// A text with its length before it.
    ///
    /// **Errors**: `Blob` for one that is longer than `most`, goes beyond the end, or is not UTF-8.
    pub fn text(&mut self, most: usize, what: &'static str) -> Result<&'a str> {
        let len = self.u64(what)?;
        if len > most as u64 {
            return wrong(what, format_args!("{len} bytes"), format_args!("at most {most} bytes"));
        }
        let at = self.at;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).or_else(|e| {
            let good = std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default();
            let got = format_args!("{} and no UTF-8 at byte {} of the file", Shown(good), at + good.len());
            wrong(what, got, "UTF-8")
        })
    }
}
