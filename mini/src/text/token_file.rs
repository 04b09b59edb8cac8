//! `tokens.jsonl`: a sequence of token ids as JSON, one record a line.
//!
//! Each record is `{"offset":O,"ids":[...]}`: the position of its first id in the sequence, and up to
//! [`RECORD`] ids. Every record but the last is full. Writing and reading keep one record in memory.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Ids in a full record.
pub const RECORD: usize = 512;

#[derive(Serialize)]
struct RecordRef<'a> {
    offset: usize,
    ids: &'a [u32],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    offset: usize,
    ids: Vec<u32>,
}

/// Writes `ids` to `path` and returns the number of records.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, ids: &[u32]) -> Result<usize> {
    let write = || -> Result<usize> {
        let mut file = BufWriter::new(File::create(path)?);
        for (i, ids) in ids.chunks(RECORD).enumerate() {
            let offset = i * RECORD;
            serde_json::to_writer(&mut file, &RecordRef { offset, ids })?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        Ok(ids.len().div_ceil(RECORD))
    };
    write().with_context(|| format!("cannot write the tokens to {}", path.display()))
}

/// Reads the ids that [`write()`] wrote.
///
/// # Errors
/// When the file cannot be read, a line is no record, or a record does not begin where the one before it
/// ended. The message names the line.
pub fn read(path: &Path) -> Result<Vec<u32>> {
    let cannot_read = || format!("cannot read the tokens {}", path.display());
    let file = File::open(path).with_context(cannot_read)?;
    let mut ids = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let at_line = || format!("{}: line {}", path.display(), i + 1);
        let line = line.with_context(at_line)?;
        let record: Record = serde_json::from_str(&line).with_context(at_line)?;
        ensure!(
            record.offset == ids.len(),
            "{}: expected offset {}, found {}",
            at_line(),
            ids.len(),
            record.offset
        );
        ids.extend(record.ids);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_format_is_one_record_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.jsonl");
        assert_eq!(write(&path, &[4, 5, 1]).unwrap(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"offset\":0,\"ids\":[4,5,1]}\n");
    }

    #[test]
    fn all_lengths_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.jsonl");
        for (length, records) in [(0, 0), (1, 1), (RECORD, 1), (RECORD + 1, 2), (5 * RECORD, 5)] {
            let ids: Vec<u32> = (0..length as u32).collect();
            assert_eq!(write(&path, &ids).unwrap(), records);
            assert_eq!(read(&path).unwrap(), ids);
        }
    }

    #[test]
    fn bad_files_are_refused_with_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.jsonl");
        let good = "{\"offset\":0,\"ids\":[1,2]}\n";
        for (bad, reason) in [
            ("{\"offset\":2,\"ids\":[3", "line 2: EOF"),
            ("{\"offset\":1,\"ids\":[3]}\n", "line 2: expected offset 2, found 1"),
            ("{\"offset\":2,\"ids\":[-3]}\n", "line 2: invalid value"),
            ("\n", "line 2: EOF"),
        ] {
            fs::write(&path, format!("{good}{bad}")).unwrap();
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(error.contains(reason), "{bad:?}: {error}");
        }
        fs::write(&path, [0xff]).unwrap();
        assert!(read(&path).is_err());
        assert!(read(&dir.path().join("missing")).is_err());
        assert!(write(dir.path(), &[1]).is_err());
    }
}
