//! Translation of a container's declaration to a command line: `$(VAR)` expansion and, on a node without mount
//! namespaces, the translation of mount paths.
//!
//! A container sees its volumes at mount paths. A process that shares the machine's file system does not. A mount
//! path is therefore replaced by the volume's directory if it begins an environment value, an element of `command` or
//! `args`, the working directory or the termination message path. Only whole leading path components are replaced:
//! `/data` matches `/data` and `/data/x`, but not `/database`, and never the middle of a text. A value may also be
//! exactly the parent directory of mount paths (`/mnt/stores` above `/mnt/stores/a` and `/mnt/stores/b`). It is
//! replaced by a directory with a link for each of them.

use std::collections::BTreeMap;

/// Expands `$(NAME)` as Kubernetes does. Unknown names stay unchanged, and `$$` is a literal `$`.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// Replaces leading mount paths with real directories.
#[derive(Clone, Debug, Default)]
pub struct Translator {
    /// Mount paths and directories, longest mount path first, so that `/data/sub` takes precedence over `/data`.
    mounts: Vec<(String, String)>,
    /// Parents of mount paths. They match only as a whole, because they contain nothing except mounts.
    parents: BTreeMap<String, String>,
}

impl Translator {
    /// Creates a translator for these pairs of mount path and real directory.
    pub fn new(mounts: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut mounts: Vec<_> = mounts
            .into_iter()
            .map(|(path, real)| (path.trim_end_matches('/').to_owned(), real))
            .collect();
        mounts.retain(|(path, _)| !path.is_empty());
        mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self {
            mounts,
            parents: BTreeMap::new(),
        }
    }

    /// Adds directories that replace the parents of mount paths.
    #[must_use]
    pub fn with_parents(mut self, parents: impl IntoIterator<Item = (String, String)>) -> Self {
        self.parents.extend(parents);
        self
    }

    /// Returns the text with its leading mount path replaced, if it has one.
    pub fn apply(&self, text: &str) -> String {
        // A value that already contains a real directory (expanded from another variable) must not be translated
        // again. That would happen with a volume mounted at /tmp and real directories below /tmp.
        if self.mounts.iter().any(|(_, real)| begins_with(text, real)) {
            return text.to_owned();
        }
        for (path, real) in &self.mounts {
            if begins_with(text, path) {
                return format!("{real}{}", &text[path.len()..]);
            }
        }
        let parent = self.parents.get(text.trim_end_matches('/'));
        parent.map_or_else(|| text.to_owned(), Clone::clone)
    }
}

fn begins_with(text: &str, path: &str) -> bool {
    text.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A container's declaration before expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declaration {
    /// Environment in order. Later entries take precedence and may refer to earlier ones.
    pub env: Vec<(String, String)>,
    /// `command`, or the image's entrypoint.
    pub command: Vec<String>,
    /// `args`, or the image's command.
    pub args: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Path of the container's termination message.
    pub termination_message_path: String,
}

/// The expanded command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub working_dir: Option<String>,
}

/// Expands and translates a declaration.
pub fn resolve(declaration: &Declaration, translator: &Translator) -> CommandLine {
    let mut env = BTreeMap::new();
    for (name, value) in &declaration.env {
        let value = translator.apply(&expand(value, &env));
        env.insert(name.clone(), value);
    }
    let argv = declaration
        .command
        .iter()
        .chain(&declaration.args)
        .map(|word| translator.apply(&expand(word, &env)))
        .collect();
    let working_dir = declaration.working_dir.as_deref().map(|dir| translator.apply(dir));
    CommandLine { argv, env, working_dir }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("A", "one"), ("EMPTY", ""), ("NESTED", "$(A)")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    #[test]
    fn the_parent_of_mounts_is_replaced_as_a_whole_only() {
        let mounts = [("/mnt/stores/a".to_owned(), "/real/a".to_owned())];
        let parents = [("/mnt/stores".to_owned(), "/pod/root/mnt/stores".to_owned())];
        let translator = Translator::new(mounts).with_parents(parents);
        for (text, expected) in [
            ("/mnt/stores", "/pod/root/mnt/stores"),
            ("/mnt/stores/", "/pod/root/mnt/stores"),
            ("/mnt/stores/a/x", "/real/a/x"),
            ("/mnt/stores/b", "/mnt/stores/b"),
            ("/mnt", "/mnt"),
        ] {
            assert_eq!(translator.apply(text), expected);
        }
    }

    #[test]
    fn expansion_follows_kubernetes() {
        for (text, expected) in [
            ("$(A)", "one"),
            ("x$(A)y$(A)", "xoneyone"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$one"),
            ("$(MISSING)", "$(MISSING)"),
            ("$(EMPTY)", ""),
            ("$(NESTED)", "$(A)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("$", "$"),
            ("100$", "100$"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &variables()), expected, "{text:?}");
        }
    }

    #[test]
    fn mount_paths_are_replaced_by_whole_components_only() {
        let t = Translator::new([
            ("/data".to_owned(), "/real/volumes/data".to_owned()),
            ("/data/sub/".to_owned(), "/real/volumes/sub".to_owned()),
        ]);
        for (text, expected) in [
            ("/data", "/real/volumes/data"),
            ("/data/", "/real/volumes/data/"),
            ("/data/x", "/real/volumes/data/x"),
            ("/data/sub/x", "/real/volumes/sub/x"),
            ("/database", "/database"),
            ("--dir=/data", "--dir=/data"),
            ("x/data", "x/data"),
            ("/real/volumes/data/y", "/real/volumes/data/y"),
        ] {
            assert_eq!(t.apply(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_translated_value_is_not_translated_again() {
        let t = Translator::new([("/tmp".to_owned(), "/tmp/node/volumes/tmp".to_owned())]);
        let line = resolve(
            &Declaration {
                env: vec![("A".into(), "/tmp".into()), ("B".into(), "$(A)/x".into())],
                command: vec!["run".into(), "--to=$(B)".into()],
                args: vec!["/tmp/y".into()],
                working_dir: Some("/tmp/z".into()),
                termination_message_path: String::new(),
            },
            &t,
        );
        assert_eq!(line.env["B"], "/tmp/node/volumes/tmp/x");
        assert_eq!(
            line.argv,
            ["run", "--to=/tmp/node/volumes/tmp/x", "/tmp/node/volumes/tmp/y"]
        );
        assert_eq!(line.working_dir.as_deref(), Some("/tmp/node/volumes/tmp/z"));
    }
}
