//! `legionctl validate`: checks manifests like the API server does, but needs no API server.

use std::{io::Write, path::PathBuf};

use crate::{
    args::Format,
    exit::{CliError, Code, Result},
    findings, manifest, output,
};

/// Validates the files and prints the problems.
pub(crate) fn run(files: &[PathBuf], format: Format, out: &mut dyn Write) -> Result<Code> {
    let mut found = Vec::new();
    let mut count = 0;
    for file in files {
        let documents = manifest::read(file)?;
        if documents.is_empty() {
            return Err(
                CliError::new(Code::Invalid, format!("{}: contains no object", file.display()))
                    .remedy("add an object; examples/wine/training.yaml is a complete training"),
            );
        }
        count += documents.len();
        found.extend(documents.iter().flat_map(findings::check));
    }
    match format {
        Format::Json | Format::Yaml => output::structured(out, format, &found)?,
        Format::Table | Format::Report => {
            for finding in &found {
                output::line(out, format_args!("{}", findings::text(finding)))?;
            }
            if found.is_empty() {
                output::line(out, format_args!("{count} object(s) valid"))?;
            }
        }
    }
    Ok(if found.is_empty() { Code::Ok } else { Code::Invalid })
}
