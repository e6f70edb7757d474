//! Printing of JSON, YAML and plain lines. A closed pipe is no reason to panic.

use std::{fmt, io, io::Write};

use serde::Serialize;

use crate::{
    args::Format,
    exit::{CliError, Code, Result},
};

/// Prints a line. A closed pipe ends the command without an error: `legionctl get | head` is no failure.
pub(crate) fn line(out: &mut dyn Write, text: fmt::Arguments<'_>) -> Result<()> {
    writeln!(out, "{text}").map_err(closed)
}

/// Prints a line to standard error. Scripts read standard output.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    // If standard error is closed, there is no place left to report that.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints bytes unchanged and flushes.
pub(crate) fn bytes(out: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).and_then(|()| out.flush()).map_err(closed)
}

/// Prints a value as JSON or YAML.
pub(crate) fn structured<T: Serialize>(out: &mut dyn Write, format: Format, value: &T) -> Result<()> {
    let text = if format == Format::Yaml {
        serde_saphyr::to_string(value).map_err(|error| CliError::io("YAML", error))?
    } else {
        let mut text = serde_json::to_string_pretty(value).map_err(|error| CliError::io("JSON", error))?;
        text.push('\n');
        text
    };
    bytes(out, text.as_bytes())
}

fn closed(error: io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        CliError::new(Code::Ok, String::new())
    } else {
        CliError::io("standard output", error)
    }
}
