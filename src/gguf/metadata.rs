//! The metadata of one file: keys, and where their values lie.

use super::cursor::Cursor;
use super::limits::{ALIGNMENT, DEFAULT_ALIGNMENT, MAX_NAME, alignment};
use super::value::{Value, ValueType};
use crate::blob::wrong;
use crate::buffer::vector;
use crate::error::Result;
use crate::names::Index;
use std::ops::Range;

/// The least bytes of a key with its value: a length, a type, and a value of one byte.
const LEAST: usize = 8 + 4 + 1;

/// Places of keys and values in the bytes of a file, which every method gets again.
#[derive(Debug)]
pub(super) struct Metadata {
    entries: Vec<Entry>,
    index: Index,
}

#[derive(Debug)]
struct Entry {
    key: Range<usize>,
    kind: ValueType,
    value: Range<usize>,
}

impl Entry {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a str {
        text(bytes, &self.key)
    }
}

/// A text that was checked when the file was opened.
pub(super) fn text<'a>(bytes: &'a [u8], place: &Range<usize>) -> &'a str {
    std::str::from_utf8(&bytes[place.clone()]).unwrap_or_default()
}

/// The place of what a cursor has just read.
pub(super) fn behind(cursor: &Cursor<'_>, len: usize) -> Range<usize> {
    cursor.at() - len..cursor.at()
}

impl Metadata {
    /// Reads `count` keys and values.
    ///
    /// **Errors**: `Blob` for what is cut off, too long, of no type or not UTF-8, and for a key that is there
    /// twice; `Resource`.
    pub fn read(bytes: &[u8], cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata> {
        let count = cursor.holds(count, LEAST, "number of keys")?;
        let mut entries = vector(count)?;
        for _ in 0..count {
            let len = cursor.text(MAX_NAME, "key")?.len();
            let key = behind(cursor, len);
            let kind = ValueType::of(cursor.u32("the type of a value")?)?;
            let start = cursor.at();
            Value::read(cursor, kind)?;
            entries.push(Entry { key, kind, value: start..cursor.at() });
        }
        let index = Index::new("keys", count, |i| entries[i].key(bytes))?;
        Ok(Metadata { entries, index })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Key `i` and its value, in the order of the file.
    pub fn at<'a>(&self, bytes: &'a [u8], i: usize) -> Option<(&'a str, Value<'a>)> {
        let entry = self.entries.get(i)?;
        let mut cursor = Cursor::new(&bytes[entry.value.clone()]);
        Some((entry.key(bytes), Value::read(&mut cursor, entry.kind).ok()?))
    }

    /// The value of a key.
    pub fn get<'a>(&self, bytes: &'a [u8], key: &str) -> Option<Value<'a>> {
        self.at(bytes, self.find(bytes, key)?).map(|(_, value)| value)
    }

    /// The number of a key.
    pub fn find(&self, bytes: &[u8], key: &str) -> Option<usize> {
        self.index.find(key, |i| self.entries[i].key(bytes))
    }

    /// The number of a key, if it is there.
    ///
    /// **Errors**: `Blob` for a value that is no integer from 0 on.
    pub fn number(&self, bytes: &[u8], key: &'static str) -> Result<Option<u64>> {
        let Some(value) = self.get(bytes, key) else { return Ok(None) };
        match value.to_u64() {
            Some(number) => Ok(Some(number)),
            None => wrong(key, format_args!("a value of type {}", value.kind()), "an integer from 0 on"),
        }
    }

    /// The alignment of the data.
    ///
    /// **Errors**: `Blob` for one that is no power of two, or no multiple of 8.
    pub fn alignment(&self, bytes: &[u8]) -> Result<usize> {
        self.number(bytes, ALIGNMENT)?.map_or(Ok(DEFAULT_ALIGNMENT), alignment)
    }
}
