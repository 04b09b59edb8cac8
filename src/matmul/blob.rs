//! Packed matrices in files: save, load, map.
//!
//! ```text
//! byte   0  magic "kvernPB\0"
//!        8  version, u32         12  dtype, u32 (the numbers of `Dtype`)
//!       16  k, u64               24  n, u64
//!       32  panel width, u64     40  data bytes, u64
//!       48  kernel id, 32 bytes, NUL-padded
//!       80  SHA-256 of bytes 0..80 and of the data
//!      112  zeros up to 128
//!      128  the packed elements, as they lie in memory
//! ```
//! All numbers are little-endian. The header is 128 bytes, so that a mapped file keeps the data aligned to
//! 64. Whatever does not fit together is refused before anything of its size is allocated.

use super::packed_b::Storage;
use super::{Dtype, PackedB};
use crate::buffer::{AlignedBuf, MappedFile};
use crate::error::{Error, Result, product};
use crate::kernels::{GEMM_IDS, LANES};
use bytemuck::Pod;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

const MAGIC: [u8; 8] = *b"kvernPB\0";
const VERSION: u32 = 1;
const HEADER: usize = 128;
const ID: std::ops::Range<usize> = 48..80;
const CHECKSUM: std::ops::Range<usize> = 80..112;

/// What a header says, checked as far as it can be without the data.
struct Header {
    dtype: Dtype,
    k: usize,
    n: usize,
    width: usize,
    data_bytes: usize,
    kernel: &'static str,
}

fn wrong<T>(what: &'static str, got: impl ToString, want: impl ToString) -> Result<T> {
    Err(Error::Blob { what, got: got.to_string(), want: want.to_string() })
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Header> {
        let u32_at = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let size_at = |i: usize| {
            let number = u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
            usize::try_from(number).map_err(|_| Error::Overflow { what: "stored size" })
        };
        if bytes[..8] != MAGIC {
            return wrong("magic", bytes[..8].escape_ascii(), MAGIC.escape_ascii());
        }
        if u32_at(8) != VERSION {
            return wrong("version", u32_at(8), VERSION);
        }
        let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16];
        let Some(dtype) = dtypes.into_iter().find(|d| *d as u32 == u32_at(12)) else {
            return wrong("dtype", u32_at(12), "0, 1 or 30");
        };
        let id = bytes[ID].split(|b| *b == 0).next().unwrap_or_default();
        let Some(kernel) = GEMM_IDS.into_iter().find(|known| known.as_bytes() == id) else {
            return wrong("kernel id", id.escape_ascii(), GEMM_IDS.join(", "));
        };
        let header = Header {
            dtype,
            k: size_at(16)?,
            n: size_at(24)?,
            width: size_at(32)?,
            data_bytes: size_at(40)?,
            kernel,
        };
        let Header { k, n, width, data_bytes, .. } = header;
        if !width.is_power_of_two() || !(LANES..=64 * LANES).contains(&width) {
            return wrong("panel width", width, "a power of two from 16 to 1024");
        }
        let elements = PackedB::elements(dtype, k, n)?;
        let bytes = product("stored data bytes", &[elements, dtype.bytes()])?;
        if data_bytes != bytes {
            return wrong("data bytes", data_bytes, format!("{bytes} for k = {k}, n = {n}"));
        }
        Ok(header)
    }

    fn bytes(&self, data: &[u8]) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.dtype as u32).to_le_bytes());
        for (i, number) in [self.k, self.n, self.width, self.data_bytes].into_iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&(number as u64).to_le_bytes());
        }
        bytes[ID][..self.kernel.len()].copy_from_slice(self.kernel.as_bytes());
        let sum = checksum(&bytes, data);
        bytes[CHECKSUM].copy_from_slice(&sum);
        bytes
    }

    /// The matrix, once the checksum holds.
    fn with(self, bytes: &[u8; HEADER], data: Storage) -> Result<PackedB> {
        let Header { k, n, width, kernel, .. } = self;
        let packed = PackedB { data, k, n, width, kernel };
        let sum = checksum(bytes, packed.data_bytes());
        if bytes[CHECKSUM] != sum {
            return wrong("checksum", hex(&bytes[CHECKSUM]), hex(&sum));
        }
        if bytes[CHECKSUM.end..].iter().any(|b| *b != 0) {
            return wrong("reserved bytes", hex(&bytes[CHECKSUM.end..]), "zeros");
        }
        Ok(packed)
    }
}

fn checksum(header: &[u8; HEADER], data: &[u8]) -> [u8; 32] {
    let mut sha = Sha256::new();
    sha.update(&header[..CHECKSUM.start]);
    sha.update(data);
    sha.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl PackedB {
    fn data_bytes(&self) -> &[u8] {
        match &self.data {
            Storage::F32(data) => bytemuck::cast_slice(data.as_slice()),
            Storage::F16(data) | Storage::Bf16(data) => bytemuck::cast_slice(data.as_slice()),
        }
    }

    /// Writes the matrix to a file: a header of 128 bytes and the packed bytes.
    ///
    /// **Errors**: `Io`. **Cost**: one pass for the checksum, one write.
    pub fn save(&self, path: &Path) -> Result<()> {
        let data = self.data_bytes();
        let (dtype, kernel) = (self.dtype(), self.kernel);
        let header =
            Header { dtype, k: self.k, n: self.n, width: self.width, data_bytes: data.len(), kernel };
        let io =
            |e: std::io::Error| Error::Io { what: "write", path: path.display().to_string(), kind: e.kind() };
        let mut file = File::create(path).map_err(io)?;
        file.write_all(&header.bytes(data)).map_err(io)?;
        file.write_all(data).map_err(io)?;
        file.sync_all().map_err(io)
    }

    /// Reads a matrix that [`PackedB::save`] wrote, into memory of its own (huge pages when it is large).
    ///
    /// **Errors**: `Io`; `Blob` for a file that is truncated, too long, foreign, of another version or damaged.
    pub fn load(path: &Path) -> Result<PackedB> {
        let io =
            |e: std::io::Error| Error::Io { what: "read", path: path.display().to_string(), kind: e.kind() };
        let mut file = File::open(path).map_err(io)?;
        let file_bytes = file.metadata().map_err(io)?.len();
        let mut bytes = [0; HEADER];
        if file_bytes < HEADER as u64 {
            return wrong("length", file_bytes, format!("at least the header of {HEADER} bytes"));
        }
        file.read_exact(&mut bytes).map_err(io)?;
        let header = Header::parse(&bytes)?;
        check_length(file_bytes, header.data_bytes)?;
        let storage = storage(header.dtype, header.data_bytes, |target| file.read_exact(target).map_err(io))?;
        header.with(&bytes, storage)
    }

    /// A matrix in a mapped file, in place: nothing is copied, and processes that map the same file share
    /// its memory.
    ///
    /// **Errors**: as [`PackedB::load`]. **Cost**: one pass over the file for the checksum.
    pub fn from_mapped(file: &MappedFile) -> Result<PackedB> {
        let all = file.bytes();
        let Some(bytes) = all.first_chunk::<HEADER>() else {
            return wrong("length", all.len(), format!("at least the header of {HEADER} bytes"));
        };
        let header = Header::parse(bytes)?;
        check_length(all.len() as u64, header.data_bytes)?;
        let elements = header.data_bytes / header.dtype.bytes();
        let storage = match header.dtype {
            Dtype::F32 => Storage::F32(AlignedBuf::mapped(file, HEADER, elements)?),
            Dtype::F16 => Storage::F16(AlignedBuf::mapped(file, HEADER, elements)?),
            Dtype::Bf16 => Storage::Bf16(AlignedBuf::mapped(file, HEADER, elements)?),
        };
        header.with(bytes, storage)
    }
}

fn check_length(file_bytes: u64, data_bytes: usize) -> Result<()> {
    let want = (HEADER + data_bytes) as u64;
    if file_bytes == want { Ok(()) } else { wrong("length", file_bytes, want) }
}

/// Memory for the data of a file, filled by `read`.
fn storage(dtype: Dtype, bytes: usize, mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<Storage> {
    fn filled<T: Pod>(bytes: usize, read: &mut impl FnMut(&mut [u8]) -> Result<()>) -> Result<AlignedBuf<T>> {
        let mut data = AlignedBuf::<T>::zeroed(bytes / size_of::<T>())?;
        read(bytemuck::cast_slice_mut(data.as_mut_slice()))?;
        Ok(data)
    }
    Ok(match dtype {
        Dtype::F32 => Storage::F32(filled(bytes, &mut read)?),
        Dtype::F16 => Storage::F16(filled(bytes, &mut read)?),
        Dtype::Bf16 => Storage::Bf16(filled(bytes, &mut read)?),
    })
}
