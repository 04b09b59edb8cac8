//! The machine code of the product microkernels: all of the arithmetic of a tile in the hot loop, no calls,
//! and no accumulator that travels through the stack.
//!
//! Reads the disassembly of this very test. Spills are looked at in builds without debug assertions, as in
//! `cargo test --release` and in the gate, whose `perf/codegen.tsv` holds all of these facts.

#[path = "support/design.rs"]
mod design;
#[path = "support/disasm.rs"]
mod disasm;

use kvern::{Context, Isa};
use std::process::Command;

/// The name of the exact products of the widest instruction set.
const PRODUCT: &str = if cfg!(target_arch = "aarch64") { "neon::gemm" } else { "avx512::gemm" };

/// The loops in this executable, `None` where they cannot be read.
fn loops() -> Option<Vec<disasm::Loop>> {
    if design::FAMILIES.is_empty() {
        eprintln!("skipped: no microkernels are designed for this architecture");
        return None;
    }
    let exe = std::env::current_exe().expect("the path of this test");
    // For another architecture than the machine's, that of its tools.
    let objdump = std::env::var_os("KVERN_OBJDUMP").unwrap_or_else(|| "objdump".into());
    let out = Command::new(objdump).args(["-d", "-C", "--no-show-raw-insn"]).arg(exe).output();
    let Ok(out) = out.map_err(|e| eprintln!("skipped: objdump: {e}")) else { return None };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(disasm::loops(&String::from_utf8_lossy(&out.stdout)))
}

#[test]
fn the_hot_loops_are_as_designed() {
    // A context links the kernels of every tier, also of those that this machine lacks.
    assert_eq!(Context::serial().isa(), Isa::detect());
    let Some(loops) = loops() else { return };
    if cfg!(debug_assertions) {
        eprintln!("skipped: spills, in a build with debug assertions");
    }
    let bad = design::violations(&loops, cfg!(debug_assertions));
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Instructions of the AVX2 kernels that only CPUs with AVX-512 have, and dot products in the form that the
/// others have: `VEX.256.66.0F38.W0 50`.
#[test]
fn kernels_of_avx2_are_encoded_for_cpus_without_avx512() {
    if !cfg!(target_arch = "x86_64") {
        return eprintln!("skipped: this build has no kernels of AVX2");
    }
    let exe = std::env::current_exe().expect("the path of this test");
    let out = Command::new("objdump").args(["-d", "-C", "-w"]).arg(exe).output();
    let Ok(out) = out.map_err(|e| eprintln!("skipped: objdump: {e}")) else { return };
    let text = String::from_utf8_lossy(&out.stdout);
    let mut kernel = None;
    let (mut kernels, mut dots) = (0, 0);
    for line in text.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|l| l.split_once('<')) {
            kernel = name.strip_prefix("kvern::kernels::x86_64::avx2::");
            kernels += usize::from(kernel.is_some());
            continue;
        }
        // `address:` tab `bytes` tab `text`
        let fields: Vec<&str> = line.split('\t').collect();
        let (Some(kernel), &[_, bytes, text]) = (kernel, &fields[..]) else { continue };
        let bytes: Vec<&str> = bytes.split_whitespace().collect();
        assert_ne!(bytes[0], "62", "{kernel} has an EVEX instruction: {text}");
        if text.contains("vpdpbusd") {
            let [first, second, third, opcode] = bytes[..4] else { unreachable!("five bytes at least") };
            let form =
                (first, second.ends_with('2'), u8::from_str_radix(third, 16).map(|b| b & 0x87), opcode);
            assert_eq!(form, ("c4", true, Ok(0x05), "50"), "{kernel}: {text}");
            assert!(kernel.starts_with("quant::vnni::"), "{kernel} has a dot product: {text}");
            dots += 1;
        }
    }
    // 17 packings in a kernel of one row and in tiles of two and three.
    assert!(kernels > 200 && dots > 17 * 16 * 6, "{kernels} kernels, {dots} dot products");
}

#[test]
fn a_loop_that_breaks_the_design_is_found() {
    let Some(good) = loops() else { return };
    let breaks = |change: &dyn Fn(&mut Vec<disasm::Loop>), what: &str| {
        let mut loops = good.clone();
        change(&mut loops);
        assert!(design::violations(&loops, false).iter().any(|v| v.contains(what)), "{what}");
    };
    let first = good.iter().position(|l| l.kernel == PRODUCT).expect("a product");
    breaks(&|l| drop(l.remove(first)), "are not the tiles");
    breaks(&|l| l[first].fma = 23, "are not the tiles");
    breaks(&|l| l[first].spills = 99, "vector spills");
    breaks(&|l| l[first].calls = 1, "calls in the loop");
}
