//! `general.file_type`: the format of most weights of a file, by a number of its own.
//!
//! **Source**: `enum llama_ftype` of <https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h>.

use kvern::quant::WeightFormat;

/// The number of files whose weights are of `format`. Of the mixtures of K formats it is the one with the
/// fewest bits (`.._S`), whose weights are nearly all of one format.
pub fn of(format: WeightFormat) -> Option<u32> {
    Some(match format {
        WeightFormat::F32 => 0,
        WeightFormat::F16 => 1,
        WeightFormat::Q4_0 => 2,
        WeightFormat::Q4_1 => 3,
        WeightFormat::Q8_0 => 7,
        WeightFormat::Q5_0 => 8,
        WeightFormat::Q5_1 => 9,
        WeightFormat::Q2K => 10,
        WeightFormat::Q3K => 11,
        WeightFormat::Q4K => 14,
        WeightFormat::Q5K => 16,
        WeightFormat::Q6K => 18,
        WeightFormat::Iq2Xxs => 19,
        WeightFormat::Iq2Xs => 20,
        WeightFormat::Iq3Xxs => 23,
        WeightFormat::Iq1S => 24,
        WeightFormat::Iq4Nl => 25,
        WeightFormat::Iq3S => 26,
        WeightFormat::Iq2S => 28,
        WeightFormat::Iq4Xs => 30,
        WeightFormat::Iq1M => 31,
        WeightFormat::Bf16 => 32,
        WeightFormat::Tq1_0 => 36,
        WeightFormat::Tq2_0 => 37,
        WeightFormat::Mxfp4 => 38,
        WeightFormat::Nvfp4 => 39,
        WeightFormat::Q1_0 => 40,
        WeightFormat::Q2_0 => 41,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_number_of_its_own() {
        let mut numbers = WeightFormat::ALL.map(of);
        numbers.sort_unstable();
        assert!(numbers.iter().all(Option::is_some), "{numbers:?}");
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    }
}
