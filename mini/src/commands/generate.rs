//! `mini generate`: go on from a prompt.

use std::io::Write;

use anyhow::{Result, ensure};

use crate::cli::{GenerateArgs, GlobalArgs};
use crate::corpus;
use crate::generate::generate_hashed;
use crate::model::{Model, Session};
use crate::setup;
use crate::tokenizer::Tokenizer;

/// What every text of an untrained model is worth.
pub const UNTRAINED: &str =
    "the weights are the seeded initial ones: until there is training, every text is noise";

/// Prints the prompt with its continuation, the hash of the logits, and the
/// time per token. It writes no file.
///
/// # Errors
/// When the options do not fit together or the machine.
pub fn run(args: &GenerateArgs, global: &GlobalArgs, log: &mut impl Write) -> Result<()> {
    args.check()?;
    args.model.check_blocks(args.quant)?;
    let tokenizer = Tokenizer::from_text(&corpus::generate());
    let prompt = tokenizer.encode(&args.prompt());
    let (given, wanted, limit) = (prompt.len(), args.tokens, args.model.context);
    ensure!(
        given + wanted <= limit,
        "a prompt of {given} tokens and --tokens {wanted} are {} tokens, more than --context {limit}",
        given + wanted
    );

    let ctx = setup::context(global.isa, global.threads)?;
    let model = Model::initial(&ctx, args.model.shape(), args.model.seed, args.quant)?;
    let cached = !args.no_cache;
    let batch = if cached { given } else { given + wanted - 1 };
    let mut session = Session::new(&ctx, &model, batch)?;
    let (generation, hash) = generate_hashed(&mut session, &prompt, wanted, cached)?;

    writeln!(log, "{} | {}", tokenizer.decode(&prompt)?, tokenizer.decode(&generation.ids)?)?;
    writeln!(log, "logits sha256: {hash}")?;
    let time = generation.elapsed.as_secs_f64() * 1e3;
    writeln!(
        log,
        "{time:.3} ms, {:.4} ms per token ({}, {}, {})",
        time / wanted as f64,
        args.quant.config(),
        if cached { "with cache" } else { "no cache" },
        setup::describe(&ctx)
    )?;
    writeln!(log, "note: {UNTRAINED}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn output(options: &str) -> Result<String> {
        let cli = Cli::try_parse_from(format!("mini generate {options}").split_whitespace())?;
        let Some(Command::Generate(args)) = cli.command else { panic!("not `generate`") };
        let mut log = Vec::new();
        run(&args, &cli.global, &mut log)?;
        Ok(String::from_utf8(log)?)
    }

    fn hash(output: &str) -> &str {
        output.lines().find_map(|line| line.strip_prefix("logits sha256: ")).unwrap()
    }

    #[test]
    fn the_text_begins_with_the_prompt_and_has_the_tokens() {
        let text = output("--prompt word7 --tokens 3").unwrap();
        let (prompt, generated) = text.lines().next().unwrap().split_once(" | ").unwrap();
        assert_eq!(prompt, "word7");
        assert_eq!(generated.split(' ').count(), 3);
        assert_eq!(text.matches("noise").count(), 1);
        assert!(text.contains("ms per token (FP32, with cache, "), "{text}");
    }

    #[test]
    fn options_that_must_not_change_the_logits_do_not() {
        for quant in ["fp32", "int8", "int4"] {
            let base = output(&format!("--tokens 4 --quant {quant}")).unwrap();
            for other in ["--no-cache", "--threads 2", "--isa scalar", "--isa scalar --no-cache --threads 3"]
            {
                let found = output(&format!("--tokens 4 --quant {quant} {other}")).unwrap();
                assert_eq!(hash(&found), hash(&base), "{quant} {other}");
            }
            let other = output(&format!("--tokens 4 --quant {quant} --seed 43")).unwrap();
            assert_ne!(hash(&other), hash(&base));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        for (options, message) in [
            (
                "--prompt word1 --tokens 16 --context 16",
                "a prompt of 1 tokens and --tokens 16 are 17 tokens, more than --context 16",
            ),
            ("--ffn 40 --quant int8", "--ffn 40 is no multiple of 32, the block of Int8"),
            ("--heads 3", "--heads 3 does not divide --dim 128"),
        ] {
            assert_eq!(output(options).unwrap_err().to_string(), message);
        }
        output("--prompt word1 --tokens 15 --context 16").unwrap();
        output("--ffn 40").unwrap();
    }
}
