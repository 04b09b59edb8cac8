//! Command line of the Mini-Transformer: parse, check, dispatch.

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use mini::cli::{Cli, Command};
use mini::commands;
use mini::outputs::Outputs;

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
    let outputs = Outputs::new(&cli.global.out);
    let log = &mut stdout();

    match cli.command.unwrap_or_default() {
        Command::Corpus => commands::corpus::run(&outputs, log),
        Command::VerifyCorpus => commands::verify::run(&outputs, log),
        Command::Tokenize => commands::tokenize::run(&outputs, log),
        Command::Plot => commands::plot::run(&outputs, log),
        Command::Generate(args) => {
            args.check()?;
            bail!("this build has no `generate`")
        }
        Command::Bench(model) => {
            model.check()?;
            bail!("this build has no `bench`")
        }
        Command::BenchQuant(model) => {
            model.check()?;
            bail!("this build has no `bench-quant`")
        }
        Command::Run(model) => {
            model.check()?;
            commands::corpus::run(&outputs, log)?;
            commands::verify::run(&outputs, log)?;
            commands::tokenize::run(&outputs, log)?;
            bail!("this build has no `bench` and no `bench-quant`, so `run` ends here")
        }
    }
}
