//! Files of several parts: `NAME-00001-of-00003.gguf` and so on, which name their number in `split.no` (from
//! 0 on), how many there are in `split.count`, and the tensors of all parts in `split.tensors.count`. The
//! metadata are those of the first part.

use super::header::Header;
use crate::blob::wrong;
use crate::buffer::AlignedBuf;
use crate::error::{Error, Result, text};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// One file with what its header says.
#[derive(Debug)]
pub(super) struct Part {
    pub file: AlignedBuf<u8>,
    pub header: Header,
}

impl Part {
    pub fn read(file: AlignedBuf<u8>) -> Result<Part> {
        let header = Header::read(file.as_slice())?;
        Ok(Part { file, header })
    }

    pub fn bytes(&self) -> &[u8] {
        self.file.as_slice()
    }

    fn number(&self, key: &'static str) -> Result<Option<u64>> {
        self.header.metadata.number(self.bytes(), key)
    }

    /// The parts of the whole; 1 for a file that is no part.
    ///
    /// **Errors**: `Blob` for more parts than a u16 counts, and for a later part than the first one.
    pub fn count(&self) -> Result<usize> {
        let count = self.number(COUNT)?.unwrap_or(1).max(1);
        let number = self.number(NUMBER)?.unwrap_or(0);
        match u16::try_from(count) {
            Err(_) => wrong(COUNT, count, "at most 65535"),
            Ok(1) => Ok(1),
            Ok(_) if number != 0 => wrong(NUMBER, number, "0: the first part is opened"),
            Ok(count) => Ok(count.into()),
        }
    }
}

/// Checks that parts belong together.
///
/// **Errors**: `Blob`, with both numbers.
pub(super) fn check(parts: &[Part]) -> Result<()> {
    let same = |key, i: usize, got: Option<u64>, want: usize| match got {
        Some(got) if got == want as u64 => Ok(()),
        Some(got) => wrong(key, format_args!("{got} of part {}", i + 1), want),
        None => wrong(key, format_args!("nothing in part {}", i + 1), want),
    };
    if parts.len() == 1 && parts[0].count()? == 1 {
        return Ok(());
    }
    let tensors = parts.iter().map(|part| part.header.tensors.len()).sum();
    for (i, part) in parts.iter().enumerate() {
        same(COUNT, i, part.number(COUNT)?, parts.len())?;
        same(NUMBER, i, part.number(NUMBER)?, i)?;
        // Only the first part has to say it.
        match part.number(TENSORS)? {
            None if i > 0 => {}
            got => same(TENSORS, i, got, tensors)?,
        }
    }
    Ok(())
}

/// The path of part `i` (from 0 on) of `count`, beside the first one.
///
/// **Errors**: `Option` for a first part that is not named `NAME-00001-of-COUNT.gguf`, `Resource`.
pub(super) fn path(first: &Path, i: usize, count: usize) -> Result<PathBuf> {
    const NAMED: &str = "named NAME-00001-of-COUNT.gguf, with the count of split.count";
    let (own, other) = (ending(1, count)?, ending(i + 1, count)?);
    let name = first.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(own.as_str()));
    let Some(name) = name else {
        return Err(Error::Option {
            what: "path of the first part",
            got: text(first.display()),
            allowed: NAMED,
        });
    };
    let (mut path, bytes) = (PathBuf::new(), first.as_os_str().len() + other.len() + 1);
    path.try_reserve(bytes).map_err(|_| Error::Resource { what: "bytes for a file", amount: bytes })?;
    path.extend(first.parent());
    path.push(name);
    path.as_mut_os_string().push(&other);
    Ok(path)
}

/// How the name of a part ends.
fn ending(number: usize, count: usize) -> Result<String> {
    const END: &str = ".gguf";
    let ending = text(format_args!("-{number:05}-of-{count:05}{END}"));
    // A text that is cut off had no memory.
    let whole = ending.ends_with(END);
    if whole { Ok(ending) } else { Err(Error::Resource { what: "bytes for a file", amount: 32 }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_beside_the_first_one() {
        let path = |first: &str, i, count| path(Path::new(first), i, count);
        assert_eq!(path("a/m-00001-of-00003.gguf", 2, 3).unwrap(), Path::new("a/m-00003-of-00003.gguf"));
        assert_eq!(path("-00001-of-00012.gguf", 9, 12).unwrap(), Path::new("-00010-of-00012.gguf"));
        for wrong in ["m.gguf", "m-00002-of-00003.gguf", "m-00001-of-00004.gguf", "", ".."] {
            let e = path(wrong, 1, 3).unwrap_err().to_string();
            assert_eq!(
                e,
                format!(
                    "path of the first part = {wrong} must be named NAME-00001-of-COUNT.gguf, \
                     with the count of split.count"
                )
            );
        }
    }
}
