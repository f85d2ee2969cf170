//! The rules of the source tree: layers, file and function sizes, and words that must not appear in code.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the tree has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer; a module imports itself and lower layers.
const LAYERS: &[(&str, u8)] = &[
    ("base", 0),
    ("store", 1),
    ("queue", 2),
    ("function", 2),
    ("run", 3),
    ("schedule", 4),
    ("work", 4),
    ("api", 5),
    ("config", 6),
    ("daemon", 7),
    ("cli", 8),
];
/// Crates that only one module may import.
const OWNED_CRATES: &[(&str, &str)] =
    &[("redb", "store"), ("apalis_cron", "schedule"), ("apalis", "work"), ("apalis_core", "work")];
/// Where the project's own code stands: the product, the demo's servers, the benchmarks.
const CODE: &[&str] = &["src", "demo/src", "bench/src"];
/// A file has at most this many lines.
const FILE_LINES_MAX: usize = 700;
/// A function has at most this many lines.
const FUNCTION_LINES_MAX: usize = 70;
/// The median function has at most this many lines.
const FUNCTION_LINES_MEDIAN_MAX: usize = 10;

fn sources(under: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(under);
    let mut found = Vec::new();
    let mut waiting = vec![root];
    while let Some(path) = waiting.pop() {
        if path.ends_with("target") {
            // What a package of its own was compiled to.
            continue;
        }
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "no source files under {under}");
    found
}

fn code() -> impl Iterator<Item = PathBuf> {
    CODE.iter().flat_map(|under| sources(under))
}

fn module(path: &Path) -> Option<&'static str> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?.trim_end_matches(".rs").to_owned();
    LAYERS.iter().map(|(name, _)| *name).find(|name| *name == first)
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The names that code has directly after `prefix`, also in grouped imports such as `use crate::{queue, store};`.
fn named_after(prefix: &str, text: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = &text[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_i32;
            let mut word = String::new();
            let mut words = Vec::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => words.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            words.push(word);
            named.extend(words.iter().map(|word| word.trim().split("::").next().unwrap_or_default().to_owned()));
        } else {
            named.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    named
}

fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

/// Where a snapshot is read on the caller's own thread: at the start, or a few rows. `Store::read` is for all else.
const SNAPSHOTS: &[(&str, usize)] = &[
    ("api/control/answer.rs", 1),
    ("daemon/serve.rs", 1),
    ("queue/poll.rs", 1),
    ("queue/queues.rs", 5),
    ("run/effects/mod.rs", 2),
    ("schedule/fan_out.rs", 1),
    ("schedule/fan_out/fetch.rs", 1),
    ("schedule/fan_out/malformed.rs", 1),
    ("work/pool.rs", 1),
];

#[test]
fn what_may_read_many_rows_reads_beside_the_runtime() {
    let mut found: Vec<(String, usize)> = Vec::new();
    for path in sources("src").into_iter().filter(|path| module(path) != Some("store")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let count = code.matches(".snapshot()").count();
        if count > 0 {
            let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
            found.push((inside.display().to_string(), count));
        }
    }
    found.sort();
    let expected: Vec<_> = SNAPSHOTS.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect();
    assert_eq!(found, expected, "a new read: use `Store::read`, or name here the few rows that it reads");
}

#[test]
fn a_module_imports_itself_and_lower_layers_only() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        let Some(own) = module(&path) else { continue };
        for named in named_after("crate::", &code_of(&path)) {
            let (Some(theirs), Some(ours)) = (layer(&named), layer(own)) else { continue };
            if named != own && theirs >= ours {
                wrong.push(format!("{}: {own} (layer {ours}) names {named} (layer {theirs})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a file can reach itself over the imports of the files beside it.
fn is_in_a_circle(file: &str, imports: &BTreeMap<String, BTreeSet<String>>) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(from) = next.pop() {
        for to in imports.get(from).into_iter().flatten() {
            if to == file {
                return true;
            }
            if seen.insert(to) {
                next.push(to);
            }
        }
    }
    false
}

/// The names that a module re-exports from its files, each with its file: `pub use send::{Send, Sent};`.
fn re_exports(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (at, import) in text.match_indices("pub use ") {
        let path = text[at + import.len()..].split(';').next().unwrap_or_default();
        let Some((file, names)) = path.trim_start_matches("self::").split_once("::") else { continue };
        let names = names.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty());
        found.extend(names.map(|name| (name.to_owned(), file.to_owned())));
    }
    found
}

/// What the module of this directory re-exports; it stands in `mod.rs` or beside the directory.
fn re_exports_of(directory: &Path) -> BTreeMap<String, String> {
    let module = [directory.join("mod.rs"), directory.with_extension("rs")].into_iter().find(|path| path.exists());
    module.map(|path| re_exports(&code_of(&path))).unwrap_or_default()
}

#[test]
fn a_re_exported_name_leads_to_its_file() {
    let found = re_exports("pub use send::{Send, Sent};\npub use self::error::Error;\nuse other::Thing;");
    let found: Vec<_> = found.iter().map(|(name, file)| (name.as_str(), file.as_str())).collect();
    assert_eq!(found, [("Error", "error"), ("Send", "send"), ("Sent", "send")]);
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories: BTreeMap<PathBuf, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for path in code() {
        let text = code_of(&path);
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().replace("super::super::", "");
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let directory = path.parent().unwrap();
        let beside = directories.entry(directory.strip_prefix(root).unwrap().to_owned()).or_default();
        let re_exported = re_exports_of(directory);
        let file_of = |named: String| re_exported.get(&named).cloned().unwrap_or(named);
        // A name of its own is an item of the parent module.
        let others = named_after("super::", &text).into_iter().map(file_of).filter(|other| *other != name);
        beside.insert(name.clone(), others.collect());
    }
    let mut wrong = Vec::new();
    for (directory, imports) in directories {
        let circle: Vec<&String> = imports.keys().filter(|file| is_in_a_circle(file, &imports)).collect();
        if !circle.is_empty() {
            wrong.push(format!("{}: {circle:?}", directory.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_product_stands_in_layers_and_the_demo_does_not_know_it() {
    for path in sources("src") {
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        assert!(is_root || module(&path).is_some(), "{}: belongs to no module of LAYERS", path.display());
    }
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/Cargo.toml")).unwrap();
    let depends = manifest.lines().find(|line| line.starts_with("nightmail"));
    assert_eq!(depends, None, "the demo is the tests' independent oracle");
}

#[test]
fn grouped_imports_are_read_as_single_ones_are() {
    assert_eq!(named_after("crate::", "use crate::{queue, store::{self, Tx}, run};"), ["queue", "store", "run"]);
    assert_eq!(named_after("crate::", "crate::base::Clock"), ["base"]);
}

#[test]
fn a_crate_with_an_owner_is_named_by_its_owner_alone() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        let code = code_of(&path);
        for (name, owner) in OWNED_CRATES {
            let is_named = code.contains(&format!("{name}::"));
            if is_named && module(&path) != Some(owner) {
                wrong.push(format!("{}: {name} belongs to the module {owner}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_introduced_and_not_too_long() {
    let mut wrong = Vec::new();
    for path in code().chain(sources("tests")) {
        let text = fs::read_to_string(&path).unwrap();
        if !text.starts_with("//!") {
            wrong.push(format!("{}: must open with //! what it owns", path.display()));
        }
        if text.lines().count() > FILE_LINES_MAX {
            wrong.push(format!("{}: {} lines, at most {FILE_LINES_MAX}", path.display(), text.lines().count()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lengths of the functions of a file that is formatted by rustfmt: from `fn` to the brace at its indentation.
fn function_lengths(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn ", "pub const fn "]
            .iter()
            .any(|head| trimmed.starts_with(head))
            || (trimmed.starts_with("pub(") && trimmed.contains(" fn "));
        if !is_function || trimmed.ends_with(';') {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let closing = format!("{}}}", " ".repeat(indent));
        let length = if trimmed.ends_with('}') {
            1
        } else {
            lines[start..].iter().position(|line| *line == closing).map_or(1, |offset| offset + 1)
        };
        found.push((trimmed.to_owned(), length));
    }
    found
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    let mut lengths = Vec::new();
    for path in sources("src").into_iter().chain(sources("demo/src")) {
        for (name, length) in function_lengths(&fs::read_to_string(&path).unwrap()) {
            lengths.push(length);
            if length > FUNCTION_LINES_MAX {
                wrong.push(format!("{}: {length} lines, at most {FUNCTION_LINES_MAX}: {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median <= FUNCTION_LINES_MEDIAN_MAX, "the median function has {median} lines");
}

/// Words that DESIGN bans from names: each has a better one. `Event` is EventBridge's own word.
const WORDS_NOT_USED: &[&str] =
    &["Job", "job", "Event", "EventKind", "EventRecord", "Manager", "manager", "Helper", "helper"];
/// Words that were used once for what the field names otherwise; see the glossary in ARCHITECTURE.md.
const PRIVATE_WORDS: &[&str] = &[
    "Door",
    "Witness",
    "witness",
    "News",
    "news",
    "Ran",
    "bury",
    "buries",
    "buried",
    "Tally",
    "tally",
    "hear",
    "hears",
    "hurry",
    "company",
    "COMPANY_WAIT",
    "Press",
    "upkeep",
    "rooms",
    "floors",
    "Catch",
    "key_list",
    "dice",
];

/// A name, and the words that it is made of.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    std::iter::once(name).chain(name.split('_'))
}

#[test]
fn names_use_the_projects_words() {
    let mut wrong = Vec::new();
    // What a test's name says is read most often of all.
    for path in code().chain(sources("tests/it")) {
        let code = code_of(&path);
        let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').flat_map(parts).collect();
        for word in WORDS_NOT_USED.iter().chain(PRIVATE_WORDS).filter(|word| words.contains(word)) {
            wrong.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_half_done_work_is_left_in_the_tree() {
    let words = [
        "todo!(",
        "unimplemented!(",
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("#[", "ignore"),
        concat!("#[", "allow("),
    ];
    let mut wrong = Vec::new();
    for path in code() {
        let text = fs::read_to_string(&path).unwrap();
        for word in words.iter().filter(|word| text.contains(**word)) {
            wrong.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
