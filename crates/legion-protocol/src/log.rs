//! The bounded copy of the command's output, as files in `$LEGION_RUN`.
//!
//! While the command runs, its output goes to [`HEAD`] until that file holds half of the limit. Later output goes to
//! [`TAIL`]. When [`TAIL`] holds a quarter of the limit, it is renamed to [`TAIL_OLD`]. So the first half and at least
//! the last quarter are always on disk, even if the kernel kills all processes. `legion-entry` joins the files at its
//! end. `publish` does that if `legion-entry` was killed.

/// The first half of the output. After the end, the whole copy.
pub const HEAD: &str = crate::env::files::LOG;
/// The newest output beyond the first half.
pub const TAIL: &str = "log.tail";
/// The previous [`TAIL`].
pub const TAIL_OLD: &str = "log.tail.old";

/// Default limit of the copy, in bytes.
pub const DEFAULT_LIMIT: u64 = 16 << 20;
/// Lower bound of the limit, in bytes. Smaller limits are raised to it.
pub const MIN_LIMIT: u64 = 4 << 10;

/// Start of the line that replaces omitted output.
pub const MARKER: &str = "[legion: ";

/// Returns the line that replaces omitted output. Without a number, the size is not known.
pub fn marker(left_out: Option<u64>) -> String {
    match left_out {
        Some(bytes) => format!("\n{MARKER}{bytes} bytes of output left out here]\n"),
        None => format!("\n{MARKER}output left out here]\n"),
    }
}
