//! Reads `objdump` output: the hot loop of each microkernel, and what its instructions are.

/// The hot loop of one compiled instance of a microkernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loop {
    /// `avx512::gemm`: the module and the function.
    pub kernel: String,
    /// `f32`, `f16` or `bf16` of an exact product, by the instructions that widen; `-` elsewhere.
    pub element: &'static str,
    /// Fused multiply-adds of an iteration.
    pub fma: usize,
    /// Dot-product instructions of an iteration.
    pub dot: usize,
    /// Vector loads, also as operands of arithmetic; broadcasts are apart.
    pub loads: usize,
    pub broadcasts: usize,
    pub shuffles: usize,
    /// Vector accesses relative to the stack pointer.
    pub spills: usize,
    pub calls: usize,
    pub instructions: usize,
    /// Address and text of each instruction, for other tools.
    pub body: Vec<(u64, String)>,
}

/// The microkernels that hold the products.
const KERNELS: [&str; 4] = ["::gemm", "::int8", "::exact", "avx512_bf16::tile"];

/// The loops of every product microkernel in the output of `objdump -d --no-show-raw-insn -C`.
pub fn loops(objdump: &str) -> Vec<Loop> {
    let mut found = Vec::new();
    let mut lines = objdump.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_suffix(">:").and_then(|l| l.split_once('<')).map(|l| l.1) else {
            continue;
        };
        // Legacy names end in a hash that `-C` drops; newer ones keep generic arguments.
        let name = name.split("::<").next().unwrap_or(name);
        let Some(kernel) = name.strip_prefix("kvern::kernels::x86_64::") else { continue };
        if !KERNELS.iter().any(|k| kernel.ends_with(k)) {
            continue;
        }
        let mut code = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.is_empty()) {
            let Some((address, text)) = line.split_once(':') else { continue };
            if let Ok(address) = u64::from_str_radix(address.trim(), 16) {
                code.push((address, text.trim().to_owned()));
            }
        }
        found.extend(hot_loop(kernel, &code));
    }
    found.sort();
    found
}

/// The loop over k: of those that store no vector but to the stack, the one with the most arithmetic. The
/// loops over tiles around it store results, or call the epilogue through its pointer.
fn hot_loop(kernel: &str, code: &[(u64, String)]) -> Option<Loop> {
    let mut loops = Vec::new();
    for (end, (address, text)) in code.iter().enumerate() {
        let mut words = text.split_whitespace();
        let (Some(jump), Some(target)) = (words.next(), words.next()) else { continue };
        let Ok(target) = u64::from_str_radix(target, 16) else { continue };
        if jump.starts_with('j') && target <= *address {
            let start = code.iter().position(|(a, _)| *a == target);
            loops.extend(start.map(|start| &code[start..=end]).filter(|code| !code.iter().any(stores)));
        }
    }
    let loops = loops.into_iter().map(|code| classify(kernel, code)).filter(|l| l.fma + l.dot > 0);
    let loops: Vec<Loop> = loops.collect();
    // A loop around others, such as the one that prefetches between lines of A, is not the innermost.
    let span = |l: &Loop| Some((l.body.first()?.0, l.body.last()?.0));
    let inside = |a: &Loop, b: &Loop| match (span(a), span(b)) {
        (Some(a), Some(b)) => a != b && b.0 <= a.0 && a.1 <= b.1,
        _ => false,
    };
    let innermost = loops.iter().filter(|l| !loops.iter().any(|other| inside(other, l)));
    innermost.max_by_key(|l| (l.fma + l.dot, l.instructions)).cloned()
}

/// Whether an instruction stores a vector elsewhere than on the stack, or calls through a pointer.
fn stores((_, text): &(u64, String)) -> bool {
    if text.starts_with("call") && text.contains('*') {
        return true;
    }
    let operands = text.split('#').next().unwrap_or_default().trim();
    // AT&T order: the destination is last, after a mask if there is one.
    let operands = operands.split('{').next().unwrap_or_default();
    text.starts_with("vmov")
        && operands.ends_with(')')
        && !operands.contains("(%rsp")
        && !operands.contains("(%rbp")
}

fn classify(kernel: &str, code: &[(u64, String)]) -> Loop {
    let mut l = Loop {
        kernel: kernel.to_owned(),
        element: "-",
        fma: 0,
        dot: 0,
        loads: 0,
        broadcasts: 0,
        shuffles: 0,
        spills: 0,
        calls: 0,
        instructions: code.len(),
        body: code.to_vec(),
    };
    let (mut halves, mut shifts) = (false, false);
    for (_, text) in code {
        let (name, operands) = text.split_once(' ').unwrap_or((text, ""));
        let operands = operands.split('#').next().unwrap_or_default().trim();
        let vector = name.starts_with('v');
        // AT&T order: the destination is last.
        let stores = operands.ends_with(')');
        let reads = operands.contains('(') && !stores;
        let broadcast =
            name.starts_with("vbroadcast") || name.starts_with("vpbroadcast") || operands.contains("{1to");
        l.broadcasts += usize::from(broadcast && reads);
        l.loads += usize::from(vector && reads && !broadcast);
        l.spills += usize::from(vector && operands.contains("(%rsp"));
        l.calls += usize::from(name.starts_with("call"));
        l.shuffles += usize::from(
            ["vperm", "vshuf", "vpshuf", "vunpck", "vpunpck", "vpalignr", "vinsert", "vextract"]
                .iter()
                .any(|s| name.starts_with(s)),
        );
        let fma = name.starts_with("vfmadd");
        let dot =
            name.starts_with("vpdpbusd") || name.starts_with("vdpbf16") || name.starts_with("vpmaddubsw");
        l.fma += usize::from(fma);
        l.dot += usize::from(dot);
        halves |= name.starts_with("vcvtph2ps");
        shifts |= name.starts_with("vpslld");
    }
    if kernel.ends_with("::gemm") {
        l.element = if halves {
            "f16"
        } else if shifts {
            "bf16"
        } else {
            "f32"
        };
    }
    l
}
