//! Circles of imports between the modules of one crate.
//!
//! In every folder of `src`, the modules that lie side by side (files and folders) are the nodes of a graph. An edge runs
//! from one to another when a file of the first names a path into the second, in a `use` or in code; a name that is
//! re-exported on the way is followed to the module it comes from. Imports between a folder and its own `mod.rs` are no
//! edges: a parent may hand out what its children share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::Result;

use super::imports::{self, Imports};

/// Most re-exports that are followed for one name; more would be a name that leads back to itself.
const MOST_STEPS: usize = 32;

/// The place of a module below the crate's root, which is the empty path.
type Module = Vec<String>;

/// From one module of a folder to another: the file and the path in it that say so.
type Edges = BTreeMap<String, BTreeMap<String, String>>;

/// Every circle of imports below a `src` folder, as `a -> b -> a` with what makes it one.
pub fn find(src: &Path) -> Result<Vec<String>> {
    let modules = read(src)?;
    let mut found = Vec::new();
    for (folder, edges) in graph(&modules) {
        for circle in circles(&edges) {
            let steps = circle.windows(2).map(|pair| edges[&pair[0]][&pair[1]].clone());
            let inside = if folder.is_empty() { String::new() } else { format!(" in {}", folder.join("/")) };
            let steps = steps.collect::<Vec<_>>().join("; ");
            found.push(format!("circle of imports{inside}: {} ({steps})", circle.join(" -> ")));
        }
    }
    Ok(found)
}

/// All modules of files below `src` but those of tests.
fn read(src: &Path) -> Result<BTreeMap<Module, Imports>> {
    let mut files = Vec::new();
    super::collect(src, &mut files)?;
    let mut modules = BTreeMap::new();
    let has_library = src.join("lib.rs").exists();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let below = path.strip_prefix(src)?.with_extension("");
        let mut module: Module = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        match module.join("/").as_str() {
            // The program beside a library is a crate of its own.
            "main" if has_library => continue,
            "lib" | "main" => module.clear(),
            _ if module.last().is_some_and(|last| last == "mod") => drop(module.pop()),
            _ => {}
        }
        modules.insert(module, imports::read(&std::fs::read_to_string(path)?));
    }
    let tests: Vec<Module> = modules
        .iter()
        .flat_map(|(module, imports)| imports.test_modules.iter().map(|name| child(module, name)))
        .collect();
    modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    Ok(modules)
}

fn child(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

/// The graph of every folder.
fn graph(modules: &BTreeMap<Module, Imports>) -> BTreeMap<Module, Edges> {
    let mut folders: BTreeMap<Module, Edges> = BTreeMap::new();
    for (from, imports) in modules {
        let uses = imports.uses.iter().map(|leaf| (&leaf.inside, &leaf.path));
        let mentions = imports.mentions.iter().map(|(inside, path)| (inside, path));
        for (inside, path) in uses.chain(mentions) {
            for to in through(modules, &[&from[..], inside].concat(), path, MOST_STEPS) {
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) {
                    folders
                        .entry(from[..shared].to_vec())
                        .or_default()
                        .entry(a.clone())
                        .or_default()
                        .entry(b.clone())
                        .or_insert_with(|| format!("{} has {}", from.join("/"), path.join("::")));
                }
            }
        }
    }
    folders
}

/// The modules that a path leads through, seen from a module (which may be inline); the last one defines what it names.
/// None for a path into another crate.
fn through(
    modules: &BTreeMap<Module, Imports>,
    from: &[String],
    path: &[String],
    steps: usize,
) -> Vec<Module> {
    let mut here = from.to_vec();
    let mut parts = path;
    if path[0] == "crate" {
        here.clear();
        parts = &path[1..];
    }
    while let [first @ ("self" | "super"), ..] = parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        if first == "super" {
            here.pop();
        }
        parts = &parts[1..];
    }
    let mut visited = Vec::new();
    if parts.len() < path.len() {
        visited.push(file_of(modules, &here));
    }
    for name in parts {
        let file = file_of(modules, &here);
        let next = child(&here, name);
        if modules.contains_key(&next) {
            visited.push(next.clone());
            here = next;
            continue;
        }
        let Some(steps) = steps.checked_sub(1) else { break };
        let led = reexported(modules, &file, name, path, steps);
        let Some(last) = led.last() else { break };
        here = last.clone();
        visited.extend(led);
    }
    visited
}

/// Where a name that a module imports comes from; empty where it imports no such name.
fn reexported(
    modules: &BTreeMap<Module, Imports>,
    module: &Module,
    name: &str,
    asked: &[String],
    steps: usize,
) -> Vec<Module> {
    let uses = &modules[module].uses;
    let follow = |leaf: &imports::Use, path: &[String]| {
        through(modules, &[&module[..], &leaf.inside[..]].concat(), path, steps)
    };
    // A `use` is not its own source: `use b::b` beside no module `b` is of another crate.
    if let Some(leaf) = uses.iter().find(|leaf| leaf.name == name && leaf.path != asked) {
        return follow(leaf, &leaf.path);
    }
    uses.iter()
        .filter(|leaf| leaf.name == "*")
        .map(|leaf| follow(leaf, &leaf.path[..leaf.path.len() - 1]))
        .find(|led| {
            let offers = |module: &Module| {
                let Imports { uses, items, .. } = &modules[module];
                items.iter().any(|item| item == name) || uses.iter().any(|leaf| leaf.name == name)
            };
            led.last().is_some_and(|last| last != module && offers(last))
        })
        .unwrap_or_default()
}

/// The module of a file that an inline module lies in.
fn file_of(modules: &BTreeMap<Module, Imports>, module: &[String]) -> Module {
    let prefixes = (0..=module.len()).rev().map(|length| module[..length].to_vec());
    prefixes.into_iter().find(|prefix| modules.contains_key(prefix)).unwrap_or_default()
}

/// The shortest circle through every node that lies on one, each once and from its first node in alphabetical order.
fn circles(edges: &Edges) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for start in edges.keys() {
        let mut before: BTreeMap<&String, &String> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front()
            && !before.contains_key(start)
        {
            for next in edges.get(node).into_iter().flat_map(BTreeMap::keys) {
                if !before.contains_key(next) {
                    before.insert(next, node);
                    queue.push_back(next);
                }
            }
        }
        if !before.contains_key(start) {
            continue;
        }
        let mut circle = vec![before[start]];
        while *circle.last().expect("is not empty") != start {
            circle.push(before[circle[circle.len() - 1]]);
        }
        circle.reverse();
        let first = (0..circle.len()).min_by_key(|&at| circle[at]).expect("is not empty");
        circle.rotate_left(first);
        circle.push(circle[0]);
        found.insert(circle.into_iter().cloned().collect());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a crate with these files, without what makes them circles.
    fn of(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let short = |circle: String| circle.split(" (").next().unwrap().to_owned();
        find(folder.path()).unwrap().into_iter().map(short).collect()
    }

    #[test]
    fn a_planted_circle_is_found() {
        let lib = ("lib.rs", "mod a; mod b; mod c; pub use b::B;");
        let plain = [lib, ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::a::{\n    x, A,\n};")];
        assert_eq!(of(&plain), ["circle of imports: a -> b -> a"]);
        let of_three = [
            lib,
            ("a.rs", "use super::b;"),
            ("b.rs", "use super::c::C;"),
            ("c.rs", "fn f() { crate::a::g() }"),
        ];
        assert_eq!(of(&of_three), ["circle of imports: a -> b -> c -> a"]);
        let through_the_root = [lib, ("a.rs", "use crate::B;"), ("b.rs", "use crate::a::A;")];
        assert_eq!(of(&through_the_root), ["circle of imports: a -> b -> a"]);
        let through_all_names = [
            ("lib.rs", "mod a; mod b; pub use b::*;"),
            ("a.rs", "use crate::B;"),
            ("b.rs", "pub struct B(crate::a::A);"),
        ];
        assert_eq!(of(&through_all_names), ["circle of imports: a -> b -> a"]);
    }

    #[test]
    fn a_circle_is_found_at_every_level() {
        let between_folders = [
            ("lib.rs", "mod model; mod kernels;"),
            ("model/mod.rs", "mod layer; mod batch;"),
            ("model/layer.rs", "use crate::kernels::gemm;"),
            ("model/batch.rs", "pub struct Batch;"),
            ("kernels/mod.rs", "mod gemm; mod thin; pub use gemm::gemm;"),
            ("kernels/gemm.rs", "pub fn gemm() {}"),
            ("kernels/thin.rs", "use crate::model::batch::Batch;"),
        ];
        assert_eq!(of(&between_folders), ["circle of imports: kernels -> model -> kernels"]);
        let inside_a_folder = [
            ("lib.rs", "mod model;"),
            ("model/mod.rs", "mod layer; mod batch;"),
            ("model/layer.rs", "use super::batch::Batch;"),
            ("model/batch.rs", "use crate::model::layer::Layer;"),
        ];
        assert_eq!(of(&inside_a_folder), ["circle of imports in model: batch -> layer -> batch"]);
    }

    #[test]
    fn imports_in_one_direction_parents_and_tests_are_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; pub mod c; pub use b::B; pub struct Shared;"),
            ("a.rs", "use crate::b::B; use crate::Shared; use a::other_crate;"),
            (
                "b.rs",
                "pub struct B; // crate::a::A\n#[cfg(test)]\nmod tests { use crate::a::A; }\n#[cfg(test)]\nmod cases;",
            ),
            ("b/cases.rs", "use crate::a::A;"),
            ("c/mod.rs", "mod d; mod e; pub use d::D; use crate::b::B; pub struct C; fn f() { e::g() }"),
            ("c/d.rs", "use super::C; use super::e::g;"),
            ("c/e.rs", "use super::{B, C};"),
            ("main.rs", "fn main() {}"),
        ];
        assert_eq!(of(&files), [""; 0]);
    }

    #[test]
    fn names_that_lead_to_themselves_end() {
        let files = [("lib.rs", "mod a; pub use a::X;"), ("a.rs", "pub use crate::X; use serde::serde;")];
        assert_eq!(of(&files), [""; 0]);
    }
}
