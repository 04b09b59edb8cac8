//! Reads `objdump` output: the hot loop of each microkernel, and what its instructions are. The architecture
//! of a kernel is the module that its symbol names: `kvern::kernels::x86_64::avx2::gemm`.

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

impl Loop {
    /// The multiply-adds and dot products of an iteration.
    #[allow(dead_code)] // only the ledger models them
    pub fn products(&self) -> Vec<&str> {
        let multiplies = |text: &&str| {
            let is =
                |m: &Machine| m.fma.iter().chain(m.dot).any(|name| mnemonic(m, text).0.starts_with(name));
            MACHINES.iter().any(is)
        };
        self.body.iter().map(|(_, text)| text.as_str()).filter(multiplies).collect()
    }
}

/// How the instructions of an architecture are told apart in the text of `objdump`.
struct Machine {
    /// The module of its kernels.
    module: &'static str,
    /// What a comment begins with.
    comment: &'static str,
    /// Whether a mnemonic may jump backwards.
    jump: fn(&str) -> bool,
    call: fn(&str) -> bool,
    /// Whether a call goes through a pointer, given all of the instruction.
    indirect: fn(&str) -> bool,
    fma: &'static [&'static str],
    dot: &'static [&'static str],
    shuffle: &'static [&'static str],
    /// What widens f16 and bf16, in that order.
    widen: [&'static [&'static str]; 2],
    /// How an instruction with a vector operand uses memory, of its mnemonic and operands.
    memory: fn(&str, &str) -> Memory,
    /// Marks of an access to the stack.
    stack: &'static [&'static str],
}

#[derive(PartialEq)]
enum Memory {
    None,
    Load,
    Broadcast,
    Store,
}

const MACHINES: [Machine; 2] = [
    Machine {
        module: "x86_64",
        comment: "#",
        jump: |name| name.starts_with('j'),
        call: |name| name.starts_with("call"),
        indirect: |text| text.contains('*'),
        fma: &["vfmadd"],
        dot: &["vpdpbusd", "vdpbf16", "vpmaddubsw"],
        shuffle: &["vperm", "vshuf", "vpshuf", "vunpck", "vpunpck", "vpalignr", "vinsert", "vextract"],
        widen: [&["vcvtph2ps"], &["vpslld"]],
        memory: |name, operands| {
            // AT&T order: the destination is last, after a mask if there is one.
            let broadcast = name.starts_with("vbroadcast") || name.starts_with("vpbroadcast");
            let stores = operands.split('{').next().is_some_and(|o| o.trim_end().ends_with(')'));
            match () {
                () if !name.starts_with('v') || !operands.contains('(') => Memory::None,
                () if operands.contains("{1to") => Memory::Broadcast,
                () if stores => Memory::Store,
                () if broadcast => Memory::Broadcast,
                () => Memory::Load,
            }
        },
        stack: &["(%rsp", "(%rbp"],
    },
    Machine {
        module: "aarch64",
        comment: "//",
        jump: |name| {
            name.starts_with("b.") || name.starts_with("cb") || name.starts_with("tb") || name == "b"
        },
        call: |name| name == "bl" || name == "blr",
        indirect: |text| text.starts_with("blr"),
        fma: &["fmla"],
        dot: &["sdot", "udot", "usdot", "smmla", "usmmla", "bfdot", "bfmmla", "smlal", "smull"],
        shuffle: &["zip", "uzp", "trn", "tbl", "ext", "dup", "ins"],
        widen: [&["fcvtl"], &["shll", "shl"]],
        memory: |name, operands| {
            let vector = operands.starts_with(['q', '{']);
            match () {
                () if !vector || !operands.contains('[') => Memory::None,
                () if name.starts_with("st") => Memory::Store,
                () if name.starts_with("ld1r") => Memory::Broadcast,
                () => Memory::Load,
            }
        },
        stack: &["[sp", "[x29"],
    },
];

/// The microkernels that hold the products.
const KERNELS: [&str; 4] = ["::gemm", "::int8", "::exact", "_bf16::tile"];

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
        let of = |m: &&Machine| {
            name.strip_prefix("kvern::kernels::").is_some_and(|n| n.split("::").next() == Some(m.module))
        };
        let Some(machine) = MACHINES.iter().find(of) else { continue };
        let kernel = &name["kvern::kernels::".len() + machine.module.len() + "::".len()..];
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
        found.extend(hot_loop(machine, kernel, &code));
    }
    found.sort();
    found
}

/// The loop over k: of those that store no vector but to the stack, the one with the most arithmetic. The
/// loops over tiles around it store results, or call the epilogue through its pointer.
fn hot_loop(machine: &Machine, kernel: &str, code: &[(u64, String)]) -> Option<Loop> {
    let mut loops = Vec::new();
    for (end, (address, text)) in code.iter().enumerate() {
        // The target is the last operand, before its name.
        let (jump, operands) = mnemonic(machine, text);
        let target = operands.split('<').next().and_then(|o| o.split_whitespace().last());
        let Some(Ok(target)) = target.map(|t| u64::from_str_radix(t, 16)) else { continue };
        if (machine.jump)(jump) && target <= *address {
            let start = code.iter().position(|(a, _)| *a == target);
            let loop_of = |start| &code[start..=end];
            loops.extend(
                start.map(loop_of).filter(|code| !code.iter().any(|(_, text)| stores(machine, text))),
            );
        }
    }
    let loops = loops.into_iter().map(|code| classify(machine, kernel, code)).filter(|l| l.fma + l.dot > 0);
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
fn stores(machine: &Machine, text: &str) -> bool {
    let (name, operands) = mnemonic(machine, text);
    let store = (machine.memory)(name, operands) == Memory::Store;
    (machine.call)(name) && (machine.indirect)(text)
        || store && !machine.stack.iter().any(|s| operands.contains(s))
}

/// The mnemonic and the operands of an instruction, without a comment and a word on its encoding.
fn mnemonic<'a>(machine: &Machine, text: &'a str) -> (&'a str, &'a str) {
    let text = text.split(machine.comment).next().unwrap_or_default();
    let text = text.strip_prefix("{vex} ").unwrap_or(text);
    let (name, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (name, operands.trim())
}

fn classify(machine: &Machine, kernel: &str, code: &[(u64, String)]) -> Loop {
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
        let (name, operands) = mnemonic(machine, text);
        let is = |list: &[&str]| list.iter().any(|s| name.starts_with(s));
        let memory = (machine.memory)(name, operands);
        l.broadcasts += usize::from(memory == Memory::Broadcast);
        l.loads += usize::from(memory == Memory::Load);
        l.spills += usize::from(memory != Memory::None && operands.contains(machine.stack[0]));
        l.calls += usize::from((machine.call)(name));
        l.shuffles += usize::from(is(machine.shuffle));
        l.fma += usize::from(is(machine.fma));
        l.dot += usize::from(is(machine.dot));
        halves |= is(machine.widen[0]);
        shifts |= is(machine.widen[1]);
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

#[test]
fn a_loop_of_each_architecture_is_read() {
    let text = "
0000000000001000 <kvern::kernels::aarch64::neon::gemm::<kvern::F32, 1, 1>>:
    1000:\tmov\tx9, #0x10
    1004:\tldp\tq0, q1, [x1], #32
    1008:\tld1r\t{v2.4s}, [x0], #4
    100c:\tfmla\tv4.4s, v0.4s, v2.4s
    1010:\tfmla\tv5.4s, v1.4s, v2.4s
    1014:\tstr\tq4, [sp, #16]
    1018:\tcbnz\tx9, 1004 <kvern::kernels::aarch64::neon::gemm+0x4>
    101c:\tret

0000000000002000 <kvern::kernels::x86_64::avx2::gemm>:
    2000:\tvmovups (%rsi),%ymm0
    2004:\tvbroadcastss (%rdi),%ymm1
    2008:\tvfmadd231ps %ymm0,%ymm1,%ymm2        # 40 <x>
    200c:\tvmovups %ymm2,0x20(%rsp)
    2010:\tjne    2000 <kvern::kernels::x86_64::avx2::gemm>
";
    let found = loops(text);
    let facts =
        |l: &Loop| (l.kernel.clone(), [l.fma, l.loads, l.broadcasts, l.spills, l.calls, l.instructions]);
    let found: Vec<_> = found.iter().map(facts).collect();
    let expected =
        [("avx2::gemm".to_owned(), [1, 1, 1, 1, 0, 5]), ("neon::gemm".to_owned(), [2, 1, 1, 1, 0, 6])];
    assert_eq!(found, expected);
}
