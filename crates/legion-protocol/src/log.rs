//! The bounded copy of the command's output, as files in `$LEGION_RUN`.
//!
//! While the command runs, its output goes to [`HEAD`] until that holds half of the limit, and from then on to
//! [`TAIL`], which becomes [`TAIL_OLD`] each time it holds a quarter. So the first half and at least the last quarter
//! are on disk at any moment, also when the kernel kills everything at once. Whoever comes last puts them together:
//! `legion-entry` at its end, or `publish` when `legion-entry` was killed.

/// The first half of the output; after the end, all that is kept.
pub const HEAD: &str = crate::env::files::LOG;
/// The newest output beyond the first half.
pub const TAIL: &str = "log.tail";
/// What was [`TAIL`] before.
pub const TAIL_OLD: &str = "log.tail.old";

/// Limit when none is given, in bytes.
pub const DEFAULT_LIMIT: u64 = 16 << 20;
/// Smallest limit that is honoured, in bytes.
pub const MIN_LIMIT: u64 = 4 << 10;

/// Start of the line that stands where output was left out.
pub const MARKER: &str = "[legion: ";

/// The line that stands where output was left out.
pub fn marker(left_out: Option<u64>) -> String {
    match left_out {
        Some(bytes) => format!("\n{MARKER}{bytes} bytes of output left out here]\n"),
        None => format!("\n{MARKER}output left out here]\n"),
    }
}
