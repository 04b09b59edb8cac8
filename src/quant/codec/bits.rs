//! Numbers and nibbles in the bytes of blocks and headers.

/// The sign of an f16: Q4_1 and Q5_1 add what the common formula subtracts.
pub(in crate::quant) const SIGN: u16 = 0x8000;

/// A little-endian f16 as bits.
pub(in crate::quant) fn get16(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

pub(in crate::quant) fn put16(block: &mut [u8], at: usize, bits: u16) {
    block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
}

/// Runs of `RUN` bytes of nibbles in halves: the low nibble of byte j of a run is its element j, the high one
/// element `j + RUN`.
pub(in crate::quant) fn nibbles<const RUN: usize>(bytes: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in bytes.as_chunks::<RUN>().0.iter().zip(codes.chunks_exact_mut(2 * RUN)) {
        let (low, high) = codes.split_at_mut(RUN);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }
}

pub(in crate::quant) fn put_nibbles<const RUN: usize>(codes: &[u8], bytes: &mut [u8]) {
    for (bytes, codes) in bytes.as_chunks_mut::<RUN>().0.iter_mut().zip(codes.chunks_exact(2 * RUN)) {
        let (low, high) = codes.split_at(RUN);
        for ((low, high), byte) in low.iter().zip(high).zip(bytes) {
            *byte = low & 15 | high << 4;
        }
    }
}
