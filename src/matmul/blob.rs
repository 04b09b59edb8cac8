//! Packed matrices in files: save, load, map. The header is that of [`blob`](crate::blob), with the numbers
//! of [`Dtype`], the panel width and the kernel id.

use super::packed_b::{PackedB, Storage};
use crate::blob::{self, HEADER, Reader, wrong};
use crate::buffer::{AlignedBuf, MappedFile};
use crate::context::Context;
use crate::dtype::Dtype;
use crate::error::{Error, Result, product};
use crate::kernels::{KernelId, LANES};
use bytemuck::Pod;
use std::path::Path;

/// What the files start with.
pub(crate) const MAGIC: [u8; 8] = *b"kvernPB\0";

/// What a header says, checked as far as it can be without the data.
struct Header {
    dtype: Dtype,
    k: usize,
    n: usize,
    width: usize,
    data_bytes: usize,
    kernel: KernelId,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Header> {
        let header = blob::Header::parse(bytes, MAGIC)?;
        let blob::Header { number, k, n, extra: width, data_bytes, .. } = header;
        let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16];
        let Some(dtype) = dtypes.into_iter().find(|d| *d as u32 == number) else {
            return wrong("dtype", number, "0, 1 or 30");
        };
        let id = header.id();
        // One tile takes a whole panel, and tiles are up to 4 vectors wide.
        if !width.is_power_of_two() || !(LANES..=4 * LANES).contains(&width) {
            return wrong("panel width", width, "16, 32 or 64");
        }
        let Some(kernel) = KernelId::of_panels(id, width) else {
            return wrong("kernel id", id.escape_ascii(), format_args!("ISA-f32-ROWSx{width}"));
        };
        let elements = PackedB::elements(dtype, k, n)?;
        let bytes = product("stored data bytes", &[elements, dtype.bytes()])?;
        if data_bytes != bytes {
            return wrong("data bytes", data_bytes, format_args!("{bytes} for k = {k}, n = {n}"));
        }
        Ok(Header { dtype, k, n, width, data_bytes, kernel })
    }

    /// The matrix, once the checksum holds.
    fn with(self, bytes: &[u8; HEADER], data: Storage) -> Result<PackedB> {
        let Header { k, n, width, kernel, .. } = self;
        let packed = PackedB { data, k, n, width, kernel };
        blob::verify(bytes, packed.data_bytes())?;
        Ok(packed)
    }
}

impl PackedB {
    /// The elements as bytes, in the order of this machine.
    fn data_bytes(&self) -> &[u8] {
        match &self.data {
            Storage::F32(data) => bytemuck::cast_slice(data.as_slice()),
            Storage::F16(data) | Storage::Bf16(data) => bytemuck::cast_slice(data.as_slice()),
        }
    }

    /// Writes the matrix to a file: a header of 128 bytes and the packed bytes. The file is replaced as a
    /// whole: an error leaves the old one, and whoever has it mapped (this matrix, for one) keeps it.
    ///
    /// **Errors**: `Io`; `Unsupported` on a big-endian machine. **Cost**: one pass for the checksum, one
    /// write.
    pub fn save(&self, path: &Path) -> Result<()> {
        little_endian()?;
        let data = self.data_bytes();
        let header = blob::Header {
            magic: MAGIC,
            number: self.dtype() as u32,
            k: self.k,
            n: self.n,
            extra: self.width,
            data_bytes: data.len(),
            id: blob::id(self.kernel.as_str()),
        };
        blob::save(path, &header, &[data])
    }

    /// Reads a matrix that [`PackedB::save`] wrote, into memory of its own (huge pages when it is large).
    ///
    /// **Errors**: `Io`; `Blob` for a file that is truncated, too long, foreign, of another version or
    /// damaged; `Unsupported` on a big-endian machine, whose floats are not those of the file.
    pub fn load(path: &Path) -> Result<PackedB> {
        PackedB::load_on(&Context::serial(), path)
    }

    /// [`PackedB::load`] into the context's [`Memory`](crate::buffer::Memory).
    pub fn load_on(ctx: &Context, path: &Path) -> Result<PackedB> {
        little_endian()?;
        let mut file = Reader::open(path)?;
        let header = Header::parse(&file.header)?;
        file.check_length(header.data_bytes)?;
        let storage = storage(ctx, header.dtype, header.data_bytes, |target| file.read(target))?;
        header.with(&file.header, storage)
    }

    /// A matrix in a mapped file, in place: nothing is copied, and processes that map the same file share
    /// its memory.
    ///
    /// **Errors**: as [`PackedB::load`]. **Cost**: one pass over the file for the checksum.
    pub fn from_mapped(file: &MappedFile) -> Result<PackedB> {
        little_endian()?;
        let bytes = blob::mapped_header(file)?;
        let header = Header::parse(bytes)?;
        blob::check_mapped_length(file, header.data_bytes)?;
        let elements = header.data_bytes / header.dtype.bytes();
        let storage = match header.dtype {
            Dtype::F32 => Storage::F32(AlignedBuf::mapped(file, HEADER, elements)?),
            Dtype::F16 => Storage::F16(AlignedBuf::mapped(file, HEADER, elements)?),
            Dtype::Bf16 => Storage::Bf16(AlignedBuf::mapped(file, HEADER, elements)?),
        };
        header.with(bytes, storage)
    }
}

/// Elements lie in files as in memory, and files are little-endian.
fn little_endian() -> Result<()> {
    if cfg!(target_endian = "big") {
        return Err(Error::Unsupported { what: "a file of float weights on a big-endian machine" });
    }
    Ok(())
}

/// Memory for the data of a file, filled by `read`.
fn storage(
    ctx: &Context,
    dtype: Dtype,
    bytes: usize,
    mut read: impl FnMut(&mut [u8]) -> Result<()>,
) -> Result<Storage> {
    fn filled<T: Pod>(
        ctx: &Context,
        bytes: usize,
        read: &mut impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<AlignedBuf<T>> {
        let mut data = AlignedBuf::<T>::zeroed_in(ctx.memory(), bytes / size_of::<T>())?;
        read(bytemuck::cast_slice_mut(data.as_mut_slice()))?;
        Ok(data)
    }
    Ok(match dtype {
        Dtype::F32 => Storage::F32(filled(ctx, bytes, &mut read)?),
        Dtype::F16 => Storage::F16(filled(ctx, bytes, &mut read)?),
        Dtype::Bf16 => Storage::Bf16(filled(ctx, bytes, &mut read)?),
    })
}
