//! States as files: a header of `blob`, then the lengths of the sequences (u64), their matrices and the
//! inputs of their convolutions, as they lie in memory. In the header k is key_dim, n value_dim, the
//! parameter of the layout the number of heads, and the type of the elements the number of sequences.

use super::state::{RecurrentState, StateOptions};
use crate::blob::{self, Header, wrong};
use crate::buffer::vector_of;
use crate::error::{Error, Result, option, product};
use std::path::Path;

const MAGIC: [u8; 8] = *b"kvernRS\0";

/// Bytes of a length.
const LENGTH: usize = 8;

impl StateOptions {
    /// Bytes of what a file of so many sequences holds.
    fn stored_bytes(&self, sequences: usize) -> Result<usize> {
        let one = product("stored state", &[4, self.matrices_len() + self.inputs_len()])?;
        product(
            "stored states",
            &[sequences, one.checked_add(LENGTH).ok_or(Error::Overflow { what: "state" })?],
        )
    }

    /// What no number of the header says.
    fn id(&self) -> [u8; 32] {
        blob::id(format_args!("conv {}x{}", self.taps, self.channels))
    }
}

impl RecurrentState {
    /// Writes all sequences to a file with a checksum. The file is replaced as a whole: an error leaves the
    /// old one.
    ///
    /// - **Errors**: `Io`; `Resource`; `Unsupported` on a big-endian machine; `Option` for 2^32 sequences.
    /// - **Cost**: one pass for the checksum, one write.
    pub fn save(&self, path: &Path) -> Result<()> {
        if cfg!(target_endian = "big") {
            return Err(Error::Unsupported { what: "a state file" });
        }
        let o = self.options();
        let number = u32::try_from(o.sequences).unwrap_or(u32::MAX);
        option(number as usize == o.sequences, "sequences", o.sequences, "below 2^32")?;
        let mut lens = vector_of(0u64, o.sequences)?;
        for (sequence, len) in lens.iter_mut().enumerate() {
            *len = self.len_of(sequence) as u64;
        }
        let data_bytes = o.stored_bytes(o.sequences)?;
        let header = Header {
            magic: MAGIC,
            number,
            k: o.key_dim,
            n: o.value_dim,
            extra: o.heads,
            data_bytes,
            id: o.id(),
        };
        let (matrices, inputs) = self.contents();
        let parts: [&[u8]; 3] =
            [bytemuck::cast_slice(&lens), bytemuck::cast_slice(matrices), bytemuck::cast_slice(inputs)];
        blob::save(path, &header, &parts)
    }

    /// Replaces all sequences by those of a file that [`RecurrentState::save`] wrote from a state of the same
    /// heads, sizes and convolution. There may be fewer of them: the others are empty then.
    ///
    /// - **Errors**: `Io`, for what is no regular file too; `Blob` for a file that is truncated, too long,
    ///   foreign, of another version, of other options or damaged, or that has more sequences; `Resource`;
    ///   `Unsupported` on a big-endian machine; nothing is changed then.
    /// - **Cost**: two passes; allocates as much as the file has.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        if cfg!(target_endian = "big") {
            return Err(Error::Unsupported { what: "a state file" });
        }
        let mut reader = blob::Reader::open(path)?;
        let header = Header::parse(&reader.header, MAGIC)?;
        let o = *self.options();
        for (what, got, want) in [
            ("key_dim", header.k, o.key_dim),
            ("value_dim", header.n, o.value_dim),
            ("heads", header.extra, o.heads),
        ] {
            if got != want {
                return wrong(what, got, want);
            }
        }
        if header.id != o.id() {
            return wrong(
                "convolution",
                header.id().escape_ascii(),
                Header { id: o.id(), ..header }.id().escape_ascii(),
            );
        }
        let sequences = header.number as usize;
        if sequences > o.sequences {
            return wrong("sequences", sequences, format_args!("at most the state's {}", o.sequences));
        }
        let bytes = o.stored_bytes(sequences)?;
        if header.data_bytes != bytes {
            return wrong("data bytes", header.data_bytes, bytes);
        }
        reader.check_length(bytes)?;
        let mut data = vector_of(0u8, bytes)?;
        reader.read(&mut data)?;
        blob::verify(&reader.header, &data)?;
        let (lens, rest) = data.split_at(sequences * LENGTH);
        for len in lens.chunks_exact(LENGTH) {
            let len = u64_of(len);
            if usize::try_from(len).is_err() {
                return wrong("length of a sequence", len, "a number of tokens");
            }
        }
        self.clear();
        let lens = lens.chunks_exact(LENGTH).map(|len| u64_of(len) as usize);
        self.replace(lens, rest.split_at(4 * sequences * o.matrices_len()));
        Ok(())
    }
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}
