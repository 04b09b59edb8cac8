//! The output directory and the name of every file in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The output directory (`--out`). Each method below gives the path of one
/// file in it; none of them touches the disk.
#[derive(Clone, Debug)]
pub struct Outputs {
    dir: PathBuf,
}

impl Outputs {
    /// Names the directory; see [`Outputs::create`].
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Creates the directory and its parents where they are missing.
    ///
    /// # Errors
    /// When the directory cannot be created; the message names `--out`.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("cannot create the directory --out {}", self.dir.display()))
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The corpus.
    pub fn corpus(&self) -> PathBuf {
        self.dir.join("corpus.txt")
    }

    /// SHA-256 of the corpus, in the format of `sha256sum`.
    pub fn corpus_sha256(&self) -> PathBuf {
        self.dir.join("corpus.sha256")
    }

    /// The corpus as token ids.
    pub fn tokens(&self) -> PathBuf {
        self.dir.join("tokens.jsonl")
    }

    /// The vocabulary, one token a line.
    pub fn vocab(&self) -> PathBuf {
        self.dir.join("vocab.txt")
    }

    /// Latency with and without cache.
    pub fn bench(&self) -> PathBuf {
        self.dir.join("bench.csv")
    }

    /// Latency per token against context length.
    pub fn bench_context(&self) -> PathBuf {
        self.dir.join("bench_context.csv")
    }

    /// Size, quality and latency of each weight format.
    pub fn bench_quant(&self) -> PathBuf {
        self.dir.join("bench_quant.csv")
    }

    /// Memory of each weight format.
    pub fn memory_usage(&self) -> PathBuf {
        self.dir.join("memory_usage.csv")
    }

    /// Loss of quality of each weight format.
    pub fn accuracy_drop(&self) -> PathBuf {
        self.dir.join("accuracy_drop.json")
    }

    /// Plot of [`Outputs::bench`].
    pub fn plot_latency(&self) -> PathBuf {
        self.dir.join("plot_latencia.png")
    }

    /// Plot of [`Outputs::bench_context`].
    pub fn plot_context(&self) -> PathBuf {
        self.dir.join("plot_context.png")
    }

    /// Plot of [`Outputs::bench_quant`].
    pub fn plot_quant(&self) -> PathBuf {
        self.dir.join("plot_quant.png")
    }

    /// Plot of [`Outputs::memory_usage`].
    pub fn plot_memory(&self) -> PathBuf {
        self.dir.join("plot_memoria.png")
    }

    /// Every file of a complete run.
    pub fn all(&self) -> [PathBuf; 13] {
        [
            self.corpus(),
            self.corpus_sha256(),
            self.tokens(),
            self.vocab(),
            self.bench(),
            self.bench_context(),
            self.bench_quant(),
            self.memory_usage(),
            self.accuracy_drop(),
            self.plot_latency(),
            self.plot_quant(),
            self.plot_memory(),
            self.plot_context(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_makes_the_parents_too() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path().join("a/b"));
        outputs.create().unwrap();
        assert!(outputs.dir().is_dir());
        assert_eq!(outputs.corpus(), dir.path().join("a/b/corpus.txt"));
    }

    #[test]
    fn create_names_the_option_when_a_file_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Outputs::new(&file).create().unwrap_err().to_string();
        assert!(error.contains("--out"), "{error}");
    }
}
