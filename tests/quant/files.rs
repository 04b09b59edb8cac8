//! Packed weights in files: saved, loaded and mapped give the same bits; hostile files are refused.

use crate::support::{Random, assert_same_bits, map, product, temp};
use kvern::quant::import::{Gptq, GroupWise, StoredZeros};
use kvern::quant::{Compute, PackedWeights, WeightFormat, quantize};
use kvern::{Context, Epilogue, MatRef};
use sha2::{Digest, Sha256};

fn multiply(w: &PackedWeights, compute: Compute, a: &[f32]) -> Vec<f32> {
    let m = a.len() / w.k();
    let mut c = vec![0.0; m * w.n()];
    let a = MatRef::dense(a, m, w.k()).unwrap();
    product(&Context::serial(), w, compute, a, &Epilogue::default(), &mut c);
    c
}

/// Weights of every kind, (20, 256).
fn every_kind(r: &mut Random) -> Vec<PackedWeights> {
    let x = r.vec(20 * 256);
    let mut all: Vec<PackedWeights> = WeightFormat::ALL
        .into_iter()
        .map(|format| {
            let mut blocks = vec![0; format.bytes(20, 256).unwrap()];
            quantize(format, &x, &mut blocks).unwrap();
            PackedWeights::from_blocks(format, 20, 256, &blocks).unwrap()
        })
        .collect();
    let codes: Vec<i8> = (0..20 * 256).map(|i| (i * 7 % 16) as i8 - 8).collect();
    let groups = GroupWise::symmetric((20, 256), 4, 64, &codes, &x[..80]).unwrap();
    all.push(PackedWeights::from_groups_on(&Context::serial(), &groups).unwrap());
    let words: Vec<i32> = (0..32 * 24).map(|_| r.next() as i32).collect();
    let g_idx: Vec<i32> = (0..256).map(|i| i % 8).collect();
    let gptq = Gptq {
        n: 24,
        k: 256,
        bits: 4,
        group: 32,
        qweight: &words,
        qzeros: &words[..24],
        scales: &x[..192],
        g_idx: Some(&g_idx),
        stored_zeros: StoredZeros::AsIs,
    };
    let ordered = GroupWise::from_gptq(&gptq).unwrap();
    all.push(PackedWeights::from_groups_on(&Context::serial(), &ordered).unwrap());
    all
}

#[test]
fn saved_loaded_and_mapped_weights_multiply_alike() {
    let mut r = Random::new(1);
    let a = r.vec(3 * 256);
    for (i, w) in every_kind(&mut r).into_iter().enumerate() {
        let path = temp(&format!("quant-alike-{i}"));
        w.save(&path).unwrap();
        let mapped = PackedWeights::from_mapped(&map(&path)).unwrap();
        for q in [PackedWeights::load(&path).unwrap(), mapped] {
            assert_eq!((q.k(), q.n(), q.format(), q.bytes()), (w.k(), w.n(), w.format(), w.bytes()));
            for compute in [Compute::Int8, Compute::F32] {
                assert_same_bits(&multiply(&q, compute, &a), &multiply(&w, compute, &a), "from the file");
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn every_damaged_byte_and_every_truncation_is_refused() {
    let mut r = Random::new(2);
    let path = temp("quant-damaged");
    for w in every_kind(&mut r) {
        w.save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let loaded = PackedWeights::load(&path).unwrap_err();
            assert_eq!(PackedWeights::from_mapped(&map(&path)).unwrap_err(), loaded);
            loaded.to_string()
        };
        for i in (0..good.len()).filter(|i| *i < 128 || i % 997 == 0) {
            let mut bad = good.clone();
            bad[i] ^= 1;
            let said = refused(&bad);
            assert!(said.contains("stored") || said.contains("does not fit"), "byte {i}: {said}");
        }
        for len in [0, 1, 127, 128, good.len() - 1] {
            assert!(refused(&good[..len]).starts_with("stored length = "), "{len}");
        }
        assert!(refused(&[&good[..], &[0]].concat()).starts_with("stored length = "));
        // Sizes that would need the whole address space.
        let mut bad = good.clone();
        bad[16..32].fill(0xff);
        std::fs::write(&path, &bad).unwrap();
        assert!(PackedWeights::load(&path).is_err());
    }
    std::fs::remove_file(&path).unwrap();
    assert!(PackedWeights::load(&path).unwrap_err().to_string().starts_with("cannot read "));
}

/// Files made on purpose, whose checksum is right.
#[test]
fn numbers_that_no_packing_stores_are_refused_behind_a_right_checksum() {
    let mut r = Random::new(3);
    let path = temp("quant-forged");
    let mut forged = 0;
    for w in every_kind(&mut r) {
        w.save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut said = |at: usize, value: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + value.len()].copy_from_slice(value);
            let mut sha = Sha256::new();
            sha.update(&bad[..80]);
            sha.update(&bad[128..]);
            bad[80..112].copy_from_slice(&sha.finalize());
            std::fs::write(&path, &bad).unwrap();
            forged += 1;
            let loaded = PackedWeights::load(&path).unwrap_err();
            assert_eq!(PackedWeights::from_mapped(&map(&path)).unwrap_err(), loaded);
            loaded.to_string()
        };
        match w.format() {
            Some(WeightFormat::Q3K) => {
                assert_eq!(said(128, &[32]), "stored scale or zero = 32 must be in -32..=31")
            }
            Some(WeightFormat::Iq4Xs) => assert!(said(128 + 32, &[0xdf]).contains("= -33 must be")),
            None if good[33] == 1 => {
                let (first, last) = (good.len() - 4 * w.k(), good.len() - 4);
                let twice = good[first..first + 4].to_vec();
                assert_eq!(said(last, &twice), "stored order = 0 must be each number below k = 256 once");
                assert!(said(first, &[0, 1, 0, 0]).contains("order = 256"));
                assert!(said(128 + 64, &[8]).contains("= 8 must be in -8..=7"));
            }
            _ => {}
        }
    }
    assert_eq!(forged, 5);
    std::fs::remove_file(&path).unwrap();
}
