//! Files of packed weights: refused with an error, or weights like any others.
#![no_main]

use kvern::ops::embedding_quantized;
use kvern::quant::import::{Gptq, GroupWise, StoredZeros};
use kvern::quant::{Compute, PackedWeights, WeightFormat, quantize};
use kvern::{Context, Epilogue, MatMut, MatRef, Workspace, matmul};
use kvern_fuzz::{BLOB, Damage, assert_same, contexts, file_of, map, values, write};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::collections::HashMap;

#[derive(Arbitrary, Debug)]
struct Input {
    kind: u8,
    n: u8,
    k: u8,
    m: u8,
    damage: Damage,
}

/// Kinds of weights: every format, groups of both widths with and without zeros, groups in another order.
const KINDS: usize = WeightFormat::ALL.len() + 12 + 1;

/// What a file is made from: kind, n, k.
type Kind = (usize, usize, usize);

thread_local! {
    static FILES: RefCell<HashMap<Kind, Vec<u8>>> = RefCell::new(HashMap::new());
}

fn groups((bits, group, symmetric): (u32, usize, bool), n: usize, k: usize) -> GroupWise {
    let scales = values(n * k / group, 1);
    let codes = values(n * k, 2).into_iter().map(|x| (x * 8.0).floor());
    let made = if symmetric {
        let codes: Vec<i8> = codes.map(|x| x as i8).collect();
        GroupWise::symmetric((n, k), bits, group, &codes, &scales)
    } else {
        let codes: Vec<u8> = codes.map(|x| (x + 8.0) as u8).collect();
        GroupWise::with_zeros((n, k), bits, group, &codes, &scales, &codes[..n * k / group])
    };
    made.expect("good groups")
}

fn in_order(n: usize, k: usize) -> GroupWise {
    let n = n.next_multiple_of(8);
    let words: Vec<i32> = values(k / 8 * n, 3).iter().map(|x| x.to_bits() as i32).collect();
    let g_idx: Vec<i32> = (0..k as i32).map(|i| i % (k as i32 / 32)).collect();
    let gptq = Gptq {
        n,
        k,
        bits: 4,
        group: 32,
        qweight: &words,
        qzeros: &words[..k / 32 * n / 8],
        scales: &values(k / 32 * n, 4)[..],
        g_idx: Some(&g_idx),
        stored_zeros: StoredZeros::MinusOne,
    };
    GroupWise::from_gptq(&gptq).expect("a good layer")
}

fn good_file(kind: Kind) -> Vec<u8> {
    let make = || {
        let (number, n, k) = kind;
        let weights = match WeightFormat::ALL.get(number) {
            Some(&format) => {
                // Formats of very few bits cannot be quantised to: any bytes are blocks of theirs.
                let mut blocks = vec![0x35; format.bytes(n, k).expect("size")];
                let _ = quantize(format, &values(n * k, 5), &mut blocks);
                PackedWeights::from_blocks(format, n, k, &blocks)
            }
            None => {
                let number = number - WeightFormat::ALL.len();
                let of = (4 << (number & 1), [32, 64, 128][number / 4 % 3], number & 2 == 0);
                let groups = if number == 12 { in_order(n, k) } else { groups(of, n, k) };
                PackedWeights::from_groups_on(&contexts()[0], &groups)
            }
        };
        file_of(|path| weights.expect("small weights").save(path))
    };
    FILES.with_borrow_mut(|files| files.entry(kind).or_insert_with(make).clone())
}

fn multiply(ctx: &Context, w: &PackedWeights, compute: Compute, m: usize) -> Vec<f32> {
    let (a, mut c) = (values(m * w.k(), 6), vec![0f32; m * w.n()]);
    let bytes = w.workspace_bytes(ctx, m, compute).expect("a small product");
    let mut ws = Workspace::new(bytes).expect("memory");
    let a = MatRef::dense(&a, m, w.k()).expect("shape");
    let out = MatMut::dense(&mut c, m, w.n()).expect("shape");
    w.multiply(ctx, &mut ws, compute, a, out, &Epilogue::default()).expect("a valid product");
    c
}

fn dequantized(w: &PackedWeights) -> Vec<f32> {
    let mut rows = vec![0f32; w.n() * w.k()];
    for i in 0..w.n() {
        w.dequantize_row(i, &mut rows[i * w.k()..(i + 1) * w.k()]).expect("a row that is there");
    }
    assert!(w.dequantize_row(w.n(), &mut vec![0.0; w.k()]).is_err());
    rows
}

/// The product with the dequantised weights.
fn product(ctx: &Context, rows: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f32> {
    let (a, mut c) = (values(m * k, 6), vec![0f32; m * n]);
    let bytes = matmul::matmul_workspace_bytes(ctx, m, n, k).expect("a small product");
    let mut ws = Workspace::new(bytes).expect("memory");
    let (a, b) = (MatRef::dense(&a, m, k).expect("shape"), MatRef::dense(rows, n, k).expect("shape"));
    let out = MatMut::dense(&mut c, m, n).expect("shape");
    matmul::matmul(ctx, &mut ws, a, b.t(), out, &Epilogue::default()).expect("a valid product");
    c
}

/// `exact`: whether the product with dequantised weights has the same bits.
fn check(w: &PackedWeights, m: usize, exact: bool) {
    if w.k() == 0 || w.n() > 4096 {
        // Without elements there may be as many rows as the file claims.
        assert!(w.k() == 0, "a small file");
        let _ = w.workspace_bytes(&contexts()[0], m, Compute::Int8);
        let _ = w.to_blocks(&mut []);
        assert_eq!(w.dequantize_row(0, &mut []).is_ok(), w.n() > 0);
        return;
    }
    let (n, k) = (w.n(), w.k());
    let rows = dequantized(w);
    let ids = [0, n as u32 - 1];
    let mut embedded = vec![0f32; 2 * k];
    let out = MatMut::dense(&mut embedded, 2, k).expect("shape");
    embedding_quantized(&contexts()[0], w, &ids, out).expect("rows that are there");
    assert_same(&embedded[k..], &rows[(n - 1) * k..], "the last row as an embedding");
    for compute in [Compute::Int8, Compute::F32] {
        let want = multiply(&contexts()[0], w, compute, m);
        for ctx in &contexts()[1..] {
            assert_same(&multiply(ctx, w, compute, m), &want, &format!("{} {compute:?}", ctx.isa()));
        }
        if m > 0 {
            let row = multiply(&contexts()[0], w, compute, 1);
            assert_same(&row, &want[..n], "the first row alone");
        }
        if compute == Compute::F32 && exact {
            assert_same(&product(&contexts()[0], &rows, (m, n, k)), &want, "with dequantised weights");
        }
    }
    if let Some(format) = w.format() {
        let mut blocks = vec![0; format.bytes(n, k).expect("size")];
        w.to_blocks(&mut blocks).expect("blocks of their own size");
        let packed = PackedWeights::from_blocks(format, n, k, &blocks).expect("good blocks");
        let mut again = vec![0; blocks.len()];
        packed.to_blocks(&mut again).expect("as above");
        assert_eq!(blocks, again, "{}: blocks packed and given back", format.name());
        assert_same(&dequantized(&packed), &rows, "packed again");
    }
    let saved = file_of(|path| w.save(path));
    let loaded = PackedWeights::load(&write(&saved)).expect("what was just saved");
    assert_same(&dequantized(&loaded), &rows, "saved and loaded");
}

fuzz_target!(|input: Input| {
    let n = [1, 8, 16, 17, 35][input.n as usize % 5];
    let k = [256, 512, 768][input.k as usize % 3];
    let good = good_file((input.kind as usize % KINDS, n, k));
    let damaged = input.damage.apply(&good, BLOB);
    let file = damaged.as_deref().unwrap_or(&good);
    let path = write(file);
    match (PackedWeights::load(&path), PackedWeights::from_mapped(&map(&path))) {
        (Ok(w), Ok(mapped)) => {
            assert!(damaged.is_none() || !input.damage.is_certain(), "a wrong checksum was accepted");
            let m = input.m as usize % 8;
            if w.n() <= 4096 {
                let want = multiply(&contexts()[0], &w, Compute::Int8, m);
                assert_same(&multiply(&contexts()[0], &mapped, Compute::Int8, m), &want, "mapped");
            }
            drop(mapped);
            // Stored order is another order of the sums. Scales of groups may be anything in f32, and
            // symmetric ones are multiplied by the code of zero: beyond 2^121 that is infinite.
            let exact = file[33] != 1 && (w.format().is_some() || damaged.is_none());
            check(&w, m, exact);
        }
        (Err(e), Err(mapped)) => {
            assert!(damaged.is_some(), "a good file was refused: {e}");
            assert_eq!(e, mapped);
        }
        (loaded, mapped) => panic!("loaded: {:?}, mapped: {:?}", loaded.err(), mapped.err()),
    }
});
