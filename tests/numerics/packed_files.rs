//! Packed matrices in files: saved, loaded and mapped give the same bits; hostile files are refused.

use crate::support::{Random, assert_same_bits, context, for_each_isa, map, temp};
use kvern::buffer::MappedFile;
use kvern::{Context, Epilogue, Isa, MatMut, MatRef, PackedB, Workspace, bf16, f16};
use sha2::{Digest, Sha256};

fn multiply(ctx: &Context, b: &PackedB, a: &[f32]) -> Vec<f32> {
    let m = a.len() / b.k();
    let mut c = vec![0.0; m * b.n()];
    let mut ws = Workspace::new(b.workspace_bytes(ctx, m).unwrap()).unwrap();
    let a = MatRef::dense(a, m, b.k()).unwrap();
    let out = MatMut::dense(&mut c, m, b.n()).unwrap();
    b.multiply(ctx, &mut ws, a, out, &Epilogue::default()).unwrap();
    c
}

#[test]
fn saved_loaded_and_mapped_matrices_multiply_alike() {
    let mut r = Random::new(1);
    let (k, n) = (77, 150);
    let (a, b) = (r.vec(3 * k), r.vec(k * n));
    let h: Vec<f16> = b.iter().map(|&x| f16::from_f32(x)).collect();
    let g: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
    for_each_isa(|ctx| {
        let packed = [
            PackedB::pack(ctx, MatRef::dense(&b, k, n).unwrap()).unwrap(),
            PackedB::pack(ctx, MatRef::dense(&h, k, n).unwrap()).unwrap(),
            PackedB::pack(ctx, MatRef::dense(&g, k, n).unwrap()).unwrap(),
        ];
        for p in packed {
            let path = temp(&format!("alike-{}-{}", ctx.isa(), p.dtype().name()));
            p.save(&path).unwrap();
            let want = multiply(ctx, &p, &a);
            let mapped = PackedB::from_mapped(&map(&path)).unwrap();
            for q in [PackedB::load(&path).unwrap(), mapped] {
                assert_eq!((q.k(), q.n(), q.dtype(), q.bytes()), (k, n, p.dtype(), p.bytes()));
                assert_eq!(q.kernel_id(), p.kernel_id());
                for_each_isa(|any| assert_same_bits(&multiply(any, &q, &a), &want, "from the file"));
            }
            std::fs::remove_file(path).unwrap();
        }
    });
}

#[test]
fn every_damaged_byte_and_every_truncation_is_refused() {
    let b: Vec<f32> = (0..40).map(|x| x as f32).collect();
    let ctx = context(Isa::Scalar, 1);
    let path = temp("damaged");
    PackedB::pack(&ctx, MatRef::dense(&b, 4, 10).unwrap()).unwrap().save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    assert_eq!(good.len(), 128 + 4 * 16 * 4);
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let loaded = PackedB::load(&path).unwrap_err();
        assert_eq!(PackedB::from_mapped(&map(&path)).unwrap_err(), loaded);
        loaded.to_string()
    };
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1;
        assert!(refused(&bad).contains("stored"), "byte {i}");
    }
    for len in [0, 1, 127, 128, good.len() - 1] {
        assert!(refused(&good[..len]).starts_with("stored length = "), "{len}");
    }
    assert!(refused(&[&good[..], &[0]].concat()).starts_with("stored length = "));
    assert!(refused(b"GGUF").contains("at least the header"));
    // Sizes that would need the whole address space.
    let mut bad = good.clone();
    bad[16..32].fill(0xff);
    std::fs::write(&path, &bad).unwrap();
    assert!(PackedB::load(&path).is_err());
    // Behind a right checksum: panels that no tile is as wide as.
    for width in [0u8, 8, 17, 128] {
        let mut bad = good.clone();
        bad[32] = width;
        let mut sha = Sha256::new();
        sha.update(&bad[..80]);
        sha.update(&bad[128..]);
        bad[80..112].copy_from_slice(&sha.finalize());
        assert_eq!(refused(&bad), format!("stored panel width = {width} must be 16, 32 or 64"));
    }
    // Random files.
    let mut r = Random::new(2);
    for _ in 0..2000 {
        let mut bad = good.clone();
        for _ in 0..1 + r.below(8) {
            let i = r.below(bad.len());
            bad[i] = r.next() as u8;
        }
        bad.truncate(r.below(bad.len() + 1));
        if bad != good {
            refused(&bad);
        }
    }
    std::fs::remove_file(&path).unwrap();
    let missing = PackedB::load(&path).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read ") && missing.ends_with("entity not found"), "{missing}");
    // SAFETY: the file does not exist.
    assert!(unsafe { MappedFile::open(&path) }.is_err());
    let matrix = PackedB::pack(&ctx, MatRef::dense(&b, 4, 10).unwrap()).unwrap();
    assert!(matrix.save(&path.join("below a file that is not there")).is_err());
}
