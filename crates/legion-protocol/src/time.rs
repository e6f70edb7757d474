//! RFC 3339 times with milliseconds. Uses no time library, so that the entry binary stays small.

/// Formats milliseconds since 1970 as `2026-11-23T17:01:37.042Z`. Years outside 0..=9999 are clamped.
pub fn rfc3339_millis(millis: i64) -> String {
    // -62167219200000 is 0000-01-01, 253402300799999 is the last millisecond of 9999.
    let millis = millis.clamp(-62_167_219_200_000, 253_402_300_799_999);
    let (days, in_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (year, month, day) = civil_from_days(days);
    let (seconds, fraction) = (in_day / 1000, in_day % 1000);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{fraction:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Returns whether `text` has exactly the form of [`rfc3339_millis`]. Times that a trainer may have written are checked
/// with it before they are repeated.
pub fn is_rfc3339_millis(text: &str) -> bool {
    let shape = b"0000-00-00T00:00:00.000Z";
    text.len() == shape.len()
        && text
            .bytes()
            .zip(shape)
            .all(|(b, s)| if *s == b'0' { b.is_ascii_digit() } else { b == *s })
}

/// Converts days since 1970-01-01 to year, month and day of the proleptic Gregorian calendar. The calculation starts
/// years in March.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_formatted() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_453_297_042, "2026-11-23T17:01:37.042Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339_millis(millis), text);
            assert!(is_rfc3339_millis(text));
        }
        assert!(!is_rfc3339_millis("2026-11-23T17:01:37Z"));
    }
}
