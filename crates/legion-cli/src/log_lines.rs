//! Turns the bytes of a log into lines for a terminal. The bytes come from user code, so anything is possible: bytes
//! that are not UTF-8, progress bars, control sequences, and lines without an end.

/// Maximum number of bytes of a line that are shown. A line may be as long as the log, and memory is not.
const MAX_SHOWN: usize = 16 << 10;

/// Splits a log into lines, chunk by chunk.
#[derive(Debug, Default)]
pub(crate) struct LogLines {
    /// The unfinished line, at most [`MAX_SHOWN`] bytes of it.
    line: Vec<u8>,
    /// Number of bytes of the unfinished line that are not in `line`.
    omitted: u64,
    /// Whether the last byte was a carriage return. If a line feed follows, both end the line. Anything else overwrites
    /// the line, as progress bars do.
    returned: bool,
}

impl LogLines {
    /// Adds bytes. Returns the lines that are finished.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.append(&rest[..at]);
            if rest[at] == b'\n' {
                lines.push(self.take());
            } else {
                self.returned = true;
            }
            rest = &rest[at + 1..];
        }
        self.append(rest);
        lines
    }

    /// Returns the last line, if it has no line feed.
    pub(crate) fn finish(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| self.take())
    }

    fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if std::mem::take(&mut self.returned) {
            self.line.clear();
            self.omitted = 0;
        }
        let fits = bytes.len().min(MAX_SHOWN - self.line.len());
        self.line.extend_from_slice(&bytes[..fits]);
        self.omitted += (bytes.len() - fits) as u64;
    }

    fn take(&mut self) -> String {
        self.returned = false;
        let omitted = std::mem::take(&mut self.omitted);
        let line = std::mem::take(&mut self.line);
        let mut shown = plain(&String::from_utf8_lossy(&line));
        if omitted > 0 {
            shown.push_str(&format!(" ... ({omitted} more bytes are in the stored log)"));
        }
        shown
    }
}

/// Returns the lines of a whole log.
pub(crate) fn lines(bytes: &[u8]) -> Vec<String> {
    let mut log = LogLines::default();
    let mut lines = log.push(bytes);
    lines.extend(log.finish());
    lines
}

/// Removes control sequences and control characters. The output of user code must not control the terminal.
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text)
        .to_string()
        .chars()
        .filter(|c| !c.is_control() || *c == '\t')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lines of a text. They must not depend on its division into chunks.
    fn lines(bytes: &[u8]) -> Vec<String> {
        let of_chunks = |size: usize| {
            let mut log = LogLines::default();
            let mut lines: Vec<String> = bytes.chunks(size).flat_map(|chunk| log.push(chunk)).collect();
            lines.extend(log.finish());
            lines
        };
        let whole = of_chunks(bytes.len().max(1));
        for size in [1, 2, 7] {
            assert_eq!(of_chunks(size), whole, "chunks of {size} bytes");
        }
        whole
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_the_next_lines_are_shown() {
        assert_eq!(
            lines(b"before\ncolumn Gr\xf6\xdfe\nafter 0\nafter 1"),
            ["before", "column Gr\u{fffd}\u{fffd}e", "after 0", "after 1"]
        );
        assert_eq!(lines("größe\n\n".as_bytes()), ["größe", ""]);
    }

    #[test]
    fn of_a_progress_bar_the_last_state_is_shown() {
        assert_eq!(
            lines(b"before\n\rEpoch 0   0%|\rEpoch 0  95%|##|\nleft\r\ndone 99%\rdone 100%\r"),
            ["before", "Epoch 0  95%|##|", "left", "done 100%"]
        );
        // A bar that removes itself overwrites itself with spaces.
        assert_eq!(lines(b"\r 50%\r     \rafter\n"), ["after"]);
    }

    #[test]
    fn control_sequences_are_removed_with_their_parameters() {
        assert_eq!(lines(b"\x1b[32mgreen\x1b[0m \x1b[2Ja\tb\x07\n"), ["green a\tb"]);
    }

    #[test]
    fn of_a_very_long_line_the_beginning_is_shown_with_the_number_of_the_other_bytes() {
        let long = [vec![b'x'; 20 << 10], b"\nnext\n".to_vec()].concat();
        let shown = lines(&long);
        assert_eq!(
            shown[0],
            format!("{} ... (4096 more bytes are in the stored log)", "x".repeat(MAX_SHOWN))
        );
        assert_eq!(shown[1], "next");
        // What a bar overwrites does not count.
        let bar = [b"y".repeat(20 << 10), b"\rshort\n".to_vec()].concat();
        assert_eq!(lines(&bar), ["short"]);
    }

    #[test]
    fn the_memory_for_a_line_without_an_end_is_bounded() {
        let mut log = LogLines::default();
        for _ in 0..1600 {
            assert!(log.push(&[b'z'; 64 << 10]).is_empty());
        }
        assert!(log.line.capacity() <= 2 * MAX_SHOWN, "{}", log.line.capacity());
        assert_eq!(log.omitted, 1600 * (64 << 10) - MAX_SHOWN as u64);
    }
}
