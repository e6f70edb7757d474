//! The form of durations in Go, such as `1h15m30.5s`.

/// Checks a duration as Go's `time.ParseDuration` does, except for amounts that are too large.
///
/// # Errors
/// Go's own message.
pub(super) fn check(text: &str) -> Result<(), String> {
    let invalid = || Err(format!("time: invalid duration {text:?}"));
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return invalid();
    }
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let digits = &rest[..rest.len() - number.len()];
        if !digits.contains(|c: char| c.is_ascii_digit()) || digits.matches('.').count() > 1 {
            return invalid();
        }
        let after = number.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.');
        match &number[..number.len() - after.len()] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => {}
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", "")]
    #[case("10s", "")]
    #[case("-1.5h", "")]
    #[case("1h15m30.5s", "")]
    #[case(".5s", "")]
    #[case("1µs", "")]
    #[case("-", "time: invalid duration \"-\"")]
    #[case("foo", "time: invalid duration \"foo\"")]
    #[case(".s", "time: invalid duration \".s\"")]
    #[case("10", "time: missing unit in duration \"10\"")]
    #[case("1d", "time: unknown unit \"d\" in duration \"1d\"")]
    #[case("1.2.3s", "time: invalid duration \"1.2.3s\"")]
    fn durations(#[case] text: &str, #[case] error: &str) {
        assert_eq!(check(text).err().unwrap_or_default(), error);
    }
}
