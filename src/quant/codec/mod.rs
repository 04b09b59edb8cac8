//! The block formats as integers: one decoder and one encoder each, from which everything else follows.
//!
//! ```text
//! bytes of a block <--decode / encode--> Decoded --dequantize--> f32
//!                                           \--pack--> the layouts of the kernels
//! ```
//! Every format is one formula, `w = (d * scale[i / sub]) * value(code[i]) - dmin * min[i / sub]`, with the
//! parts that a format lacks being 1 (scale) or 0 (min). The bytes are described at each codec.

mod bits;
mod block;
mod coarse;
mod entries;
mod entries_search;
mod fit;
mod kquant;
mod round;
mod search;
mod shifted;
mod small;
mod table;
mod ternary;

pub(super) use bits::{SIGN, get16, put16};
pub(super) use block::{Codec, Decoded};

use super::format::WeightFormat;
use crate::kernels::formats::for_each_packing;

impl Codec {
    /// The codec of a format; `None` for single floats, which have no integers.
    pub fn of(format: WeightFormat) -> Option<&'static Codec> {
        macro_rules! codec {
            (blocks { $($name:ident: $format:ty, $codec:path;)+ } groups { $($groups:tt)+ }) => {
                match format {
                    $(WeightFormat::$name => Some(&$codec),)+
                    _ => None,
                }
            };
        }
        for_each_packing!(codec)
    }
}

#[cfg(test)]
mod tests {
    use super::block::half_e8m0;
    use super::*;

    /// Bytes without a pattern.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn any_block_survives_decoding_and_encoding() {
        for codec in WeightFormat::ALL.into_iter().filter_map(Codec::of) {
            for seed in 0..200 {
                let block = noise(codec.format.block_bytes(), seed);
                let mut decoded = Decoded::ZERO;
                codec.decode(&block, &mut decoded);
                let mut again = vec![0xA5; block.len()];
                codec.encode(&decoded, &mut again);
                if codec.format == WeightFormat::Tq1_0 {
                    // 256 bytes stand for 243 numbers: the least of those that mean the same is written.
                    let mut read = Decoded::ZERO;
                    codec.decode(&again, &mut read);
                    assert_eq!(read, decoded);
                } else {
                    assert_eq!(again, block, "{:?}", codec.format);
                }
                let codes = &decoded.codes[..codec.format.block_len()];
                assert!(codes.iter().all(|&c| u32::from(c) < 1 << codec.bits), "{:?}", codec.format);
                assert!(decoded.codes[codes.len()..].iter().all(|&c| c == 0));
                assert!(decoded.scales[codec.subs()..].iter().all(|&s| s == 0));
            }
        }
    }

    #[test]
    fn powers_of_two_are_what_the_exponent_says() {
        assert!(half_e8m0(255).is_nan());
        for e in 0..255u8 {
            assert_eq!(f64::from(half_e8m0(e)), 2f64.powi(i32::from(e) - 128));
        }
    }
}
