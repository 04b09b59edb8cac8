//! `mini peak-memory`: peak memory of generating with one weight format. `bench-quant` runs it in a fresh
//! process: the peak of a process that has done other work says nothing about a format.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::bench::{PROMPT, TOKENS};
use super::source::Source;
use crate::cli::{GlobalArgs, ModelArgs, PeakArgs};
use crate::infer::generate;
use crate::measure::peak;
use crate::model::Quant;
use crate::model::{Model, Session};
use crate::report::outputs::Outputs;
use crate::setup;

/// Printed if the system does not report the peak memory.
const UNKNOWN: &str = "unknown";

/// Prints the peak resident bytes of this process while it generates. Where the system can reset the peak,
/// packing the weights does not count.
///
/// # Errors
/// When the options do not fit together or the machine.
pub fn run(args: &PeakArgs, global: &GlobalArgs, outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    super::bench::check(&args.model)?;
    args.model.check_blocks(args.quant)?;
    let ctx = setup::context(global.isa, global.threads)?;
    let source = Source::choose(None, &args.model, outputs)?;
    let model = Model::pack(&ctx, source.shape, source.weights, args.quant)?;
    peak::reset();
    let mut session = Session::new(&ctx, &model, PROMPT.len())?;
    generate(&mut session, &PROMPT, TOKENS, true, |_| ())?;
    match peak::bytes() {
        Some(bytes) => writeln!(log, "{bytes}")?,
        None => writeln!(log, "{UNKNOWN}")?,
    }
    Ok(())
}

/// Runs [`run`] in a process of `program` and returns the bytes that it printed.
///
/// # Errors
/// When the process cannot be started, fails, or prints something else; the message contains its output.
pub fn of_child(program: &Path, args: &ModelArgs, global: &GlobalArgs, quant: Quant) -> Result<Option<u64>> {
    let output = Command::new(program)
        .args(arguments(args, global, quant))
        .output()
        .with_context(|| format!("cannot run {} to measure its memory", program.display()))?;
    ensure!(
        output.status.success(),
        "{} failed while measuring the memory of {}: {}",
        program.display(),
        quant.config(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim() {
        UNKNOWN => Ok(None),
        bytes => {
            let bytes = bytes.parse();
            Ok(Some(bytes.with_context(|| format!("{} printed {text:?}", program.display()))?))
        }
    }
}

/// The command line of the process.
fn arguments(args: &ModelArgs, global: &GlobalArgs, quant: Quant) -> Vec<String> {
    let mut all = vec!["peak-memory".to_owned()];
    let mut push = |option: &str, value: String| all.extend([option.to_owned(), value]);
    push("--quant", name(quant));
    push("--out", global.out.display().to_string());
    push("--threads", global.threads.to_string());
    if let Some(isa) = global.isa {
        push("--isa", isa.to_string());
    }
    for (option, value) in [
        ("--dim", args.dim),
        ("--heads", args.heads),
        ("--ffn", args.ffn),
        ("--layers", args.layers),
        ("--context", args.context),
    ] {
        push(option, value.to_string());
    }
    push("--seed", args.seed.to_string());
    all
}

/// The text that an option takes for `value`.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command as Subcommand};
    use kvern::Isa;

    #[test]
    fn the_process_gets_all_options() {
        let model = ModelArgs { dim: 64, heads: 2, ffn: 96, layers: 3, context: 100, seed: 9 };
        let global = GlobalArgs { out: "out".into(), isa: Some(Isa::Scalar), threads: 3 };
        let line = arguments(&model, &global, Quant::Int4);
        let cli = Cli::try_parse_from(std::iter::once("mini".to_owned()).chain(line)).unwrap();
        assert_eq!((cli.global.isa, cli.global.threads), (global.isa, global.threads));
        let Some(Subcommand::PeakMemory(peak)) = cli.command else { panic!("another subcommand") };
        assert_eq!((peak.quant, peak.model), (Quant::Int4, model));
    }

    #[test]
    fn a_peak_is_printed() {
        let global = GlobalArgs { out: "out".into(), isa: None, threads: 1 };
        let args = PeakArgs { quant: Quant::Int8, model: ModelArgs::default() };
        let mut log = Vec::new();
        run(&args, &global, &Outputs::new("missing"), &mut log).unwrap();
        let text = String::from_utf8(log).unwrap();
        assert!(text.trim() == UNKNOWN || text.trim().parse::<u64>().unwrap() > 1 << 19, "{text}");
    }

    #[test]
    fn programs_that_cannot_be_run_or_print_something_else_are_errors() {
        let global = GlobalArgs { out: "out".into(), isa: None, threads: 1 };
        let measure =
            |program: &str| of_child(Path::new(program), &ModelArgs::default(), &global, Quant::Fp32);
        assert!(format!("{:#}", measure("no/such/program").unwrap_err()).contains("no/such/program"));
        #[cfg(unix)]
        {
            assert!(measure("false").unwrap_err().to_string().contains("failed"));
            assert!(measure("echo").unwrap_err().to_string().contains("printed"));
        }
    }
}
