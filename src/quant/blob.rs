//! Packed weights in files: save, load, map. The header is that of [`blob`](crate::blob), with the numbers of
//! [`WeightFormat`], log2 of the blocks of a unit, and the layout's id. Weights of single floats are stored
//! as the [`PackedB`] that they are.

use super::layout::Layout;
use super::packed::{Body, Packed, PackedWeights};
use super::{WeightFormat, codec::Codec};
use crate::blob::{self, HEADER, Reader, wrong};
use crate::buffer::{AlignedBuf, MappedFile};
use crate::error::Result;
use crate::matmul::{Dtype, FLOATS_MAGIC, PackedB};
use std::path::Path;

const MAGIC: [u8; 8] = *b"kvernPW\0";

/// What a header says, checked as far as it can be without the data.
struct Header {
    format: WeightFormat,
    layout: Layout,
    k: usize,
    n: usize,
    stripe_bytes: usize,
    data_bytes: usize,
}

/// The id of a format's layout.
fn layout_id(format: WeightFormat) -> String {
    format!("r16k4-{}", format.name())
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Header> {
        let header = blob::Header::parse(bytes, MAGIC)?;
        let blob::Header { number, k, n, extra, data_bytes, .. } = header;
        let known = WeightFormat::ALL.into_iter().find(|f| *f as u32 == number && Codec::of(*f).is_some());
        let Some((format, layout)) = known.and_then(|f| Some((f, Layout::of(f)?))) else {
            return wrong("format", number, "the number of a format of blocks");
        };
        if header.id() != layout_id(format).as_bytes() {
            return wrong("layout", header.id().escape_ascii(), layout_id(format));
        }
        if extra != layout.unit_shift as usize {
            return wrong("unit", extra, layout.unit_shift);
        }
        if !k.is_multiple_of(format.block_len()) {
            return wrong("k", k, format!("a multiple of {}", format.block_len()));
        }
        let (stripe_bytes, bytes) = (layout.stripe_bytes(k)?, layout.bytes(n, k)?);
        if data_bytes != bytes {
            return wrong("data bytes", data_bytes, format!("{bytes} for k = {k}, n = {n}"));
        }
        Ok(Header { format, layout, k, n, stripe_bytes, data_bytes })
    }

    /// The weights, once the checksum holds.
    fn with(self, bytes: &[u8; HEADER], data: AlignedBuf<u8>) -> Result<PackedWeights> {
        blob::verify(bytes, data.as_slice())?;
        let Header { format, layout, k, n, stripe_bytes, .. } = self;
        Ok(PackedWeights { body: Body::Blocks(Packed { data, layout, stripe_bytes }), format, n, k })
    }
}

/// Weights that are floats.
fn floats(b: PackedB) -> PackedWeights {
    let format = match b.dtype() {
        Dtype::F32 => WeightFormat::F32,
        Dtype::F16 => WeightFormat::F16,
        Dtype::Bf16 => WeightFormat::Bf16,
    };
    let (n, k) = (b.n(), b.k());
    PackedWeights { body: Body::Floats(b), format, n, k }
}

impl PackedWeights {
    /// Writes the weights to a file: a header of 128 bytes and the packed bytes.
    ///
    /// **Errors**: `Io`. **Cost**: one pass for the checksum, one write.
    pub fn save(&self, path: &Path) -> Result<()> {
        match &self.body {
            Body::Floats(b) => b.save(path),
            Body::Blocks(Packed { data, layout, .. }) => {
                let data = data.as_slice();
                let header = blob::Header {
                    magic: MAGIC,
                    number: self.format as u32,
                    k: self.k,
                    n: self.n,
                    extra: layout.unit_shift as usize,
                    data_bytes: data.len(),
                    id: blob::id(&layout_id(self.format)),
                };
                blob::save(path, &header, data)
            }
        }
    }

    /// Reads weights that [`PackedWeights::save`] wrote, into memory of their own (huge pages when they are
    /// large).
    ///
    /// **Errors**: `Io`; `Blob` for a file that is truncated, too long, foreign, of another version or damaged.
    pub fn load(path: &Path) -> Result<PackedWeights> {
        let mut file = Reader::open(path)?;
        if file.header.starts_with(&FLOATS_MAGIC) {
            return Ok(floats(PackedB::load(path)?));
        }
        let header = Header::parse(&file.header)?;
        file.check_length(header.data_bytes)?;
        let mut data = AlignedBuf::zeroed(header.data_bytes)?;
        file.read(data.as_mut_slice())?;
        header.with(&file.header, data)
    }

    /// Weights in a mapped file, in place: nothing is copied, and processes that map the same file share its
    /// memory.
    ///
    /// **Errors**: as [`PackedWeights::load`]. **Cost**: one pass over the file for the checksum.
    pub fn from_mapped(file: &MappedFile) -> Result<PackedWeights> {
        let bytes = blob::mapped_header(file)?;
        if bytes.starts_with(&FLOATS_MAGIC) {
            return Ok(floats(PackedB::from_mapped(file)?));
        }
        let header = Header::parse(bytes)?;
        blob::check_mapped_length(file, header.data_bytes)?;
        let data = AlignedBuf::mapped(file, HEADER, header.data_bytes)?;
        header.with(bytes, data)
    }
}
