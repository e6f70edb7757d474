//! Field paths that cost nothing until an error needs their text.

use std::fmt;

/// One step of a path.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Key(&'a str),
    Index(usize),
}

/// A path kept as a chain on the stack: walking an object allocates nothing, only an error renders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

impl<'a> Path<'a> {
    /// The object itself.
    pub(crate) const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    /// A named field: `.name`.
    pub(crate) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// A map key: `[key]`.
    pub(crate) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Key(key),
        }
    }

    /// A list index: `[3]`.
    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// True for the object itself.
    pub(crate) fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error> {
        let started = match self.parent {
            Some(parent) => parent.write(f)?,
            None => false,
        };
        match self.step {
            Step::Root => return Ok(false),
            Step::Field(name) if started => write!(f, ".{name}")?,
            Step::Field(name) => f.write_str(name)?,
            Step::Key(key) => write!(f, "[{key}]")?,
            Step::Index(index) => write!(f, "[{index}]")?,
        }
        Ok(true)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f).map(drop)
    }
}

impl From<Path<'_>> for String {
    fn from(path: Path<'_>) -> String {
        path.to_string()
    }
}

impl From<&Path<'_>> for String {
    fn from(path: &Path<'_>) -> String {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders() {
        let spec = Path::ROOT.field("spec");
        let list = spec.field("list");
        let item = list.index(2);
        let name = item.field("name");
        let key = spec.key("a.b/c");
        assert_eq!(name.to_string(), "spec.list[2].name");
        assert_eq!(key.to_string(), "spec[a.b/c]");
        assert_eq!(Path::ROOT.to_string(), "");
    }
}
