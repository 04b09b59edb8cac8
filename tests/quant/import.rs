//! Weights quantised by other tools: every element is what the checkpoint formats define, written here a
//! second time from the element's side; hostile tensors are refused.

use crate::support::{ABSURD, Random, assert_same_bits};
use kvern::quant::import::{Awq, Gptq, GroupWise, StoredZeros};
use kvern::{bf16, f16};
use proptest::prelude::*;

/// Integers of a checkpoint, drawn at random.
struct Layer {
    n: usize,
    k: usize,
    bits: u32,
    group: usize,
    codes: Vec<u8>,   // (k, n)
    zeros: Vec<u8>,   // (k / group, n)
    scales: Vec<f16>, // (k / group, n)
    /// The group of each input feature.
    g_idx: Vec<i32>, // (k)
}

impl Layer {
    fn new(seed: u64, (n, k): (usize, usize), bits: u32, group: usize) -> Layer {
        let mut r = Random::new(seed);
        let groups = k.div_ceil(group);
        let top = 1 << bits;
        Layer {
            n,
            k,
            bits,
            group,
            codes: (0..k * n).map(|_| r.below(top) as u8).collect(),
            zeros: (0..groups * n).map(|_| r.below(top) as u8).collect(),
            scales: (0..groups * n).map(|_| f16::from_f32(r.f32() / 8.0)).collect(),
            g_idx: (0..k).map(|j| (j / group) as i32).collect(),
        }
    }

    /// Deals features out to groups at random.
    fn shuffled(mut self, seed: u64) -> Layer {
        let mut r = Random::new(seed);
        for j in (1..self.k).rev() {
            self.g_idx.swap(j, r.below(j + 1));
        }
        self
    }

    /// The definition.
    fn weight(&self, i: usize, j: usize) -> f32 {
        let at = self.g_idx[j] as usize * self.n + i;
        f32::from(self.scales[at])
            * (i32::from(self.codes[j * self.n + i]) - i32::from(self.zeros[at])) as f32
    }

    fn check(&self, w: &GroupWise) {
        assert_eq!((w.n(), w.k(), w.bits(), w.group()), (self.n, self.k, self.bits, self.group));
        let mut row = vec![f32::NAN; self.k];
        for i in 0..self.n {
            let want: Vec<f32> = (0..self.k).map(|j| self.weight(i, j)).collect();
            w.dequantize_row(i, &mut row).unwrap();
            assert_same_bits(&row, &want, &format!("row {i}"));
            // What a packer sees.
            let stored = w.row(i).unwrap();
            for p in 0..self.k {
                let j = w.order().map_or(p, |order| order[p] as usize);
                let g = p / self.group;
                let code = i32::from(stored.codes[p]) - i32::from(stored.zeros[g]);
                assert_eq!((stored.scales[g] * code as f32).to_bits(), want[j].to_bits());
            }
        }
        assert!(w.row(self.n).is_none());
    }

    /// The layer from its GPTQ tensors.
    fn imported(&self, stored_zeros: StoredZeros, with_g_idx: bool) -> GroupWise {
        let (qweight, qzeros) = self.gptq(stored_zeros);
        let tensors = Gptq {
            n: self.n,
            k: self.k,
            bits: self.bits,
            group: self.group,
            qweight: &qweight,
            qzeros: &qzeros,
            scales: &self.scales,
            g_idx: with_g_idx.then_some(&self.g_idx[..]),
            stored_zeros,
        };
        GroupWise::from_gptq(&tensors).unwrap()
    }

    /// `(qweight, qzeros)`: integer `at` from bit `at * bits` on.
    fn gptq(&self, stored_zeros: StoredZeros) -> (Vec<i32>, Vec<i32>) {
        // Bit by bit: integers of 3 bits cross words.
        let (n, bits) = (self.n, self.bits as usize);
        let mut qweight = vec![0i32; self.k * bits / 32 * n];
        for j in 0..self.k {
            for i in 0..n {
                for bit in 0..bits {
                    let at = j * bits + bit;
                    qweight[at / 32 * n + i] |= i32::from(self.codes[j * n + i] >> bit & 1) << (at % 32);
                }
            }
        }
        let words = n * bits / 32;
        let mut qzeros = vec![0i32; self.zeros.len().checked_div(n).unwrap_or(0) * words];
        for (at, zero) in self.zeros.iter().enumerate() {
            let stored = match stored_zeros {
                StoredZeros::MinusOne => zero.wrapping_sub(1) & (0xFF >> (8 - self.bits)),
                _ => *zero,
            };
            let (g, i) = (at / n, at % n);
            for bit in 0..bits {
                let at = i * bits + bit;
                qzeros[g * words + at / 32] |= i32::from(stored >> bit & 1) << (at % 32);
            }
        }
        (qweight, qzeros)
    }

    /// AutoAWQ's packing of `(rows, n)` integers.
    fn awq(&self, integers: &[u8]) -> Vec<i32> {
        let pack = |eight: &[u8]| {
            let order = [0, 2, 4, 6, 1, 3, 5, 7];
            (0..8).fold(0u32, |word, nibble| word | u32::from(eight[order[nibble]]) << (4 * nibble)) as i32
        };
        integers.chunks_exact(8).map(pack).collect()
    }
}

fn said<T: std::fmt::Debug>(result: kvern::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn gptq_layers_hold_what_their_tensors_define() {
    for (seed, (shape, bits, group)) in [
        ((8, 32), 4, 32),
        ((24, 256), 4, 128),
        ((40, 192), 4, 64),
        ((4, 128), 8, 32),
        ((20, 256), 8, 128),
        ((16, 128), 2, 64),
        ((32, 96), 3, 32),
        ((32, 160), 3, 64),
        ((8, 96), 4, 64),
        ((8, 352), 4, 352),
        ((8, 1056), 8, 1024),
        ((16, 64), 2, 96),
        ((8, 0), 4, 32),
        ((0, 64), 4, 32),
    ]
    .into_iter()
    .enumerate()
    {
        let in_order = Layer::new(seed as u64, shape, bits, group);
        let act_order = Layer::new(seed as u64, shape, bits, group).shuffled(7);
        for stored_zeros in [StoredZeros::MinusOne, StoredZeros::AsIs] {
            for (layer, with_g_idx) in [(&in_order, false), (&in_order, true), (&act_order, true)] {
                let w = layer.imported(stored_zeros, with_g_idx);
                layer.check(&w);
                let sorted = layer.g_idx.is_sorted();
                assert_eq!(w.order().is_none(), sorted);
                if let Some(order) = w.order() {
                    for features in order.chunks(group) {
                        assert!(features.is_sorted(), "stable");
                    }
                }
            }
        }
    }
}

#[test]
fn awq_layers_hold_what_their_tensors_define() {
    for (seed, (shape, group)) in
        [((8, 32), 32), ((24, 256), 128), ((40, 192), 64), ((0, 64), 64)].into_iter().enumerate()
    {
        let layer = Layer::new(90 + seed as u64, shape, 4, group);
        let (qweight, qzeros) = (layer.awq(&layer.codes), layer.awq(&layer.zeros));
        let (n, k) = shape;
        let scales = &layer.scales[..];
        let w =
            GroupWise::from_awq(&Awq { n, k, group, qweight: &qweight, qzeros: &qzeros, scales }).unwrap();
        layer.check(&w);
        assert!(w.order().is_none());
    }
}

#[test]
fn own_codes_are_kept() {
    let (n, k, group) = (3, 128, 64);
    let mut r = Random::new(5);
    for bits in [2, 3, 4, 8] {
        let half = 1 << (bits - 1);
        let codes: Vec<i8> = (0..n * k).map(|_| (r.below(2 * half) as i32 - half as i32) as i8).collect();
        let scales: Vec<bf16> = (0..n * 2).map(|_| bf16::from_f32(r.f32())).collect();
        let w = GroupWise::symmetric((n, k), bits, group, &codes, &scales).unwrap();
        assert!(w.is_symmetric() && w.order().is_none());
        let want: Vec<f32> = (0..n * k).map(|e| f32::from(scales[e / group]) * f32::from(codes[e])).collect();
        let unsigned: Vec<u8> = codes.iter().map(|c| (i32::from(*c) + half as i32) as u8).collect();
        let mut zeros = vec![half as u8; n * 2];
        let again = GroupWise::with_zeros((n, k), bits, group, &unsigned, &scales, &zeros).unwrap();
        assert!(again.is_symmetric());
        for w in [w, again] {
            let mut row = vec![0.0; k];
            for i in 0..n {
                w.dequantize_row(i, &mut row).unwrap();
                assert_same_bits(&row, &want[i * k..(i + 1) * k], "row");
            }
        }
        zeros[1] = 0;
        let shifted = GroupWise::with_zeros((n, k), bits, group, &unsigned, &scales, &zeros).unwrap();
        assert!(!shifted.is_symmetric());
        let mut row = vec![0.0; k];
        shifted.dequantize_row(0, &mut row).unwrap();
        assert_eq!(row[64], f32::from(scales[1]) * f32::from(unsigned[64]));
    }
    let odd = GroupWise::symmetric((1, 32), 4, 32, &[1; 32], &[f32::NAN]).unwrap();
    let mut row = [0.0; 32];
    odd.dequantize_row(0, &mut row).unwrap();
    assert!(row.iter().all(|x| x.is_nan()), "a NaN scale spreads over its group");
}

#[test]
fn bad_tensors_are_refused_by_name() {
    let own =
        |shape, bits, group, codes: &[i8]| said(GroupWise::symmetric(shape, bits, group, codes, &[1.0f32]));
    assert_eq!(own((1, 32), 5, 32, &[0; 32]), "bits = 5 must be 2, 3, 4 or 8");
    assert_eq!(own((1, 32), 4, 24, &[0; 32]), "group = 24 must be 16 or a multiple of 32");
    assert_eq!(own((1, 32), 4, 0, &[0; 32]), "group = 0 must be 16 or a multiple of 32");
    assert_eq!(own((1, 80), 4, 16, &[0; 80]), "k = 80 must be a multiple of 32");
    assert_eq!(own((2, 32), 4, 32, &[0; 32]), "codes.len = 32 must equal n * k = 64");
    assert_eq!(own((2, 32), 4, 32, &[0; 64]), "scales.len = 1 must equal n * ceil(k / group) = 2");
    assert_eq!(own((1, 32), 4, 32, &[8; 32]), "code = 8 must be -8..=7");
    assert_eq!(own((usize::MAX, 32), 4, 32, &[0; 32]), "codes does not fit the address space");
    let zeros =
        |codes: &[u8], zeros: &[u8]| said(GroupWise::with_zeros((1, 32), 4, 32, codes, &[1.0f32], zeros));
    assert_eq!(zeros(&[16; 32], &[0]), "code = 16 must be 0..=15");
    assert_eq!(zeros(&[15; 32], &[16]), "code = 16 must be 0..=15");
    assert_eq!(zeros(&[15; 32], &[]), "zeros.len = 0 must equal n * ceil(k / group) = 1");

    let layer = Layer::new(1, (8, 64), 4, 32);
    let (qweight, qzeros) = layer.gptq(StoredZeros::AsIs);
    let good = Gptq {
        n: 8,
        k: 64,
        bits: 4,
        group: 32,
        qweight: &qweight,
        qzeros: &qzeros,
        scales: &layer.scales[..],
        g_idx: None,
        stored_zeros: StoredZeros::AsIs,
    };
    let gptq = |t: Gptq<'_, f16>| said(GroupWise::from_gptq(&t));
    assert_eq!(gptq(Gptq { n: 9, ..good }), "n = 9 must be a multiple of the 8 codes of a word");
    assert_eq!(gptq(Gptq { bits: 8, n: 9, ..good }), "n = 9 must be a multiple of the 4 codes of a word");
    assert_eq!(
        gptq(Gptq { qweight: &qweight[1..], ..good }),
        "qweight.len = 63 must equal k * bits / 32 * n = 64"
    );
    assert_eq!(
        gptq(Gptq { qzeros: &[], ..good }),
        "qzeros.len = 0 must equal ceil(k / group) * (n * bits / 32) = 2"
    );
    assert_eq!(gptq(Gptq { scales: &[], ..good }), "scales.len = 0 must equal ceil(k / group) * n = 16");
    let mut g_idx = layer.g_idx.clone();
    assert_eq!(gptq(Gptq { g_idx: Some(&g_idx[1..]), ..good }), "g_idx.len = 63 must equal k = 64");
    g_idx[0] = 2;
    assert_eq!(gptq(Gptq { g_idx: Some(&g_idx), ..good }), "g_idx = 2 must be below ceil(k / group)");
    g_idx[0] = -1;
    assert_eq!(gptq(Gptq { g_idx: Some(&g_idx), ..good }), "g_idx = -1 must be below ceil(k / group)");
    g_idx[0] = 1;
    let ragged = gptq(Gptq { g_idx: Some(&g_idx), ..good });
    assert_eq!(ragged, "g_idx = 1 more than 32 times must be in each group as often as it has features");

    let (qweight, qzeros) = (layer.awq(&layer.codes), layer.awq(&layer.zeros));
    let scales = &layer.scales[..];
    let good = Awq { n: 8, k: 64, group: 32, qweight: &qweight, qzeros: &qzeros, scales };
    let awq = |t: Awq<'_, f16>| said(GroupWise::from_awq(&t));
    assert_eq!(awq(Awq { n: 4, ..good }), "n = 4 must be a multiple of the 8 codes of a word");
    assert_eq!(awq(Awq { k: 128, ..good }), "qweight.len = 64 must equal k * (n / 8) = 128");
    assert_eq!(
        awq(Awq { qzeros: &qweight, ..good }),
        "qzeros.len = 64 must equal ceil(k / group) * (n / 8) = 2"
    );
    assert_eq!(awq(Awq { scales: &[], ..good }), "scales.len = 0 must equal ceil(k / group) * n = 16");

    let w = GroupWise::from_awq(&good).unwrap();
    assert_eq!(said(w.dequantize_row(8, &mut [0.0; 64])), "row = 8 must be below n = 8");
    assert_eq!(said(w.dequantize_row(0, &mut [0.0; 63])), "out.len = 63 must equal k = 64");
}

/// Shapes around the possible ones, and absurd ones.
fn dimension() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..70, Just(128), Just(usize::MAX), Just(usize::MAX / 32 * 32), Just(ABSURD)]
}

proptest! {
    /// Whatever is passed, there is a matrix whose every row can be read, or an error.
    #[test]
    fn hostile_tensors_never_panic(
        (n, k) in (dimension(), dimension()),
        bits in prop_oneof![2u32..9, 0u32..40],
        group in prop_oneof![Just(16usize), Just(32usize), Just(64), Just(0), 0usize..200],
        words in proptest::collection::vec(any::<i32>(), 0..600),
        g_idx in proptest::collection::vec(-2i32..4, 0..130),
        fitting in any::<bool>(),
    ) {
        let scales: Vec<f32> = words.iter().map(|w| f32::from_bits(*w as u32)).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let signed: Vec<i8> = bytes.iter().map(|b| *b as i8).collect();
        // Lengths that fit, where there are enough words, so that what comes after the lengths is reached.
        let cut = |len: Option<usize>, have: usize| match len {
            Some(len) if fitting && len <= have => len,
            _ => have,
        };
        let words_of = |len: usize| len.saturating_mul(bits as usize) / 32;
        let groups = if group == 0 { 0 } else { k.div_ceil(group) };
        let qweight = &words[..cut(words_of(k).checked_mul(n), words.len())];
        let qzeros = &words[..cut(groups.checked_mul(words_of(n)), words.len())];
        let scales = &scales[..cut(groups.checked_mul(n), words.len())];
        let codes = cut(n.checked_mul(k), bytes.len());
        let g_idx = &g_idx[..cut(Some(k), g_idx.len())];
        let zeros = &bytes[..cut(groups.checked_mul(n), bytes.len())];
        let stored_zeros = if words.len() % 2 == 0 { StoredZeros::MinusOne } else { StoredZeros::AsIs };
        let in_order = Gptq { n, k, bits, group, qweight, qzeros, scales, g_idx: None, stored_zeros };
        let results = [
            GroupWise::from_gptq(&in_order),
            GroupWise::from_gptq(&Gptq { g_idx: Some(g_idx), ..in_order }),
            GroupWise::from_awq(&Awq { n, k, group, qweight, qzeros, scales }),
            GroupWise::symmetric((n, k), bits, group, &signed[..codes], scales),
            GroupWise::with_zeros((n, k), bits, group, &bytes[..codes], scales, zeros),
            GroupWise::affine((n, k), bits, group, &bytes[..codes], scales, scales),
        ];
        for w in results.into_iter().flatten() {
            let mut row = vec![0.0; k];
            for i in 0..n.min(100) {
                w.dequantize_row(i, &mut row).unwrap();
            }
        }
    }

    /// Any order of features gives the same matrix.
    #[test]
    fn act_order_never_moves_a_weight(seed in any::<u64>(), blocks in 1usize..5, wide in any::<bool>()) {
        let (bits, group) = if wide { (8, 64) } else { (4, 32) };
        let layer = Layer::new(seed, (8 * blocks, group * blocks), bits, group).shuffled(seed ^ 1);
        layer.check(&layer.imported(StoredZeros::MinusOne, true));
    }
}
