//! No result depends on the system's C library: it has no function of it that is not exact.

use std::fs;
use std::path::{Path, PathBuf};

/// Methods of f32 and f64 that call the C library or say in their documentation that their precision varies.
/// `sqrt`, `floor` and their kind are exact by IEEE and stay allowed; the crate `libm` is the same
/// everywhere.
const FORBIDDEN: [&str; 30] = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "cos",
    "cosh",
    "exp",
    "exp2",
    "exp_m1",
    "gamma",
    "hypot",
    "ln",
    "ln_1p",
    "log",
    "log10",
    "log2",
    "mul_add",
    "powf",
    "powi",
    "rem_euclid",
    "sin",
    "sin_cos",
    "sinh",
    "tan",
    "tanh",
    "div_euclid",
];

/// Files of which no result depends: bounds and oracles of tests, and `mul_add` where it is one instruction.
fn allowed(file: &str, name: &str) -> bool {
    match name {
        "mul_add" => matches!(file, "fma.rs" | "kernels/simd.rs"),
        _ => file.ends_with("reference.rs"),
    }
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Calls of forbidden functions in a text: method calls and paths (`f32::exp`), but not `libm::exp`.
fn calls(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for name in FORBIDDEN {
            for (at, _) in code.match_indices(name) {
                let (before, after) = (&code[..at], &code[at + name.len()..]);
                let method = before.ends_with('.') && (after.starts_with('(') || after.starts_with("::"));
                let path = before.ends_with("f32::") || before.ends_with("f64::");
                let whole = !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
                if whole && (method || path) {
                    found.push((number + 1, name));
                }
            }
        }
    }
    found
}

#[test]
fn sources_call_no_function_of_the_c_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 80, "only {} sources", files.len());
    let mut bad = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        let calls = calls(text).into_iter().filter(|(_, name)| !allowed(&file, name));
        bad.extend(calls.map(|(line, name)| format!("src/{file}:{line}: {name}")));
    }
    assert!(bad.is_empty(), "use `libm` or `crate::fma`:\n{}", bad.join("\n"));
}

#[test]
fn the_search_sees_calls() {
    let text = "let y = x.exp();\nlet z = f32::powf(x, 2.0); // x.sin()\nlet w = libm::exp(x).exp2();\n\
        x.map(f64::ln)\nx.cosine()";
    assert_eq!(calls(text), [(1, "exp"), (2, "powf"), (3, "exp2"), (4, "ln")]);
    assert!(calls("a.sqrt() + a.cos_table(1) + libm::sin(x) + x.logs()").is_empty());
}
