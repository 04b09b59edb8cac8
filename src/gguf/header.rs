//! The header of one file.
//!
//! ```text
//! byte 0  "GGUF"         4  version, u32
//!      8  tensors, u64  16  keys, u64
//!     24  keys:    length u64, text; type u32; value
//!         tensors: length u64, text; dimensions u32, each u64; type u32; offset u64
//!         zeros up to the alignment
//!         the data; offsets count from here
//! ```

use super::cursor::Cursor;
use super::limits::{MAGIC, MAX_DIMS, MAX_NAME, VERSIONS};
use super::metadata::{Metadata, behind, text};
use super::tensor_type::TensorType;
use crate::blob::wrong;
use crate::buffer::vector;
use crate::error::{Error, Result};
use crate::names::Shown;
use std::ops::Range;

/// The least bytes of a tensor: a length, a number of dimensions, a type, an offset.
const LEAST: usize = 8 + 4 + 4 + 8;

/// What a header says.
#[derive(Debug)]
pub(super) struct Header {
    pub version: u32,
    pub metadata: Metadata,
    pub tensors: Vec<Info>,
}

/// A tensor: places in the bytes of its file.
#[derive(Debug)]
pub(super) struct Info {
    pub name: Range<usize>,
    dims: usize,
    shape: [usize; MAX_DIMS],
    pub kind: TensorType,
    /// The data; `None` for a type of unknown size.
    pub data: Option<Range<usize>>,
}

impl Info {
    pub fn name<'a>(&self, bytes: &'a [u8]) -> &'a str {
        text(bytes, &self.name)
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.dims]
    }
}

impl Header {
    /// Reads the header of a file, and holds what it says of the data against the file's end.
    ///
    /// **Errors**: `Blob`, `Overflow`, `Resource`. **Cost**: one pass over the header.
    pub fn read(bytes: &[u8]) -> Result<Header> {
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 4] = cursor.array("the magic")?;
        if magic != MAGIC {
            return wrong("magic", magic.escape_ascii(), MAGIC.escape_ascii());
        }
        let version = check_version(cursor.u32("the version")?)?;
        let (tensors, keys) = (cursor.u64("the number of tensors")?, cursor.u64("the number of keys")?);
        // Before the keys are read: a number that the whole file could not hold is no reason to read them.
        cursor.holds(tensors, LEAST, "number of tensors")?;
        let metadata = Metadata::read(bytes, &mut cursor, keys)?;
        let alignment = metadata.alignment(bytes)?;
        let count = cursor.holds(tensors, LEAST, "number of tensors")?;
        let mut tensors = vector(count)?;
        let mut offsets = vector(count)?;
        for _ in 0..count {
            let (info, offset) = tensor(&mut cursor)?;
            tensors.push(info);
            offsets.push(offset);
        }
        let start = cursor.at().checked_next_multiple_of(alignment);
        let start = start.ok_or(Error::Overflow { what: "start of the data" })?;
        for (info, offset) in tensors.iter_mut().zip(offsets) {
            info.data = place(bytes, info, start, offset, alignment)?;
        }
        Ok(Header { version, metadata, tensors })
    }
}

fn check_version(version: u32) -> Result<u32> {
    let (first, last) = VERSIONS.into_inner();
    if VERSIONS.contains(&version.swap_bytes()) {
        return wrong("byte order", "big-endian", "little-endian");
    }
    if !VERSIONS.contains(&version) {
        return wrong("version", version, format_args!("{first}..={last}"));
    }
    Ok(version)
}

/// Reads a tensor without its place, and its offset.
fn tensor(cursor: &mut Cursor<'_>) -> Result<(Info, u64)> {
    let name = cursor.text(MAX_NAME, "name of a tensor")?;
    let place = behind(cursor, name.len());
    let dims = cursor.u32("the dimensions of a tensor")?;
    if dims > MAX_DIMS as u32 {
        let got = format_args!("{dims} of {}", Shown(name));
        return wrong("dimensions of a tensor", got, format_args!("at most {MAX_DIMS}"));
    }
    let mut shape = [1; MAX_DIMS];
    for dim in &mut shape[..dims as usize] {
        let size = cursor.u64("the shape of a tensor")?;
        *dim = usize::try_from(size).map_err(|_| Error::Overflow { what: "dimension of a tensor" })?;
    }
    let kind = TensorType::new(cursor.u32("the type of a tensor")?);
    let offset = cursor.u64("the offset of a tensor")?;
    Ok((Info { name: place, dims: dims as usize, shape, kind, data: None }, offset))
}

/// Where the data of a tensor lie. Tensors may share bytes: nothing is written to them.
fn place(
    bytes: &[u8],
    info: &Info,
    start: usize,
    offset: u64,
    alignment: usize,
) -> Result<Option<Range<usize>>> {
    let name = info.name(bytes);
    if !offset.is_multiple_of(alignment as u64) {
        let got = format_args!("{offset} of {}", Shown(name));
        return wrong("offset of a tensor", got, format_args!("a multiple of the alignment of {alignment}"));
    }
    let Some(len) = info.kind.bytes(name, info.shape())? else { return Ok(None) };
    if len == 0 {
        return Ok(Some(0..0));
    }
    let range = usize::try_from(offset).ok().and_then(|offset| {
        let first = start.checked_add(offset)?;
        Some(first..first.checked_add(len).filter(|end| *end <= bytes.len())?)
    });
    range.map_or_else(
        || {
            let got = format_args!("{start} + {offset} + {len} of {}", Shown(name));
            wrong("end of a tensor", got, format_args!("at most the file's {} bytes", bytes.len()))
        },
        |range| Ok(Some(range)),
    )
}
