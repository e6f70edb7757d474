//! CEL rules for more than one field.

use kube_core::Rule;

/// Prefix of Legion's own environment variables. Users must not set them.
pub const RESERVED_ENV_PREFIX: &str = "LEGION_";

/// Returns the message about a variable with Legion's prefix.
#[must_use]
pub fn reserved_env_message() -> String {
    format!("names with the prefix {RESERVED_ENV_PREFIX} are reserved for Legion")
}

/// For a list of environment variables: no name has Legion's prefix.
pub(crate) fn no_reserved_env() -> Rule {
    Rule::new(format!("self.all(e, !e.name.startsWith('{RESERVED_ENV_PREFIX}'))"))
        .message(reserved_env_message().as_str())
}

/// For a path: it is relative and stays below `root`. The message names `root`.
pub(crate) fn path_below(root: &str) -> Rule {
    Rule::new("!self.startsWith('/') && !self.split('/').exists(part, part == '..')")
        .message(format!("must be a relative path below {root}, without \"..\"").as_str())
}

/// For the path of a created file: [`path_below`] in its shortest form, because a digest covers the path.
pub(crate) fn file_below(root: &str) -> Rule {
    Rule::new("!self.startsWith('/') && !self.split('/').exists(part, part == '..' || part == '.' || part == '')")
        .message(format!("must be a relative path below {root}, without \"..\", \".\" and doubled slashes").as_str())
}
