//! The design of the hot loops of the product microkernels, as checks of their disassembly.

use super::disasm::Loop;

/// One microkernel: its tiles, and the vector accesses to the stack that the worst of its hot loops has.
struct Kernel {
    name: &'static str,
    element: &'static str,
    /// Multiply-adds of a step of k (of a block of int8), one for each register of accumulators.
    tiles: Vec<usize>,
    /// The design wants 0. What is more is known, and must not grow.
    spills: usize,
}

fn kernel(name: &'static str, element: &'static str, tiles: &[usize], spills: usize) -> Kernel {
    Kernel { name, element, tiles: tiles.to_vec(), spills }
}

/// The products of AArch64: rows of a tile and its widest row of vectors; 16 columns are four registers.
fn neon() -> Vec<Kernel> {
    let widest = [(1, 4), (2, 2), (3, 1), (4, 1), (5, 1)];
    let tiles: Vec<usize> = widest.iter().flat_map(|&(mr, nv)| (1..=nv).map(move |v| 4 * mr * v)).collect();
    vec![
        kernel("neon::gemm", "f32", &tiles, 2),
        kernel("neon::gemm", "f16", &tiles, 0),
        kernel("neon::gemm", "bf16", &tiles, 8),
        kernel("neon_bf16::tile", "-", &[4, 8, 12, 16, 20], 0),
    ]
}

fn kernels() -> Vec<Kernel> {
    if cfg!(target_arch = "aarch64") { neon() } else { x86_64() }
}

fn x86_64() -> Vec<Kernel> {
    let tiles = |widest: fn(usize) -> usize| -> Vec<usize> {
        (1..=6).flat_map(|mr| (1..=widest(mr)).map(move |nv| mr * nv)).collect()
    };
    let avx512 = tiles(|mr| if mr <= 2 { 8 } else { 4 });
    let avx512_packed = tiles(|_| 4);
    // Rows of a tile and its widest row of vectors; 16 columns are two registers.
    let avx2 = [(1, 4), (2, 2), (3, 1), (4, 1), (5, 1), (6, 1)];
    let avx2: Vec<usize> = avx2.iter().flat_map(|&(mr, nv)| (1..=nv).map(move |v| 2 * mr * v)).collect();
    vec![
        kernel("avx512::gemm", "f32", &avx512, 0),
        kernel("avx512::gemm", "f16", &avx512_packed, 0),
        kernel("avx512::gemm", "bf16", &avx512_packed, 0),
        kernel("avx2::gemm", "f32", &avx2, 0),
        kernel("avx2::gemm", "f16", &avx2, 0),
        kernel("avx2::gemm", "bf16", &avx2, 4),
        kernel("avx512_bf16::tile", "-", &avx512_packed, 0),
    ]
}

/// One family of the quantised products: all formats, tiles of different sizes.
pub struct Family {
    name: &'static str,
    /// The arithmetic of which every tile has a multiple: the 8 dot products of a block, for one vector. 1
    /// where the loop is over parts of a block.
    step: usize,
    /// Instances at least: formats by tiles.
    instances: usize,
    spills: usize,
}

/// The families of this build's architecture.
pub const FAMILIES: &[Family] = if cfg!(target_arch = "x86_64") {
    &X86_64
} else if cfg!(target_arch = "aarch64") {
    &AARCH64
} else {
    &[]
};

const AARCH64: [Family; 4] = [
    Family { name: "neon::quant::dotprod::int8", step: 32, instances: 60, spills: 16 },
    Family { name: "neon::quant::dotprod::i8mm::int8", step: 32, instances: 16, spills: 7 },
    Family { name: "neon::quant::widening::int8", step: 1, instances: 30, spills: 94 },
    Family { name: "neon::quant::exact", step: 4, instances: 30, spills: 30 },
];

const X86_64: [Family; 6] = [
    Family { name: "avx512::quant::vnni::int8", step: 8, instances: 90, spills: 20 },
    // 66 without codes of 8 bits in groups of 16: two scales and two minimums for each of 4 panels.
    Family { name: "avx512::quant::maddubs::int8", step: 8, instances: 40, spills: 120 },
    Family { name: "avx2::quant::maddubs::int8", step: 8, instances: 40, spills: 38 },
    Family { name: "avx2::quant::vnni::int8", step: 16, instances: 50, spills: 60 },
    Family { name: "avx512::quant::exact", step: 1, instances: 50, spills: 42 },
    Family { name: "avx2::quant::exact", step: 1, instances: 30, spills: 157 },
];

/// The same for a family.
fn family_violations(family: &Family, loops: &[Loop], debug: bool) -> Vec<String> {
    let loops: Vec<&Loop> = loops.iter().filter(|l| l.kernel == family.name).collect();
    let mut bad = Vec::new();
    if loops.len() < family.instances {
        bad.push(format!("{}: {} instances, not {} or more", family.name, loops.len(), family.instances));
    }
    for l in loops {
        let done = if l.dot > 0 { l.dot } else { l.fma };
        // Checks of pointers keep some loops from being written out.
        if !debug && !done.is_multiple_of(family.step) {
            bad.push(format!("{}: {done} are not whole tiles of {}", family.name, family.step));
        }
        if l.calls > 0 {
            bad.push(format!("{}: {} calls in the loop", family.name, l.calls));
        }
        if !debug && l.spills > family.spills {
            bad.push(format!("{}: {} vector spills, not {}", family.name, l.spills, family.spills));
        }
    }
    bad
}

/// Every way in which the loops break the design: instances missing, arithmetic that is no whole number of
/// tiles, spills, calls. `debug`: whether the code was built with debug assertions, whose checks of pointers
/// keep vectors in memory: spills are not looked at.
pub fn violations(loops: &[Loop], debug: bool) -> Vec<String> {
    if FAMILIES.is_empty() {
        return Vec::new();
    }
    let mut bad: Vec<String> =
        FAMILIES.iter().flat_map(|family| family_violations(family, loops, debug)).collect();
    for kernel in kernels() {
        let of = |l: &&Loop| l.kernel == kernel.name && l.element == kernel.element;
        let loops: Vec<&Loop> = loops.iter().filter(of).collect();
        let name = format!("{} {}", kernel.name, kernel.element);
        let done: Vec<usize> = loops.iter().map(|l| if l.fma > 0 { l.fma } else { l.dot }).collect();
        if !tiles_match(&kernel.tiles, &done) {
            bad.push(format!(
                "{name}: {done:?} multiply-adds an iteration are not the tiles {:?}",
                kernel.tiles
            ));
        }
        for l in loops.iter().filter(|l| !debug && l.spills > kernel.spills) {
            let most = kernel.spills;
            bad.push(format!("{name} of {} multiply-adds: {} vector spills, not {most}", l.fma, l.spills));
        }
        for l in loops.iter().filter(|l| l.calls > 0) {
            bad.push(format!("{name} of {} multiply-adds: {} calls in the loop", l.fma, l.calls));
        }
    }
    bad
}

/// Returns whether each loop can be matched with a distinct tile, of which it does 1, 2, 4, .. or 32 steps.
fn tiles_match(tiles: &[usize], loops: &[usize]) -> bool {
    /// Finds a tile for loop `l`, moving others where that helps.
    fn assign(
        l: usize,
        tiles: &[usize],
        loops: &[usize],
        seen: &mut [bool],
        of: &mut [Option<usize>],
    ) -> bool {
        for t in 0..tiles.len() {
            let steps = loops[l] / tiles[t];
            let whole = steps.is_power_of_two() && steps <= 32 && steps * tiles[t] == loops[l];
            if whole && !seen[t] {
                seen[t] = true;
                if of[t].is_none_or(|other| assign(other, tiles, loops, seen, of)) {
                    of[t] = Some(l);
                    return true;
                }
            }
        }
        false
    }
    let mut of = vec![None; tiles.len()];
    let mut one = |l| assign(l, tiles, loops, &mut vec![false; tiles.len()], &mut of);
    tiles.len() == loops.len() && (0..loops.len()).all(&mut one)
}
