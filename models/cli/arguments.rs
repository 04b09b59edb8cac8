//! The words of the command line.
//!
//! Three words and two options need no parser of a crate, which would be a dependency of every build of the
//! engines.

use kvern::quant::WeightFormat;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// A task for the program.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Print [`usage`].
    Help,
    /// Quantise a file.
    Quantize(Job),
}

/// A file to quantise.
#[derive(Debug, PartialEq)]
pub struct Job {
    /// The file to read, the first part of a split one.
    pub input: PathBuf,
    /// The file to write.
    pub output: PathBuf,
    /// The format of weights.
    pub format: WeightFormat,
    /// Whether `token_embd.weight` and `output.weight` stay as they are.
    pub keep_output: bool,
}

/// How the program is called.
pub fn usage() -> String {
    format!(
        "usage: kvern-models quantize [--keep-output] IN.gguf OUT.gguf FORMAT\n\n\
         Writes the weights of IN.gguf (of a split file the first part) in FORMAT, and all else as it is.\n\
         --keep-output  leaves token_embd.weight and output.weight as they are\n\
         FORMAT         one of {}",
        formats()
    )
}

/// The names of all formats.
fn formats() -> String {
    WeightFormat::ALL.map(WeightFormat::name).join(" ")
}

/// Reads the words behind the program's name.
///
/// **Errors**: a sentence that names the word and what it must be.
pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let (mut plain, mut keep_output) = (Vec::new(), false);
    for word in words {
        match word.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--keep-output") => keep_output = true,
            Some(option) if option.starts_with('-') => {
                return Err(format!("option = {option} must be --keep-output or --help"));
            }
            _ => plain.push(word),
        }
    }
    let [command, files @ ..] = plain.as_slice() else { return Err("there is no command".into()) };
    if command != "quantize" {
        return Err(format!("command = {} must be quantize", command.display()));
    }
    let [input, output, name] = files else {
        return Err(format!("words behind quantize = {} must be 3: IN.gguf OUT.gguf FORMAT", files.len()));
    };
    let (input, output) = (input.into(), output.into());
    Ok(Command::Quantize(Job { input, output, format: format(name)?, keep_output }))
}

/// The format of a name, in small letters or capitals.
fn format(name: &OsStr) -> Result<WeightFormat, String> {
    let found = WeightFormat::ALL.into_iter().find(|format| name.eq_ignore_ascii_case(format.name()));
    found.ok_or_else(|| format!("FORMAT = {} must be one of {}", name.display(), formats()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_stand_anywhere_and_names_are_of_any_case() {
        let job = |keep_output| {
            let (input, output, format) = ("a".into(), "b".into(), WeightFormat::Q4K);
            Ok(Command::Quantize(Job { input, output, format, keep_output }))
        };
        assert_eq!(words("quantize a b q4_k"), job(false));
        assert_eq!(words("quantize a --keep-output b Q4_K"), job(true));
        assert_eq!(words("quantize a --help"), Ok(Command::Help));
        for format in WeightFormat::ALL {
            assert!(words(&format!("quantize a b {}", format.name())).is_ok(), "{format:?}");
            assert!(usage().contains(format.name()), "{format:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (line, word) in [
            ("", "no command"),
            ("pack a b q8_0", "command = pack"),
            ("quantize a b", "= 2 must be 3"),
            ("quantize a b q8_0 c", "= 4 must be 3"),
            ("quantize a b q8", "FORMAT = q8 must be one of f32"),
            ("quantize --threads a b q8_0", "option = --threads"),
        ] {
            let reason = words(line).unwrap_err();
            assert!(reason.contains(word), "{line}: {reason}");
        }
    }
}
