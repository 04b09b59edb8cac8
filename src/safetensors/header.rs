//! The header of one file.
//!
//! ```text
//! byte 0  bytes of the header, u64
//!      8  the header, JSON: { "name": { "dtype": .., "shape": [..], "data_offsets": [begin, end] }, .. }
//!         the data; offsets count from here
//! ```

use super::element_type::ElementType;
use crate::blob::wrong;
use crate::buffer::vector;
use crate::error::{Error, Result, product, text};
use crate::names::Shown;
use ::safetensors::tensor::Metadata;
use std::ops::Range;

/// The most bytes of a header, as other readers of the format have it.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor: what the header says, and where its elements lie in the bytes of the file.
#[derive(Debug)]
pub(super) struct Info {
    pub name: String,
    pub kind: ElementType,
    pub shape: Vec<usize>,
    pub data: Range<usize>,
}

/// Reads the header of a file: its tensors in the order of their data.
///
/// The package's own reader of whole files is not used: it adds offsets without a check for overflow.
///
/// **Errors**: `Blob`, `Overflow`, `Resource`.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Info>> {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return wrong("bytes of the file", bytes.len(), "at least the 8 that hold the header's length");
    };
    let len = u64::from_le_bytes(*len);
    if len > MAX_HEADER {
        return wrong("bytes of the header", len, format_args!("at most {MAX_HEADER}"));
    }
    let header = usize::try_from(len).ok().and_then(|len| rest.get(..len));
    let Some(header) = header else {
        return wrong("bytes of the header", len, format_args!("at most the {} that follow", rest.len()));
    };
    let metadata: Metadata = match serde_json::from_slice(header) {
        Ok(metadata) => metadata,
        Err(e) => return wrong("header", Shown(&text(e)), "the JSON of a safetensors file"),
    };
    let data = rest.len() - header.len();
    if metadata.data_len() != data {
        return wrong(
            "bytes of data",
            data,
            format_args!("{}, the end of the last tensor", metadata.data_len()),
        );
    }
    let names = metadata.offset_keys();
    let mut tensors = vector(names.len())?;
    for name in names {
        let Some(info) = metadata.info(&name) else { continue };
        let (kind, (begin, end)) = (ElementType::of(info.dtype)?, info.data_offsets);
        let elements = product("elements of a tensor", &info.shape)?;
        let bits = elements.checked_mul(kind.bits()).ok_or(Error::Overflow { what: "bits of a tensor" })?;
        // What the package has checked as well; indices rely on it.
        if begin > end || end > data || bits.checked_div(8) != Some(end - begin) || !bits.is_multiple_of(8) {
            let got = format_args!("{begin}..{end} of {}", Shown(&name));
            return wrong("place of a tensor", got, format_args!("{bits} bits inside of {data} bytes"));
        }
        let start = 8 + header.len();
        let shape = info.shape.clone();
        tensors.push(Info { name, kind, shape, data: start + begin..start + end });
    }
    Ok(tensors)
}
