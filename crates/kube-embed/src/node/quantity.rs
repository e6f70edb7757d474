//! Values of `resource.Quantity`, such as `500m`, `1Gi` and `2e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Returns the value in thousandths, rounded up as in Kubernetes, or `None` if the text is not a quantity.
pub fn milli(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (numerator, denominator) = scale(suffix)?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut value: i128 = 0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit.to_digit(10)?))?;
    }
    let divisor = 10_i128
        .checked_pow(u32::try_from(fraction.len()).ok()?)?
        .checked_mul(denominator)?;
    let scaled = value.checked_mul(numerator)?.checked_mul(1000)?;
    let rounded = scaled.checked_add(divisor - 1)? / divisor;
    Some(if negative { -rounded } else { rounded })
}

/// Returns the value in whole units (bytes, cores), rounded up. Negative values count as zero.
pub fn units(quantity: &Quantity) -> Option<u64> {
    let milli = milli(quantity)?.max(0);
    u64::try_from((milli + 999) / 1000).ok()
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, factor) } else { (factor, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_as_kubernetes_reads_them() {
        let cases: &[(&str, Option<i128>)] = &[
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("0.1", Some(100)),
            ("1.5", Some(1500)),
            ("1Gi", Some((1 << 30) * 1000)),
            ("1.5Gi", Some((3 << 29) * 1000)),
            ("2k", Some(2_000_000)),
            ("1e3", Some(1_000_000)),
            ("12E-1", Some(1200)),
            ("100n", Some(1)),
            ("-1", Some(-1000)),
            (".5", Some(500)),
            ("", None),
            ("Gi", None),
            ("1.2.3", None),
            ("1Zi", None),
            ("1 Gi", None),
        ];
        for (text, expected) in cases {
            assert_eq!(milli(&Quantity((*text).into())), *expected, "{text:?}");
        }
        assert_eq!(units(&Quantity("1500m".into())), Some(2));
    }
}
