//! The program's command line: the options of every subcommand, and the subcommands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use kvern::Isa;

use super::generate::GenerateArgs;
use super::model::ModelArgs;
use super::pack::PackArgs;
use super::parsers::{isa, range};
use super::peak::PeakArgs;
use super::train::{RunArgs, TrainArgs};

/// Mini-Transformer with KV cache and quantisation, from corpus to plots.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// Options of every subcommand.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The subcommand; `run` with its defaults if there is none.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every subcommand.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Directory of all outputs; created if missing
    #[arg(long, global = true, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Use no instruction set above this one [default: the best of this CPU]
    #[arg(long, global = true, value_parser = isa())]
    pub isa: Option<Isa>,
    /// Threads of the compute kernels
    #[arg(long, global = true, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = range(1..=256), allow_negative_numbers = true)]
    pub threads: usize,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Generate the corpus and print its SHA-256
    Corpus,
    /// Regenerate the corpus and compare it with the file
    VerifyCorpus,
    /// Build the vocabulary of the corpus and encode the corpus with it
    Tokenize,
    /// Generate tokens after a prompt
    Generate(GenerateArgs),
    /// Train a model
    Train(TrainArgs),
    /// Measure the latency with and without KV cache
    Bench(ModelArgs),
    /// Measure size, quality and latency of each weight format
    BenchQuant(ModelArgs),
    /// Draw the plots of the measurements
    Plot,
    /// All of the above, in order
    Run(RunArgs),
    /// Run everything twice and compare every file without timings
    TestIdem(RunArgs),
    /// Pack the files without timings into one archive
    Pack(PackArgs),
    /// Check the archive and the files against their hashes
    Verify(PackArgs),
    /// Print the peak memory of generating with one weight format
    #[command(hide = true)]
    PeakMemory(PeakArgs),
}

impl Default for Command {
    fn default() -> Self {
        Self::Run(RunArgs::default())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::model::Quant;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    fn generate_args(options: &str) -> GenerateArgs {
        match parse(&format!("mini generate{options}")).unwrap().command {
            Some(Command::Generate(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_subcommand_is_run_with_the_defaults_of_the_options() {
        let Command::Run(by_default) = parse("mini").unwrap().command.unwrap_or_default() else {
            panic!("not `run`");
        };
        let Some(Command::Run(parsed)) = parse("mini run").unwrap().command else {
            panic!("not `run`");
        };
        assert_eq!(by_default, parsed);
        parsed.model.check().unwrap();
    }

    #[test]
    fn global_options_stand_before_and_after_the_subcommand() {
        for line in ["mini --out o --isa avx2 --threads 3 plot", "mini plot --out o --isa avx2 --threads 3"] {
            let global = parse(line).unwrap().global;
            assert_eq!(global.out, PathBuf::from("o"));
            assert_eq!((global.isa, global.threads), (Some(Isa::Avx2), 3));
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_option_and_range() {
        for (options, parts) in [
            ("--threads 0 plot", ["--threads", "1..=256"]),
            ("--threads 257 plot", ["--threads", "1..=256"]),
            ("--threads x plot", ["--threads", "1..=256"]),
            ("--threads -1 plot", ["--threads", "1..=256"]),
            ("--threads 99999999999999999999 plot", ["--threads", "1..=256"]),
            ("--isa sse plot", ["--isa", "avx512"]),
            ("bench --dim 0", ["--dim", "1..=16384"]),
            ("bench-quant --heads 0", ["--heads", "1..=256"]),
            ("run --ffn 65537", ["--ffn", "1..=65536"]),
            ("run --layers 0", ["--layers", "1..=256"]),
            ("generate --context 0", ["--context", "1..=131072"]),
            ("generate --tokens 0", ["--tokens", "1..=1000000"]),
            ("generate --quant int2", ["--quant", "int4"]),
            ("generate --seed -1", ["--seed", "'-1'"]),
        ] {
            let error = parse(&format!("mini {options}")).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit_together_are_refused_with_both_numbers() {
        for (options, message) in [
            (" --heads 3", "--heads 3 does not divide --dim 128"),
            (" --dim 48", "--dim 48 over --heads 4 gives a head size of 12, which is no multiple of 8"),
            (" --dim 16384 --layers 256", "--dim 16384, --ffn 512 and --layers 256 give"),
            (
                " --dim 1024 --layers 8 --context 131072",
                "--dim 1024, --layers 8 and --context 131072 give a KV cache of 2147483648",
            ),
            (" --prompt ", "--prompt \"\" has 0 words"),
        ] {
            let error = generate_args(options).check().unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn the_largest_options_do_not_overflow() {
        let options = " --dim 16384 --heads 256 --ffn 65536 --layers 256 --context 131072";
        assert!(generate_args(options).check().is_err());
    }

    #[test]
    fn options_of_generate() {
        let args = generate_args("");
        assert_eq!((args.tokens, args.quant), (50, Quant::Fp32));
        assert!(!args.no_cache);

        let args = generate_args(" --prompt word1 --tokens 3 --quant int4 --no-cache");
        args.check().unwrap();
        assert_eq!(args.prompt.as_deref(), Some("word1"));
        assert_eq!((args.tokens, args.quant), (3, Quant::Int4));
        assert!(args.no_cache);
    }
}
