//! Imports go downwards: no circle of files, and the floors are those that `lib.rs` lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every source file below `src`, by its module path: `text::corpus` for `text/corpus/mod.rs`.
fn sources() -> BTreeMap<Vec<String>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut rest = vec![root.clone()];
    while let Some(dir) = rest.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                rest.push(path);
                continue;
            }
            let module = path.strip_prefix(&root).unwrap().with_extension("");
            let mut module: Vec<String> =
                module.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            module.retain(|part| part != "mod");
            if module != ["main"] && module != ["lib"] {
                found.insert(module, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// The files that `module` imports from, by `use crate::`, `use super::`, or a re-export of a child.
fn imports(module: &[String], text: &str, sources: &BTreeMap<Vec<String>, String>) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut here = module.to_vec();
    for line in text.lines().map(str::trim) {
        // In the module of the tests, the first `super` is the file itself.
        if line == "mod tests {" {
            here.push("tests".into());
        }
        let Some(path) = line.strip_prefix("use ").or_else(|| line.strip_prefix("pub use ")) else {
            continue;
        };
        let path = path.split(['{', ';']).next().unwrap_or_default().trim_end_matches("::");
        let mut parts = path.split("::").peekable();
        let mut target = if parts.next_if_eq(&"crate").is_some() { Vec::new() } else { here.clone() };
        while parts.next_if_eq(&"super").is_some() {
            target.pop();
        }
        target.extend(parts.map(str::to_owned));
        while !target.is_empty() && !sources.contains_key(&target) {
            target.pop();
        }
        if !target.is_empty() && target != module {
            found.insert(target);
        }
    }
    found
}

/// The names that `lib.rs` lists as floors, the top one first; names on one line share a floor.
fn floors() -> BTreeMap<String, usize> {
    let text = include_str!("../src/lib.rs");
    let list = text.split("```").nth(1).unwrap();
    let lines = list.lines().filter_map(|line| line.strip_prefix("//! ")).filter(|line| !line.is_empty());
    let names =
        |line: &str| line.split("   ").next().unwrap().split(", ").map(str::to_owned).collect::<Vec<_>>();
    lines
        .enumerate()
        .flat_map(|(floor, line)| names(line).into_iter().map(move |name| (name, floor)))
        .collect()
}

#[test]
fn every_folder_has_a_floor_and_imports_only_from_lower_ones() {
    let (sources, floors) = (sources(), floors());
    for (module, text) in &sources {
        let own = floors.get(&module[0]).unwrap_or_else(|| panic!("lib.rs does not list {}", module[0]));
        for import in imports(module, text, &sources) {
            assert!(
                import[0] == module[0] || floors[&import[0]] > *own,
                "{} imports {}, which lib.rs lists above or beside it",
                module.join("::"),
                import.join("::")
            );
        }
    }
    assert!(floors.keys().all(|name| sources.keys().any(|module| module[0] == *name)), "{floors:?}");
}

#[test]
fn no_files_import_one_another_in_a_circle() {
    let sources = sources();
    let mut left: BTreeMap<_, _> =
        sources.iter().map(|(module, text)| (module.clone(), imports(module, text, &sources))).collect();
    assert!(left.values().map(BTreeSet::len).sum::<usize>() > 100, "the imports are found");
    // What imports from no file that is left is in no circle.
    loop {
        let free: Vec<_> = left.keys().filter(|module| left[*module].is_empty()).cloned().collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|module| drop(left.remove(module)));
        left.values_mut().for_each(|imports| imports.retain(|import| !free.contains(import)));
    }
    assert!(left.is_empty(), "in or above a circle: {left:#?}");
}
