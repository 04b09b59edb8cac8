//! The floors of the house: no circle of files, and no import from a lower floor to a higher one.
//!
//! Reads every `use` and every path that starts with `crate` or `super`, and follows re-exports to the file
//! that defines the name. A parent that only declares and re-exports its children is so no part of a circle;
//! one that defines what its children import is. Unit tests are not read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The floors of the library, lowest first. A file belongs to the longest prefix of its path.
const LIBRARY: &[&[&str]] = &[
    &["error.rs", "file.rs", "fma.rs", "fp_mode.rs"],
    &["dtype.rs", "epilogue.rs", "isa.rs"], // the words that kernels and drivers share
    &["buffer", "parallel"],                // memory and threads
    &["view.rs"],                           // shapes over memory
    &["tiles.rs", "tiles"],                 // loops over the tiles of an output
    &["kernels"],                           // know no driver, no context, no file
    &["context.rs", "blob.rs", "input.rs", "names.rs"],
    &["matmul"],
    &["quant"],
    &["gguf", "safetensors"], // files of other programs
    &["ops"],
    &["attention", "recurrent"],
    &["lib.rs"],
    &["capi"],
    &["cblas"],
];

/// The floors of the reference application, lowest first.
const MINI: &[&[&str]] = &[
    &["hashes.rs", "measure", "random.rs", "setup.rs"],
    &["model", "text"],
    &["infer", "train"],
    &["report"],
    &["plots"],
    &["cli"],
    &["commands"],
    &["lib.rs", "main.rs"],
];

/// The floors of the reference engines, lowest first.
const MODELS: &[&[&str]] = &[
    &["error.rs", "rows.rs"],
    &["checkpoint.rs"],
    &["engine.rs"],
    &["attention.rs", "encoder.rs", "linear.rs", "rope.rs"],
    &["loader.rs"],
    &["convolution.rs", "embedding.rs", "feed_forward.rs", "layer_norm.rs", "multi_head.rs"],
    &[
        "encoder_layer.rs",
        "experts.rs",
        "latent_attention.rs",
        "recurrence.rs",
        "self_attention.rs",
        "stack.rs",
    ],
    &["delta_net.rs", "mamba2.rs"],
    &["families"],
    &["lib.rs"],
];

/// A crate as modules: the path of each, such as `["kernels", "entry"]`, and its file.
type Modules = BTreeMap<Vec<String>, PathBuf>;

/// One file's names: what each `use` brings in, `name -> path from the root`; and every path it mentions.
#[derive(Default)]
struct File {
    names: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    mentions: Vec<Vec<String>>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn modules(src: &Path) -> Modules {
    fn walk(dir: &Path, at: &[String], found: &mut Modules) {
        for entry in std::fs::read_dir(dir).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let module = || [at, std::slice::from_ref(&name)].concat();
            if path.is_dir() {
                walk(&path, &module(), found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                // Beside a library, `main.rs` is a crate of its own, which imports the library by its name.
                let root = at.is_empty() && (name == "lib" || name == "main" && !dir.join("lib.rs").exists());
                let own = name == "mod" || root;
                found.insert(if own { at.to_vec() } else { module() }, path);
            }
        }
    }
    let mut found = Modules::new();
    walk(src, &[], &mut found);
    found
}

/// The text without comments, strings and what follows `#[cfg(test)]` at the end of a file.
fn code(text: &str) -> String {
    let text = match text.find("#[cfg(test)]\nmod tests {") {
        Some(end) => &text[..end],
        None => text,
    };
    let mut out = String::new();
    let bytes: Vec<char> = text.chars().collect();
    let mut i = 0;
    while i < bytes.len() {
        let rest = |n: usize| bytes.get(i + n).copied();
        match bytes[i] {
            '/' if rest(1) == Some('/') => {
                while i < bytes.len() && bytes[i] != '\n' {
                    i += 1;
                }
            }
            '/' if rest(1) == Some('*') => {
                while i < bytes.len() && !(bytes[i] == '*' && bytes.get(i + 1) == Some(&'/')) {
                    i += 1;
                }
                i += 2;
            }
            'r' if rest(1) == Some('#') && rest(2) == Some('"') => {
                i += 3;
                while i < bytes.len() && !(bytes[i] == '"' && bytes.get(i + 1) == Some(&'#')) {
                    i += 1;
                }
                i += 2;
            }
            '"' => {
                i += 1;
                while i < bytes.len() && bytes[i] != '"' {
                    i += if bytes[i] == '\\' { 2 } else { 1 };
                }
                i += 1;
                out.push_str("\"\"");
            }
            // A character, not a lifetime.
            '\'' if rest(1) == Some('\\') || rest(2) == Some('\'') => {
                i += if rest(1) == Some('\\') { 3 } else { 2 };
                while i < bytes.len() && bytes[i] != '\'' {
                    i += 1;
                }
                i += 1;
            }
            c => {
                out.push(c);
                i += 1;
            }
        }
    }
    out
}

/// Words and the signs between them.
fn tokens(code: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        let mut word = String::from(c);
        if c.is_alphanumeric() || c == '_' {
            while let Some(&next) = chars.peek().filter(|c| c.is_alphanumeric() || **c == '_') {
                word.push(next);
                chars.next();
            }
        } else if c == ':' && chars.peek() == Some(&':') {
            chars.next();
            word.push(':');
        } else if c.is_whitespace() {
            continue;
        }
        out.push(word);
    }
    out
}

/// Reads a tree of a `use`, from token `i` on: each path with the name that it gets.
fn use_tree(
    tokens: &[String],
    mut i: usize,
    prefix: &[String],
    out: &mut Vec<(String, Vec<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    while i < tokens.len() {
        match tokens[i].as_str() {
            "{" => {
                i += 1;
                while tokens[i] != "}" {
                    i = use_tree(tokens, i, &path, out);
                    if tokens[i] == "," {
                        i += 1;
                    }
                }
                return i + 1;
            }
            "::" => i += 1,
            "as" => {
                out.push((tokens[i + 1].clone(), path));
                return i + 2;
            }
            "," | "}" | ";" => break,
            word => {
                path.push(word.to_owned());
                i += 1;
            }
        }
    }
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    out.push((path.last().cloned().unwrap_or_default(), path));
    i
}

/// `path`, as written in module `at`, from the root of the crate; `None` for one of another crate.
fn from_root(modules: &Modules, at: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut base = at.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|word| word == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        child => {
            let module = [at, &[child.to_owned()]].concat();
            if !modules.contains_key(&module) {
                return None;
            }
        }
    }
    Some([base, rest.to_vec()].concat())
}

/// What one file names. Inline modules count as the file.
fn read(modules: &Modules, at: &[String], text: &str) -> File {
    let tokens = tokens(&code(text));
    let mut file = File::default();
    // The depths of braces at which inline modules begin.
    let (mut depth, mut inline) = (0, Vec::new());
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
            }
            "mod" if tokens.get(i + 2).is_some_and(|t| t == "{") => inline.push(depth),
            "use" => {
                let mut found = Vec::new();
                let end = use_tree(&tokens, i + 1, &[], &mut found);
                for (name, path) in found {
                    // `super` of an inline module is the file itself.
                    let supers = path.iter().take_while(|word| *word == "super").count();
                    let skip = supers.min(inline.len());
                    let path = &path[skip..];
                    if skip > 0 && supers == skip && path.first().is_none_or(|word| word != "crate") {
                        continue;
                    }
                    let Some(full) = from_root(modules, at, path) else { continue };
                    if name == "*" {
                        file.globs.push(full[..full.len() - 1].to_vec());
                    } else {
                        file.mentions.push(full.clone());
                        if inline.is_empty() {
                            file.names.insert(name, full);
                        }
                    }
                }
                i = end;
                continue;
            }
            // Not a visibility.
            word @ ("crate" | "super")
                if i > 0 && tokens[i - 1] != "in" && tokens.get(i + 1).is_some_and(|t| t == "::") =>
            {
                let mut path = vec![word.to_owned()];
                while tokens.get(i + 1).is_some_and(|t| t == "::")
                    && tokens
                        .get(i + 2)
                        .is_some_and(|t| t.starts_with(|c: char| c.is_alphabetic() || c == '_'))
                {
                    path.push(tokens[i + 2].clone());
                    i += 2;
                }
                let supers = path.iter().take_while(|word| *word == "super").count();
                if word == "crate" || inline.is_empty() && supers < path.len() {
                    file.mentions.extend(from_root(modules, at, &path));
                }
            }
            _ => {}
        }
        i += 1;
    }
    file
}

/// The module that defines what a path from the root names.
fn defined_in(
    modules: &Modules,
    files: &BTreeMap<Vec<String>, File>,
    path: &[String],
    hops: usize,
) -> Vec<String> {
    let mut module = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.first() {
        let deeper = [module.clone(), vec![first.clone()]].concat();
        if !modules.contains_key(&deeper) {
            break;
        }
        module = deeper;
        rest = &rest[1..];
    }
    let Some(name) = rest.first().filter(|_| hops > 0) else { return module };
    let Some(file) = files.get(&module) else { return module };
    if let Some(further) = file.names.get(name) {
        let further = [further.clone(), rest[1..].to_vec()].concat();
        if further != path {
            return defined_in(modules, files, &further, hops - 1);
        }
    }
    module
}

/// The imports between the files of a crate.
fn imports(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules(src);
    let files: BTreeMap<Vec<String>, File> = modules
        .iter()
        .map(|(at, path)| (at.clone(), read(&modules, at, &std::fs::read_to_string(path).expect("a source"))))
        .collect();
    let name = |module: &Vec<String>| {
        modules[module].strip_prefix(src).expect("below src").to_string_lossy().replace('\\', "/")
    };
    let mut edges: BTreeMap<String, BTreeSet<String>> =
        modules.keys().map(|m| (name(m), BTreeSet::new())).collect();
    for (at, file) in &files {
        let targets = file.mentions.iter().map(|path| defined_in(&modules, &files, path, 8));
        for target in targets.chain(file.globs.iter().cloned()).filter(|target| target != at) {
            if modules.contains_key(&target) {
                edges.get_mut(&name(at)).expect("a file").insert(name(&target));
            }
        }
    }
    edges
}

/// The circles: sets of files that reach each other.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reach = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(edges[file].iter().filter(|next| seen.insert((*next).clone())));
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|file| (file, reach(file))).collect();
    let circle = |file: &String| -> BTreeSet<String> {
        reached[file].iter().filter(|other| reached[other].contains(file)).cloned().collect()
    };
    let all: BTreeSet<BTreeSet<String>> = edges.keys().map(circle).filter(|c| c.len() > 1).collect();
    all.into_iter().collect()
}

/// Whether a file is `prefix` or in that folder; every file is in the folder "".
fn below(prefix: &str, file: &str) -> bool {
    file == prefix || prefix.is_empty() || file.starts_with(&format!("{prefix}/"))
}

/// The floor of a file.
fn floor(floors: &[&[&str]], file: &str) -> usize {
    let height =
        |floor: &&[&str]| floor.iter().filter(|p| below(p, file)).map(|p| p.len() + 1).max().unwrap_or(0);
    let longest = floors.iter().map(height).max().unwrap_or(0);
    assert!(longest > 0, "{file} stands on no floor: give it one in the table of this test");
    floors.iter().position(|f| height(f) == longest).expect("a floor")
}

/// Every way in which a crate breaks the rules.
fn faults(krate: &str, floors: &[&[&str]]) -> Vec<String> {
    let src = root().join(krate);
    let edges = imports(&src);
    assert!(
        edges.values().map(BTreeSet::len).sum::<usize>() > edges.len(),
        "{krate}: hardly an import was read"
    );
    let mut faults = Vec::new();
    for circle in circles(&edges) {
        let inside = |(file, to): (&String, &BTreeSet<String>)| {
            let to: Vec<_> = to.intersection(&circle).map(String::as_str).collect();
            circle.contains(file).then(|| format!("{file} -> {}", to.join(", ")))
        };
        let arrows: Vec<_> = edges.iter().filter_map(inside).collect();
        faults.push(format!("{krate}: a circle: {}", arrows.join("; ")));
    }
    for (file, to) in &edges {
        for to in to.iter().filter(|to| floor(floors, file) < floor(floors, to)) {
            faults.push(format!("{krate}: {file} imports {to}, which stands on a higher floor"));
        }
    }
    faults
}

#[test]
fn imports_run_downwards_and_never_in_a_circle() {
    let faults = [faults("src", LIBRARY), faults("mini/src", MINI), faults("models/src", MODELS)].concat();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn circles_and_re_exports_are_found() {
    let dir = std::env::temp_dir().join(format!("kvern-floors-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("b")).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("a file");
    write("lib.rs", "mod a; mod b; mod c;\npub use b::inner::Deep; // use c::No;\n");
    write(
        "a.rs",
        "use crate::{Deep, c::{self as other, Thing}};\nmod quant { use super::own; }\nfn own() {}\n",
    );
    write("b/mod.rs", "pub mod inner;\npub use inner::Deep;\n");
    write("b/inner.rs", "pub struct Deep; const S: &str = \"crate::c::Thing\"; fn f() { crate::a::own() }\n");
    write("c.rs", "pub struct Thing;\n#[cfg(test)]\nmod tests {\n    use crate::a::own;\n}\n");
    let edges = imports(&dir);
    std::fs::remove_dir_all(&dir).expect("the folder");
    let to = |file: &str| edges[file].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(to("a.rs"), ["b/inner.rs", "c.rs"]);
    assert_eq!(to("b/inner.rs"), ["a.rs"]);
    assert_eq!(to("c.rs"), [""; 0]);
    let found: Vec<Vec<String>> = circles(&edges).into_iter().map(|c| c.into_iter().collect()).collect();
    assert_eq!(found, [["a.rs", "b/inner.rs"]]);
}
