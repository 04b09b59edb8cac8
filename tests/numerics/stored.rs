//! Files of packed objects are the same on every machine: those in `tests/fixtures/stored` were written on
//! x86-64, matrices at the scalar tier. Each tier of each machine that runs this makes the same objects from
//! the same numbers, reads the files, computes the same bits from them, and writes them again byte for byte.
//!
//! `KVERN_BLESS=1 cargo test --test numerics stored` writes files that are missing, and never another one: a
//! file that changed could not be read by those who have the old one.

use crate::support::{Random, assert_same_bits, context, for_each_isa, map, product, temp};
use kvern::attention::{AttentionOptions, KvCache, KvCacheOptions, KvType, attend, workspace_bytes};
use kvern::quant::import::GroupWise;
use kvern::quant::{Compute, PackedWeights, WeightFormat};
use kvern::{Context, Epilogue, Isa, MatMut, MatRef, PackedB, Workspace, bf16, f16};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stored").join(name)
}

/// The committed file of a name, which `save` writes anew where it is missing and that is asked for.
fn committed(name: &str, save: impl FnOnce(&Path) -> kvern::Result<()>) -> Vec<u8> {
    let path = stored(name);
    if !path.exists() && std::env::var_os("KVERN_BLESS").is_some() {
        save(&path).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Asserts that `save` writes just these bytes.
fn assert_writes(bytes: &[u8], what: &str, save: impl FnOnce(&Path) -> kvern::Result<()>) {
    let path = temp(&format!("stored-{}", what.replace(' ', "-")));
    save(&path).unwrap();
    let written = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    assert!(written == bytes, "{what}: other bytes than the committed file");
}

const K: usize = 21;
const N: usize = 50;

/// B of each element type, packed at `ctx`.
fn matrices(ctx: &Context) -> [(&'static str, PackedB); 3] {
    let x = Random::new(21).vec(K * N);
    let (h, g): (Vec<f16>, Vec<bf16>) = x.iter().map(|&x| (f16::from_f32(x), bf16::from_f32(x))).unzip();
    [
        ("f32", PackedB::pack(ctx, MatRef::dense(&x, K, N).unwrap()).unwrap()),
        ("f16", PackedB::pack(ctx, MatRef::dense(&h, K, N).unwrap()).unwrap()),
        ("bf16", PackedB::pack(ctx, MatRef::dense(&g, K, N).unwrap()).unwrap()),
    ]
}

fn multiply(ctx: &Context, b: &PackedB) -> Vec<f32> {
    let (a, mut c) = (Random::new(22).vec(3 * K), vec![f32::NAN; 3 * N]);
    let mut ws = Workspace::new(b.workspace_bytes(ctx, 3).unwrap()).unwrap();
    let (a, out) = (MatRef::dense(&a, 3, K).unwrap(), MatMut::dense(&mut c, 3, N).unwrap());
    b.multiply(ctx, &mut ws, a, out, &Epilogue::default()).unwrap();
    c
}

/// The file that a machine with AVX-512 writes, from that of the scalar tier: panels of 64 columns instead of
/// 16, so that all four panels become one.
fn of_avx512(file: &[u8]) -> Vec<u8> {
    let (header, data) = file.split_at(128);
    let panels: Vec<&[u8]> = data.chunks(data.len() / N.div_ceil(16)).collect();
    let rows = if header[12] == 30 { K.div_ceil(2) } else { K }; // bf16 is packed in pairs along k
    let row = panels[0].len() / rows;
    let mut wide = header.to_vec();
    wide[32] = 64;
    wide[48..80].fill(0);
    wide[48..63].copy_from_slice(b"avx512-f32-6x64");
    (0..rows).for_each(|k| panels.iter().for_each(|panel| wide.extend(&panel[k * row..(k + 1) * row])));
    let mut sha = Sha256::new();
    sha.update(&wide[..80]);
    sha.update(&wide[128..]);
    wide[80..112].copy_from_slice(&sha.finalize());
    wide
}

#[test]
fn stored_matrices_are_read_everywhere() {
    let scalar = context(Isa::Scalar, 1);
    for (kind, made) in matrices(&scalar) {
        let (want, name) = (multiply(&scalar, &made), format!("b-{kind}"));
        let narrow = committed(&name, |path| made.save(path));
        assert_writes(&narrow, &format!("{name} made here"), |path| made.save(path));
        let (wide, wide_file) = (of_avx512(&narrow), temp(&format!("{name}-avx512")));
        std::fs::write(&wide_file, &wide).unwrap();
        for (file, bytes) in [(&stored(&name), &narrow), (&wide_file, &wide)] {
            for b in [PackedB::load(file).unwrap(), PackedB::from_mapped(&map(file)).unwrap()] {
                assert_eq!((b.k(), b.n(), b.dtype().name()), (K, N, kind));
                for_each_isa(|ctx| assert_same_bits(&multiply(ctx, &b), &want, &format!("{name} {ctx:?}")));
                assert_writes(bytes, &name, |path| b.save(path));
            }
        }
        std::fs::remove_file(wide_file).unwrap();
        if Isa::Avx512.is_available() {
            let (_, b) = matrices(&context(Isa::Avx512, 1)).into_iter().find(|(k, _)| *k == kind).unwrap();
            assert_writes(&wide, "made at avx512", |path| b.save(path));
        }
    }
}

/// Weights, (16, 256), of a legacy format, of one with superblocks, and with codes in groups.
fn weights() -> [(&'static str, PackedWeights); 3] {
    let x = Random::new(23).vec(16 * 256);
    let codes: Vec<i8> = (0..16 * 256).map(|i| (i * 7 % 16) as i8 - 8).collect();
    let groups = GroupWise::symmetric((16, 256), 4, 64, &codes, &x[..16 * 4]).unwrap();
    let of = |format| PackedWeights::quantize(format, MatRef::dense(&x, 16, 256).unwrap()).unwrap();
    [
        ("q8_0", of(WeightFormat::Q8_0)),
        ("q4_k", of(WeightFormat::Q4K)),
        ("groups", PackedWeights::from_groups(&groups).unwrap()),
    ]
}

#[test]
fn stored_weights_are_read_everywhere() {
    let (a, scalar) = (Random::new(24).vec(2 * 256), context(Isa::Scalar, 1));
    let multiply = |ctx: &Context, w: &PackedWeights, compute| {
        let mut c = vec![f32::NAN; 2 * 16];
        let rows = MatRef::dense(&a, 2, 256).unwrap();
        product(ctx, w, compute, rows, &Epilogue::default(), &mut c);
        c
    };
    for (kind, made) in weights() {
        let name = format!("weights-{kind}");
        let bytes = committed(&name, |path| made.save(path));
        assert_writes(&bytes, &format!("{name} made here"), |path| made.save(path));
        let file = stored(&name);
        for w in [PackedWeights::load(&file).unwrap(), PackedWeights::from_mapped(&map(&file)).unwrap()] {
            for compute in [Compute::Int8, Compute::F32] {
                let want = multiply(&scalar, &made, compute);
                for_each_isa(|ctx| {
                    assert_same_bits(&multiply(ctx, &w, compute), &want, &format!("{name} {ctx:?}"));
                });
            }
            assert_writes(&bytes, &name, |path| w.save(path));
        }
    }
}

/// A ring of int8 that has wrapped, with heads of 8. Positions that were forgotten are still in its pages.
fn cache() -> (KvCacheOptions, KvCache) {
    let kind = KvType::Int8;
    let options = KvCacheOptions::new(1, 8, 300).window(40).sinks(2).types(kind, kind);
    let mut cache = KvCache::new(options).unwrap();
    let (k, v) = (Random::new(25).vec(330 * 8), Random::new(26).vec(330 * 8));
    for rows in [0..3, 3..250, 250..330] {
        let span = rows.start * 8..rows.end * 8;
        let (k, v) = (&k[span.clone()], &v[span]);
        let part = |x| MatRef::dense(x, rows.len(), 8).unwrap();
        cache.append(part(k), part(v)).unwrap();
    }
    (options, cache)
}

#[test]
fn a_stored_cache_is_read_everywhere() {
    let (q, options, scalar) = (Random::new(27).vec(16), AttentionOptions::new(2), context(Isa::Scalar, 1));
    let attention = |ctx: &Context, cache: &KvCache| {
        let (mut out, q) = (vec![f32::NAN; 16], MatRef::dense(&q, 1, 16).unwrap());
        let mut ws = Workspace::new(workspace_bytes(ctx, &options, cache, 1).unwrap()).unwrap();
        attend(ctx, &mut ws, &options, q, cache, MatMut::dense(&mut out, 1, 16).unwrap()).unwrap();
        out
    };
    let ((layout, made), name) = (cache(), "cache-int8");
    let bytes = committed(name, |path| made.save(path));
    assert_writes(&bytes, "cache made here", |path| made.save(path));
    let (read, want) = (KvCache::load(layout, &stored(name)).unwrap(), attention(&scalar, &made));
    assert_eq!(read.len(), 330);
    for_each_isa(|ctx| assert_same_bits(&attention(ctx, &read), &want, &format!("{name} {ctx:?}")));
    assert_writes(&bytes, name, |path| read.save(path));
}
