//! Termination messages: which part of a container's message appears in its status.
//!
//! The kubelet reads at most the *last* 4 KiB of the file. Each container then keeps the *first* `12 KiB / n` of it,
//! where n is the number of all containers of the pod, including init containers. The end of the log replaces the
//! message (at most 80 lines and 2 KiB) if the policy is `FallbackToLogsOnError`, the file is empty and the container
//! failed.

/// Bytes that the kubelet reads of a termination message file.
pub const FILE_LIMIT: usize = 4096;
/// Bytes that all containers share.
pub const POD_LIMIT: usize = 12 * 1024;
/// Bytes that the fallback to logs reads.
pub const LOG_LIMIT: usize = 2048;
/// Lines that the fallback to logs reads.
pub const LOG_LINES: usize = 80;

/// Returns how many bytes each container may keep in the status.
pub fn share(containers: usize) -> usize {
    POD_LIMIT / containers.max(1)
}

/// Returns the message for the status. `file` is the container's message, and `log` is the end of its log.
pub fn message(file: &[u8], log: Option<&[u8]>, containers: usize) -> Option<String> {
    let bytes = match (file.is_empty(), log) {
        (true, Some(log)) => last_lines(log, LOG_LINES, LOG_LIMIT),
        _ => &file[file.len().saturating_sub(FILE_LIMIT)..],
    };
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    let mut keep = share(containers).min(text.len());
    while !text.is_char_boundary(keep) {
        keep -= 1;
    }
    text.truncate(keep);
    (!text.is_empty()).then_some(text)
}

/// Returns the end of a log, limited to this many lines and bytes.
pub fn last_lines(log: &[u8], lines: usize, limit: usize) -> &[u8] {
    let log = &log[log.len().saturating_sub(limit)..];
    let mut seen = 0;
    for (at, byte) in log.iter().enumerate().rev() {
        // The newline at the end of the last line does not begin another line.
        if *byte == b'\n' && at + 1 < log.len() {
            seen += 1;
            if seen == lines {
                return &log[at + 1..];
            }
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_kib_are_divided_over_all_containers() {
        let file = vec![b'x'; 10_000];
        for (containers, expected) in [(1, 4096), (3, 4096), (5, 2457), (8, 1536)] {
            assert_eq!(
                message(&file, None, containers).unwrap().len(),
                expected,
                "{containers} containers"
            );
        }
    }

    #[test]
    fn the_end_of_the_file_is_read_and_its_beginning_kept() {
        let mut file = vec![b'a'; 1000];
        file.extend([b'b'; 4096]);
        let kept = message(&file, None, 8).unwrap();
        assert_eq!((kept.len(), kept.chars().all(|c| c == 'b')), (1536, true));
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        let file = "é".repeat(2000);
        let kept = message(file.as_bytes(), None, 5).unwrap();
        assert_eq!(kept.len(), 2456);
    }

    #[test]
    fn the_log_stands_in_for_an_empty_file_only() {
        assert_eq!(message(b"", None, 1), None);
        assert_eq!(message(b"", Some(b"boom\n"), 1).as_deref(), Some("boom\n"));
        assert_eq!(message(b"said", Some(b"boom\n"), 1).as_deref(), Some("said"));
        let log = (0..500).map(|n| format!("{n}\n")).collect::<String>();
        let kept = message(b"", Some(log.as_bytes()), 1).unwrap();
        assert_eq!((kept.lines().count(), kept.lines().next()), (80, Some("420")));
        let long = vec![b'z'; 5000];
        assert_eq!(message(b"", Some(&long), 1).unwrap().len(), 2048);
    }
}
