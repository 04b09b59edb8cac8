//! `docs/MODELS.md` names functions, methods and variants that there are.

use std::path::Path;

/// All sources of the library, and the header.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs" || e == "h") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// The words between backticks that are names of the API: `a_b`, `Type::name`, `Type`.
fn names(document: &str) -> Vec<&str> {
    let code = document.split('`').skip(1).step_by(2);
    let code = code.map(|word| word.split('(').next().unwrap_or(word));
    let is_name = |word: &&str| {
        word.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
            && (word.contains('_') || word.contains("::") || word.starts_with(|c: char| c.is_uppercase()))
    };
    code.filter(is_name).collect()
}

#[test]
fn the_calls_of_models_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    sources(&root.join("src"), &mut text);
    sources(&root.join("include"), &mut text);
    let document = std::fs::read_to_string(root.join("docs/MODELS.md")).unwrap();
    let names = names(&document);
    assert!(names.len() > 100, "only {} names were found", names.len());
    // Parameters of models, not of kvern, and the prefix of C.
    let others = ["W_k", "W_v", "dt_bias", "kvern_"];
    for name in names.into_iter().filter(|name| !others.contains(name)) {
        let last = name.rsplit("::").next().unwrap();
        let forms = [
            format!("fn {last}("),
            format!("fn {last}<"),
            format!("pub {last}:"),
            format!("    {last} = "),
            format!("pub struct {last}"),
            format!("pub enum {last}"),
        ];
        assert!(forms.iter().any(|form| text.contains(form)), "docs/MODELS.md: there is no {name}");
    }
}
