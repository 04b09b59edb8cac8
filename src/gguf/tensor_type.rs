//! Types of tensors: those that kvern computes with, and those that it knows the size of.

use crate::blob::wrong;
use crate::error::{Error, Result, product};
use crate::names::Shown;
use crate::quant::WeightFormat;
use std::fmt;

/// Types beside those of [`WeightFormat`]: `(type id, name, elements of a block, bytes of a block)`.
const OTHERS: [(u32, &str, usize, usize); 7] = [
    (9, "q8_1", 32, 36),
    (15, "q8_k", 256, 292),
    (24, "i8", 1, 1),
    (25, "i16", 1, 2),
    (26, "i32", 1, 4),
    (27, "i64", 1, 8),
    (28, "f64", 1, 8),
];

/// The type id of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType(u32);

impl TensorType {
    /// The type of an id, which need not be known.
    pub const fn new(id: u32) -> TensorType {
        TensorType(id)
    }

    /// The id.
    pub const fn id(self) -> u32 {
        self.0
    }

    /// The format, for types that kvern computes with.
    pub fn format(self) -> Option<WeightFormat> {
        i32::try_from(self.0).ok().and_then(|id| WeightFormat::try_from(id).ok())
    }

    /// The name that ggml gives the type, such as `q4_k`.
    pub fn name(self) -> Option<&'static str> {
        self.format().map(WeightFormat::name).or(self.other().map(|other| other.1))
    }

    /// `(elements, bytes)` of a block, for types whose size is known.
    pub fn block(self) -> Option<(usize, usize)> {
        let own = self.format().map(|format| (format.block_len(), format.block_bytes()));
        own.or(self.other().map(|other| (other.2, other.3)))
    }

    fn other(self) -> Option<(u32, &'static str, usize, usize)> {
        OTHERS.into_iter().find(|other| other.0 == self.0)
    }

    /// The bytes of a tensor; `None` for a type of unknown size.
    ///
    /// **Errors**: `Blob` for rows that are no whole blocks, `Overflow`.
    pub(super) fn bytes(self, name: &str, shape: &[usize]) -> Result<Option<usize>> {
        let (k, rows) = shape.split_first().unwrap_or((&1, &[]));
        // Of a type that is unknown too, the elements are counted by programs.
        product("elements of a tensor", shape)?;
        let Some((len, bytes)) = self.block() else { return Ok(None) };
        if !k.is_multiple_of(len) {
            let got = format_args!("{k} of {}", Shown(name));
            return wrong("k of a tensor", got, format_args!("a multiple of the block of {len} ({self})"));
        }
        let rows = product("rows of a tensor", rows)?;
        product("bytes of a tensor", &[rows, k / len, bytes]).map(Some)
    }

    /// The format.
    ///
    /// **Errors**: `Blob`, which names the tensor and its type.
    pub(super) fn format_of(self, name: &str) -> Result<WeightFormat> {
        self.format().map_or_else(|| wrong("type of a tensor", self.shown(name), Known), Ok)
    }

    /// The type of a tensor, for an error.
    pub(super) fn shown(self, name: &str) -> String {
        crate::error::text(format_args!("{} ({self}) of {}", self.0, Shown(name)))
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("no known type"))
    }
}

impl From<WeightFormat> for TensorType {
    fn from(format: WeightFormat) -> TensorType {
        TensorType((format as i32).unsigned_abs())
    }
}

/// The type ids of [`WeightFormat`], as its own error lists them.
struct Known;

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WeightFormat::try_from(-1) {
            Err(Error::Option { allowed, .. }) => f.write_str(allowed),
            _ => f.write_str("a format of kvern"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_the_types_of_their_numbers() {
        for format in WeightFormat::ALL {
            let kind = TensorType::from(format);
            assert_eq!((kind.format(), kind.name()), (Some(format), Some(format.name())));
            assert_eq!(kind.block(), Some((format.block_len(), format.block_bytes())));
            assert_eq!(kind.other(), None);
        }
        let unknown = TensorType::new(4);
        assert_eq!((unknown.format(), unknown.name(), unknown.block()), (None, None, None));
        assert!(OTHERS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn sizes_are_checked() {
        let q4 = TensorType::from(WeightFormat::Q4_0);
        assert_eq!(q4.bytes("w", &[64, 3, 2]), Ok(Some(2 * 18 * 6)));
        assert_eq!(q4.bytes("w", &[64, 0]), Ok(Some(0)));
        assert_eq!(TensorType::new(26).bytes("w", &[]), Ok(Some(4)));
        assert_eq!(TensorType::new(99).bytes("w", &[5]), Ok(None));
        let e = q4.bytes("w", &[33, 2]).unwrap_err().to_string();
        assert_eq!(e, "stored k of a tensor = 33 of `w` must be a multiple of the block of 32 (q4_0)");
        assert!(matches!(q4.bytes("w", &[1 << 20, usize::MAX >> 10]), Err(Error::Overflow { .. })));
        let e = TensorType::new(26).format_of("w").unwrap_err().to_string();
        assert!(
            e.starts_with("stored type of a tensor = 26 (i32) of `w` must be one of the type ids"),
            "{e}"
        );
    }
}
