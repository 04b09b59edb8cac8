//! Packed objects in files: one header for all of them.
//!
//! ```text
//! byte   0  magic, 8 bytes
//!        8  version, u32         12  type of the elements, u32
//!       16  k, u64               24  n, u64
//!       32  of the layout, u64   40  data bytes, u64
//!       48  layout or kernel id, 32 bytes, NUL-padded
//!       80  SHA-256 of bytes 0..80 and of the data
//!      112  zeros up to 128
//!      128  the data, as they lie in memory
//! ```
//! All numbers are little-endian. The header is 128 bytes, so that a mapped file keeps the data aligned to
//! 64. Whatever does not fit together is refused before anything of its size is allocated.

use crate::buffer::MappedFile;
use crate::error::{Error, Result, text};
use crate::file;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Bytes of a header.
pub(crate) const HEADER: usize = 128;

const VERSION: u32 = 1;
const ID: std::ops::Range<usize> = 48..80;
const CHECKSUM: std::ops::Range<usize> = 80..112;

/// What a header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub magic: [u8; 8],
    /// The type of the elements.
    pub number: u32,
    pub k: usize,
    pub n: usize,
    /// A parameter of the layout.
    pub extra: usize,
    pub data_bytes: usize,
    /// Layout or kernel, NUL-padded.
    pub id: [u8; 32],
}

/// An error that says what is wrong in a stored object.
pub(crate) fn wrong<T>(what: &'static str, got: impl fmt::Display, want: impl fmt::Display) -> Result<T> {
    Err(Error::Blob { what, got: text(got), want: text(want) })
}

/// An id as the header holds it: in lower case; what is beyond 32 bytes is cut off.
pub(crate) fn id(name: impl fmt::Display) -> [u8; 32] {
    let mut id = [0; 32];
    let _ = write!(&mut id[..], "{name}"); // an error says that it was cut off
    id.make_ascii_lowercase();
    id
}

impl Header {
    /// Reads a header of the kind `magic`.
    pub fn parse(bytes: &[u8; HEADER], magic: [u8; 8]) -> Result<Header> {
        let u32_at = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let size_at = |i: usize| {
            let number = u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
            usize::try_from(number).map_err(|_| Error::Overflow { what: "stored size" })
        };
        if bytes[..8] != magic {
            return wrong("magic", bytes[..8].escape_ascii(), magic.escape_ascii());
        }
        if u32_at(8) != VERSION {
            return wrong("version", u32_at(8), VERSION);
        }
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[ID]);
        let (k, n) = (size_at(16)?, size_at(24)?);
        let (extra, data_bytes) = (size_at(32)?, size_at(40)?);
        Ok(Header { magic, number: u32_at(12), k, n, extra, data_bytes, id })
    }

    /// The id without its padding.
    pub fn id(&self) -> &[u8] {
        self.id.split(|b| *b == 0).next().unwrap_or_default()
    }

    fn bytes(&self, data: &[&[u8]]) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.magic);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.number.to_le_bytes());
        for (i, number) in [self.k, self.n, self.extra, self.data_bytes].into_iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&(number as u64).to_le_bytes());
        }
        bytes[ID].copy_from_slice(&self.id);
        let sum = checksum(&bytes, data);
        bytes[CHECKSUM].copy_from_slice(&sum);
        bytes
    }
}

fn checksum(header: &[u8; HEADER], data: &[&[u8]]) -> [u8; 32] {
    let mut sha = Sha256::new();
    sha.update(&header[..CHECKSUM.start]);
    data.iter().for_each(|part| sha.update(part));
    sha.finalize().into()
}

/// Bytes in hexadecimal digits.
pub(crate) struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Checks the data against the checksum, and the bytes of the header that mean nothing.
pub(crate) fn verify(header: &[u8; HEADER], data: &[u8]) -> Result<()> {
    let sum = checksum(header, &[data]);
    if header[CHECKSUM] != sum {
        return wrong("checksum", Hex(&header[CHECKSUM]), Hex(&sum));
    }
    if header[CHECKSUM.end..].iter().any(|b| *b != 0) {
        return wrong("reserved bytes", Hex(&header[CHECKSUM.end..]), "zeros");
    }
    Ok(())
}

fn check_length(file_bytes: u64, data_bytes: usize) -> Result<()> {
    let want = (HEADER as u64).saturating_add(data_bytes as u64);
    if file_bytes == want { Ok(()) } else { wrong("length", file_bytes, want) }
}

fn too_short<T>(bytes: impl fmt::Display) -> Result<T> {
    wrong("length", bytes, format_args!("at least the header of {HEADER} bytes"))
}

/// Writes header and data, given in parts, to a file, as [`file::replace`] does.
///
/// **Errors**: `Io`; the old file is unchanged then. **Cost**: one pass for the checksum, one write.
pub(crate) fn save(path: &Path, header: &Header, data: &[&[u8]]) -> Result<()> {
    let header = header.bytes(data);
    file::replace(path, |file| {
        file.write_all(&header)?;
        data.iter().try_for_each(|part| file.write_all(part))
    })
}

/// A file whose header was read.
pub(crate) struct Reader<'a> {
    path: &'a Path,
    file: File,
    file_bytes: u64,
    pub header: [u8; HEADER],
}

impl<'a> Reader<'a> {
    /// Opens a file and reads its header.
    ///
    /// **Errors**: `Io`, for what is no regular file too; `Blob` for a file that is shorter.
    pub fn open(path: &'a Path) -> Result<Reader<'a>> {
        let (mut file, file_bytes) = file::open(path)?;
        if file_bytes < HEADER as u64 {
            return too_short(file_bytes);
        }
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(|e| file::failed("read", path, &e))?;
        Ok(Reader { path, file, file_bytes, header })
    }

    /// Checks that `data_bytes` follow the header, and nothing else.
    pub fn check_length(&self, data_bytes: usize) -> Result<()> {
        check_length(self.file_bytes, data_bytes)
    }

    /// Reads the data.
    pub fn read(&mut self, data: &mut [u8]) -> Result<()> {
        self.file.read_exact(data).map_err(|e| file::failed("read", self.path, &e))
    }
}

/// The header of a mapped file.
pub(crate) fn mapped_header(file: &MappedFile) -> Result<&[u8; HEADER]> {
    match file.bytes().first_chunk::<HEADER>() {
        Some(header) => Ok(header),
        None => too_short(file.bytes().len()),
    }
}

/// [`Reader::check_length`] of a mapped file.
pub(crate) fn check_mapped_length(file: &MappedFile, data_bytes: usize) -> Result<()> {
    check_length(file.bytes().len() as u64, data_bytes)
}
