//! A plot of a metric's series: one line of block characters.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws values in the given order, in at most `width` characters. Values that are not finite are gaps. In a longer
/// series, a character shows the mean of several values.
#[must_use]
pub(crate) fn spark(values: &[f64], width: usize) -> String {
    let columns = values.len().min(width.max(1));
    let means: Vec<Option<f64>> = (0..columns)
        .map(|column| {
            let group = &values[column * values.len() / columns..(column + 1) * values.len() / columns];
            let finite: Vec<f64> = group.iter().copied().filter(|value| value.is_finite()).collect();
            (!finite.is_empty()).then(|| finite.iter().map(|value| value / finite.len() as f64).sum())
        })
        .collect();
    let low = means.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    means
        .iter()
        .map(|mean| match mean {
            None => ' ',
            // A constant series is drawn in the middle: it is neither high nor low.
            Some(_) if low == high => BLOCKS[3],
            Some(value) => {
                // Halved before the subtraction, because the difference of two finite numbers may be infinite.
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
    fn rises_falls_gaps_and_constants_look_different() {
        assert_eq!(spark(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 40), "▁▂▃▄▅▆▇█");
        assert_eq!(spark(&[1.0, f64::NAN, 0.0], 40), "█ ▁");
        assert_eq!(spark(&[5.0, 5.0], 40), "▄▄");
        assert_eq!(spark(&[], 40), "");
        assert_eq!(spark(&[f64::NAN, f64::INFINITY], 40), "  ");
        assert_eq!(spark(&[f64::MIN, f64::MAX], 40), "▁█");
    }

    #[test]
    fn a_long_series_is_drawn_as_means_in_the_given_width() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let plot = spark(&values, 8);
        assert_eq!(plot, "▁▂▃▄▅▆▇█");
    }
}
