//! Metrics as columns. As rows, the keys of 64 metrics alone are longer than a termination message. As columns, similar
//! values are next to each other, and compress to about half of the size of the rows.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::summary::MetricSummary;

/// The metrics of a tail. Every column that is present has one entry per metric.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricColumns {
    /// Names of the metrics, the objective's first.
    name: Vec<String>,
    /// Last values, as text.
    value: Vec<String>,
    /// Smallest values. An empty text means the last value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    min: Vec<String>,
    /// Largest values. An empty text means the last value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    max: Vec<String>,
    /// Steps of the last values. Absent if all are 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    step: Vec<i64>,
    /// Numbers of points. Absent if all are 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    count: Vec<u64>,
    /// The earliest time, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<i64>,
    /// Milliseconds since `time`, or null. Absent if no metric has a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    after: Vec<Option<i64>>,
}

pub(super) fn serialize<S: Serializer>(metrics: &[MetricSummary], serializer: S) -> Result<S::Ok, S::Error> {
    let unless_all = |column: Vec<String>| {
        if column.iter().all(String::is_empty) {
            Vec::new()
        } else {
            column
        }
    };
    let unless_value = |bound: fn(&MetricSummary) -> &String| {
        unless_all(
            metrics
                .iter()
                .map(|m| {
                    if *bound(m) == m.value {
                        String::new()
                    } else {
                        bound(m).clone()
                    }
                })
                .collect(),
        )
    };
    let time = metrics.iter().filter_map(|m| m.timestamp).min();
    MetricColumns {
        name: metrics.iter().map(|m| m.name.clone()).collect(),
        value: metrics.iter().map(|m| m.value.clone()).collect(),
        min: unless_value(|m| &m.min),
        max: unless_value(|m| &m.max),
        step: if metrics.iter().all(|m| m.step == 0) {
            vec![]
        } else {
            metrics.iter().map(|m| m.step).collect()
        },
        count: if metrics.iter().all(|m| m.count == 1) {
            vec![]
        } else {
            metrics.iter().map(|m| m.count).collect()
        },
        time,
        after: match time {
            // A difference of more than 64 bits cannot come from measured times, so it is omitted.
            Some(time) => metrics
                .iter()
                .map(|m| m.timestamp.and_then(|t| t.checked_sub(time)))
                .collect(),
            None => vec![],
        },
    }
    .serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MetricSummary>, D::Error> {
    let c = MetricColumns::deserialize(deserializer)?;
    let rows = c.name.len();
    let fits = |len: usize| len == 0 || len == rows;
    if c.value.len() != rows
        || ![c.min.len(), c.max.len(), c.step.len(), c.count.len(), c.after.len()]
            .into_iter()
            .all(fits)
    {
        return Err(D::Error::custom("columns of different lengths"));
    }
    let or_value = |column: &[String], i: usize| match column.get(i) {
        Some(text) if !text.is_empty() => text.clone(),
        _ => c.value[i].clone(),
    };
    Ok((0..rows)
        .map(|i| MetricSummary {
            name: c.name[i].clone(),
            value: c.value[i].clone(),
            step: c.step.get(i).copied().unwrap_or(0),
            timestamp: match (c.time, c.after.get(i).copied().flatten()) {
                (Some(time), Some(after)) => time.checked_add(after),
                _ => None,
            },
            count: c.count.get(i).copied().unwrap_or(1),
            min: or_value(&c.min, i),
            max: or_value(&c.max, i),
        })
        .collect())
}
