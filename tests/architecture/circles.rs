//! No import circles: of two modules side by side, at whatever depth, at most one knows the other, be it by way of
//! others. So every module can be read, and explained, after those that it builds upon.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::source::{all_imports, blank, module_path};

/// Below one module: which of its modules imports which, and where.
type Graph = BTreeMap<(String, String), BTreeSet<String>>;

#[test]
fn modules_do_not_import_each_other_in_circles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    super::collect(&root.join("src"), &mut paths);
    let sources: Vec<_> = paths
        .iter()
        .map(|path| (path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    assert_eq!(circles(&sources), "");
}

/// What goes round in circles, a line for each import; nothing when nothing does.
fn circles(sources: &[(String, String)]) -> String {
    let known: BTreeSet<Vec<String>> = sources.iter().map(|(name, _)| module_path(name)).collect();
    let mut graphs: BTreeMap<Vec<String>, Graph> = BTreeMap::new();
    for (name, text) in sources.iter().filter(|(name, _)| !is_test(name)) {
        let code = blank(text);
        let product = &code[..code.find("#[cfg(test)]\nmod ").unwrap_or(code.len())];
        let module = module_path(name);
        for (line, target) in all_imports(product, &module) {
            let mut target: Vec<String> = target.split("::").map(str::to_owned).collect();
            while !known.contains(&target) {
                target.pop();
            }
            let shared = module.iter().zip(&target).take_while(|(own, other)| own == other).count();
            if let (Some(own), Some(other)) = (module.get(shared), target.get(shared)) {
                let places = graphs.entry(module[..shared].to_vec()).or_default();
                places.entry((own.clone(), other.clone())).or_default().insert(format!("{name}:{line}"));
            }
        }
    }
    let mut report = String::new();
    for (parent, mut graph) in graphs {
        // Whoever imports nobody, or is imported by nobody, is in no circle; nor, then, is who depends on it alone.
        loop {
            let ends: Vec<_> = graph
                .keys()
                .filter(|(from, to)| {
                    !graph.keys().any(|(next, _)| next == to) || !graph.keys().any(|(_, next)| next == from)
                })
                .cloned()
                .collect();
            if ends.is_empty() {
                break;
            }
            ends.iter().for_each(|end| drop(graph.remove(end)));
        }
        for ((from, to), places) in graph {
            let places = places.into_iter().collect::<Vec<_>>().join(", ");
            let _ = writeln!(report, "in {}: {from} -> {to} ({places})", parent.join("::"));
        }
    }
    report
}

fn is_test(name: &str) -> bool {
    name.split(['/', '.']).any(|part| part == "tests" || part.ends_with("_tests"))
}

#[test]
fn circles_are_found_in_every_spelling() {
    let sources = |texts: &[(&str, &str)]| -> Vec<(String, String)> {
        texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    };
    let inner =
        [("src/lib.rs", ""), ("src/a/mod.rs", "mod b; use b::X;"), ("src/a/b.rs", "use super::c::d::{self, D};")];
    let deep = [("src/a/c/mod.rs", ""), ("src/a/c/d.rs", "fn f() { crate::a::{b, Y}; super::super::Z }")];
    assert_eq!(
        circles(&sources(&[inner, [("src/e.rs", ""); 3]].concat())),
        "",
        "a parent and its children are no circle"
    );
    let found = circles(&sources(&[&inner[..], &deep].concat()));
    assert_eq!(found, "in a: b -> c (src/a/b.rs:1)\nin a: c -> b (src/a/c/d.rs:1)\n");
    let long = [("src/lib.rs", ""), ("src/x.rs", "use crate::y::Y;"), ("src/y.rs", "use super::{z, w};")];
    let back =
        [("src/z.rs", "use crate::x;"), ("src/w.rs", "// use crate::y;\n#[cfg(test)]\nmod tests { use crate::y; }")];
    let found = circles(&sources(&[&long[..], &back].concat()));
    assert_eq!(found.lines().count(), 3, "{found}");
    assert!(!found.contains('w'), "{found}");
}
