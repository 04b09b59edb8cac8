//! Numbers and claims of README.md, CHANGELOG.md and kvern.h, each held against the code that it speaks of.

use crate::clib;
use kvern::attention::{KvCache, KvCacheOptions, KvType};
use kvern::capi::status::kvern_last_error_message;
use kvern::quant::{PackedWeights, WeightFormat};
use kvern::{Context, ContextOptions, Isa, MatRef};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::path::Path;

const WORDS: [&str; 11] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A comment as one line, without its asterisks.
fn unwrapped(text: &str) -> String {
    text.lines().map(|line| line.trim().trim_start_matches('*').trim()).collect::<Vec<_>>().join(" ")
}

/// `(name, number, comment)` of each constant of the header that has a comment of its own.
fn constants() -> Vec<(String, i64, String)> {
    let header = read("include/kvern.h");
    let mut found = Vec::new();
    for part in header.split("/**").skip(1) {
        let Some((comment, code)) = part.split_once("*/") else { continue };
        let Some(define) = code.trim_start().strip_prefix("#define ") else { continue };
        let line = define.lines().next().unwrap_or_default();
        let Some((name, number)) = line.split_once(' ') else { continue };
        if let Ok(number) = number.trim_matches(['(', ')']).parse() {
            found.push((name.to_owned(), number, unwrapped(comment)));
        }
    }
    assert!(found.len() > 40, "only {} constants were found", found.len());
    found
}

/// The number before `unit` in a text.
fn number_before(text: &str, unit: &str) -> Option<f64> {
    text[..text.find(unit)?]
        .rsplit(|c: char| !(c.is_ascii_digit() || c == '.'))
        .find(|n| !n.is_empty())?
        .parse()
        .ok()
}

#[test]
fn the_header_states_the_size_of_each_weight_format() {
    let mut stated = BTreeSet::new();
    for (name, number, comment) in constants() {
        let Some(bits) = number_before(&comment, " bits a weight") else { continue };
        let format = WeightFormat::try_from(i32::try_from(number).unwrap()).unwrap();
        let own = name.rsplit_once("WEIGHTS_").or(name.rsplit_once("FORMAT_")).unwrap().1;
        assert_eq!(own.to_lowercase(), format.name());
        assert_eq!(bits, 8.0 * format.block_bytes() as f64 / format.block_len() as f64, "{name}: {comment}");
        let block = number_before(&comment.replace("blocks of ", "").replace(':', " block:"), " block:");
        if comment.contains("blocks of") {
            assert_eq!(block, Some(format.block_len() as f64), "{name}: {comment}");
        } else {
            assert_eq!(format.block_len(), 1, "{name}: {comment}");
        }
        stated.insert(number as i32);
    }
    assert_eq!(stated, WeightFormat::ALL.into_iter().map(|format| format as i32).collect());
}

#[test]
fn the_header_states_the_size_of_each_type_of_the_cache() {
    let mut stated = BTreeSet::new();
    for (name, number, comment) in constants() {
        let Some(bits) = number_before(&comment, " bits a number") else { continue };
        let kind = KvType::ALL.into_iter().find(|kind| *kind as i64 == number).unwrap();
        assert_eq!(name.rsplit_once("KV_").unwrap().1.to_lowercase(), kind.name());
        let scale = if kind.is_quantized() { 16.0 / 32.0 } else { 0.0 };
        assert_eq!(bits, kind.bits() as f64 + scale, "{name}: {comment}");
        stated.insert(kind.name());
    }
    assert_eq!(stated, KvType::ALL.map(KvType::name).into());
}

#[test]
fn documents_count_the_formats_rightly() {
    let formats = WeightFormat::ALL.len() as f64;
    for (file, unit) in [("CHANGELOG.md", " GGUF formats"), ("README.md", " formats** of GGUF")] {
        assert_eq!(number_before(&unwrapped(&read(file)), unit), Some(formats), "{file}");
    }
    let performance = unwrapped(&read("docs/PERFORMANCE.md"));
    assert_eq!(number_before(&performance, " formats of weights"), Some(formats));
    for file in ["README.md", "CHANGELOG.md", "include/kvern.h"] {
        let text = unwrapped(&read(file));
        for wrong in ["every GGUF", "all GGUF", "each GGUF"] {
            assert!(!text.contains(wrong), "{file} says `{wrong}`; GGUF has more than these {formats}");
        }
    }
}

#[test]
fn the_example_of_a_message_is_a_message() {
    let header = unwrapped(&read("include/kvern.h"));
    let example = "b_row_stride = 64 must be at least 128";
    assert!(header.contains(&format!("`{example}`")));
    let (mut ctx, mut ws) = (std::ptr::null_mut(), std::ptr::null_mut());
    let (a, b, mut c) = ([0.0f32; 4], [0.0f32; 512], [0.0f32; 128]);
    let none = std::ptr::null();
    // SAFETY: every pointer is live and of the size that a right stride would need.
    let message = unsafe {
        kvern::capi::context::kvern_context_create(none, &mut ctx);
        kvern::capi::workspace::kvern_workspace_create(std::ptr::null(), 0, &mut ws);
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        kvern::capi::matmul::kvern_matmul(ctx, ws, 1, 128, 4, a, 4, 0, b, 64, 0, c, 128, std::ptr::null());
        let message = CStr::from_ptr(kvern_last_error_message()).to_str().unwrap().to_owned();
        kvern::capi::workspace::kvern_workspace_destroy(ws);
        kvern::capi::context::kvern_context_destroy(ctx);
        message
    };
    assert_eq!(message, example);
}

#[test]
fn the_header_states_pages_threads_and_file_headers() {
    let header = unwrapped(&read("include/kvern.h"));
    let page = number_before(&header, " tokens in the pool").unwrap() as usize;
    let pages = |capacity| KvCache::new(KvCacheOptions::new(1, 8, capacity)).unwrap().pages();
    assert_eq!((pages(3 * page), pages(3 * page + 1)), (3, 4), "pages of {page} tokens");

    let most = header.split("1..=").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    let most: usize = most.parse().unwrap();
    let threads = |n| Context::new(&ContextOptions::default().threads(n)).is_ok();
    assert!(threads(most) && !threads(most + 1), "1..={most} threads");

    let bytes = number_before(&header, " bytes with a checksum").unwrap() as usize;
    let w = [0.5f32; 64];
    let w = PackedWeights::quantize(WeightFormat::Q8_0, MatRef::dense(&w, 2, 32).unwrap()).unwrap();
    let path = clib::scratch("claims").join("weights");
    w.save(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().len() as usize,
        bytes + w.bytes(),
        "a header of {bytes} bytes"
    );
}

/// Both the code and the sentence name the modules that may contain unsafe code.
#[test]
fn the_library_names_its_modules_with_unsafe_code() {
    let lib = read("src/lib.rs");
    assert!(lib.contains("#![deny(unsafe_code)]"));
    let mut allowed = BTreeSet::new();
    for part in lib.split("#[allow(unsafe_code)]\n").skip(1) {
        let line = part.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
        allowed.insert(line.trim_end_matches(';').rsplit(' ').next().unwrap().to_owned());
    }
    let text = lib.split("//! # Unsafe code\n").nth(1).unwrap().split("\n#!").next().unwrap();
    let text = text.replace("//!", " ");
    let named: BTreeSet<String> = text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(allowed.is_subset(&named), "{named:?} lacks some of {allowed:?}");
    assert!(
        text.contains(&format!("{} modules", WORDS[allowed.len()])),
        "{allowed:?} are not counted so: {text}"
    );
    // Modules inside others state it again for themselves; none of another name does.
    let mut stack = vec![root().join("src")];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let inside = path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
            let module = inside.split(['/', '\\', '.']).next().unwrap_or_default();
            if path.is_dir() {
                stack.push(path);
            } else if path.file_name().is_none_or(|name| name != "lib.rs") {
                let code = std::fs::read_to_string(&path).unwrap();
                let opens = code.contains("allow(unsafe_code") || code.contains("unsafe {");
                assert!(!opens || allowed.contains(module), "{inside} has unsafe code");
            }
        }
    }
}

#[test]
fn readme_lists_the_examples_the_tiers_and_the_limit_of_the_library() {
    let readme = read("README.md");
    let mut there = BTreeSet::new();
    for (folder, ends) in [("c", ".c"), ("cpp", ".cpp"), ("python", ".py")] {
        for entry in std::fs::read_dir(root().join("ffi-examples").join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(ends) {
                there.insert(format!("{folder}/{name}"));
            }
        }
    }
    for example in &there {
        assert!(readme.contains(example.as_str()), "README.md does not name ffi-examples/{example}");
    }
    let tiers = Isa::ALL.map(|isa| isa.to_string()).join("|");
    assert!(readme.contains(&tiers), "README.md does not list the tiers as {tiers}");
    for name in clib::BLAS_NAMES {
        assert!(readme.contains(&format!("`{name}`")), "README.md does not name {name}");
    }
    let mebibytes = number_before(&readme, " MiB, exports").unwrap();
    let limit = (mebibytes * f64::from(1 << 20)).to_string();
    assert!(read("packaging/check.sh").contains(&limit), "packaging/check.sh does not hold {mebibytes} MiB");
    let abi = format!("libkvern.so.{}", kvern::capi::version::kvern_abi_version());
    assert!(readme.contains(&format!("`{abi}`")) && read("include/kvern.h").contains(&abi), "{abi}");
}

/// Each command of kvern-perf that a document shows exists.
#[test]
fn documented_commands_exist() {
    let (perf, makefile) = (read("perf/src/main.rs"), read("Makefile"));
    let capitalised = |word: &str| format!("{}{}", word[..1].to_uppercase(), &word[1..]);
    let mut seen = 0;
    for file in ["README.md", "docs/PERFORMANCE.md", "RELEASING.md", "perf/README.md", "fuzz/README.md"] {
        let text = unwrapped(&read(file));
        for call in text.split("kvern-perf -- ").skip(1) {
            let words: Vec<&str> = call.split(|c: char| !c.is_ascii_lowercase()).collect();
            assert!(
                perf.contains(&format!("    {}", capitalised(words[0]))),
                "{file}: kvern-perf {}",
                words[0]
            );
            if words[0] == "speed" {
                assert!(
                    perf.contains(&format!("{}(speed::", capitalised(words[1]))),
                    "{file}: speed {}",
                    words[1]
                );
            }
            seen += 1;
        }
        for call in text.split("`make ").skip(1) {
            let target = call.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next().unwrap();
            assert!(makefile.contains(&format!("\n{target}:")), "{file}: make {target}");
            seen += 1;
        }
    }
    assert!(seen > 8, "{seen} commands");
}

#[test]
fn the_changelog_and_the_packages_state_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let newest = read("CHANGELOG.md").lines().find_map(|line| line.strip_prefix("## ").map(str::to_owned));
    assert_eq!(newest.as_deref(), Some(version));
    let minor = version.rsplit_once('.').unwrap().0.to_owned();
    assert!(read("README.md").contains(&format!("find_package(kvern {minor} ")));
}

#[test]
fn the_dependencies_and_the_oldest_rust_are_counted_and_named() {
    let manifest = read("Cargo.toml");
    let is_counted = |head: &str| {
        head == "[dependencies]" || head.starts_with("[target") && head.ends_with(".dependencies]")
    };
    let (mut counted, mut count) = (false, 0);
    for line in manifest.lines() {
        match line {
            head if head.starts_with('[') => counted = is_counted(head),
            line => count += usize::from(counted && line.starts_with(char::is_alphabetic)),
        }
    }
    let security = unwrapped(&read("SECURITY.md"));
    assert!(
        security.contains(&format!("The library has {} dependencies", WORDS[count])),
        "{count} dependencies"
    );
    let oldest = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(unwrapped(&read("README.md")).contains(&format!("Rust {oldest} or newer")), "Rust {oldest}");
}

/// The first sentence of a tier's comment lists what the tier needs: what `src/isa.rs` detects.
#[test]
fn the_header_names_the_extensions_that_each_tier_needs() {
    let isa = read("src/isa.rs");
    // The lists of the macro `with_features!`.
    let needed = |marker: &str| -> BTreeSet<String> {
        let list = isa.split(marker).nth(1).unwrap().split(['$', ']']).next().unwrap();
        let features = list.split_whitespace().map(|name| name.trim_matches('"'));
        features.map(|name| name.trim_start_matches("avx512").to_uppercase()).collect()
    };
    for (constant, number, marker) in [
        ("KVERN_ISA_AVX2", 2, "@to [\""),
        ("KVERN_ISA_AVX512", 3, "{ @avx2 [\"avx512"),
        ("KVERN_ISA_AVX_VNNI", 4, "(avx_vnni, $($call:tt)*) => { $crate::isa::with_features! { @avx2 ["),
    ] {
        let (_, value, comment) = constants().into_iter().find(|(name, ..)| name == constant).unwrap();
        assert_eq!(value, number);
        let first = comment.split(". ").next().unwrap().replace("AVX-512", "").replace("AVX-VNNI", "AVXVNNI");
        let words =
            first.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        let stated = words.filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()));
        let stated = stated.filter(|word| word.chars().any(|c| c.is_ascii_uppercase()));
        assert_eq!(
            stated.map(str::to_owned).collect::<BTreeSet<_>>(),
            needed(marker),
            "{constant}: {comment}"
        );
    }
}
