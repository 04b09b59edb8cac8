//! The fingerprint: all that must be equal for two counts to be comparable.

use super::measure::output;
use super::{Options, companions};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use toml::{Table, Value};

/// `key: value` lines: compiler, Valgrind, locked versions of what the bench links, profile, and
/// which files stand beside the ledger. The runner has to be of iai-callgrind's own version, which is locked.
pub fn fingerprint(options: &Options) -> Result<Vec<String>> {
    let counted_by =
        if options.counted_by.is_empty() { valgrind(options)? } else { options.counted_by.clone() };
    let root = output(options.command("cargo").args([
        "locate-project",
        "--workspace",
        "--message-format",
        "plain",
    ]))?;
    let root = Path::new(root.trim());
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let manifest: Table = read(&options.dir.join("Cargo.toml"))?.parse()?;
    let workspace: Table = read(root)?.parse()?;
    let lock: Table = read(&root.with_file_name("Cargo.lock"))?.parse()?;
    let mut beside = Vec::new();
    for name in ["claims.tsv", "codegen.tsv", "floors.tsv"] {
        if companions::beside(&options.ledger(), name)?.is_some() {
            beside.push(name);
        }
    }
    let linked = format!("linked packages, sha256: {}", sha256(&linked(&manifest, &lock, &options.also)));
    let profile = format!("profile, sha256: {}", sha256(&profiles(&workspace)));
    Ok([counted_by, vec![linked, profile, format!("beside: {}", beside.join(" "))]].concat())
}

/// The compiler and the counter of the benches.
fn valgrind(options: &Options) -> Result<Vec<String>> {
    let rustc = output(options.command("rustc").arg("-vV"))?;
    let line = |key: &str| rustc.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("unknown").trim();
    let valgrind = output(options.command("valgrind").arg("--version")).context("valgrind is needed")?;
    Ok(vec![
        format!("rustc: {} LLVM {}", line("commit-hash:"), line("LLVM version:")),
        format!("target: {}", line("host:")),
        format!("valgrind: {}", valgrind.trim()),
    ])
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

/// The profile of benches and the one it inherits from.
fn profiles(workspace: &Table) -> String {
    let profile = |name: &str| workspace.get("profile").and_then(|p| p.get(name)).map(|p| format!("{p:?}"));
    ["bench", "release"].map(|name| format!("{name}={}\n", profile(name).unwrap_or_default())).concat()
}

/// Names, versions and checksums of the locked packages that are reached from the manifest's dependencies
/// and from `also` (what the bench links beyond them). Other packages of the workspace and other
/// dev-dependencies may change without touching any count.
fn linked(manifest: &Table, lock: &Table, also: &[String]) -> String {
    let text = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut packages: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for package in lock.get("package").and_then(Value::as_array).into_iter().flatten() {
        packages.entry(text(package, "name")).or_default().push(package);
    }
    let direct = manifest.get("dependencies").and_then(Value::as_table);
    let mut todo: Vec<String> = direct.into_iter().flat_map(|t| t.keys().cloned()).collect();
    todo.extend(also.iter().cloned());
    let (mut seen, mut lines) = (BTreeSet::new(), BTreeSet::new());
    while let Some(wanted) = todo.pop() {
        if !seen.insert(wanted.clone()) {
            continue;
        }
        // `name`, or `name version` where the lock file holds several.
        let (name, version) = wanted.split_once(' ').unwrap_or((&wanted, ""));
        for package in packages.get(name).into_iter().flatten() {
            if version.is_empty() || version.starts_with(&text(package, "version")) {
                let [version, checksum] = ["version", "checksum"].map(|key| text(package, key));
                lines.insert(format!("{name} {version} {checksum}\n"));
                let next = package.get("dependencies").and_then(Value::as_array);
                todo.extend(next.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            }
        }
    }
    lines.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_linked_packages_count() {
        let manifest: Table = "[dependencies]\na = '1'\n[dev-dependencies]\nz = '1'".parse().unwrap();
        let lock: Table = "[[package]]\nname='a'\nversion='1.0'\ndependencies=['b 2.0']\n\
                           [[package]]\nname='b'\nversion='1.0'\n[[package]]\nname='b'\nversion='2.0'\n\
                           checksum='x'\n[[package]]\nname='z'\nversion='1.0'"
            .parse()
            .unwrap();
        assert_eq!(linked(&manifest, &lock, &[]), "a 1.0 \nb 2.0 x\n");
        assert_eq!(linked(&manifest, &lock, &["z".into()]), "a 1.0 \nb 2.0 x\nz 1.0 \n");
    }
}
