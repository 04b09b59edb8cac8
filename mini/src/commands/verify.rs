//! `mini verify`: the archive of `pack` against its hashes, and the files of the output directory against
//! `hashes.txt`.

use std::fs;
use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use tar::Archive;

use crate::cli::PackArgs;
use crate::hashes::{self, FileHash, sha256_hex};
use crate::report::outputs::{ARCHIVE, Outputs};

/// Checks the archive, `hashes.txt`, or both, whichever exist.
///
/// # Errors
/// When neither is there, or something differs; the message names the archive and the first file in it that
/// is not as it was packed, or each file of the directory that differs.
pub fn run(args: &PackArgs, outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    let (archive, listed) = (args.archive().try_exists()?, outputs.hashes().try_exists()?);
    ensure!(
        archive || listed,
        "neither {} nor {} is there: run `mini run` and `mini pack` first",
        args.archive().display(),
        outputs.hashes().display()
    );
    if listed {
        let expected = hashes::read(&outputs.hashes())?;
        let present: Vec<String> = expected
            .iter()
            .map(|hash| hash.name.clone())
            .filter(|name| outputs.dir().join(name).exists())
            .collect();
        let differences = hashes::differences(&expected, &hashes::of(outputs.dir(), &present)?);
        ensure!(
            differences.is_empty(),
            "--out {} is not as it was:\n{}",
            outputs.dir().display(),
            differences.join("\n")
        );
        writeln!(log, "{}: {} files verified", outputs.dir().display(), expected.len())?;
    }
    if archive {
        check_archive(args, log)?;
    }
    Ok(())
}

fn check_archive(args: &PackArgs, log: &mut impl Write) -> Result<()> {
    let path = args.archive();
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let expected = hashes::read(&args.sums())?;
    let (whole, files) = expected.split_first().context("the file of hashes is empty")?;
    ensure!(whole.name == format!("{ARCHIVE}.tar.gz"), "{} is of another archive", args.sums().display());
    let found = sha256_hex(&bytes);
    if found != whole.sha256 {
        let place = damaged(&bytes, files).unwrap_or_else(|| "no file in it: its headers".into());
        anyhow::bail!(
            "{} is not as it was packed: SHA-256 {found}, not {}; damaged: {place}",
            path.display(),
            whole.sha256
        );
    }
    ensure!(damaged(&bytes, files).is_none(), "{} does not hold what its hashes say", path.display());
    writeln!(log, "{}: SHA-256 {found}, {} files verified", path.display(), files.len())?;
    Ok(())
}

/// The first file that is not in the archive as it should be.
fn damaged(archive: &[u8], files: &[FileHash]) -> Option<String> {
    let mut archive = Archive::new(GzDecoder::new(archive));
    let mut entries = archive.entries().ok()?;
    for file in files {
        let read = || -> Option<(String, String)> {
            let mut entry = entries.next()?.ok()?;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).ok()?;
            Some((entry.path().ok()?.to_str()?.to_owned(), sha256_hex(&bytes)))
        };
        let mut read = read;
        if read() != Some((file.name.clone(), file.sha256.clone())) {
            return Some(file.name.clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::pack;
    use super::*;

    fn packed() -> (tempfile::TempDir, PackArgs, Outputs) {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::new(dir.path().join("out"));
        outputs.create().unwrap();
        for (name, byte) in [("a.txt", b'a'), ("b.txt", b'b'), ("bench.csv", b't')] {
            fs::write(outputs.dir().join(name), vec![byte; 5000]).unwrap();
        }
        let args = PackArgs { dist: dir.path().join("dist") };
        pack::run(&args, &outputs, &mut Vec::new()).unwrap();
        (dir, args, outputs)
    }

    fn verify(args: &PackArgs, outputs: &Outputs) -> Result<String> {
        let mut log = Vec::new();
        run(args, outputs, &mut log)?;
        Ok(String::from_utf8(log)?)
    }

    #[test]
    fn an_archive_is_the_same_every_time_and_verified() {
        let (_dir, args, outputs) = packed();
        let first = fs::read(args.archive()).unwrap();
        pack::run(&args, &outputs, &mut Vec::new()).unwrap();
        assert!(fs::read(args.archive()).unwrap() == first);
        assert!(verify(&args, &outputs).unwrap().contains("2 files verified"));
        // Magic, deflate, no flags, time 0, best compression, unknown system.
        assert_eq!(first[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]);
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let (_dir, args, outputs) = packed();
        let good = fs::read(args.archive()).unwrap();
        let mut named = 0;
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            fs::write(args.archive(), &bad).unwrap();
            let error = verify(&args, &outputs).unwrap_err().to_string();
            assert!(error.contains("is not as it was packed"), "byte {i}: {error}");
            named += usize::from(error.contains("damaged: proy-v1.0.0/"));
        }
        assert!(named * 2 > good.len(), "{named} of {}", good.len());
    }

    #[test]
    fn a_changed_file_of_the_directory_is_named() {
        let (_dir, args, outputs) = packed();
        let names = ["a.txt".to_owned(), "b.txt".to_owned()];
        hashes::write(&outputs.hashes(), &hashes::of(outputs.dir(), &names).unwrap()).unwrap();
        assert!(verify(&args, &outputs).unwrap().contains("out: 2 files verified"));
        fs::write(outputs.dir().join("a.txt"), "other").unwrap();
        fs::remove_file(outputs.dir().join("b.txt")).unwrap();
        let error = verify(&args, &outputs).unwrap_err().to_string();
        assert!(error.contains("a.txt differs") && error.contains("b.txt is missing"), "{error}");
    }

    #[test]
    fn nothing_to_pack_or_verify_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (args, outputs) = (PackArgs { dist: dir.path().join("d") }, Outputs::new(dir.path().join("o")));
        assert!(verify(&args, &outputs).unwrap_err().to_string().contains("mini pack"));
        assert!(pack::run(&args, &outputs, &mut Vec::new()).is_err());
        outputs.create().unwrap();
        assert!(pack::run(&args, &outputs, &mut Vec::new()).is_err());
    }
}
