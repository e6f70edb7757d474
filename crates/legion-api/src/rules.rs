//! CEL rules that more than one field needs, each written once.

use kube_core::Rule;

/// How the names of Legion's own environment variables begin. Users may not set them.
pub const RESERVED_ENV_PREFIX: &str = "LEGION_";

/// What is wrong with the name of an environment variable that is Legion's own.
#[must_use]
pub fn reserved_env_message() -> String {
    format!("names that begin with {RESERVED_ENV_PREFIX} are Legion's own")
}

/// Of a list of environment variables: none of them is Legion's own.
pub(crate) fn no_reserved_env() -> Rule {
    Rule::new(format!("self.all(e, !e.name.startsWith('{RESERVED_ENV_PREFIX}'))"))
        .message(reserved_env_message().as_str())
}

/// Of a path: it is relative and stays below `root`, which stands in the message.
pub(crate) fn path_below(root: &str) -> Rule {
    Rule::new("!self.startsWith('/') && !self.split('/').exists(part, part == '..')")
        .message(format!("must be a relative path below {root}, without \"..\"").as_str())
}

/// Of the path of a file that is made: [`path_below`] in its shortest form, because a digest is taken over it.
pub(crate) fn file_below(root: &str) -> Rule {
    Rule::new("!self.startsWith('/') && !self.split('/').exists(part, part == '..' || part == '.' || part == '')")
        .message(format!("must be a relative path below {root}, without \"..\", \".\" and doubled slashes").as_str())
}
