//! What the specification fixes, and what is read beyond it.

use crate::blob::wrong;
use crate::error::Result;

/// The first bytes of a file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// The versions that are read; the last one is written. Version 1 has counts and lengths of 32 bits.
pub(super) const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;

/// The most dimensions of a tensor.
pub(super) const MAX_DIMS: usize = 4;

/// The most bytes of a key, and of a tensor's name. The specification allows names of 64 bytes; tools wrote
/// longer ones, which are read.
pub(super) const MAX_NAME: usize = 65535;

/// The key of the alignment of data.
pub(super) const ALIGNMENT: &str = "general.alignment";

/// The alignment of a file that names none.
pub(super) const DEFAULT_ALIGNMENT: usize = 32;

/// Checks an alignment: a power of two and a multiple of 8.
pub(super) fn alignment(got: u64) -> Result<usize> {
    match usize::try_from(got) {
        Ok(alignment) if alignment.is_power_of_two() && alignment >= 8 => Ok(alignment),
        _ => wrong(ALIGNMENT, got, "a power of two and a multiple of 8"),
    }
}
