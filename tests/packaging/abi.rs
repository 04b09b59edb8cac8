//! The ABI that compiled callers rely on: the header, the layout of its structs, the symbols, the version.

use crate::clib;
use kvern::capi::attention::kvern_attention_options;
use kvern::capi::cache::kvern_kv_cache_options;
use kvern::capi::context::kvern_context_options;
use kvern::capi::experts::{kvern_expert, kvern_expert_options};
use kvern::capi::gguf::kvern_gguf_tensor;
use kvern::capi::gguf_keys::kvern_gguf_key;
use kvern::capi::matmul::kvern_epilogue;
use kvern::capi::norms::kvern_norm_options;
use kvern::capi::ops::kvern_softmax_options;
use kvern::capi::patches::kvern_patches;
use kvern::capi::prepare::kvern_preparation;
use kvern::capi::recurrent::kvern_state_options;
use kvern::capi::rope::kvern_rope_scaling;
use kvern::capi::router::kvern_router_options;
use kvern::capi::version::{kvern_abi_version, kvern_version_string};
use kvern::capi::weights::kvern_weights_product;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include/kvern.h")
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let generated = std::fs::read_to_string(env!("KVERN_HEADER")).unwrap();
    if std::env::var_os("KVERN_BLESS").is_some() {
        std::fs::write(committed(), &generated).unwrap();
    }
    let committed = std::fs::read_to_string(committed()).unwrap();
    if let Some((i, (a, b))) = committed.lines().zip(generated.lines()).enumerate().find(|(_, (a, b))| a != b)
    {
        panic!("line {}: committed `{a}`, generated `{b}`; KVERN_BLESS=1 rewrites it", i + 1);
    }
    assert_eq!(committed.len(), generated.len(), "one header goes on; KVERN_BLESS=1 rewrites it");
}

/// The header alone, twice, and every initialiser: a forgotten field is a warning, and so an error.
#[test]
fn the_header_compiles_alone_as_c99_and_as_cpp() {
    let text = "#include \"kvern.h\"\n#include \"kvern.h\"\n\
        extern kvern_context_options a; kvern_context_options a = KVERN_CONTEXT_OPTIONS_INIT;\n\
        extern kvern_epilogue b; kvern_epilogue b = KVERN_EPILOGUE_INIT;\n\
        extern kvern_kv_cache_options c; kvern_kv_cache_options c = KVERN_KV_CACHE_OPTIONS_INIT;\n\
        extern kvern_attention_options d; kvern_attention_options d = KVERN_ATTENTION_OPTIONS_INIT;\n\
        extern kvern_preparation e; kvern_preparation e = KVERN_PREPARATION_INIT;\n\
        extern kvern_rope_scaling f; kvern_rope_scaling f = KVERN_ROPE_SCALING_INIT;\n\
        extern kvern_softmax_options g; kvern_softmax_options g = KVERN_SOFTMAX_OPTIONS_INIT;\n\
        extern kvern_norm_options h; kvern_norm_options h = KVERN_NORM_OPTIONS_INIT;\n\
        extern kvern_router_options i; kvern_router_options i = KVERN_ROUTER_OPTIONS_INIT;\n\
        extern kvern_expert_options j; kvern_expert_options j = KVERN_EXPERT_OPTIONS_INIT;\n\
        extern kvern_state_options k; kvern_state_options k = KVERN_STATE_OPTIONS_INIT;\n\
        extern kvern_patches l; kvern_patches l = KVERN_PATCHES_INIT;\n";
    for (compiler, standard, name) in [
        ("cc", "c99", "alone.c"),
        ("cc", "c11", "alone11.c"),
        ("c++", "c++11", "alone.cpp"),
        ("c++", "c++17", "alone17.cpp"),
    ] {
        if clib::exists(compiler) {
            let source = clib::scratch("alone").join(name);
            std::fs::write(&source, text).unwrap();
            let mut command = clib::compiler(compiler, standard);
            clib::run(command.args(["-Wshadow", "-fsyntax-only"]).arg(&source));
        }
    }
}

fn layout() -> String {
    let mut text = String::new();
    macro_rules! layout {
        ($type:ident: $($field:ident),*) => {
            text += &format!("{} {}\n", stringify!($type), size_of::<$type>());
            $(text += &format!(
                "{}.{} {}\n", stringify!($type), stringify!($field), offset_of!($type, $field)
            );)*
        };
    }
    layout!(
        kvern_context_options: threads, isa_cap, max_threads, parallel_for, user, allocate, release, memory
    );
    layout!(kvern_epilogue: alpha, beta, bias, activation, flags);
    layout!(
        kvern_rope_scaling: original_positions, kind, flags, factor, beta_fast, beta_slow, attention_factor,
        low_frequency, high_frequency
    );
    layout!(
        kvern_kv_cache_options: kv_heads, head_dim, capacity, window, value_dim, sinks, keys, values,
        sequences, pages
    );
    layout!(kvern_preparation: q_gain, k_gain, q_eps, k_eps, rope, pairs, flags, positions);
    layout!(
        kvern_attention_options: heads, scale, non_causal, softcap, precision, window, sinks, alibi,
        sink_logits, mask, mask_row_stride, seen, seen_row_stride, tree, tree_row_stride, mask_per_head,
        seen_per_head, lse, lse_row_stride, sequences, sequences_len
    );
    layout!(kvern_weights_product: weights, up, c, c_row_stride, n, epilogue);
    layout!(kvern_softmax_options: scale, softcap, mask, mask_rows, mask_row_stride);
    layout!(
        kvern_norm_options: gain, bias, part_len, groups, gate, gate_row_stride, kind, eps, gate_activation,
        gate_first
    );
    layout!(
        kvern_router_options: bias, expert_scale, chosen, groups, kept_groups, score, group_score,
        renormalize, renormalize_eps, scale, flags
    );
    layout!(kvern_expert: gate, up, down, gate_bias, up_bias, down_bias);
    layout!(kvern_expert_options: compute, activation, oai_limit, oai_alpha, weigh_input, flags);
    layout!(kvern_state_options: heads, key_dim, value_dim, channels, taps, sequences);
    layout!(
        kvern_patches: images, height, width, channels, kernel_height, kernel_width, stride_y, stride_x,
        padding_y, padding_x
    );
    layout!(kvern_gguf_tensor: name, name_bytes, kind, dims, shape, data, data_bytes);
    layout!(kvern_gguf_key: key, key_bytes, kind, element, len);
    text
}

#[test]
fn c_sees_the_layout_and_the_version_of_the_library() {
    if clib::exists("cc") {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/layout.c");
        assert_eq!(clib::compile_and_run(&source, "layout"), layout());
    }
}

/// Compares with a committed text, which KVERN_BLESS=1 rewrites.
fn assert_fixture(name: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    if std::env::var_os("KVERN_BLESS").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    let (lines, now): (Vec<&str>, Vec<&str>) = (committed.lines().collect(), now.lines().collect());
    let gone: Vec<_> = lines.iter().filter(|line| !now.contains(line)).collect();
    let new: Vec<_> = now.iter().filter(|line| !lines.contains(line)).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "{name}: gone {gone:?}, new {new:?}; KVERN_BLESS=1 rewrites it"
    );
}

/// Sizes and offsets of ABI version 0: fields are only ever appended.
#[cfg(target_pointer_width = "64")]
#[test]
fn the_layout_of_this_abi_version_is_frozen() {
    assert_fixture("capi_layout.txt", &layout());
}

#[test]
fn the_version_is_the_packages() {
    // SAFETY: a static C string.
    let version = unsafe { CStr::from_ptr(kvern_version_string()) };
    assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    let header = std::fs::read_to_string(committed()).unwrap();
    assert!(header.contains(&format!("#define KVERN_ABI_VERSION {}\n", kvern_abi_version())));
}

/// Names that the header declares as functions.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(committed()).unwrap();
    let code =
        header.lines().filter(|line| !line.starts_with([' ', '/', '#']) && !line.starts_with("typedef"));
    let name = |line: &str| {
        let (before, _) = line.split_once('(')?;
        before.rsplit([' ', '*']).next().map(str::to_owned)
    };
    code.filter_map(name).collect()
}

/// Functions of ABI version 0: only ever more of them.
#[test]
fn the_functions_of_this_abi_version_are_listed() {
    let names: String = declared().iter().map(|name| format!("{name}\n")).collect();
    assert_fixture("symbols.txt", &names);
}

#[cfg(unix)]
#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    if !clib::exists("nm") {
        return;
    }
    let library = clib::shared_library();
    let flags: &[&str] = if cfg!(target_os = "macos") { &["-gU"] } else { &["-D", "--defined-only"] };
    let symbols = clib::run(Command::new("nm").args(flags).arg(&library));
    let mut exported: BTreeSet<String> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| if cfg!(target_os = "macos") { &name[1..] } else { name })
        .map(str::to_owned)
        .collect();
    for name in clib::BLAS_NAMES {
        assert!(exported.remove(name), "{name}");
    }
    assert!(exported.iter().all(|name| name.starts_with("kvern_")), "{exported:?}");
    assert_eq!(exported, declared());
}
