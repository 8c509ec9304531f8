//! The drawing in `src/lib.rs`, held as a test: imports go down only, and what belongs to one layer
//! (`unsafe`, clap, printing, leaving the process) is found nowhere else.
//!
//! It reads text, not syntax trees: comments and string literals are blanked out first, and what
//! follows a file's `#[cfg(test)]` is left to the test's own judgement.

mod circles;
mod source;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use source::{blank, imports, inner_imports, module_path, preceded_by_process, words};

/// Who may import whom, by top-level module. `main` is `src/main.rs`.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli", "engine", "runtime", "error", "sys"]),
    // Front ends know the engine and the values it speaks in: no mechanism, no state file, no syscall.
    ("cli", &["engine", "container", "image", "error", "layout"]),
    (
        "engine",
        &["container", "runtime", "cgroup", "net", "image", "storage", "settings", "error", "layout", "store", "sys"],
    ),
    ("container", &["net", "id", "error", "layout", "store", "sys"]),
    ("runtime", &["cgroup", "error", "layout", "store", "sys"]),
    ("cgroup", &["error", "layout", "store", "sys"]),
    ("net", &["error", "layout", "store", "sys"]),
    ("image", &["settings", "error", "layout", "store", "sys"]),
    ("storage", &["error", "layout", "store", "sys"]),
    ("settings", &["error", "sys"]),
    ("error", &["sys"]),
    ("layout", &["id", "error", "sys"]),
    ("store", &["error", "layout", "sys"]),
    ("id", &["sys"]),
    ("sys", &[]),
];

/// The order within a layer that has many modules: each imports from those before it, never from those after it.
/// What `mod.rs` re-exports is the layer's own and may be named by all.
const ORDER: &[(&str, &[&str])] =
    &[("image", &["oci", "tar", "layer", "store", "registry", "edit", "transfer", "archive", "derive"])];

/// Files that may mention tokio: the netlink façade, later the API and the cluster.
const TOKIO: &[&str] = &["src/net/link/mod.rs"];

/// Files past this many lines are split by role.
const MAX_LINES: usize = 500;

/// Names that say nothing about what is inside.
const DRAWERS: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc", "info"];

#[test]
fn sources_keep_to_the_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(&root.join("src"), &mut sources);
    assert!(sources.len() > 10, "only {} source files found below src/", sources.len());
    let mut report = String::new();
    for path in sources {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        for violation in violations(&name, &text) {
            let _ = writeln!(report, "{name}{violation}");
        }
    }
    assert!(report.is_empty(), "the layers of docs/architecture.md are broken:\n{report}");
}

#[test]
fn test_sources_are_split_by_role_too() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(&root.join("tests"), &mut sources);
    let mut report = String::new();
    for path in sources {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        for violation in shape(&name, &text) {
            let _ = writeln!(report, "{name}{violation}");
        }
    }
    assert!(report.is_empty(), "{report}");
}

fn collect(directory: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Everything wrong with one source file; each violation begins with `:line: ` or `: `.
fn violations(name: &str, text: &str) -> Vec<String> {
    let mut found = shape(name, text);
    let code = blank(text);
    let (product, _) = code.split_at(code.find("#[cfg(test)]\nmod ").unwrap_or(code.len()));
    let module = module_path(name);
    let top = module.first().map_or("main", String::as_str);

    if name != "src/lib.rs" && name != "src/build.rs" {
        for (line, target) in imports(product, &module) {
            let import = target.split("::").next().unwrap_or_default();
            let known = LAYERS.iter().any(|(layer, _)| *layer == import);
            let allowed =
                LAYERS.iter().find(|(layer, _)| *layer == top).is_some_and(|(_, below)| below.contains(&import));
            if known && import != top && !allowed {
                found.push(format!(":{line}: {top} must not import {target}"));
            }
        }
    }
    if let Some((_, order)) = ORDER.iter().find(|(layer, _)| *layer == top)
        && let Some(inner) = module.get(1).filter(|inner| *inner != "tests")
    {
        let rank = |name: &str| order.iter().position(|module| *module == name);
        let Some(own) = rank(inner) else {
            return [found, vec![format!(": {inner} has no place in the order of {top}")]].concat();
        };
        for (line, target) in inner_imports(product, &module) {
            if rank(target.split("::").next().unwrap_or_default()).is_some_and(|other| other > own) {
                found.push(format!(":{line}: {top}::{inner} must not import {top}::{target}"));
            }
        }
    }
    if !LAYERS.iter().any(|(layer, _)| *layer == top) && !matches!(name, "src/lib.rs" | "src/build.rs") {
        found.push(format!(": {top} has no row in the layer table"));
    }
    for (line, word, rest) in words(product) {
        let wrong = match word {
            "tokio" if rest.starts_with("::") => !TOKIO.contains(&name),
            "clap" if rest.starts_with("::") => top != "cli",
            "print" | "println" | "eprint" | "eprintln" if rest.starts_with('!') => {
                top != "cli" && name != "src/build.rs"
            }
            "exit" if rest.starts_with('(') => preceded_by_process(product, word) && name != "src/main.rs",
            _ => false,
        };
        if wrong {
            found.push(format!(":{line}: {word} does not belong here"));
        }
    }
    // `unsafe` in tests is no better than elsewhere, so the whole file is read.
    for (line, word, _) in words(&code) {
        if word == "unsafe" && top != "sys" {
            found.push(format!(":{line}: unsafe outside src/sys/"));
        }
    }
    found
}

/// Length and name, which hold for tests as well.
fn shape(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!(": {lines} lines: split it by role (at most {MAX_LINES})"));
    }
    for part in Path::new(name).with_extension("").iter().filter_map(|part| part.to_str()) {
        if DRAWERS.contains(&part) {
            found.push(format!(": a drawer named {part}: name it for what is inside"));
        }
    }
    found
}

// The instrument itself, held against samples that must and must not trip it.

#[track_caller]
fn trips(name: &str, text: &str, expected: &str) {
    let found = violations(name, text);
    assert!(found.iter().any(|violation| violation.contains(expected)), "{expected:?} not in {found:?}");
}

#[track_caller]
fn passes(name: &str, text: &str) {
    assert_eq!(violations(name, text), Vec::<String>::new());
}

#[test]
fn an_import_upwards_is_found_in_every_spelling() {
    trips("src/runtime/init.rs", "use crate::engine::Engine;", ":1: runtime must not import engine::Engine");
    trips("src/runtime/mod.rs", "use crate::{\n    cgroup::Mode,\n    image::{Image, Store},\n};", "image");
    trips("src/image/layer.rs", "fn f() { crate::storage::overlay::mount() }", "storage::overlay::mount");
    trips("src/container/handle.rs", "use super::super::engine::Engine;", "engine::Engine");
    trips("src/store.rs", "use super::container::Config;", "container::Config");
    trips("src/cli/run.rs", "use crate::sys::process;", "cli must not import sys::process");
    trips("src/sys/fd.rs", "use crate::error::Failure;", "sys must not import error");
    trips("src/main.rs", "fn main() { mydocker::storage::go() }", "main must not import storage::go");
    trips("src/layout.rs", "use crate::container::Config;", "layout must not import container::Config");
    trips("src/surprise.rs", "", "no row in the layer table");
}

#[test]
fn imports_downwards_and_within_a_layer_pass() {
    passes(
        "src/engine/create.rs",
        "use super::Engine;\nuse super::request::CreateRequest;\nuse crate::{image, sys::process};",
    );
    passes("src/runtime/init.rs", "use crate::cgroup::join;\nuse crate::runtime::plan::InitPlan;");
    passes("src/image/store/tags.rs", "use super::Store;\nuse crate::image::oci::digest::Digest;\nuse crate::store;");
    passes("src/image/derive.rs", "use super::{Store, layer::pack};");
    passes("src/layout.rs", "use crate::id::ContainerId;");
    passes("src/store.rs", "// crate::engine\n/* use crate::cli; */ const A: &str = \"crate::engine\";");
    passes("src/store.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::engine::Engine; }");
}

#[test]
fn imports_against_the_order_within_a_layer_are_found() {
    trips(
        "src/image/layer/unpack.rs",
        "use crate::image::store::layers::Wanted;",
        "image::layer must not import image::store",
    );
    trips("src/image/edit/mod.rs", "use super::derive::Step;", "image::edit must not import image::derive");
    trips(
        "src/image/edit/mod.rs",
        "use crate::image::{Store, derive::Step};",
        "image::edit must not import image::derive",
    );
    trips("src/image/drawer.rs", "", "drawer has no place in the order of image");
}

#[test]
fn what_belongs_to_one_place_is_found_elsewhere() {
    trips("src/engine/shim.rs", "\nunsafe { close(3) };", ":2: unsafe outside src/sys/");
    trips("src/engine/shim.rs", "#[cfg(test)]\nmod tests { unsafe fn f() {} }", "unsafe");
    trips("src/engine/mod.rs", "use clap::Parser;", "clap does not belong here");
    trips("src/engine/mod.rs", "tokio::spawn(f);", "tokio does not belong here");
    trips("src/runtime/mod.rs", "fn f() { eprintln!(\"x\") }", "eprintln does not belong here");
    trips("src/cli/mod.rs", "std::process::exit(1)", "exit does not belong here");
    trips("src/store.rs", &"\n".repeat(MAX_LINES + 1), "split it by role");
    trips("src/engine/utils.rs", "", "a drawer named utils");
    trips("src/common/mod.rs", "", "a drawer named common");
}

#[test]
fn words_in_literals_and_near_misses_pass() {
    passes("src/sys/mod.rs", "unsafe { f() }");
    passes("src/cli/mod.rs", "use clap::Parser;\nfn f() { println!(\"{}\", 'a') }");
    passes("src/main.rs", "fn main() { std::process::exit(0) }");
    passes("src/engine/mod.rs", "let s = r#\"unsafe \" println!\"#; let c = '\"'; let d = b'\\''; // unsafe\nexit(f);");
    passes("src/engine/mod.rs", "fn f<'a>(x: &'a str) -> &'a str { x } // println!(\n");
    passes("src/engine/mod.rs", "writeln!(out, \"println!\")?; let unsafe_code = 1;");
}
