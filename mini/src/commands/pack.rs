//! `mini pack`: the files of a run as one archive, the same bytes every time.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::cli::PackArgs;
use crate::hashes::{self, FileHash, sha256_hex};
use crate::report::outputs::{ARCHIVE, Outputs, is_timed};

/// Writes the archive of every file that holds no timings and does not depend on the machine, and next to it
/// a file with the SHA-256 of the archive and of each file in it.
///
/// The archive depends on the files only: entries are sorted, times are 0, owners are 0 without names, modes
/// are 0644, and the gzip header has neither time, name nor system.
///
/// # Errors
/// When there is nothing to pack, or a file cannot be read or written.
pub fn run(args: &PackArgs, outputs: &Outputs, log: &mut impl Write) -> Result<()> {
    let names = names(outputs)?;
    let mut archive = Builder::new(Vec::new());
    let mut contents = Vec::new();
    for name in &names {
        let path = outputs.dir().join(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let inside = format!("{ARCHIVE}/{name}");
        let mut header = Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(EntryType::Regular);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, &inside, &bytes[..])?;
        contents.push(FileHash { name: inside, sha256: sha256_hex(&bytes) });
    }
    // 255 is "unknown system" (RFC 1952).
    let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    gzip.write_all(&archive.into_inner()?)?;
    let bytes = gzip.finish()?;

    fs::create_dir_all(&args.dist)
        .with_context(|| format!("cannot create the directory --dist {}", args.dist.display()))?;
    let path = args.archive();
    fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    let digest = sha256_hex(&bytes);
    let mut all = vec![FileHash { name: format!("{ARCHIVE}.tar.gz"), sha256: digest.clone() }];
    all.extend(contents);
    hashes::write(&args.sums(), &all)?;
    writeln!(log, "{}: {} files, {} bytes", path.display(), names.len(), bytes.len())?;
    writeln!(log, "SHA-256 {digest}")?;
    Ok(())
}

/// The files that go into the archive.
fn names(outputs: &Outputs) -> Result<Vec<String>> {
    let mut names = hashes::names(outputs.dir()).context("nothing to pack: run `mini run` first")?;
    let of_machine = [outputs.environment(), outputs.hashes(), outputs.memory_usage(), outputs.plot_memory()];
    names.retain(|name| {
        let path = outputs.dir().join(name);
        !is_timed(name) && !of_machine.contains(&path) && !name.starts_with("idem/")
    });
    ensure!(!names.is_empty(), "nothing to pack in --out {}: run `mini run` first", outputs.dir().display());
    Ok(names)
}
