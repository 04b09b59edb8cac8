//! Packed weights in files: save, load, map. The header is that of [`blob`](crate::blob), with the numbers of
//! [`WeightFormat`] (or that of weights without one), log2 of the blocks of a superblock, and the layout's
//! id; the order of k of group-wise weights follows their row panels, in 4 bytes each. Weights of single
//! floats are stored as the [`PackedB`] that they are.

use super::format::{BLOCK, WeightFormat};
use super::layout::Layout;
use super::packed::{Body, Packed, PackedWeights};
use crate::blob::{self, HEADER, Reader, wrong};
use crate::buffer::{AlignedBuf, MappedFile, vector, vector_of};
use crate::context::Context;
use crate::error::{Error, Result, product};
use crate::kernels::LANES;
use crate::matmul::{Dtype, FLOATS_MAGIC, PackedB};
use std::path::Path;

const MAGIC: [u8; 8] = *b"kvernPW\0";

/// What a header says, checked as far as it can be without the data.
struct Header {
    format: Option<WeightFormat>,
    layout: Layout,
    has_order: bool,
    k: usize,
    n: usize,
    panel_bytes: usize,
    data_bytes: usize,
}

/// The number that weights without a format of GGUF have in place of a format's.
const GROUPS: u32 = 1 << 16;

/// The id of a layout, and the number of its format.
fn layout_id(format: Option<WeightFormat>, layout: &Layout) -> (u32, [u8; 32]) {
    match format {
        Some(format) => (format as u32, blob::id(format_args!("r16k4-{}", format.name()))),
        None => (GROUPS, blob::id(format_args!("r16k4-{:?}", layout.packing))),
    }
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Header> {
        let header = blob::Header::parse(bytes, MAGIC)?;
        let blob::Header { number, k, n, extra, data_bytes, .. } = header;
        // log2 of a superblock's blocks; bit 8: whether the order of k follows the row panels.
        let (shift, has_order) = (extra & 0xff, extra & !0xff == 0x100);
        let formats = WeightFormat::ALL.into_iter().filter_map(|f| Some((Some(f), Layout::of(f)?)));
        let groups = Layout::all_of_groups().map(|layout| (None, layout));
        let of_number = |(format, layout): &(Option<WeightFormat>, Layout)| {
            let (known, id) = layout_id(*format, layout);
            known == number && id == header.id && layout.superblock_shift as usize == shift
        };
        let Some((format, layout)) = formats.chain(groups).find(of_number) else {
            let id = header.id().escape_ascii();
            return wrong(
                "layout",
                format_args!("{number} {id} {extra:#x}"),
                "a format's number, its id and its superblock",
            );
        };
        if has_order && (format.is_some() || !layout.packing.shape().int8) || extra & !0x1ff != 0 {
            return wrong("layout", format_args!("{extra:#x}"), "an order of group-wise weights only");
        }
        let len = format.map_or(BLOCK, WeightFormat::block_len);
        if !k.is_multiple_of(len) {
            return wrong("k", k, format_args!("a multiple of {len}"));
        }
        let panel_bytes = layout.panel_bytes(k)?;
        let order = if has_order { product("stored order", &[k, 4])? } else { 0 };
        let bytes = layout.bytes(n, k)?.checked_add(order).ok_or(Error::Overflow { what: "data bytes" })?;
        if data_bytes != bytes {
            return wrong("data bytes", data_bytes, format_args!("{bytes} for k = {k}, n = {n}"));
        }
        Ok(Header { format, layout, has_order, k, n, panel_bytes, data_bytes })
    }

    /// The weights, once the checksum holds.
    fn with(self, bytes: &[u8; HEADER], data: AlignedBuf<u8>) -> Result<PackedWeights> {
        blob::verify(bytes, data.as_slice())?;
        let Header { format, layout, has_order, k, n, panel_bytes, .. } = self;
        let order_bytes = if has_order { 4 * k } else { 0 };
        let (panels, order) = data.as_slice().split_at(self.data_bytes - order_bytes);
        layout.check(format, panels)?;
        let mut named = vector_of(false, if has_order { k } else { 0 })?;
        let mut numbers = vector(named.len())?;
        for feature in order.as_chunks::<4>().0.iter().map(|x| u32::from_le_bytes(*x)) {
            match named.get_mut(feature as usize) {
                Some(named) if !*named => *named = true,
                _ => return wrong("order", feature, format_args!("each number below k = {k} once")),
            }
            numbers.push(feature);
        }
        let order = has_order.then_some(numbers);
        let packed = Packed { data, order, layout, panel_bytes };
        Ok(PackedWeights { body: Body::Blocks(packed), format, n, k })
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
    PackedWeights { body: Body::Floats(b), format: Some(format), n, k }
}

impl PackedWeights {
    /// Writes the weights to a file: a header of 128 bytes and the packed bytes. The file is replaced as a
    /// whole: an error leaves the old one, and whoever has it mapped (these weights, for one) keeps it.
    ///
    /// **Errors**: `Io`, `Resource`; `Unsupported` for weights of single floats on a big-endian machine.
    /// **Cost**: one pass for the checksum, one write.
    pub fn save(&self, path: &Path) -> Result<()> {
        match &self.body {
            Body::Floats(b) => b.save(path),
            Body::Blocks(Packed { data, order, layout, panel_bytes }) => {
                let panels = &data.as_slice()[..self.n.div_ceil(LANES) * panel_bytes];
                let mut order_bytes: Vec<u8> = vector(order.iter().flatten().count() * 4)?;
                order_bytes.extend(order.iter().flatten().flat_map(|x| x.to_le_bytes()));
                let (number, id) = layout_id(self.format, layout);
                let header = blob::Header {
                    magic: MAGIC,
                    number,
                    k: self.k,
                    n: self.n,
                    extra: layout.superblock_shift as usize | usize::from(order.is_some()) << 8,
                    data_bytes: panels.len() + order_bytes.len(),
                    id,
                };
                blob::save(path, &header, &[panels, &order_bytes])
            }
        }
    }

    /// Reads weights that [`PackedWeights::save`] wrote, into memory of their own (huge pages when they are
    /// large).
    ///
    /// **Errors**: `Io`; `Blob` for a file that is truncated, too long, foreign, of another version or
    /// damaged.
    pub fn load(path: &Path) -> Result<PackedWeights> {
        PackedWeights::load_on(&Context::serial(), path)
    }

    /// [`PackedWeights::load`] into the context's [`Memory`](crate::buffer::Memory).
    pub fn load_on(ctx: &Context, path: &Path) -> Result<PackedWeights> {
        let mut file = Reader::open(path)?;
        if file.header.starts_with(&FLOATS_MAGIC) {
            return Ok(floats(PackedB::load_on(ctx, path)?));
        }
        let header = Header::parse(&file.header)?;
        file.check_length(header.data_bytes)?;
        let mut data = AlignedBuf::zeroed_in(ctx.memory(), header.data_bytes)?;
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
