//! Files of packed matrices: refused with an error, or a matrix like any other.
#![no_main]

use kvern::{Context, Dtype, Epilogue, MatMut, MatRef, PackedB, Precision, Workspace, bf16, f16};
use kvern_fuzz::{BLOB, Damage, assert_same, contexts, file_of, map, values, write};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::collections::HashMap;

#[derive(Arbitrary, Debug)]
struct Input {
    dtype: u8,
    /// The tier whose layout the file has.
    tier: u8,
    k: u8,
    n: u8,
    m: u8,
    damage: Damage,
}

/// What a file is made from: type, tier, k, n.
type Kind = (u8, usize, usize, usize);

thread_local! {
    static FILES: RefCell<HashMap<Kind, Vec<u8>>> = RefCell::new(HashMap::new());
}

fn good_file(kind: Kind) -> Vec<u8> {
    let make = || {
        let (dtype, tier, k, n) = kind;
        let (ctx, b) = (&contexts()[tier], values(k * n, 1));
        let packed = match dtype {
            0 => PackedB::pack(ctx, MatRef::dense(&b, k, n).expect("shape")),
            1 => {
                let b: Vec<f16> = b.iter().map(|&x| f16::from_f32(x)).collect();
                PackedB::pack(ctx, MatRef::dense(&b, k, n).expect("shape"))
            }
            _ => {
                let b: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
                PackedB::pack(ctx, MatRef::dense(&b, k, n).expect("shape"))
            }
        };
        file_of(|path| packed.expect("a small matrix").save(path))
    };
    FILES.with_borrow_mut(|files| files.entry(kind).or_insert_with(make).clone())
}

fn multiply(ctx: &Context, b: &PackedB, precision: Precision, m: usize) -> Vec<f32> {
    let (a, mut c) = (values(m * b.k(), 2), vec![0f32; m * b.n()]);
    let mut ws = Workspace::new(b.workspace_bytes(ctx, m).expect("a small product")).expect("memory");
    let a = MatRef::dense(&a, m, b.k()).expect("shape");
    let out = MatMut::dense(&mut c, m, b.n()).expect("shape");
    b.multiply_with(ctx, &mut ws, precision, a, out, &Epilogue::default()).expect("a valid product");
    c
}

fn check(b: &PackedB, m: usize) {
    assert!(!b.kernel_id().is_empty());
    if b.k() > 4096 || b.n() > 4096 {
        // Without elements a matrix may be as wide as it claims.
        assert_eq!(b.bytes(), 0, "a small file");
        let _ = b.workspace_bytes(&contexts()[0], m);
        return;
    }
    let want = multiply(&contexts()[0], b, Precision::Exact, m);
    for ctx in &contexts()[1..] {
        assert_same(&multiply(ctx, b, Precision::Exact, m), &want, ctx.isa().name());
        let fast = multiply(ctx, b, Precision::Fast, m);
        if m > 0 {
            let row = multiply(ctx, b, Precision::Fast, 1);
            assert_same(&row, &fast[..b.n()], "the first row alone, fast");
        }
    }
    if m > 0 {
        let row = multiply(&contexts()[0], b, Precision::Exact, 1);
        assert_same(&row, &want[..b.n()], "the first row alone");
    }
    let again = file_of(|path| b.save(path));
    let path = write(&again);
    let loaded = PackedB::load(&path).expect("what was just saved");
    assert_same(&multiply(&contexts()[0], &loaded, Precision::Exact, m), &want, "saved and loaded");
}

fuzz_target!(|input: Input| {
    // Shapes of full and of ragged panels, and empty ones.
    let (k, n) = ([0, 1, 2, 7, 16, 65][input.k as usize % 6], [0, 1, 15, 16, 33, 130][input.n as usize % 6]);
    let good = good_file((input.dtype % 3, input.tier as usize % (contexts().len() - 1), k, n));
    let damaged = input.damage.apply(&good, BLOB);
    let path = write(damaged.as_deref().unwrap_or(&good));
    match (PackedB::load(&path), PackedB::from_mapped(&map(&path))) {
        (Ok(b), Ok(mapped)) => {
            assert!(damaged.is_none() || !input.damage.is_certain(), "a wrong checksum was accepted");
            assert!(matches!(b.dtype(), Dtype::F32 | Dtype::F16 | Dtype::Bf16));
            let m = input.m as usize % 10;
            if b.k() <= 4096 && b.n() <= 4096 {
                let want = multiply(&contexts()[0], &b, Precision::Exact, m);
                assert_same(&multiply(&contexts()[0], &mapped, Precision::Exact, m), &want, "mapped");
            }
            drop(mapped);
            check(&b, m);
        }
        (Err(e), Err(mapped)) => {
            assert!(damaged.is_some(), "a good file was refused: {e}");
            assert_eq!(e, mapped);
        }
        (loaded, mapped) => panic!("loaded: {:?}, mapped: {:?}", loaded.err(), mapped.err()),
    }
});
