//! The formats of GGUF: names and sizes, floats and defined blocks bit for bit as the oracle, searched blocks
//! no worse than the reference implementation's, odd input as documented.

use crate::support::{Random, assert_same_bits};
use kvern::quant::{WeightFormat, dequantize, quantize};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/quant/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn blocks_of(format: WeightFormat, x: &[f32]) -> Vec<u8> {
    let mut blocks = vec![0x5A; format.bytes(1, x.len()).unwrap()];
    quantize(format, x, &mut blocks).unwrap();
    blocks
}

fn floats_of(format: WeightFormat, blocks: &[u8], len: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; len];
    dequantize(format, blocks, &mut out).unwrap();
    out
}

fn there_and_back(format: WeightFormat, x: &[f32]) -> Vec<f32> {
    floats_of(format, &blocks_of(format, x), x.len())
}

fn rms_error(format: WeightFormat, x: &[f32]) -> f64 {
    let squares = x.iter().zip(there_and_back(format, x)).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / x.len() as f64).sqrt()
}

/// Formats whose codebooks hold no signs of their own for each weight, so that not every sign can be stored.
fn lacks_signs(format: WeightFormat) -> bool {
    use WeightFormat::{Iq1M, Iq1S, Iq2Xs, Iq2Xxs, Iq3Xxs};
    matches!(format, Iq1S | Iq1M | Iq2Xxs | Iq2Xs | Iq3Xxs)
}

fn is_of_codebook(format: WeightFormat) -> bool {
    lacks_signs(format) || matches!(format, WeightFormat::Iq2S | WeightFormat::Iq3S)
}

/// Bits of a weight.
fn bits_of(format: WeightFormat) -> f64 {
    8.0 * format.block_bytes() as f64 / format.block_len() as f64
}

fn of_blocks(len: usize) -> impl Iterator<Item = WeightFormat> {
    WeightFormat::ALL.into_iter().filter(move |f| f.block_len() == len)
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
        (16, "iq2_xxs", 256, 66),
        (17, "iq2_xs", 256, 74),
        (18, "iq3_xxs", 256, 98),
        (19, "iq1_s", 256, 50),
        (20, "iq4_nl", 32, 18),
        (21, "iq3_s", 256, 110),
        (22, "iq2_s", 256, 82),
        (23, "iq4_xs", 256, 136),
        (29, "iq1_m", 256, 56),
        (30, "bf16", 1, 2),
        (34, "tq1_0", 256, 54),
        (35, "tq2_0", 256, 66),
        (39, "mxfp4", 32, 17),
        (40, "nvfp4", 64, 36),
        (41, "q1_0", 128, 18),
        (42, "q2_0", 64, 18),
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
    // The reference implementation has no reader of Q1_0 and Q2_0: see `blocks_of_signs_and_of_two_bits`.
    let read = |f: &WeightFormat| !matches!(f, WeightFormat::F32 | WeightFormat::Q1_0 | WeightFormat::Q2_0);
    for format in WeightFormat::ALL.into_iter().filter(read) {
        let blocks = fixture(&format!("{}.blocks", format.name()));
        let want = floats(&fixture(&format!("{}.f32", format.name())));
        let mut got = vec![f32::NAN; 7 * 512];
        dequantize(format, &blocks, &mut got).unwrap();
        assert_same_bits(&got, &want, format.name());
    }
}

#[test]
fn defined_blocks_are_those_of_the_oracle() {
    let input = floats(&fixture("input.f32"));
    for name in ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16"] {
        let format = WeightFormat::ALL.into_iter().find(|f| f.name() == name).unwrap();
        let (got, want) = (blocks_of(format, &input), fixture(&format!("{name}.blocks")));
        let first = got.iter().zip(&want).position(|(a, b)| a != b);
        assert_eq!((got.len(), first), (want.len(), None), "{name}");
    }
    assert_same_bits(&there_and_back(WeightFormat::F32, &input), &input, "f32");
}

#[test]
fn ternary_blocks_are_those_of_the_oracle() {
    for format in [WeightFormat::Tq1_0, WeightFormat::Tq2_0] {
        let input = floats(&fixture(&format!("{}_input.f32", format.name())));
        let (got, want) = (blocks_of(format, &input), fixture(&format!("{}_input.blocks", format.name())));
        let first = got.iter().zip(&want).position(|(a, b)| a != b);
        assert_eq!((got.len(), first), (want.len(), None), "{format:?}");
    }
}

#[test]
fn blocks_of_signs_and_of_two_bits_are_as_their_bytes_say() {
    let mut block = vec![0x00, 0x3c]; // 1.0
    block.extend([0b1010_0001; 16]);
    let want: Vec<f32> = (0..128).map(|i| if [0, 5, 7].contains(&(i % 8)) { 1.0 } else { -1.0 }).collect();
    assert_same_bits(&floats_of(WeightFormat::Q1_0, &block, 128), &want, "q1_0");
    assert_eq!(blocks_of(WeightFormat::Q1_0, &want), block);
    let mut block = vec![0x00, 0xb8]; // -0.5
    block.extend([0b11_10_01_00; 16]);
    let want: Vec<f32> = (0..64).map(|i| [0.5, 0.0, -0.5, -1.0][i % 4]).collect();
    let got = floats_of(WeightFormat::Q2_0, &block, 64);
    assert!(got.iter().zip(&want).all(|(a, b)| a == b), "{got:?}");
    assert_eq!(blocks_of(WeightFormat::Q2_0, &want), block);
}

/// The fixture, `uniform`, `normal`, `pointed` (the third power of normal) and `outliers` (one in 64 is 20
/// times as large).
fn distributions() -> [Vec<f32>; 5] {
    let mut r = Random::new(11);
    let uniform = r.vec(64 * 512);
    let mut of_twelve = || (0..12).map(|_| r.f32()).sum::<f32>() / 2.0;
    let mut normal = || (0..64 * 512).map(|_| of_twelve()).collect::<Vec<f32>>();
    let (second, pointed, outliers) = (normal(), normal(), normal());
    let pointed = pointed.into_iter().map(|x| x * x * x).collect();
    let far = |(i, x): (usize, f32)| if i % 64 == 17 { 20.0 * x } else { x };
    let outliers = outliers.into_iter().enumerate().map(far).collect();
    [floats(&fixture("input.f32")), uniform, second, pointed, outliers]
}

#[test]
fn searched_blocks_are_no_worse_than_the_reference_implementation() {
    // Root mean square errors of llama.cpp's `ggml_quantize_chunk` on the distributions: without an
    // importance matrix, or where it demands one (the codebooks), with one of equal numbers.
    let reference = [
        ("q2_k", [0.842896052, 0.133928498, 0.295788218, 1.39930183, 0.62971669]),
        ("q3_k", [0.427781007, 0.0723624965, 0.149550165, 0.553646765, 0.407604671]),
        ("q4_k", [0.21436343, 0.0315250596, 0.0706748118, 0.321397504, 0.256880632]),
        ("q5_k", [0.106237566, 0.015982308, 0.0357964737, 0.177326809, 0.130309644]),
        ("q6_k", [0.0547578229, 0.00763658276, 0.0174489878, 0.0868719764, 0.0853329766]),
        ("iq4_nl", [0.231177823, 0.0369331261, 0.0754728481, 0.326718925, 0.325960508]),
        ("iq4_xs", [0.234060583, 0.0372606737, 0.0760572984, 0.33119353, 0.329810284]),
        ("mxfp4", [0.340610157, 0.0829595709, 0.114951149, 0.501909005, 0.455855884]),
        ("iq2_xxs", [1.08452051, 0.19214086, 0.342359718, 2.23533002, 2.01140297]),
        ("iq2_xs", [0.937892459, 0.164511201, 0.298848446, 1.82418018, 1.5111003]),
        ("iq2_s", [0.812037163, 0.133101976, 0.247508774, 1.75133795, 1.44424406]),
        ("iq3_xxs", [0.551243427, 0.0997840413, 0.181631042, 1.00462074, 0.758636917]),
        ("iq3_s", [0.806131784, 0.0725655133, 0.136845185, 0.86463741, 0.741196981]),
        ("iq1_s", [1.44223343, 0.241629929, 0.481656111, 2.15503174, 1.76230217]),
        ("iq1_m", [1.31011265, 0.229410064, 0.447725216, 1.70427482, 1.31773507]),
        ("nvfp4", [0.261111607, 0.0586554426, 0.0957642773, 0.285201958, 0.231022708]),
        ("q1_0", [1.80182823, 0.288199839, 0.596517074, 3.19043865, 2.33370786]),
        ("tq1_0", [2.31734393, 0.286768499, 0.796663358, 2.6471121, 1.39192196]),
        ("q2_0", [1.94648362, 0.281865772, 0.712220336, 2.10935282, 0.959439988]),
    ];
    let distributions = distributions();
    for (name, errors) in reference {
        let format = WeightFormat::ALL.into_iter().find(|f| f.name() == name).unwrap();
        for (number, (x, reference)) in distributions.iter().zip(errors).enumerate() {
            let ours = rms_error(format, x);
            assert!(ours <= reference * (1.0 + 1e-6), "{name}, {number}: {ours} exceeds {reference}");
            assert!(
                ours >= 0.45 * reference,
                "{name}, {number}: {ours} of {reference} is too good to be true"
            );
        }
    }
}

#[test]
fn what_a_format_can_hold_comes_back() {
    for format in WeightFormat::ALL {
        let zeros = there_and_back(format, &[0.0; 256]);
        assert!(zeros.iter().all(|x| *x == 0.0), "{format:?}");
        // One magnitude with both signs: at worst the end of Q4_0 that lacks a code clamps by an eighth.
        let signs: Vec<f32> = (0..256).map(|i| if i * i % 7 < 3 { 0.25 } else { -0.25 }).collect();
        let back = there_and_back(format, &signs);
        let worst = back.iter().zip(&signs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Codebooks do not hold every pattern.
        let most = if lacks_signs(format) {
            0.5
        } else if is_of_codebook(format) {
            0.0625
        } else {
            0.03125
        };
        assert!(worst <= most, "{format:?}: {worst}");
    }
}

#[test]
fn blocks_with_nan_or_infinity_become_nan() {
    for len in [32, 64, 128, 256] {
        for format in of_blocks(len) {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x: Vec<f32> = (0..3 * len).map(|i| i as f32 / 64.0 - 3.0).collect();
                let clean = there_and_back(format, &x);
                x[len + 7] = bad;
                let mut blocks = vec![0x5A; format.bytes(1, x.len()).unwrap()];
                let written = quantize(format, &x, &mut blocks);
                if matches!(format, WeightFormat::Mxfp4 | WeightFormat::Nvfp4) {
                    let refused = written.unwrap_err().to_string();
                    assert!(refused.contains("x = NaN or infinity must be finite"), "{refused}");
                    assert!(blocks.iter().all(|b| *b == 0x5A), "nothing is written");
                    continue;
                }
                written.unwrap();
                let back = floats_of(format, &blocks, x.len());
                assert!(back[len..2 * len].iter().all(|x| x.is_nan()), "{format:?} {bad}");
                assert_same_bits(&back[..len], &clean[..len], "the block before");
                assert_same_bits(&back[2 * len..], &clean[2 * len..], "the block after");
            }
        }
    }
}

#[test]
fn magnitudes_beyond_the_search_saturate() {
    let formats = of_blocks(256).chain([WeightFormat::Iq4Nl, WeightFormat::Mxfp4]);
    for format in formats {
        for huge in [1e10, f32::MAX] {
            let x: Vec<f32> = (0..256).map(|i| if i % 3 == 0 { -huge } else { huge * 0.9 }).collect();
            let back = there_and_back(format, &x);
            assert!(back.iter().all(|x| x.is_finite()), "{format:?} {huge}");
            let reach = match format {
                _ if lacks_signs(format) => {
                    assert!(back.iter().any(|x| x.abs() > 5e5), "{format:?} {huge}");
                    continue;
                }
                // -1, 0 and 1 times a scale.
                WeightFormat::Tq1_0 | WeightFormat::Tq2_0 => 65504.0,
                _ => 5e5,
            };
            assert!(back[0] <= -reach && back[1] >= 0.0, "{format:?} {huge}: {} {}", back[0], back[1]);
        }
        let tiny = there_and_back(format, &[1e-41; 256]);
        assert!(tiny.iter().all(|x| x.abs() <= 1e-40), "{format:?}");
    }
}

#[test]
fn wrong_lengths_are_refused_and_change_nothing() {
    for format in WeightFormat::ALL {
        let len = format.block_len() * 2;
        let bytes = format.bytes(1, len).unwrap();
        let mut out = vec![0x5A; bytes + 1];
        let said = quantize(format, &vec![1.0; len], &mut out).unwrap_err().to_string();
        assert_eq!(said, format!("out.len = {} must equal the bytes of the blocks = {bytes}", bytes + 1));
        let mut floats = vec![0.5; len];
        let said = dequantize(format, &out[..bytes - 1], &mut floats).unwrap_err().to_string();
        assert_eq!(said, format!("blocks.len = {} must equal the bytes of the blocks = {bytes}", bytes - 1));
        if len > 2 {
            let ragged = quantize(format, &vec![1.0; len - 1], &mut out[..bytes]).unwrap_err().to_string();
            assert!(ragged.contains("must be a multiple of the block"), "{ragged}");
            assert!(dequantize(format, &out[..bytes], &mut floats[1..]).is_err());
        }
        assert!(out.iter().all(|b| *b == 0x5A) && floats.iter().all(|x| *x == 0.5), "{format:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_have_floats(bytes in proptest::collection::vec(any::<u8>(), 3 * 210)) {
        for format in WeightFormat::ALL {
            let blocks = bytes.len() / format.block_bytes();
            let len = blocks * format.block_len();
            let whole = floats_of(format, &bytes[..blocks * format.block_bytes()], len);
            // Blocks stand alone: the last one gives the same bits without its neighbours.
            let last = &bytes[(blocks - 1) * format.block_bytes()..blocks * format.block_bytes()];
            let alone = floats_of(format, last, format.block_len());
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&alone), bits(&whole[len - format.block_len()..]));
        }
    }

    #[test]
    fn any_floats_have_blocks(bits in proptest::collection::vec(any::<u32>(), 256), scale in -40i32..40) {
        let any: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
        let usual: Vec<f32> =
            bits.iter().map(|b| (f64::from(*b as i32) * 2f64.powi(scale - 31)) as f32).collect();
        for format in WeightFormat::ALL {
            for x in [&any, &usual] {
                let finite: Vec<f32> = x.iter().map(|x| if x.is_finite() { *x } else { 1.0 }).collect();
                let writes_nan = !matches!(format, WeightFormat::Mxfp4 | WeightFormat::Nvfp4);
                let x = if writes_nan { x } else { &finite };
                there_and_back(format, x);
            }
            // Within the range of f16 scales, no element is off by more than the coarsest step, about 1/2 of
            // the largest in Q2_K; or by more than the largest, where signs or two magnitudes are all there
            // is.
            if (-10..10).contains(&scale) {
                let most = usual.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let back = there_and_back(format, &usual);
                for (a, b) in back.iter().zip(&usual) {
                    let coarse = bits_of(format) < 2.6 || lacks_signs(format);
                    let most = if coarse { 1.5 * most } else { 0.75 * most };
                    prop_assert!((a - b).abs() <= most, "{format:?}: {a} for {b} of {most}");
                }
            }
        }
    }
}
