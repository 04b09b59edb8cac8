//! What the design says about the hot loops of the product microkernels.

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

fn kernels() -> Vec<Kernel> {
    let avx512: Vec<usize> = (1..=6).flat_map(|mr| (1..=4).map(move |nv| mr * nv)).collect();
    // Rows of a tile and its widest row of vectors; 16 columns are two registers.
    let avx2 = [(1, 4), (2, 2), (3, 2), (4, 1), (5, 1), (6, 1)];
    let avx2: Vec<usize> = avx2.iter().flat_map(|&(mr, nv)| (1..=nv).map(move |v| 2 * mr * v)).collect();
    let both = |list: Vec<usize>| [list.clone(), list].concat(); // two formats, for example Q4_0 and Q8_0
    let kernel =
        |name, element, tiles: &[usize], spills| Kernel { name, element, tiles: tiles.to_vec(), spills };
    vec![
        kernel("avx512::gemm", "f32", &avx512, 0),
        kernel("avx512::gemm", "f16", &avx512, 0),
        // In pairs of k and in rows. 24 accumulators, and first and second halves of 4 vectors.
        kernel("avx512::gemm", "bf16", &both(avx512.clone()), 6),
        // 3x32: 12 accumulators, 4 vectors of B and a broadcast are 17 registers of 16.
        kernel("avx2::gemm", "f32", &avx2, 4),
        kernel("avx2::gemm", "f16", &avx2, 4),
        kernel("avx2::gemm", "bf16", &both(avx2.clone()), 24),
        kernel("avx512_bf16::tile", "-", &avx512, 0),
        kernel("avx512::int8", "-", &both((1..=2).flat_map(|w| (1..=6).map(move |c| w * c)).collect()), 28),
        kernel("avx2::int8", "-", &both((1..=3).map(|c| 2 * c).collect()), 70),
        kernel("avx512::exact", "-", &both((1..=8).collect()), 0),
        kernel("avx2::exact", "-", &both((1..=5).map(|c| 2 * c).collect()), 40),
    ]
}

/// Every way in which the loops break the design: instances missing, arithmetic that is no whole number of
/// tiles, spills, calls. `debug`: whether the code
/// was built with debug assertions, whose checks of pointers keep vectors in memory: spills are not looked at.
pub fn violations(loops: &[Loop], debug: bool) -> Vec<String> {
    let mut bad = Vec::new();
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

/// Whether each loop can be given a tile of its own, of which it does 1, 2, 4, .. or 32 steps.
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
