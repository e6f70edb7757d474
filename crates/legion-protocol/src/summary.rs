//! Summarizes an event stream for the status: the last value of every metric, the parameters, the tags and the notices.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::events::{EventError, MAX_LINE, MessageLevel, MetricPoint, Pair, ToolEvent, value_text};
use crate::result::{MAX_NOTICES, WireNotice};
use crate::text::bounded;

/// Most metrics in status.
pub const MAX_METRICS: usize = 64;
/// Most parameters in status.
pub const MAX_PARAMETERS: usize = 128;
/// Most tags in status.
pub const MAX_TAGS: usize = 64;
/// Longest value of a parameter or tag in status, in bytes.
pub const MAX_TEXT: usize = 500;
/// Most different names that are tracked, separately for metrics, parameters and tags. Later names are only counted. So
/// a project with an unlimited number of names needs bounded memory.
const MAX_FOLLOWED: usize = 4096;

/// A metric in the status. Values are text, because JSON cannot represent NaN and the infinities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricSummary {
    /// Name that the project logged.
    pub name: String,
    /// Value at the last step. Of points with equal steps, the latest. Of points with equal times, the last in the
    /// stream.
    pub value: String,
    /// Step of `value`.
    pub step: i64,
    /// Time of `value`, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Number of points.
    pub count: u64,
    /// Smallest value. NaN only if all values are NaN.
    pub min: String,
    /// Largest value. NaN only if all values are NaN.
    pub max: String,
}

/// A parameter or tag in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamedValue {
    /// Name that the project logged.
    pub name: String,
    /// Text of at most 500 bytes.
    pub value: String,
}

/// Numbers of metrics, parameters and tags that the status does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "Omitted")]
pub struct WireOmitted {
    /// Number of metrics.
    pub metrics: u64,
    /// Number of parameters.
    pub parameters: u64,
    /// Number of tags.
    pub tags: u64,
}

/// The part of an event stream that the status shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The objective's metric first, then the others in the order of their first points, metrics of the system last.
    pub metrics: Vec<MetricSummary>,
    /// In the order in which they were first logged.
    pub parameters: Vec<NamedValue>,
    /// In the order in which they were first set.
    pub tags: Vec<NamedValue>,
    /// The messages with the level `notice`, without duplicates.
    pub notices: Vec<WireNotice>,
    /// Numbers of entries beyond the limits.
    pub omitted: WireOmitted,
    /// Number of points of all metrics, including those of child runs.
    pub points: u64,
    /// Number of lines in the stream.
    pub lines: u64,
}

/// Returns whether the system measured a metric, not the project. Such metrics are omitted first.
pub fn is_system_metric(name: &str) -> bool {
    name.starts_with("system/")
}

/// Builds a [`Summary`] event by event, in bounded memory.
#[derive(Debug, Default)]
pub struct Summarizer {
    metrics: Vec<Tracked>,
    metric_index: HashMap<String, usize>,
    parameters: Pairs,
    tags: Pairs,
    notices: Vec<WireNotice>,
    omitted_metric_points: u64,
    points: u64,
    lines: u64,
}

#[derive(Debug)]
struct Tracked {
    last: MetricPoint,
    count: u64,
    min: f64,
    max: f64,
}

#[derive(Debug, Default)]
struct Pairs {
    values: Vec<NamedValue>,
    index: HashMap<String, usize>,
    omitted: u64,
}

impl Pairs {
    fn set(&mut self, pair: Pair) {
        let value = bounded(&pair.value, MAX_TEXT);
        match self.index.get(&pair.name) {
            Some(i) => self.values[*i].value = value,
            None if self.values.len() == MAX_FOLLOWED => self.omitted += 1,
            None => {
                self.index.insert(pair.name.clone(), self.values.len());
                self.values.push(NamedValue { name: pair.name, value });
            }
        }
    }

    fn finish(mut self, limit: usize) -> (Vec<NamedValue>, u64) {
        let cut = self.values.len().saturating_sub(limit);
        self.values.truncate(limit);
        (self.values, self.omitted + cut as u64)
    }
}

impl Summarizer {
    /// Adds the next line of the stream, without its line feed, and returns its event. `complete` says whether the line
    /// ended with a line feed. An incomplete line that is not an event is ignored: its writer ended before it was
    /// complete. `arrival` is the default for the timestamp of a metric.
    ///
    /// # Errors
    /// A complete line violates the protocol.
    pub fn line(&mut self, line: &[u8], complete: bool, arrival: Option<i64>) -> Result<Option<ToolEvent>, EventError> {
        self.lines += 1;
        match ToolEvent::parse(line) {
            Ok(mut event) => {
                if let ToolEvent::Metric(m) = &mut event {
                    m.timestamp = m.timestamp.or(arrival);
                }
                self.event(&event);
                Ok(Some(event))
            }
            Err(_) if !complete && line.len() <= MAX_LINE => {
                self.lines -= 1;
                Ok(None)
            }
            Err(problem) => Err(EventError {
                line: self.lines,
                problem,
            }),
        }
    }

    fn event(&mut self, event: &ToolEvent) {
        match event {
            ToolEvent::Metric(m) => {
                self.points += 1;
                if m.child.is_none() {
                    self.metric(m);
                }
            }
            ToolEvent::Param(p) if p.child.is_none() => self.parameters.set(p.clone()),
            ToolEvent::Tag(p) if p.child.is_none() => self.tags.set(p.clone()),
            ToolEvent::Message(m) if m.level == MessageLevel::Notice && self.notices.len() < MAX_NOTICES => {
                let reason = m.reason.as_deref().unwrap_or("Notice");
                let notice = WireNotice {
                    reason: bounded(reason, 64),
                    message: bounded(&m.text, 256),
                };
                if !self.notices.contains(&notice) {
                    self.notices.push(notice);
                }
            }
            _ => {}
        }
    }

    fn metric(&mut self, m: &MetricPoint) {
        let Some(i) = self.metric_index.get(&m.name) else {
            if self.metrics.len() == MAX_FOLLOWED {
                self.omitted_metric_points += 1;
                return;
            }
            self.metric_index.insert(m.name.clone(), self.metrics.len());
            self.metrics.push(Tracked {
                last: m.clone(),
                count: 1,
                min: m.value,
                max: m.value,
            });
            return;
        };
        let tracked = &mut self.metrics[*i];
        tracked.count += 1;
        // `f64::min` and `max` return the other operand when one is NaN.
        tracked.min = tracked.min.min(m.value);
        tracked.max = tracked.max.max(m.value);
        if (m.step, m.timestamp) >= (tracked.last.step, tracked.last.timestamp) {
            tracked.last = m.clone();
        }
    }

    /// Returns the summary, with the objective's metric first.
    pub fn finish(self, objective: Option<&str>) -> Summary {
        let mut metrics: Vec<MetricSummary> = self
            .metrics
            .into_iter()
            .map(|t| MetricSummary {
                value: value_text(t.last.value),
                step: t.last.step,
                timestamp: t.last.timestamp,
                count: t.count,
                min: value_text(t.min),
                max: value_text(t.max),
                name: t.last.name,
            })
            .collect();
        metrics.sort_by_key(|m| (objective != Some(m.name.as_str()), is_system_metric(&m.name)));
        let cut = metrics.len().saturating_sub(MAX_METRICS);
        metrics.truncate(MAX_METRICS);
        let (parameters, omitted_parameters) = self.parameters.finish(MAX_PARAMETERS);
        let (tags, omitted_tags) = self.tags.finish(MAX_TAGS);
        Summary {
            metrics,
            parameters,
            tags,
            notices: self.notices,
            omitted: WireOmitted {
                metrics: cut as u64 + self.omitted_metric_points,
                parameters: omitted_parameters,
                tags: omitted_tags,
            },
            points: self.points,
            lines: self.lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary(stream: &str, objective: Option<&str>) -> Result<Summary, EventError> {
        let mut s = Summarizer::default();
        for line in stream.split_inclusive('\n') {
            s.line(line.trim_end_matches('\n').as_bytes(), line.ends_with('\n'), None)?;
        }
        Ok(s.finish(objective))
    }

    fn point(name: &str, value: &str, step: i64, at: i64) -> String {
        format!(r#"{{"type":"metric","name":"{name}","value":{value},"step":{step},"timestamp":{at}}}"#) + "\n"
    }

    #[test]
    fn the_last_value_is_by_step_then_by_time_then_by_order() {
        let stream = [("0.3", 2, 10), ("0.2", 1, 99), ("0.5", 2, 10), ("0.4", 2, 9)]
            .map(|(v, s, t)| point("loss", v, s, t))
            .concat();
        let s = summary(&stream, None).unwrap();
        let m = &s.metrics[0];
        assert_eq!((m.value.as_str(), m.step, m.count), ("0.5", 2, 4));
        assert_eq!((m.min.as_str(), m.max.as_str()), ("0.2", "0.5"));
    }

    #[test]
    fn a_long_text_is_cut_visibly() {
        let text = "ä".repeat(400);
        let s = summary(
            &(json!({"type": "param", "name": "p", "value": text}).to_string() + "\n"),
            None,
        )
        .unwrap();
        let value = &s.parameters[0].value;
        assert_eq!(value.len(), 499, "a character is never split");
        assert!(value.ends_with("ä…"), "{value}");
        assert_eq!(s.omitted.parameters, 0, "it is shown, so it is not counted as omitted");
    }

    #[test]
    fn nan_is_neither_smallest_nor_largest() {
        let stream =
            point("a", "NaN", 0, 0) + &point("a", "2", 1, 0) + &point("a", "NaN", 2, 0) + &point("b", "NaN", 0, 0);
        let s = summary(&stream, None).unwrap();
        assert_eq!(
            (
                s.metrics[0].value.as_str(),
                s.metrics[0].min.as_str(),
                s.metrics[0].max.as_str()
            ),
            ("NaN", "2.0", "2.0")
        );
        assert_eq!(s.metrics[1].min, "NaN");
    }

    #[test]
    fn only_an_incomplete_last_line_is_ignored() {
        let good = point("a", "1", 0, 0);
        assert_eq!(summary(&format!("{good}{{\"type\":\"met"), None).unwrap().lines, 1);
        // Only the line feed is missing: the event counts.
        assert_eq!(summary(good.trim_end(), None).unwrap().metrics.len(), 1);
        let error = summary(&format!("{good}{{\"type\":\"met\n{good}"), None).unwrap_err();
        assert_eq!(error.line, 2);
        assert_eq!(summary(&format!("{good}\n{good}"), None).unwrap_err().line, 2);
    }

    #[test]
    fn the_objective_is_first_and_metrics_of_the_system_are_last() {
        let mut stream = point("system/cpu", "1", 0, 0);
        for i in 0..70 {
            stream += &point(&format!("m{i}"), "1", 0, 0);
        }
        let s = summary(&(stream + &point("goal", "1", 0, 0)), Some("goal")).unwrap();
        assert_eq!(s.metrics.len(), MAX_METRICS);
        assert_eq!((s.metrics[0].name.as_str(), s.metrics[1].name.as_str()), ("goal", "m0"));
        assert_eq!(s.omitted.metrics, 8);
        assert_eq!(s.points, 72);
    }

    #[test]
    fn metrics_and_parameters_of_child_runs_are_not_in_the_status() {
        let stream = r#"{"type":"child","id":"c1"}
{"type":"metric","name":"a","value":1,"child":"c1"}
{"type":"param","name":"p","value":"1","child":"c1"}
{"type":"tag","name":"t","value":"1"}
{"type":"tag","name":"t","value":"2"}
{"type":"message","level":"notice","reason":"NoSignature","text":"no signature"}
{"type":"message","text":"epoch 1"}
"#;
        let s = summary(stream, None).unwrap();
        assert!(s.metrics.is_empty() && s.parameters.is_empty());
        assert_eq!(s.points, 1);
        assert_eq!(
            s.tags,
            [NamedValue {
                name: "t".into(),
                value: "2".into()
            }]
        );
        assert_eq!(s.notices.len(), 1);
    }

    #[test]
    fn an_unlimited_number_of_names_needs_bounded_memory() {
        let mut s = Summarizer::default();
        for i in 0..10_000 {
            s.line(point(&format!("m{i}"), "1", 0, 0).trim_end().as_bytes(), true, None)
                .unwrap();
        }
        assert_eq!(s.metrics.len(), MAX_FOLLOWED);
        assert_eq!(s.finish(None).omitted.metrics, 10_000 - MAX_METRICS as u64);
    }
}
