//! With the feature `capi`: the C header (into OUT_DIR, never into the source tree) and the SONAME.

fn main() {
    #[cfg(feature = "capi")]
    capi::build();
    println!("cargo::rerun-if-changed=build.rs");
}

#[cfg(feature = "capi")]
mod capi {
    use cbindgen::{Builder, Config};
    use std::env::var;
    use std::fmt::Write;
    use std::path::Path;

    /// Grows by one with every change that breaks a compiled caller.
    const ABI_VERSION: u32 = 0;

    /// The sections of the header: title, files in `src/capi`. A section uses names of earlier ones only.
    const SECTIONS: [(&str, &[&str]); 24] = [
        ("Version", &["version"]),
        ("Status", &["status"]),
        ("Context", &["context", "isa", "threads", "memory"]),
        ("Workspace", &["workspace"]),
        ("Matrix products", &["matmul"]),
        ("Packed matrices", &["packed_b", "patches", "dtype"]),
        ("Quantised weights", &["quant"]),
        ("Quantised weights: files, shared activations", &["weights"]),
        ("Quantised weights: activations quantised once", &["quantized_rows"]),
        ("Quantised weights: codes in groups, GPTQ, AWQ; floats of 8 bits", &["import", "float8"]),
        ("GGUF files", &["gguf", "gguf_keys"]),
        ("Rotary position embedding", &["rope", "rope_axes"]),
        ("Key-value cache", &["cache"]),
        ("Key-value cache: preparation and append", &["prepare"]),
        ("Key-value cache: editing", &["cache_edit"]),
        ("Attention", &["attention", "ragged"]),
        ("Element-wise operations", &["elementwise"]),
        ("Row operations", &["ops"]),
        ("Row operations: norms with options", &["norms"]),
        ("Operations over tokens: pooling, sums, convolution", &["tokens"]),
        ("The greatest elements, and the router of experts", &["router"]),
        ("Experts", &["experts"]),
        ("Heads with weights of their own", &["heads"]),
        ("Recurrent states", &["recurrent"]),
    ];

    pub fn build() {
        let root = var("CARGO_MANIFEST_DIR").unwrap();
        let include = Path::new(&var("OUT_DIR").unwrap()).join("include");
        let file = include.join("kvern.h");
        std::fs::create_dir_all(&include).unwrap();
        std::fs::write(&file, header(Path::new(&root))).unwrap();

        println!("cargo::rerun-if-changed=cbindgen.toml");
        println!("cargo::rerun-if-changed=src/capi");
        println!("cargo::rustc-env=KVERN_ABI_VERSION={ABI_VERSION}");
        println!("cargo::rustc-env=KVERN_HEADER={}", file.display());
        let set = |name| std::env::var_os(format!("CARGO_CFG_{name}"));
        if set("TARGET_VENDOR").is_some_and(|vendor| vendor == "apple") {
            let name = format!("@rpath/libkvern.{ABI_VERSION}.dylib");
            println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,{name}");
        } else if set("UNIX").is_some() {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libkvern.so.{ABI_VERSION}");
        }
    }

    /// The whole header. One run of cbindgen for each section, because a single run sorts all constants
    /// before all types before all functions; each run parses the section's files and asks cargo for nothing.
    fn header(root: &Path) -> String {
        let mut config = Config::from_file(root.join("cbindgen.toml")).unwrap();
        let mut text = config.header.take().unwrap();
        let trailer = config.trailer.take().unwrap();
        for (title, files) in SECTIONS {
            write!(text, "\n\n/* {:-<96} */\n", format!("---- {title} ")).unwrap();
            if title == "Version" {
                text.push_str(&version_macros());
            }
            let path = |file: &&str| root.join("src/capi").join(file).with_extension("rs");
            let builder = Builder::new().with_config(config.clone());
            let mut section = Vec::new();
            files.iter().map(path).fold(builder, Builder::with_src).generate().unwrap().write(&mut section);
            text.push('\n');
            text.push_str(&in_parentheses(String::from_utf8(section).unwrap().trim()));
        }
        text + "\n\n" + trailer.trim_start()
    }

    /// The section with parentheses around negative numbers of macros: `x -KVERN_STATUS_IO` would be
    /// `x --15`.
    fn in_parentheses(section: &str) -> String {
        let line = |line: &str| match line.rsplit_once(' ') {
            Some((name, number)) if name.starts_with("#define ") && number.starts_with('-') => {
                format!("{name} ({number})\n")
            }
            _ => format!("{line}\n"),
        };
        section.lines().map(line).collect::<String>().trim_end().to_owned()
    }

    /// From Cargo.toml, so that they are typed once.
    fn version_macros() -> String {
        let mut text = String::from("\n/** The version of this header. */\n");
        for part in ["MAJOR", "MINOR", "PATCH"] {
            let number = var(format!("CARGO_PKG_VERSION_{part}")).unwrap();
            writeln!(text, "#define KVERN_VERSION_{part} {number}").unwrap();
        }
        let version = var("CARGO_PKG_VERSION").unwrap();
        writeln!(text, "#define KVERN_VERSION_STRING \"{version}\"").unwrap();
        text.push_str("/** Grows with every change that breaks a compiled caller. */\n");
        writeln!(text, "#define KVERN_ABI_VERSION {ABI_VERSION}").unwrap();
        text
    }
}
