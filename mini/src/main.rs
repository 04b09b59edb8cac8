//! Command line of the Mini-Transformer: parse, check, dispatch.

use std::env::current_exe;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use mini::cli::{Cli, Command};
use mini::commands;
use mini::report::outputs::Outputs;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When standard error is closed there is nobody left to tell.
            let _ = writeln!(stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let global = &cli.global;
    let outputs = Outputs::new(&global.out);
    let log = &mut stdout();
    let program = || current_exe().context("cannot find the path of this program");

    match cli.command.unwrap_or_default() {
        Command::Corpus => commands::corpus::run(&outputs, log),
        Command::VerifyCorpus => commands::verify_corpus::run(&outputs, log),
        Command::Tokenize => commands::tokenize::run(&outputs, log),
        Command::Plot => commands::plot::run(&outputs, log),
        Command::Generate(args) => commands::generate::run(&args, global, &outputs, log),
        Command::Train(args) => commands::train::run(&args, global, &outputs, log),
        Command::Bench(model) => commands::bench::run(&model, global, &outputs, log).map(|_| ()),
        Command::BenchQuant(model) => {
            commands::bench_quant::run(&model, global, &program()?, &outputs, log).map(|_| ())
        }
        Command::Run(args) => commands::run::run(&args, global, &program()?, &outputs, log),
        Command::TestIdem(args) => commands::idem::run(&args, global, &program()?, &outputs, log),
        Command::Pack(args) => commands::pack::run(&args, &outputs, log),
        Command::Verify(args) => commands::verify::run(&args, &outputs, log),
        Command::PeakMemory(args) => commands::peak_memory::run(&args, global, &outputs, log),
    }
}
