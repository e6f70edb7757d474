//! Reads the files of the control directory. The trainer can write there, so every file is untrusted.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use legion_protocol::env::files;
use legion_protocol::events::{MAX_LINE, ToolEvent};
use legion_protocol::exit::ExitRecord;
use legion_protocol::log;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::result::{self, ResultDocument};
use legion_protocol::summary::Summarizer;

use crate::confined::{ConfinedDir, OpenRefusal};
use crate::error::Result;
use crate::terminate;

/// Largest exit record, in bytes.
const MAX_EXIT: u64 = 16 << 10;
/// Largest piece of the log, in bytes. `legion-entry` has a limit of its own, but the trainer can write there, too.
const MAX_LOG: u64 = 1 << 30;
/// Bytes from the end of the log in the message of a failed run.
const LOG_TAIL: u64 = 1200;

/// Reads the exit record. Returns `None` if it is missing or invalid.
pub(super) fn exit(run: &ConfinedDir) -> Option<ExitRecord> {
    let bytes = run.read(Path::new(files::EXIT), MAX_EXIT).ok()?;
    serde_json::from_slice::<ExitRecord>(&bytes)
        .ok()
        .map(ExitRecord::sanitized)
}

/// Reads the result document. Returns `None` if the toolchain wrote none.
pub(super) fn result(run: &ConfinedDir) -> Result<Option<ResultDocument>> {
    let broken = |why: String| {
        StepError::new(
            StepReason::ProtocolViolation,
            format!("the file at LEGION_RESULT {why}"),
        )
    };
    match run.read(Path::new(files::RESULT), result::MAX_BYTES as u64) {
        Ok(bytes) => ResultDocument::parse(&bytes).map(|d| Some(d.bounded())).map_err(broken),
        Err(OpenRefusal::Missing) => Ok(None),
        Err(why) => Err(broken(why.to_string())),
    }
}

/// Reads the event stream. Writes every event to `sink` as a line in the current format, and adds it to the summary.
/// The second value is the error for the first line that violates the protocol. Events before that line count.
pub(super) fn events(run: &ConfinedDir, limit: u64, sink: &mut dyn Write) -> Result<(Summarizer, Option<StepError>)> {
    let mut summary = Summarizer::default();
    let violation = |why: String| StepError::new(StepReason::ProtocolViolation, why);
    let file = match run.file(Path::new(files::EVENTS), limit) {
        Ok((file, _)) => file,
        Err(OpenRefusal::Missing) => return Ok((summary, None)),
        Err(why) => {
            return Ok((summary, Some(violation(format!("the file at LEGION_EVENTS {why}")))));
        }
    };
    // A point without a time gets the time of this read, which is the best estimate.
    let arrival = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_millis()).ok());
    let mut lines = BufReader::with_capacity(256 << 10, file.take(limit));
    let mut line = Vec::new();
    loop {
        terminate::check()?;
        line.clear();
        // The read is bounded, so a line without an end cannot fill the memory. The extra bytes show that a line is too
        // long.
        let read = (&mut lines).take(MAX_LINE as u64 + 2).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok((summary, None)),
            Ok(_) => {}
            Err(e) => return Err(crate::error::node_fault("cannot read the event stream", &e)),
        }
        let complete = line.last() == Some(&b'\n');
        let text = if complete { &line[..line.len() - 1] } else { &line[..] };
        match summary.line(text, complete, arrival) {
            Ok(Some(event)) => write(&event, sink)?,
            Ok(None) => return Ok((summary, None)),
            Err(e) => return Ok((summary, Some(violation(e.to_string())))),
        }
    }
}

fn write(event: &ToolEvent, sink: &mut dyn Write) -> Result<()> {
    let mut line = serde_json::to_vec(event).map_err(|e| {
        StepError::new(
            StepReason::ProtocolViolation,
            format!("an event cannot be written: {e}"),
        )
    })?;
    line.push(b'\n');
    sink.write_all(&line).map_err(|e| crate::error::sink_error(&e))
}

/// The log of the command. It is in pieces if `legion-entry` was killed before it joined them.
pub(super) struct TrainerLog {
    pieces: Vec<Piece>,
    truncated: bool,
}

enum Piece {
    File(File, u64),
    Text(String),
}

impl TrainerLog {
    pub(super) fn open(run: &ConfinedDir) -> Self {
        let piece = |name: &str| {
            let (file, stat) = run.file(Path::new(name), MAX_LOG).ok()?;
            Some((file, u64::try_from(stat.st_size).unwrap_or(0)))
        };
        let mut log = Self {
            pieces: Vec::new(),
            truncated: false,
        };
        if let Some((mut head, size)) = piece(log::HEAD) {
            log.truncated = has_marker(&mut head, size);
            log.pieces.push(Piece::File(head, size));
        }
        if let Some((old, size)) = piece(log::TAIL_OLD) {
            // The number of bytes that were left out before it is unknown.
            log.truncated = true;
            log.pieces.push(Piece::Text(log::marker(None)));
            log.pieces.push(Piece::File(old, size));
        }
        if let Some((tail, size)) = piece(log::TAIL) {
            log.pieces.push(Piece::File(tail, size));
        }
        log
    }

    /// Returns the approximate size in bytes.
    pub(super) fn estimate(&self) -> u64 {
        self.pieces
            .iter()
            .map(|p| if let Piece::File(_, size) = p { *size } else { 100 })
            .sum()
    }

    /// Returns whether output was left out.
    pub(super) fn truncated(&self) -> bool {
        self.truncated
    }

    /// Writes the whole log.
    pub(super) fn copy(&mut self, sink: &mut dyn Write) -> Result<()> {
        for piece in &mut self.pieces {
            match piece {
                Piece::Text(text) => sink.write_all(text.as_bytes()),
                Piece::File(file, size) => file
                    .rewind()
                    .and_then(|()| std::io::copy(&mut file.take(*size), sink))
                    .map(drop),
            }
            .map_err(|e| crate::error::sink_error(&e))?;
        }
        Ok(())
    }

    /// Returns the last lines.
    pub(super) fn tail(&mut self) -> String {
        let Some(Piece::File(file, size)) = self.pieces.iter_mut().rfind(|p| matches!(p, Piece::File(_, 1..))) else {
            return String::new();
        };
        let mut bytes = Vec::new();
        let start = size.saturating_sub(LOG_TAIL);
        // An unreadable log must not hide why the training failed, so the error is ignored.
        let _ = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.take(LOG_TAIL).read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        let whole_lines = if start > 0 {
            text.split_once('\n').map_or(&*text, |(_, rest)| rest)
        } else {
            &*text
        };
        whole_lines.trim_end().to_owned()
    }
}

/// Returns whether the log contains the marker for output that was left out.
fn has_marker(file: &mut File, size: u64) -> bool {
    let mut buffer = vec![0; 64 << 10];
    let marker = log::MARKER.as_bytes();
    let (mut kept, mut read) = (0, 0u64);
    while read < size {
        let Ok(n) = file.read(&mut buffer[kept..]) else {
            return false;
        };
        if n == 0 {
            return false;
        }
        read += n as u64;
        let end = kept + n;
        if buffer[..end].windows(marker.len()).any(|w| w == marker) {
            return true;
        }
        kept = end.min(marker.len() - 1);
        buffer.copy_within(end - kept..end, 0);
    }
    false
}
