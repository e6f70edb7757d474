//! The report of a training: its end, its score, what it logged, and where the results are.

use std::{collections::BTreeMap, fmt::Write as _, io::IsTerminal as _};

use legion_api::{ModelTraining, training::ModelTrainingStatus};
use legion_protocol::events::MetricPoint;
use url::Url;

use crate::{columns, exit::Result, log_lines, plot, training, training::TrainingState};

/// Maximum number of rows of a section. The object and its series hold all of them.
const MAX_ROWS: usize = 40;
const MAX_VALUE: usize = 60;

/// Returns the width of the terminal, or 100 if standard output is none.
#[must_use]
pub(crate) fn width() -> usize {
    let stdout = std::io::stdout();
    if stdout.is_terminal()
        && let Ok(size) = rustix::termios::tcgetwinsize(&stdout)
        && size.ws_col > 0
    {
        return usize::from(size.ws_col).clamp(60, 160);
    }
    100
}

/// Returns the state of the training in one line.
#[must_use]
pub(crate) fn outcome(training: &ModelTraining) -> String {
    let name = training.metadata.name.as_deref().unwrap_or_default();
    let status = training.status.as_ref();
    let condition = training::succeeded(training);
    let reason = condition.map_or("the operator has not reconciled it yet", |condition| {
        condition.reason.as_str()
    });
    let verb = match training::state(training) {
        TrainingState::Succeeded => "succeeded",
        TrainingState::Failed => "failed",
        TrainingState::Open => "has not ended",
    };
    let mut line = format!("modeltraining/{name} {verb} ({reason})");
    if let Some(score) = status.and_then(|status| status.score.as_deref()) {
        let _ = write!(line, ", {score}");
    }
    if let Some(duration) = status.and_then(|status| status.duration.as_deref()) {
        let _ = write!(line, ", {duration}");
    }
    if training::state(training) != TrainingState::Succeeded
        && let Some(message) = condition
            .map(|condition| condition.message.as_str())
            .filter(|text| !text.is_empty())
    {
        let _ = write!(line, ": {message}");
    }
    line
}

/// Renders the whole report. `series` are the points for the plots.
#[must_use]
pub(crate) fn render(training: &ModelTraining, series: &Result<Vec<MetricPoint>>, width: usize) -> String {
    let mut text = format!("{}\n", outcome(training));
    let Some(status) = &training.status else { return text };
    failure(&mut text, training, status);
    pairs(&mut text, "", &summary(training, status));
    metrics(&mut text, status, series, width);
    let parameters = status
        .parameters
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<Vec<_>>();
    pairs(&mut text, "parameters", &parameters);
    let tags = status
        .tags
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<Vec<_>>();
    pairs(&mut text, "tags", &tags);
    if let Some(omitted) = &status.omitted {
        let left_out: Vec<String> = [
            (omitted.metrics, "metrics"),
            (omitted.parameters, "parameters"),
            (omitted.tags, "tags"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        if !left_out.is_empty() {
            let _ = writeln!(text, "\nonly in the series, not in the status: {}", left_out.join(", "));
        }
    }
    for notice in &status.notices {
        let _ = writeln!(text, "\nnotice {}: {}", notice.reason, notice.message);
    }
    text
}

fn failure(text: &mut String, training: &ModelTraining, status: &ModelTrainingStatus) {
    let Some(failure) = &status.failure else { return };
    let mut what = vec![
        ("step".to_owned(), failure.step.clone()),
        ("reason".to_owned(), failure.reason.clone()),
    ];
    if let Some(field) = &failure.field {
        what.push(("field".to_owned(), field.clone()));
    }
    if let Some(code) = failure.exit_code {
        what.push(("exit code".to_owned(), code.to_string()));
    }
    if let Some(signal) = failure.signal {
        what.push(("signal".to_owned(), signal.to_string()));
    }
    pairs(text, "failure", &what);
    let _ = writeln!(text, "  {}", failure.message);
    if let Some(remedy) = &failure.remedy {
        let _ = writeln!(text, "  remedy: {}", concrete(remedy, training, status));
    }
    if let Some(tail) = failure.log_tail.as_deref().filter(|tail| !tail.is_empty()) {
        let _ = writeln!(text, "\nlast lines of the log");
        for line in log_lines::lines(tail.as_bytes()) {
            let _ = writeln!(text, "  | {line}");
        }
    }
}

/// Returns a remedy with a place of the log that can be read now: a path on this machine, or a command. The operator's
/// command reads a pod, and after `local run` no API is up.
fn concrete(remedy: &str, training: &ModelTraining, status: &ModelTrainingStatus) -> String {
    const READ: &str = "read the log: ";
    let Some(rest) = remedy.strip_prefix(READ) else {
        return remedy.to_owned();
    };
    let (_, more) = rest.split_once(';').unwrap_or((rest, ""));
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(";{more}")
    };
    let uri = status.log.as_ref().map(|log| log.uri.as_str());
    let place = match uri.and_then(|uri| Url::parse(uri).ok()?.to_file_path().ok()) {
        Some(path) => path.display().to_string(),
        None => {
            let command = format!(
                "`legionctl logs {}`",
                training.metadata.name.as_deref().unwrap_or_default()
            );
            uri.map_or_else(|| command.clone(), |uri| format!("{command}, or {uri}"))
        }
    };
    format!("{READ}{place}{more}")
}

fn summary(training: &ModelTraining, status: &ModelTrainingStatus) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    row(
        "model",
        format!("{} {}", training.spec.model.name, training.spec.model.version),
    );
    if let Some(run) = &status.run {
        row(
            "run",
            format!("{} (run {}, attempt {})", run.id, run.sequence, run.attempt),
        );
    }
    if let Some(toolchain) = &status.toolchain {
        row(
            "toolchain",
            format!("{}/{} ({})", toolchain.namespace, toolchain.name, toolchain.image),
        );
    }
    if let Some(source) = &status.source {
        let name = source.uri.as_deref().or(source.name.as_deref()).unwrap_or_default();
        let version = source
            .commit
            .as_deref()
            .or(source.digest.as_deref())
            .unwrap_or_default();
        row(
            "source",
            format!("{} {name} {version}", source.kind).trim_end().to_owned(),
        );
    }
    if let Some(environment) = &status.environment {
        let from = environment
            .from
            .as_deref()
            .map(|from| format!(", the {from}'s environment"))
            .unwrap_or_default();
        if let Some(python) = &environment.python {
            row("python", format!("{python}{from}"));
        }
    }
    if let Some(external) = &status.external {
        let version = external.version.as_deref().unwrap_or_default();
        // Without a tracking system there is no run to name.
        if let Some(id) = external.id.as_deref().filter(|id| !id.is_empty()) {
            row("tracked by", format!("{} {version}, run {id}", external.system));
        }
    }
    if let Some(artifact) = &status.artifact {
        let current = status.run.as_ref().is_some_and(|run| run.id == artifact.run_id);
        let of = if current {
            String::new()
        } else {
            format!(" (of run {})", artifact.run_id)
        };
        row(
            "artifact",
            format!("{}, {}{of}", artifact.format, bytes(artifact.size_bytes)),
        );
        row("digest", artifact.digest.clone());
        row("stored at", artifact.uri.clone());
    }
    for (name, file) in [("log", &status.log), ("files", &status.files)] {
        if let Some(file) = file {
            row(name, format!("{} ({})", file.uri, bytes(file.size_bytes)));
        }
    }
    if let Some(series) = &status.series {
        row("series", format!("{} ({} points)", series.uri, series.points));
    }
    rows
}

fn pairs(text: &mut String, title: &str, pairs: &[(String, String)]) {
    if pairs.is_empty() {
        return;
    }
    let indent = if title.is_empty() { "" } else { "  " };
    if !title.is_empty() {
        let _ = writeln!(text, "\n{title}");
    }
    let wide = pairs
        .iter()
        .take(MAX_ROWS)
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or_default()
        .min(40);
    for (name, value) in pairs.iter().take(MAX_ROWS) {
        let value = if title.is_empty() {
            plain(value)
        } else {
            short(&plain(value))
        };
        let _ = writeln!(text, "{indent}{name:<wide$}  {value}");
    }
    if pairs.len() > MAX_ROWS {
        let _ = writeln!(text, "{indent}... and {} more", pairs.len() - MAX_ROWS);
    }
}

fn metrics(text: &mut String, status: &ModelTrainingStatus, stored: &Result<Vec<MetricPoint>>, width: usize) {
    if status.metrics.is_empty() {
        return;
    }
    let mut series: BTreeMap<&str, Vec<(i64, f64)>> = BTreeMap::new();
    for point in stored.iter().flatten() {
        series.entry(&point.name).or_default().push((point.step, point.value));
    }
    let mut table = vec![
        ["metric", "value", "step", "points", "min", "max", "series"]
            .map(ToOwned::to_owned)
            .to_vec(),
    ];
    for metric in status.metrics.iter().take(MAX_ROWS) {
        let plot = series
            .get_mut(metric.name.as_str())
            .filter(|points| points.len() > 1)
            .map(|points| {
                // The sort is stable: points of one step stay in the order of the log.
                points.sort_by_key(|(step, _)| *step);
                let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
                plot::spark(&values, (width / 4).clamp(10, 32))
            });
        let number = |value: &Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
        let decimal = |value: &Option<String>| value.as_deref().map(rounded).unwrap_or_default();
        table.push(vec![
            plain(&metric.name),
            rounded(&metric.value),
            number(&metric.step),
            number(&metric.count),
            decimal(&metric.min),
            decimal(&metric.max),
            plot.unwrap_or_default(),
        ]);
    }
    text.push('\n');
    for line in columns::align(&table) {
        let _ = writeln!(text, "{line}");
    }
    if status.metrics.len() > MAX_ROWS {
        let _ = writeln!(text, "... and {} more", status.metrics.len() - MAX_ROWS);
    }
    if let Err(error) = stored {
        let _ = writeln!(text, "no plots: {error}");
    }
}

/// Rounds a number to at most six significant digits. Any other text stays unchanged.
fn rounded(text: &str) -> String {
    let Ok(number) = text.parse::<f64>() else {
        return plain(text);
    };
    if !number.is_finite() || text.len() <= 9 {
        return text.to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e9).contains(&magnitude) {
        return format!("{number:.5e}");
    }
    let whole = if magnitude < 1.0 {
        0
    } else {
        magnitude.log10() as usize + 1
    };
    let text = format!(
        "{number:.*}",
        6_usize.saturating_sub(whole).max(if magnitude < 0.1 { 8 } else { 0 })
    );
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Formats a number of bytes: `1.5 MiB`.
#[must_use]
pub(crate) fn bytes(size: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{size} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Replaces control characters. The text comes from user code and must not control the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn short(text: &str) -> String {
    if text.chars().count() <= MAX_VALUE {
        return text.to_owned();
    }
    text.chars().take(MAX_VALUE - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exit::{CliError, Code};

    #[test]
    fn only_long_numbers_are_rounded() {
        for (text, expected) in [
            ("0.9722222222222222", "0.972222"),
            ("1.0", "1.0"),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            ("12345.678901234", "12345.7"),
            ("1.2345678901234e-12", "1.23457e-12"),
            ("0.00012345678901", "0.00012346"),
            ("1.7976931348623157e308", "1.79769e308"),
            ("word", "word"),
        ] {
            assert_eq!(rounded(text), expected, "{text}");
        }
    }

    #[test]
    fn text_from_user_code_cannot_control_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc"), "a [2Jb  c");
    }

    #[test]
    fn a_remedy_has_the_name_of_the_training_and_the_path_of_a_log_on_this_machine() {
        let of = |log: serde_json::Value| {
            let training: ModelTraining = serde_json::from_value(json!({
                "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining",
                "metadata": {"name": "wine", "generation": 1},
                "spec": {"model": {"name": "wine", "version": "1"}, "toolchain": "mlflow", "source": {"configMap": {"name": "x"}}},
                "status": {"log": log, "failure": {
                    "step": "train", "reason": "TrainerFailed", "message": "m", "remedy": legion_api::Reason::TrainerFailed.remedy(),
                }},
            }))
            .unwrap();
            render(&training, &Ok(Vec::new()), 100)
        };
        let local = of(json!({"uri": "file:///my%20data/wine/log.txt", "sizeBytes": 1}));
        assert!(
            local.contains("remedy: read the log: /my data/wine/log.txt\n"),
            "{local}"
        );
        let stored = of(json!({"uri": "s3://models/log.txt", "sizeBytes": 1}));
        assert!(
            stored.contains("remedy: read the log: `legionctl logs wine`, or s3://models/log.txt\n"),
            "{stored}"
        );
        assert!(of(json!(null)).contains("`legionctl logs wine`"));
    }

    #[test]
    fn a_finished_training_is_shown_with_score_metrics_plots_parameters_tags_and_places() {
        let points = [0.9, 0.95, 1.0].iter().zip(0..).map(|(value, step)| MetricPoint {
            name: "acc".to_owned(),
            value: *value,
            step,
            timestamp: None,
            dataset: None,
            model: None,
            child: None,
        });
        let training: ModelTraining = serde_json::from_value(json!({
            "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining",
            "metadata": {"name": "wine", "generation": 1},
            "spec": {"model": {"name": "wine", "version": "1"}, "toolchain": "mlflow", "source": {"configMap": {"name": "x"}}},
            "status": {
                "observedGeneration": 1, "score": "acc=1", "duration": "12s",
                "conditions": [{"type": "Succeeded", "status": "True", "reason": "RunSucceeded", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "run": {"id": "7f3a1c9e", "sequence": 1, "generation": 1, "attempt": 1},
                "metrics": [{"name": "acc", "value": "1.0", "step": 2, "count": 3, "min": "0.9", "max": "1.0"}],
                "parameters": {"c": "0.5", "folds": "3"}, "tags": {"dataset": "sklearn-wine"},
                "artifact": {"runId": "7f3a1c9e", "uri": "file:///x/model.tar", "digest": "sha256:ab", "sizeBytes": 20480, "format": "gppi/v1"},
                "series": {"uri": "s3://models/series.jsonl", "points": 3},
                "notices": [{"reason": "NoSignature", "message": "the model has no signature"}],
            },
        }))
        .unwrap();
        insta::assert_snapshot!(render(&training, &Ok(points.collect()), 100));

        let closed = CliError::new(Code::NotFound, "s3://models/series.jsonl: no credentials").remedy("set them");
        let text = render(&training, &Err(closed), 100);
        assert!(
            text.contains("no plots: s3://models/series.jsonl: no credentials\n  remedy: set them\n"),
            "{text}"
        );
    }
}
