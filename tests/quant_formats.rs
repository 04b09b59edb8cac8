//! The formats of GGUF: names and sizes, floats bit for bit as the oracle.

mod support;

use kvern::quant::{PackedWeights, WeightFormat, dequantize};
use support::assert_same_bits;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/quant/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn numbers_names_and_sizes_are_those_of_gguf() {
    let want = [
        (0, "f32", 1, 4),
        (1, "f16", 1, 2),
        (2, "q4_0", 32, 18),
        (3, "q4_1", 32, 20),
        (6, "q5_0", 32, 22),
        (7, "q5_1", 32, 24),
        (8, "q8_0", 32, 34),
        (10, "q2_k", 256, 84),
        (11, "q3_k", 256, 110),
        (12, "q4_k", 256, 144),
        (13, "q5_k", 256, 176),
        (14, "q6_k", 256, 210),
        (20, "iq4_nl", 32, 18),
        (23, "iq4_xs", 256, 136),
        (30, "bf16", 1, 2),
        (39, "mxfp4", 32, 17),
    ];
    let got = WeightFormat::ALL.map(|f| (f as i32, f.name(), f.block_len(), f.block_bytes()));
    assert_eq!(got, want);
    for number in -2..100 {
        let found = WeightFormat::try_from(number).map(|f| f as i32);
        match want.iter().find(|w| w.0 == number) {
            Some(_) => assert_eq!(found, Ok(number)),
            None => assert!(found.unwrap_err().to_string().starts_with(&format!("format = {number} must"))),
        }
    }
    assert_eq!(WeightFormat::Q6K.bytes(3, 512), Ok(3 * 2 * 210));
    let ragged = WeightFormat::Q6K.bytes(3, 96).unwrap_err();
    assert_eq!(ragged.to_string(), "k = 96 must be a multiple of the block of 256");
    assert!(WeightFormat::Mxfp4.bytes(usize::MAX, 64).is_err());
}

#[test]
fn floats_of_every_format_are_those_of_the_oracle() {
    for format in WeightFormat::ALL.into_iter().filter(|f| *f != WeightFormat::F32) {
        let blocks = fixture(&format!("{}.blocks", format.name()));
        let want = floats(&fixture(&format!("{}.f32", format.name())));
        let mut got = vec![f32::NAN; 7 * 512];
        dequantize(format, &blocks, &mut got).unwrap();
        assert_same_bits(&got, &want, format.name());
    }
}

#[test]
fn formats_without_a_packed_layout_are_refused() {
    for format in WeightFormat::ALL.into_iter().filter(|f| !f.is_packable()) {
        let blocks = vec![0; format.bytes(2, 256).unwrap()];
        let refused = PackedWeights::from_blocks(format, 2, 256, &blocks).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("format = {} must be", format.name())), "{refused}");
    }
}
