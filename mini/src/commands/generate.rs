//! `mini generate`: continue a prompt.

use std::io::Write;

use anyhow::{Context as _, Result, ensure};

use super::source::Source;
use crate::cli::{GenerateArgs, GlobalArgs};
use crate::infer::Sampler;
use crate::infer::{LogitsHash, generate_with};
use crate::infer::{Search, search};
use crate::model::{Model, Session};
use crate::report::outputs::Outputs;
use crate::setup;
use crate::text::Vocabulary;

/// Tokens of the held-out text in the default prompt.
const PROMPT: usize = 8;

/// Prints the prompt with its continuation, word by word as it is found, the hash of the logits, and the time
/// per token; or the best texts of a beam search. It writes no file.
///
/// # Errors
/// When the options do not fit together or the machine, or a checkpoint cannot be read.
pub fn run(args: &GenerateArgs, global: &GlobalArgs, outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    args.check()?;
    args.model.check_blocks(args.quant)?;
    let source = Source::choose(args.weights.as_deref(), &args.model, outputs)?;
    let prompt = match &args.prompt {
        Some(text) => source.tokenizer.encode(text)?,
        None => source.held_out.iter().copied().take(PROMPT).collect(),
    };
    let end = args.until.as_deref().map(|word| end(&source.tokenizer, word)).transpose()?;
    let (given, wanted, limit) = (prompt.len(), args.tokens, source.shape.context);
    ensure!(
        given + wanted <= limit,
        "a prompt of {given} tokens and --tokens {wanted} are {} tokens, more than --context {limit}",
        given + wanted
    );

    let ctx = setup::context(global.isa, global.threads)?;
    let model = Model::pack(&ctx, source.shape, source.weights.clone(), args.quant)?;
    let cached = !args.no_cache;
    let batch = if cached { given } else { given + wanted - 1 };
    let mut session = Session::new(&ctx, &model, batch)?;
    if let Some(beams) = args.beam {
        let search = Search { beams, tokens: wanted, penalty: args.length_penalty, end };
        return beams_of(&mut session, &source.tokenizer, &prompt, search, log);
    }

    write!(log, "{} | ", source.tokenizer.decode(&prompt)?)?;
    let mut sampler = Sampler::new(&ctx, args.model.seed, args.temperature, args.top_k, args.top_p);
    let mut hash = LogitsHash::default();
    let mut ids = Vec::new();
    let mut shown = 0;
    let choose = |logits: &[f32]| sampler.choose(logits);
    let generation = generate_with(&mut session, &prompt, wanted, cached, choose, |logits, id| {
        hash.update(logits);
        ids.push(id);
        let text = source.tokenizer.decode(&ids)?;
        // A character whose last bytes are still to come ends in a replacement.
        if !text.ends_with(char::REPLACEMENT_CHARACTER) {
            write!(log, "{}", text.get(shown..).unwrap_or_default())?;
            log.flush()?;
            shown = text.len();
        }
        Ok(Some(id) != end)
    })?;
    writeln!(log)?;

    writeln!(log, "logits sha256: {}", hash.finish())?;
    let time = generation.elapsed.as_secs_f64() * 1e3;
    writeln!(
        log,
        "{time:.3} ms, {:.4} ms per token ({}, {}, {})",
        time / generation.ids.len() as f64,
        args.quant.config(),
        if cached { "with cache" } else { "no cache" },
        setup::describe(&ctx)
    )?;
    writeln!(log, "weights: {}", source.describe())?;
    Ok(())
}

/// The token of `--until`.
fn end(tokenizer: &Vocabulary, word: &str) -> Result<u32> {
    let ids = tokenizer.encode(word)?;
    let known =
        ids.first().filter(|_| ids.len() == 1 && tokenizer.decode(&ids).is_ok_and(|text| text == word));
    known.copied().with_context(|| format!("--until {word:?} is no token of the vocabulary"))
}

fn beams_of(
    session: &mut Session<'_>,
    tokenizer: &Vocabulary,
    prompt: &[u32],
    wanted: Search,
    log: &mut impl Write,
) -> Result<()> {
    writeln!(log, "{} |", tokenizer.decode(prompt)?)?;
    for beam in search(session, prompt, wanted)? {
        writeln!(
            log,
            "{:>9.4} {:>9.4}  {}",
            beam.score(wanted.penalty),
            beam.log_probability,
            tokenizer.decode(&beam.ids)?
        )?;
    }
    writeln!(
        log,
        "score (log-probability over a power {} of the length), log-probability, text",
        wanted.penalty
    )?;
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
        run(&args, &cli.global, &Outputs::new("missing"), &mut log)?;
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
