//! The modules of a crate, which of them uses which, and the circles among them.

use std::collections::{BTreeMap, BTreeSet};

use super::{TextFile, rust::Source};

/// The modules of one crate: for each module, the modules that its code names.
///
/// A path counts wherever it stands in code, not only in `use`. `pub use` of a module's own children is a façade and
/// does not count, and neither do tests.
#[must_use]
pub fn graph(files: &[TextFile], crate_directory: &str) -> BTreeMap<String, BTreeSet<String>> {
    let source = format!("{crate_directory}/src/");
    let modules: BTreeMap<String, String> = files
        .iter()
        .filter(|file| file.extension() == "rs")
        .filter_map(|file| {
            let path = file.path.strip_prefix(&source)?.strip_suffix(".rs")?;
            let is_test = path
                .rsplit('/')
                .next()
                .is_some_and(|name| name == "tests" || name.ends_with("_tests"));
            (!path.starts_with("bin/") && !is_test).then(|| (name(path), Source::new(&file.text).code_without_tests()))
        })
        .collect();
    modules
        .iter()
        .map(|(module, code)| {
            let mut used: BTreeSet<String> = paths(code, module)
                .iter()
                .filter_map(|path| longest_module(path, &modules))
                .collect();
            used.remove(module);
            (module.clone(), used)
        })
        .collect()
}

/// Returns the circles: groups of modules in which each reaches each.
#[must_use]
pub fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|module| (module, reached(graph, module))).collect();
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for (module, all) in &reach {
        if all.contains(module) {
            let group = all.iter().filter(|other| reach[**other].contains(module));
            circles.insert(group.map(|other| (**other).clone()).collect());
        }
    }
    circles.into_iter().collect()
}

fn reached<'a>(graph: &'a BTreeMap<String, BTreeSet<String>>, from: &String) -> BTreeSet<&'a String> {
    let mut open: Vec<&String> = graph[from].iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(module) = open.pop() {
        if seen.insert(module) {
            open.extend(graph.get(module).into_iter().flatten());
        }
    }
    seen
}

/// Returns the module of a file: `a/mod` and `a` are `crate::a`, `lib` and `main` are `crate`.
fn name(path: &str) -> String {
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "main" | "mod" => "crate".to_owned(),
        _ => format!("crate::{}", path.replace('/', "::")),
    }
}

fn longest_module(path: &str, modules: &BTreeMap<String, String>) -> Option<String> {
    let mut path = path;
    loop {
        if modules.contains_key(path) {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// Returns every path in the code that begins with `crate`, `super` or `self`, in full form.
fn paths(code: &str, module: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let is_facade = code[..at].trim_end().ends_with("pub use");
            if is_facade && root != "super::" && root != "crate::" {
                continue;
            }
            let (base, rest) = rooted(&code[at..], module);
            expand(&base, rest, &mut found);
        }
    }
    found
}

/// Splits leading `crate::`, `self::` and `super::` off, and returns the module that they name.
fn rooted<'a>(text: &'a str, module: &str) -> (String, &'a str) {
    let mut base = module.to_owned();
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("crate::") {
            (base, rest) = ("crate".to_owned(), after);
        } else if let Some(after) = rest.strip_prefix("self::") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("super::") {
            base = base.rsplit_once("::").map_or("crate", |(parent, _)| parent).to_owned();
            rest = after;
        } else {
            return (base, rest);
        }
    }
}

/// Adds `base::x` for the path, or for each path of the braces, that the text begins with.
fn expand(base: &str, text: &str, found: &mut Vec<String>) {
    let word = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
    let (name, rest) = text.split_at(word);
    if name.is_empty() {
        if let Some(inside) = text.strip_prefix('{') {
            for part in list(inside) {
                expand(base, part.trim_start(), found);
            }
        } else {
            // `*`
            found.push(base.to_owned());
        }
        return;
    }
    let path = if name == "self" {
        base.to_owned()
    } else {
        format!("{base}::{name}")
    };
    match rest.strip_prefix("::") {
        Some(more) => expand(&path, more, found),
        None => found.push(path),
    }
}

/// Returns the parts of a list in braces, up to its closing brace.
fn list(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&text[from..at]);
                return parts;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile {
            path: format!("c/src/{path}"),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_circle_over_use_and_over_a_path_is_found() {
        let files = [
            file("lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
            file("a/mod.rs", "mod inner;\nuse crate::b::{self, B as C};\n"),
            file(
                "a/inner.rs",
                "use super::super::b::B;\n#[cfg(test)]\nmod tests { use crate::a; }\n",
            ),
            file("b.rs", "fn f() { crate::a::g() }\n"),
        ];
        let graph = graph(&files, "c");
        assert_eq!(graph["crate::a::inner"], BTreeSet::from(["crate::b".to_owned()]));
        assert_eq!(circles(&graph), [["crate::a".to_owned(), "crate::b".to_owned()]]);
    }
}
