//! Checks what Valgrind cannot run: reads the hot loops of the microkernels
//! in the disassembly of the bench executable and compares them with the design.

use super::Options;
use super::compare::{Finding, Severity};
use super::measure::{executable, output};
use anyhow::Result;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

#[path = "../../../tests/support/design.rs"]
mod design_rules;
#[path = "../../../tests/support/disasm.rs"]
mod disasm;

use disasm::Loop;

const COLUMNS: &str = "kernel\telement\tfma\tdot\tloads\tbroadcasts\tshuffles\tspills\tcalls\t\
                       instructions\tcycles";

/// The loops of the microkernels in the bench executable.
pub fn rows(options: &Options) -> Result<Vec<Loop>> {
    let mut objdump = Command::new(&options.objdump);
    objdump.args(["-d", "-C", "--no-show-raw-insn"]).arg(executable(options)?);
    Ok(disasm::loops(&output(&mut objdump)?))
}

/// Violations of the design, for the architecture that this program is built for. That of another one is
/// held by `tests/codegen.rs`, which runs there.
pub fn design(options: &Options, rows: &[Loop]) -> Vec<Finding> {
    if options.executable.is_some() {
        return Vec::new();
    }
    let bad = |text| Finding { severity: Severity::Regression, text };
    design_rules::violations(rows, false).into_iter().map(bad).collect()
}

/// Every class of instruction against the committed file. Cycles are not compared: they are
/// there only where `llvm-mca` is.
pub fn gate(committed: &str, rows: &[Loop]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let without_cycles = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|l| !l.starts_with('#') && *l != COLUMNS);
        lines.map(|l| l.rsplit_once('\t').map_or(l, |cells| cells.0).to_owned()).collect()
    };
    let now: String = rows.iter().map(|row| cells(row, "-") + "\n").collect();
    let (before, now) = (without_cycles(committed), without_cycles(&now));
    for line in before.iter().filter(|line| !now.contains(line)).take(5) {
        let text = format!("codegen.tsv: no such loop any more: {}", line.replace('\t', " "));
        findings.push(Finding { severity: Severity::Stale, text });
    }
    if before.len() != now.len() {
        let text = format!("codegen.tsv: {} loops, {} before", now.len(), before.len());
        findings.push(Finding { severity: Severity::Stale, text });
    }
    findings
}

/// The file.
pub fn to_text(rows: &[Loop]) -> String {
    let mut out =
        "# Hot loop of each product microkernel, a row an instance; counts of one iteration.\n".to_owned();
    let arm = rows.iter().any(|l| cpus(l).len() > 1);
    out += if arm {
        "# cycles: llvm-mca, neoverse-v1, neoverse-n2 and apple-m1, and the share of them that the\n\
         # multiply-adds or dot products alone would take; - where it is missing.\n"
    } else {
        "# cycles: llvm-mca, znver4 (znver3 for avx2, alderlake for VNNI); - where it is missing.\n"
    };
    out += COLUMNS;
    out.push('\n');
    for row in rows {
        out += &cells(row, &modelled(row).unwrap_or("-".to_owned()));
        out.push('\n');
    }
    out
}

fn cells(l: &Loop, cycles: &str) -> String {
    let mut out = format!("{}\t{}", l.kernel, l.element);
    let numbers = [l.fma, l.dot, l.loads, l.broadcasts, l.shuffles, l.spills, l.calls, l.instructions];
    for n in numbers {
        // Writing to a String cannot fail.
        let _ = write!(out, "\t{n}");
    }
    format!("{out}\t{cycles}")
}

/// The models of CPUs that a kernel is looked at with.
fn cpus(l: &Loop) -> &'static [&'static str] {
    match l.kernel.as_str() {
        name if name.starts_with("avx512") => &["znver4"],
        name if name.starts_with("avx2::quant::vnni") => &["alderlake"],
        name if name.starts_with("avx2") => &["znver3"],
        _ => &["neoverse-v1", "neoverse-n2", "apple-m1"],
    }
}

/// Cycles of an iteration, and where there are several models, the share of the multiplications in each.
fn modelled(l: &Loop) -> Option<String> {
    let body: Vec<&str> = l.body.iter().map(|(_, text)| text.as_str()).collect();
    let cpus = cpus(l);
    if let [cpu] = cpus {
        return Some(format!("{:.2}", cycles(cpu, &body)?));
    }
    let mut cell = String::new();
    for cpu in cpus {
        let (all, products) = (cycles(cpu, &body)?, cycles(cpu, &l.products())?);
        let space = if cell.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(cell, "{space}{all:.2} ({:.2})", products / all);
    }
    Some(cell)
}

/// Cycles of an iteration by `llvm-mca`, where it is installed.
fn cycles(cpu: &str, body: &[&str]) -> Option<f64> {
    const ITERATIONS: usize = 100;
    let arm = cpu.starts_with("neoverse") || cpu.starts_with("apple");
    let (arch, comment) = if arm { ("aarch64", "//") } else { ("x86_64", "#") };
    let assembly: String = body
        .iter()
        .map(|text| {
            let text = text.split(comment).next().unwrap_or_default();
            let (name, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            let jumps =
                if arm { name.starts_with(['b', 'c']) && text.contains('<') } else { name.starts_with('j') };
            // A jump to an address is no assembly; a jump of the same kind to a label is.
            match operands.rsplit_once(',') {
                _ if !jumps => format!("{}\n", text.split('<').next().unwrap_or_default()),
                Some((register, _)) => format!("{name} {register}, .Ltop\n"),
                None => format!("{name} .Ltop\n"),
            }
        })
        .collect();
    let mut child = ["llvm-mca-22", "llvm-mca"].iter().find_map(|program| {
        let mut command = Command::new(program);
        command.args([
            &format!("-mtriple={arch}"),
            &format!("-mcpu={cpu}"),
            &format!("-iterations={ITERATIONS}"),
        ]);
        if arm {
            // The model of apple-m1 is that of its successors, which have i8mm.
            command.arg("-mattr=+i8mm");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()
    })?;
    child.stdin.take()?.write_all(format!(".Ltop:\n{assembly}").as_bytes()).ok()?;
    let out = child.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let total = text.lines().find_map(|line| line.strip_prefix("Total Cycles:"))?;
    Some(total.trim().parse::<f64>().ok()? / ITERATIONS as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: &str = "0000000000000010 <kvern::kernels::x86_64::avx2::gemm>:\n  \
        10:\tvxorps %xmm0,%xmm0,%xmm0\n  \
        14:\tvmovups (%rcx),%ymm2\n  \
        18:\tvbroadcastss (%rdx),%ymm4\n  \
        1c:\tvfmadd231ps %ymm2,%ymm4,%ymm0\n  \
        20:\tvfmadd231ps 0x20(%rcx),%ymm4,%ymm1\n  \
        24:\tdec    %rax\n  \
        28:\tjne    14 <kvern::kernels::x86_64::avx2::gemm+0x4>\n  \
        2c:\tret\n\n";

    #[test]
    fn a_loop_is_read_and_compared() {
        let rows = disasm::loops(LOOP);
        assert_eq!(cells(&rows[0], "-"), "avx2::gemm\tf32\t2\t0\t2\t1\t0\t0\t0\t6\t-");
        let committed = to_text(&rows);
        let differences = |rows: &[Loop]| gate(&committed, rows).len();
        assert_eq!(differences(&rows), 0);
        let rows = disasm::loops(&LOOP.replace("0x20(%rcx)", "0x20(%rsp)"));
        assert_eq!((rows[0].spills, differences(&rows)), (1, 1));
    }
}
