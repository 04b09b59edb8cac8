//! Options of `generate`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use super::model::ModelArgs;
use super::parsers::{probability, range, temperature};
use crate::model::Quant;

/// Options of `generate`.
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// Text to continue [default: the first words of the held-out text]
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = range(1..=1_000_000), allow_negative_numbers = true)]
    pub tokens: usize,
    /// Weight format
    #[arg(long, value_enum, default_value_t = Quant::Fp32)]
    pub quant: Quant,
    /// Recompute the whole context for every token
    #[arg(long)]
    pub no_cache: bool,
    /// Checkpoint [default: that of the language in --out, or initial weights]
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// 0 takes the most likely token, 1 samples from the model's distribution
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = temperature)]
    #[arg(allow_negative_numbers = true)]
    pub temperature: f64,
    /// Sample from the N most likely tokens only
    #[arg(long, value_name = "N")]
    #[arg(value_parser = range(1..=1_000_000), allow_negative_numbers = true)]
    pub top_k: Option<usize>,
    /// Sample from the smallest set of tokens whose probabilities add up to P (nucleus sampling)
    #[arg(long, value_name = "P", value_parser = probability, allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Stop after this word
    #[arg(long, value_name = "WORD")]
    pub until: Option<String>,
    /// Beam search: keep the N best continuations at each step, and print them
    #[arg(long, value_name = "N", conflicts_with_all = ["temperature", "top_k", "top_p", "no_cache"])]
    #[arg(value_parser = range(1..=64), allow_negative_numbers = true)]
    pub beam: Option<usize>,
    /// Exponent of the length penalty of the beam search
    #[arg(long, value_name = "X", default_value_t = 0.6, value_parser = temperature)]
    #[arg(requires = "beam", allow_negative_numbers = true)]
    pub length_penalty: f64,
    /// Size and seed of the model; the seed is that of the draws too.
    #[command(flatten)]
    pub model: ModelArgs,
}

impl GenerateArgs {
    /// The defaults of the options, for a model.
    pub fn new(model: &ModelArgs) -> Self {
        Self {
            prompt: None,
            tokens: 50,
            quant: Quant::Fp32,
            no_cache: false,
            weights: None,
            temperature: 0.0,
            top_k: None,
            top_p: None,
            until: None,
            beam: None,
            length_penalty: 0.6,
            model: model.clone(),
        }
    }

    /// Checks the limits that relate several options, and the prompt.
    ///
    /// # Errors
    /// As [`ModelArgs::check`], and when the prompt has no word, or options of drawing stand beside a
    /// temperature of 0.
    pub fn check(&self) -> Result<()> {
        if let Some(prompt) = &self.prompt {
            ensure!(
                prompt.split_whitespace().next().is_some(),
                "--prompt {prompt:?} has 0 words; at least 1 is needed"
            );
        }
        let draws = [("--top-k", self.top_k.is_some()), ("--top-p", self.top_p.is_some())];
        for (option, given) in draws {
            ensure!(
                !given || self.temperature > 0.0,
                "{option} needs a --temperature above 0: at 0 the likeliest token is taken"
            );
        }
        self.model.check()
    }
}
