//! Stored results that this machine can read: those of a directory (`file://`).

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
};

use legion_protocol::events::{Event, Metric};

use crate::exit::{CliError, Code, Result};

/// Most points that are read for plots.
const MAX_POINTS: usize = 200_000;

/// The file behind an address, where this machine can open it.
#[must_use]
pub fn path(uri: &str) -> Option<PathBuf> {
    uri.strip_prefix("file://").map(PathBuf::from)
}

/// Opens a stored file, or says where it is.
pub fn open(uri: &str) -> Result<File> {
    let path = path(uri).ok_or_else(|| {
        CliError::new(Code::NotFound, format!("{uri} cannot be read from this machine"))
            .remedy("read it with the store's own client")
    })?;
    File::open(&path).map_err(|error| {
        CliError::new(Code::NotFound, format!("{uri}: {error}")).remedy("the stored file was moved or deleted")
    })
}

/// Reads a stored text.
pub fn text(uri: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(uri)?
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::io(uri, error))?;
    Ok(bytes)
}

/// The points of the main run's metrics, in the order in which they were logged.
pub fn series(uri: &str) -> Result<Vec<Metric>> {
    let mut points = Vec::new();
    for line in BufReader::new(open(uri)?).split(b'\n') {
        let line = line.map_err(|error| CliError::io(uri, error))?;
        // Lines of other types, and of later versions, have no points.
        if let Ok(Event::Metric(point)) = Event::parse(&line)
            && point.child.is_none()
        {
            points.push(point);
            if points.len() == MAX_POINTS {
                break;
            }
        }
    }
    Ok(points)
}
