//! A small plot of a metric's series: one line of block characters.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws values in the order given, at most `width` characters. Values that are no numbers are gaps; a longer series is
/// shown by the mean of each stretch.
#[must_use]
pub(crate) fn spark(values: &[f64], width: usize) -> String {
    let columns = values.len().min(width.max(1));
    let means: Vec<Option<f64>> = (0..columns)
        .map(|column| {
            let stretch = &values[column * values.len() / columns..(column + 1) * values.len() / columns];
            let finite: Vec<f64> = stretch.iter().copied().filter(|value| value.is_finite()).collect();
            (!finite.is_empty()).then(|| finite.iter().map(|value| value / finite.len() as f64).sum())
        })
        .collect();
    let low = means.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    means
        .iter()
        .map(|mean| match mean {
            None => ' ',
            // A constant series stands in the middle: neither high nor low.
            Some(_) if low == high => BLOCKS[3],
            Some(value) => {
                // Halved before subtracting, because the distance of two finite numbers may be infinite.
                let share = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
                BLOCKS[((share * 7.0).round() as usize).min(7)]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_falls_gaps_and_constants_are_told_apart() {
        assert_eq!(spark(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 40), "▁▂▃▄▅▆▇█");
        assert_eq!(spark(&[1.0, f64::NAN, 0.0], 40), "█ ▁");
        assert_eq!(spark(&[5.0, 5.0], 40), "▄▄");
        assert_eq!(spark(&[], 40), "");
        assert_eq!(spark(&[f64::NAN, f64::INFINITY], 40), "  ");
        assert_eq!(spark(&[f64::MIN, f64::MAX], 40), "▁█");
    }

    #[test]
    fn a_long_series_is_shown_by_means_in_the_width_given() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let plot = spark(&values, 8);
        assert_eq!(plot, "▁▂▃▄▅▆▇█");
    }
}
