//! Field paths without a cost until an error needs their text.

use std::fmt;

/// One element of a path.
#[derive(Clone, Copy, Debug)]
enum PathElement<'a> {
    Root,
    Field(&'a str),
    Key(&'a str),
    Index(usize),
}

/// A path as a linked chain on the stack. Walking an object allocates nothing. Only an error renders its path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: PathElement<'a>,
}

impl<'a> Path<'a> {
    /// The object itself.
    pub(crate) const ROOT: Path<'static> = Path {
        parent: None,
        step: PathElement::Root,
    };

    /// A named field: `.name`.
    pub(crate) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: PathElement::Field(name),
        }
    }

    /// A map key: `[key]`.
    pub(crate) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: PathElement::Key(key),
        }
    }

    /// A list index: `[3]`.
    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            step: PathElement::Index(index),
        }
    }

    /// Returns whether this is the object itself.
    pub(crate) fn is_root(&self) -> bool {
        matches!(self.step, PathElement::Root)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error> {
        let started = match self.parent {
            Some(parent) => parent.write(f)?,
            None => false,
        };
        match self.step {
            PathElement::Root => return Ok(false),
            PathElement::Field(name) if started => write!(f, ".{name}")?,
            PathElement::Field(name) => f.write_str(name)?,
            PathElement::Key(key) => write!(f, "[{key}]")?,
            PathElement::Index(index) => write!(f, "[{index}]")?,
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
