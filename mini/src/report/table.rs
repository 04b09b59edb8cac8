//! Reading and writing of CSV tables.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes `rows` to `path` under a header with the names of the fields.
///
/// # Errors
/// When `rows` is empty (the header comes from the rows) or the file cannot be written.
pub fn write_rows<R: Serialize>(path: &Path, rows: &[R]) -> Result<()> {
    ensure!(!rows.is_empty(), "no rows to write to {}", path.display());
    let write = || -> Result<()> {
        let mut writer = csv::Writer::from_path(path)?;
        for row in rows {
            writer.serialize(row)?;
        }
        writer.flush()?;
        Ok(())
    };
    write().with_context(|| format!("cannot write the table {}", path.display()))
}

/// Reads the rows of the table at `path`. Columns are found by name.
///
/// # Errors
/// When the file cannot be read, lacks a column, has a value of the wrong type (the message names the line),
/// or has no rows.
pub fn read_rows<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>> {
    let read = || -> Result<Vec<R>> {
        let rows: Result<Vec<R>, _> = csv::Reader::from_path(path)?.deserialize().collect();
        Ok(rows?)
    };
    let rows = read().with_context(|| format!("cannot read the table {}", path.display()))?;
    ensure!(!rows.is_empty(), "the table {} has no rows", path.display());
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::rows::*;
    use super::*;

    fn bench_rows() -> Vec<BenchRow> {
        [(WITH_CACHE, 16.3, 0.64), (NO_CACHE, 29.93, 2.125)]
            .map(|(config, mean_ms, std_ms)| BenchRow { config: config.into(), mean_ms, std_ms })
            .to_vec()
    }

    /// Writes `rows`, checks the file's text and reads the rows again.
    fn round_trip<R>(rows: &[R], expected: &str)
    where
        R: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        write_rows(&path, rows).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(read_rows::<R>(&path).unwrap(), rows);
    }

    #[test]
    fn columns_of_bench() {
        let expected = "config,mean_ms,std_ms\nwith_cache,16.3,0.64\nno_cache,29.93,2.125\n";
        round_trip(&bench_rows(), expected);
    }

    #[test]
    fn columns_of_bench_context() {
        let row = ContextRow { context: 16, with_cache_ms: 0.25, no_cache_ms: 1.5 };
        round_trip(&[row], "context,with_cache_ms,no_cache_ms\n16,0.25,1.5\n");
    }

    #[test]
    fn columns_of_bench_quant() {
        let row = QuantRow {
            config: "Int8".into(),
            size_mb: 0.47,
            perplexity: 1019.74,
            loss: 6.9273,
            latency_ms: 8.5,
            latency_std: 0.25,
            bytes_streamed: 470_000,
            max_abs_logit_err: 0.01,
            top1_agreement: 0.99,
            peak_memory_mb: 9.5,
        };
        round_trip(
            &[row],
            "config,size_mb,perplexity,loss,latency_ms,latency_std,bytes_streamed,\
             max_abs_logit_err,top1_agreement,peak_memory_mb\n\
             Int8,0.47,1019.74,6.9273,8.5,0.25,470000,0.01,0.99,9.5\n",
        );
    }

    #[test]
    fn columns_of_memory_usage() {
        let row = MemoryRow { config: "Int4".into(), memory_mb: 0.25 };
        round_trip(&[row], "config,memory_mb\nInt4,0.25\n");
    }

    #[test]
    fn bad_tables_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bench.csv");
        for (text, reason) in [
            ("", "has no rows"),
            ("config,mean_ms,std_ms\n", "has no rows"),
            ("config,mean_ms\nwith_cache,1\n", "missing field `std_ms`"),
            ("config,mean_ms,std_ms\nwith_cache,fast,1\n", "line: 2"),
            ("config,mean_ms,std_ms\nwith_cache,1\n", "line: 2"),
        ] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", read_rows::<BenchRow>(&path).unwrap_err());
            assert!(error.contains(reason), "{text:?}: {error}");
            assert!(error.contains("bench.csv"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(read_rows::<BenchRow>(&path).is_err());
    }

    #[test]
    fn a_table_without_rows_or_place_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_rows::<BenchRow>(&dir.path().join("a.csv"), &[]).is_err());
        assert!(write_rows(dir.path(), &bench_rows()).is_err());
    }
}
