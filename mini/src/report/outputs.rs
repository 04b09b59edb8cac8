//! The output directory and the name of every file in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Name of the archive of a run without its endings, and of the folder in it.
pub const ARCHIVE: &str = "proy-v1.0.0";

/// Directory of the timings that no other file is made from.
const TIMINGS: &str = "timings";

/// Files with timings that lie outside [`TIMINGS`]: the tables of the benchmarks, and their plots.
const TIMED: [&str; 6] = [
    "bench.csv",
    "bench_context.csv",
    "bench_quant.csv",
    "plot_latencia.png",
    "plot_context.png",
    "plot_quant.png",
];

/// Returns whether the file with this name in an output directory holds timings, and so differs from run to
/// run: a file in `timings/`, a `bench*.csv`, or the plot of a `bench*.csv`. All other files have the same
/// bytes in every run.
pub fn is_timed(name: &str) -> bool {
    name.split(['/', '\\']).next() == Some(TIMINGS) && name != TIMINGS || TIMED.contains(&name)
}

/// The output directory (`--out`). Each method below gives the path of one file in it; none of them touches
/// the disk.
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

    /// Quality of the trained models.
    pub fn metrics(&self) -> PathBuf {
        self.dir.join("metrics.json")
    }

    /// Checkpoint of the training on a text.
    pub fn checkpoint(&self, text: &str) -> PathBuf {
        self.dir.join(format!("{text}.safetensors"))
    }

    /// Loss of each step of the training on a text.
    pub fn loss(&self, text: &str) -> PathBuf {
        self.dir.join(format!("loss_{text}.csv"))
    }

    /// Plot of [`Outputs::loss`].
    pub fn plot_loss(&self, text: &str) -> PathBuf {
        self.dir.join(format!("plot_loss_{text}.png"))
    }

    /// Description of the machine and of the program.
    pub fn environment(&self) -> PathBuf {
        self.dir.join("env.txt")
    }

    /// SHA-256 of every file without timings, in the format of `sha256sum`.
    pub fn hashes(&self) -> PathBuf {
        self.dir.join("hashes.txt")
    }

    /// Creates the directory of the timings that no other file is made from.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create_timings(&self) -> Result<()> {
        let dir = self.dir.join(TIMINGS);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))
    }

    /// Time of the training on a text.
    pub fn training_time(&self, text: &str) -> PathBuf {
        self.dir.join(TIMINGS).join(format!("train_{text}.csv"))
    }

    /// Every file of a complete run.
    pub fn all(&self) -> [PathBuf; 24] {
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
            self.checkpoint("seed"),
            self.checkpoint("language"),
            self.loss("seed"),
            self.loss("language"),
            self.plot_loss("seed"),
            self.plot_loss("language"),
            self.metrics(),
            self.training_time("seed"),
            self.training_time("language"),
            self.environment(),
            self.hashes(),
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
