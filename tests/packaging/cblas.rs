//! The drop-in BLAS against OpenBLAS: the same calls through both shared libraries.

use crate::blas::{CGemm, CGemv, FGemm, FGemv, Library};
use crate::clib;
use crate::random::Random;
use std::ffi::{c_char, c_int};
use std::process::Command;

/// The four routines of one library, which stays loaded.
struct Blas {
    c_gemm: CGemm,
    c_gemv: CGemv,
    f_gemm: FGemm,
    f_gemv: FGemv,
}

fn load(file: &str) -> Option<Blas> {
    let library = Library::open(file)?;
    // SAFETY: these are the documented signatures.
    unsafe {
        Some(Blas {
            c_gemm: library.routine("cblas_sgemm").unwrap(),
            c_gemv: library.routine("cblas_sgemv").unwrap(),
            f_gemm: library.routine("sgemm_").unwrap(),
            f_gemv: library.routine("sgemv_").unwrap(),
        })
    }
}

fn kvern() -> Blas {
    load(clib::shared_library().to_str().unwrap()).unwrap()
}

fn openblas() -> Option<Blas> {
    let found = load("libopenblas.so.0");
    if found.is_none() {
        eprintln!("skipped: there is no libopenblas.so.0");
    }
    found
}

const COLUMNS: c_int = 102;
const LAYOUTS: [c_int; 2] = [101, COLUMNS];
const TRANSPOSES: [c_int; 3] = [111, 112, 113];
const FACTORS: [f32; 3] = [0.0, 1.0, -0.5];

fn letter(trans: c_int, lower: bool) -> c_char {
    let letters = if lower { b"ntc" } else { b"NTC" };
    letters[(trans - 111) as usize] as c_char
}

/// Elements of |a|, |b|, |c| are at most 1, so either library is within `(k + 2) * 2^-24 * (k + 1)` of the
/// exact value, in whatever order it sums; two of them differ by twice as much.
fn bound(k: usize) -> f32 {
    2.0 * (k as f32 + 2.0) * (k as f32 + 1.0) * 2f32.powi(-24)
}

/// Compares whole arrays, so that a write beside C or y is found.
#[track_caller]
fn agree(ours: &[f32], theirs: &[f32], bound: f32, call: &str) {
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= bound, "{call}: element {i} is {a}, OpenBLAS has {b}, bound {bound}");
    }
}

#[test]
fn sgemm_agrees_with_openblas_over_2000_random_calls() {
    let Some(peer) = openblas() else { return };
    let (ours, mut random) = (kvern(), Random::new(1));
    for call in 0..2000 {
        let most = if call % 100 == 0 { 200 } else { 40 };
        let [m, n, k] = [(); 3].map(|()| random.below(most));
        let (layout, ta, tb) = (random.of(&LAYOUTS), random.of(&TRANSPOSES), random.of(&TRANSPOSES));
        let (alpha, beta) = (random.of(&FACTORS), random.of(&FACTORS));
        // Stored rows and the length of each, in the layout's own terms.
        let shape = |trans: c_int, rows: usize, cols: usize| {
            let plain = (trans == 111) == (layout != COLUMNS);
            if plain { (rows, cols) } else { (cols, rows) }
        };
        let mut stored = |(rows, len): (usize, usize)| {
            let ld = len.max(1) + random.of(&[0, 0, 1, 7]);
            (ld as c_int, random.vec(rows * ld + 1))
        };
        let (lda, mut a) = stored(shape(ta, m, k));
        let (ldb, mut b) = stored(shape(tb, k, n));
        let (ldc, mut c) = stored(shape(111, m, n));
        let (clean_a, clean_b, mut want) = (a.clone(), b.clone(), c.clone());
        // For us alone, NaN stands where the reference does not read; OpenBLAS does, with some sizes.
        if alpha == 0.0 {
            a.fill(f32::NAN);
            b.fill(f32::NAN);
        }
        if beta == 0.0 {
            let (rows, len) = shape(111, m, n);
            for row in c.chunks_mut(ldc as usize).take(rows) {
                row[..len].fill(f32::NAN);
            }
        }
        let (mi, ni, ki) = (m as c_int, n as c_int, k as c_int);
        let fortran = layout == COLUMNS && call % 2 == 0;
        let run = |blas: &Blas, a: &[f32], b: &[f32], c: &mut [f32]| {
            let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
            // SAFETY: the arrays have rows * ld elements.
            unsafe {
                if fortran {
                    let (ta, tb) = (letter(ta, call % 3 == 0), letter(tb, call % 5 == 0));
                    (blas.f_gemm)(&ta, &tb, &mi, &ni, &ki, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);
                } else {
                    (blas.c_gemm)(layout, ta, tb, mi, ni, ki, alpha, a, lda, b, ldb, beta, c, ldc);
                }
            }
        };
        run(&ours, &a, &b, &mut c);
        run(&peer, &clean_a, &clean_b, &mut want);
        let said = format!("call {call}: {layout} {ta} {tb} ({m}, {n}, {k}) {alpha} {beta}");
        agree(&c, &want, bound(k), &said);
    }
}

#[test]
fn sgemv_agrees_with_openblas_over_2000_random_calls() {
    let Some(peer) = openblas() else { return };
    let (ours, mut random) = (kvern(), Random::new(2));
    for call in 0..2000 {
        let [m, n] = [(); 2].map(|()| random.below(70));
        let (layout, trans) = (random.of(&LAYOUTS), random.of(&TRANSPOSES));
        let (alpha, beta) = (random.of(&FACTORS), random.of(&FACTORS));
        let (incx, incy) = (random.of(&[1, 1, 2, -1, -3]), random.of(&[1, 1, 3, -1, -2]));
        let (rows, len) = if layout == COLUMNS { (n, m) } else { (m, n) };
        let lda = (len.max(1) + random.of(&[0, 0, 1, 7])) as c_int;
        let mut a = random.vec(rows * lda as usize + 1);
        let (out, read) = if trans == 111 { (m, n) } else { (n, m) };
        let elements = |len: usize, by: i32| len * by.unsigned_abs() as usize + 1;
        let mut x = random.vec(elements(read, incx));
        let mut y = random.vec(elements(out, incy));
        let (clean_a, clean_x, mut want) = (a.clone(), x.clone(), y.clone());
        if alpha == 0.0 {
            a.fill(f32::NAN);
            x.fill(f32::NAN);
        }
        if beta == 0.0 && m > 0 && n > 0 {
            let by = incy.unsigned_abs() as usize;
            y.iter_mut().step_by(by).take(out).for_each(|y| *y = f32::NAN);
        }
        let (mi, ni) = (m as c_int, n as c_int);
        let fortran = layout == COLUMNS && call % 2 == 0;
        let run = |blas: &Blas, a: &[f32], x: &[f32], y: &mut [f32]| {
            let (a, x, y) = (a.as_ptr(), x.as_ptr(), y.as_mut_ptr());
            // SAFETY: the arrays have rows * lda and len * |inc| elements.
            unsafe {
                if fortran {
                    let trans = letter(trans, call % 3 == 0);
                    (blas.f_gemv)(&trans, &mi, &ni, &alpha, a, &lda, x, &incx, &beta, y, &incy);
                } else {
                    (blas.c_gemv)(layout, trans, mi, ni, alpha, a, lda, x, incx, beta, y, incy);
                }
            }
        };
        run(&ours, &a, &x, &mut y);
        run(&peer, &clean_a, &clean_x, &mut want);
        let said = format!("call {call}: {layout} {trans} ({m}, {n}) {alpha} {beta} {incx} {incy}");
        agree(&y, &want, bound(read), &said);
    }
}

/// Returns the output of a child process that makes one illegal call after another.
#[test]
fn illegal_arguments_are_named_and_change_nothing() {
    const CHILD: &str = "KVERN_TEST_ILLEGAL_CALLS";
    if std::env::var_os(CHILD).is_some() {
        return illegal_calls(&kvern());
    }
    clib::shared_library(); // built once, before the child asks for it
    let mut child = Command::new(std::env::current_exe().unwrap());
    let test = "cblas::illegal_arguments_are_named_and_change_nothing";
    let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> =
        said.lines().filter(|l| l.starts_with("Parameter") || l.starts_with(" ** On")).collect();
    let gemm = |n| format!("Parameter {n} to routine cblas_sgemm was incorrect");
    let gemv = |n| format!("Parameter {n} to routine cblas_sgemv was incorrect");
    // As the reference counts: in a row-major call it sees the operands exchanged, and so n before m.
    let mut want: Vec<String> = [1, 2, 3, 4, 5, 6, 9, 11, 14, 4, 5, 9, 11, 14, 5, 8, 13].map(gemm).to_vec();
    want.extend([1, 2, 3, 4, 7, 9, 12, 7, 4].map(gemv));
    for (routine, number) in [("SGEMM ", 1), ("SGEMM ", 8), ("SGEMM ", 13), ("SGEMV ", 6), ("SGEMV ", 11)] {
        want.push(format!(" ** On entry to {routine} parameter number {number:2} had an illegal value"));
    }
    assert_eq!(lines, want);
}

fn illegal_calls(blas: &Blas) {
    let (a, b) = ([1.0f32; 16], [1.0f32; 16]);
    let mut c = [7.0f32; 16];
    let (ap, bp, cp) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let (one, null) = (1.0, std::ptr::null());
    // SAFETY: every call is refused, or would stay inside of 16 elements.
    unsafe {
        let gemm = blas.c_gemm;
        gemm(100, 111, 111, 2, 3, 4, one, ap, 4, bp, 4, one, cp, 4); // the layout
        gemm(102, 110, 111, 2, 3, 4, one, ap, 2, bp, 4, one, cp, 2);
        gemm(102, 111, 114, 2, 3, 4, one, ap, 2, bp, 4, one, cp, 2);
        gemm(102, 111, 111, -1, 3, 4, one, ap, 2, bp, 4, one, cp, 2);
        gemm(102, 111, 111, 2, -1, 4, one, ap, 2, bp, 4, one, cp, 2);
        gemm(102, 111, 111, 2, 3, -1, one, ap, 2, bp, 4, one, cp, 2);
        gemm(102, 111, 111, 2, 3, 4, one, ap, 1, bp, 4, one, cp, 2);
        gemm(102, 111, 111, 2, 3, 4, one, ap, 2, bp, 3, one, cp, 2);
        gemm(102, 111, 111, 2, 3, 4, one, ap, 2, bp, 4, one, cp, 1);
        gemm(101, 111, 111, -1, 3, 4, one, ap, 4, bp, 3, one, cp, 3); // rows
        gemm(101, 111, 111, 2, -1, 4, one, ap, 4, bp, 3, one, cp, 3);
        gemm(101, 111, 111, 2, 3, 4, one, ap, 3, bp, 3, one, cp, 3);
        gemm(101, 111, 111, 2, 3, 4, one, ap, 4, bp, 2, one, cp, 3);
        gemm(101, 111, 111, 2, 3, 4, one, ap, 4, bp, 3, one, cp, 2);
        gemm(101, 111, 111, -1, -1, 4, one, ap, 4, bp, 3, one, cp, 3); // the first of two
        gemm(101, 111, 111, 2, 3, 4, one, null, 4, bp, 3, one, cp, 3); // where the reference crashes
        gemm(101, 111, 111, 2, 3, 4, one, ap, 4, bp, 3, one, std::ptr::null_mut(), 3);
        let gemv = blas.c_gemv;
        gemv(100, 111, 2, 3, one, ap, 2, bp, 1, one, cp, 1);
        gemv(102, 110, 2, 3, one, ap, 2, bp, 1, one, cp, 1);
        gemv(102, 111, -2, 3, one, ap, 2, bp, 1, one, cp, 1);
        gemv(102, 111, 2, -3, one, ap, 2, bp, 1, one, cp, 1);
        gemv(102, 111, 2, 3, one, ap, 1, bp, 1, one, cp, 1);
        gemv(102, 111, 2, 3, one, ap, 2, bp, 0, one, cp, 1);
        gemv(102, 111, 2, 3, one, ap, 2, bp, 1, one, cp, 0);
        gemv(101, 111, 2, 3, one, ap, 2, bp, 1, one, cp, 1); // rows
        gemv(101, 111, 2, -3, one, ap, 3, bp, 1, one, cp, 1);
        let (n, x) = (b'N' as c_char, b'X' as c_char);
        let (two, three, four, zero) = (2, 3, 4, 0);
        (blas.f_gemm)(&x, &n, &two, &three, &four, &one, ap, &two, bp, &four, &one, cp, &two);
        (blas.f_gemm)(&n, &n, &two, &three, &four, &one, ap, &zero, bp, &four, &one, cp, &two);
        (blas.f_gemm)(&n, &n, &two, &three, &four, &one, ap, &two, bp, &four, &one, cp, &zero);
        (blas.f_gemv)(&n, &two, &three, &one, ap, &zero, bp, &three, &one, cp, &three);
        (blas.f_gemv)(&n, &two, &three, &one, ap, &two, bp, &three, &one, cp, &zero);
    }
    assert_eq!(c, [7.0; 16]);
}

/// Blocks of one matrix at a time, as in a factorisation: C lies between the rows of A and B.
#[test]
fn operands_may_be_interleaved_parts_of_one_matrix() {
    let (blas, mut random) = (kvern(), Random::new(3));
    let (size, ld) = (30, 96);
    let mut whole = random.vec(size * ld);
    let before = whole.clone();
    let base = whole.as_mut_ptr();
    let (n, ldi) = (size as c_int, ld as c_int);
    // SAFETY: three blocks of 30 columns side by side in rows of 96.
    unsafe {
        let (a, b, c) = (base, base.add(32), base.add(64));
        (blas.c_gemm)(101, 111, 111, n, n, n, 1.0, a, ldi, b, ldi, 0.0, c, ldi);
    }
    for i in 0..size {
        for j in 0..ld {
            let at = i * ld + j;
            if (64..64 + size).contains(&j) {
                let dot: f32 = (0..size).map(|k| before[i * ld + k] * before[k * ld + 32 + j - 64]).sum();
                assert!((whole[at] - dot).abs() <= bound(size));
            } else {
                assert_eq!(whole[at], before[at]);
            }
        }
    }
}
