//! Makes untrusted text safe to repeat: one line, bounded, without control characters.

/// Suffix of a shortened text.
const ELLIPSIS: &str = "…";

/// Returns `text` in at most `limit` bytes. A longer text is cut at a character boundary and ends with an ellipsis.
/// Control characters become spaces.
pub fn bounded(text: &str, limit: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if text.len() <= limit {
        let cleaned: String = text.chars().map(clean).collect();
        // A space is never longer than the control character that it replaces, so the text has not grown.
        return cleaned;
    }
    let Some(room) = limit.checked_sub(ELLIPSIS.len()) else {
        return String::new();
    };
    let end = (0..=room).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    let mut out: String = text[..end].chars().map(clean).collect();
    out.push_str(ELLIPSIS);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character_boundary() {
        assert_eq!(bounded("grün", 10), "grün");
        assert_eq!(bounded("grüner Tee", 6), "gr…");
        assert_eq!(bounded("a\nb\u{1b}[31m", 100), "a b [31m");
        assert_eq!(bounded("abc", 2), "");
    }

    proptest! {
        #[test]
        fn never_longer_and_never_a_control_character(text in ".*", limit in 0usize..64) {
            let out = bounded(&text, limit);
            prop_assert!(out.len() <= limit);
            prop_assert!(!out.contains(char::is_control));
        }
    }
}
