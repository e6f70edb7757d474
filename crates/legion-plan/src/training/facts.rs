//! Writes what the containers reported into the status, section by section.

use jiff::Timestamp;
use legion_api::{
    ModelTrainingStatus,
    condition::cut,
    run::{Artifact, Notice, PinnedToolchain, StoredFile},
    training::{EnvironmentFacts, ExternalRun, Metric, Omitted, OutputFacts, SourceFacts, StoredSeries},
};
use legion_protocol::{
    message::{PublishHead, PublishOutcome, PublishTail, Tail, WireStoredFile},
    summary::{MAX_METRICS, MetricSummary, NamedValue},
    task::SourceTask,
    training::SourceKind,
};

use super::inputs::Inputs;
use crate::run::{attempt_end::PublishReport, ending::FetchReport};

/// Maximum number of notices in the status.
const MAX_NOTICES: usize = 32;

/// Shows the inputs of a run: `toolchain`, `source` and `output`.
pub(super) fn show_inputs(status: &mut ModelTrainingStatus, inputs: &Inputs, image_id: Option<&str>) {
    let tool = &inputs.toolchain;
    status.toolchain = Some(PinnedToolchain {
        namespace: tool.namespace.clone(),
        name: tool.name.clone(),
        generation: tool.generation,
        image: pinned_image(&tool.image, image_id),
    });
    let (kind, reference, commit, digest) = match &inputs.source.task {
        SourceTask::Git { reference, commit, .. } => ("Git", some(reference), some(commit), None),
        SourceTask::ConfigMap { digest, .. } => ("ConfigMap", None, None, some(digest)),
        SourceTask::ObjectStore { .. } => ("ObjectStore", None, None, None),
        SourceTask::Volume { .. } => ("Volume", None, None, None),
    };
    let found = status.source.take().filter(|source| source.kind == kind);
    status.source = Some(SourceFacts {
        kind: kind.to_owned(),
        name: some(&inputs.source.name),
        uri: some(&inputs.source.uri),
        reference,
        commit,
        digest: digest.or_else(|| found.and_then(|source| source.digest)),
    });
    status.output = Some(OutputFacts {
        connection: inputs.output.task.connection.clone(),
        path: inputs.output.task.path.clone(),
    });
}

/// Returns the image with the digest that the node reported: `IMAGE@sha256:...`.
fn pinned_image(image: &str, image_id: Option<&str>) -> String {
    match image_id.and_then(|id| id.split_once('@')) {
        Some((_, digest)) if !image.contains('@') && digest.starts_with("sha256:") => format!("{image}@{digest}"),
        _ => image.to_owned(),
    }
}

/// Returns the notices of `fetch`.
pub(super) fn fetch_notices(report: &FetchReport) -> Vec<Notice> {
    match &report.tail {
        Tail::Whole(tail) => tail
            .notices
            .iter()
            .map(|given| notice(&given.reason, &given.message))
            .collect(),
        Tail::Cut | Tail::Corrupt | Tail::Absent => Vec::new(),
    }
}

/// Shows what `fetch` found.
pub(super) fn show_fetched(status: &mut ModelTrainingStatus, inputs: &mut Inputs, report: &FetchReport) {
    let Some(found) = &report.head.source else { return };
    if !found.commit.is_empty() {
        inputs.pin_commit(&found.commit);
    }
    if let Some(source) = &mut status.source {
        source.commit = inputs.commit().map(str::to_owned);
        if inputs.source.task.kind() != SourceKind::Git && !found.digest.is_empty() {
            source.digest = Some(found.digest.clone());
        }
    }
}

/// Shows what `publish` reported. `notices` are those of `fetch`.
pub(super) fn show_published(
    status: &mut ModelTrainingStatus,
    report: &PublishReport,
    mut notices: Vec<Notice>,
    run_id: &str,
    objective: Option<&str>,
    inputs: Option<&Inputs>,
) {
    let head = &report.head;
    let tail = match &report.tail {
        Tail::Whole(tail) => Some(tail),
        Tail::Absent => None,
        Tail::Cut | Tail::Corrupt => {
            notices.push(notice("StatusIncomplete", REPORT_WAS_CUT));
            None
        }
    };
    match tail {
        Some(tail) => {
            show_logged(status, tail, objective);
            show_environment(status, tail);
            show_stored_files(status, tail);
            notices.extend(tail.notices.iter().map(|given| notice(&given.reason, &given.message)));
        }
        None => {
            status.omitted = Some(Omitted {
                metrics: number(head.counts.metrics),
                parameters: number(head.counts.parameters),
                tags: number(head.counts.tags),
            });
        }
    }
    let published = matches!(head.outcome, PublishOutcome::Published | PublishOutcome::Skipped);
    if published {
        show_artifact(status, head, tail, run_id, inputs);
    }
    status.score = None;
    if let Some(metric) = objective {
        match &head.objective {
            Some(value) => status.score = Some(format!("{metric}={}", rounded(value))),
            None if published => notices.push(notice(
                "ObjectiveMetricMissing",
                &format!("spec.objective.metric {metric:?} was never logged"),
            )),
            None => {}
        }
    }
    notices.truncate(MAX_NOTICES);
    status.notices = notices;
}

const REPORT_WAS_CUT: &str = "the report of publish was cut on its way. Metrics, parameters and tags are in the series \
                              only. An injected container may use part of the space";

/// Shows metrics, parameters and tags.
fn show_logged(status: &mut ModelTrainingStatus, tail: &PublishTail, objective: Option<&str>) {
    // `publish` has the same bound, but another version of it may not. The objective is always shown.
    let is_objective = |summary: &&MetricSummary| Some(summary.name.as_str()) == objective;
    let others = tail.metrics.iter().filter(|summary| !is_objective(summary));
    let shown = tail.metrics.iter().filter(is_objective).chain(others).take(MAX_METRICS);
    status.metrics = shown.map(metric).collect();
    let pairs = |pairs: &[NamedValue]| {
        pairs
            .iter()
            .map(|pair| (pair.name.clone(), pair.value.clone()))
            .collect()
    };
    status.parameters = pairs(&tail.parameters);
    status.tags = pairs(&tail.tags);
    status.omitted = Some(Omitted {
        metrics: number(tail.omitted.metrics + tail.metrics.len().saturating_sub(MAX_METRICS) as u64),
        parameters: number(tail.omitted.parameters),
        tags: number(tail.omitted.tags),
    });
}

/// Shows the run in the tracking system, and the environment of the training code.
fn show_environment(status: &mut ModelTrainingStatus, tail: &PublishTail) {
    status.external = tail.external.as_ref().map(|external| ExternalRun {
        system: external.system.clone(),
        version: some(&external.version),
        id: some(&external.id),
        name: some(&external.name),
        experiment: some(&external.experiment),
        uri: some(&external.uri),
        other_runs: external.other_runs.into(),
    });
    let of_environment = |key: &str| tail.environment.get(key).cloned();
    status.environment = (!tail.environment.is_empty()).then(|| EnvironmentFacts {
        python: of_environment("python"),
        from: of_environment("from"),
        lock: of_environment("lock"),
    });
}

/// Shows log, files and series.
fn show_stored_files(status: &mut ModelTrainingStatus, tail: &PublishTail) {
    status.log = tail.log.as_ref().map(|log| StoredFile {
        truncated: Some(log.truncated),
        ..stored(log)
    });
    status.files = tail.files.as_ref().map(stored);
    status.series = tail.series.as_ref().map(|series| StoredSeries {
        uri: series.uri.clone(),
        points: number(series.points.unwrap_or_default()),
    });
}

fn show_artifact(
    status: &mut ModelTrainingStatus,
    head: &PublishHead,
    tail: Option<&PublishTail>,
    run_id: &str,
    inputs: Option<&Inputs>,
) {
    let Some(artifact) = &head.artifact else { return };
    let of_tail = |text: fn(&PublishTail) -> &str| tail.and_then(|tail| some(text(tail)));
    // The address follows from the inputs when neither part of the message had space for it.
    let uri = some(&artifact.uri)
        .or_else(|| of_tail(|tail| &tail.artifact_uri))
        .or_else(|| inputs.map(|inputs| inputs.output.task.uri_of(legion_protocol::env::objects::MODEL)));
    let format = of_tail(|tail| &tail.format).or_else(|| inputs.map(|inputs| inputs.toolchain.format.clone()));
    status.artifact = Some(Artifact {
        run_id: run_id.to_owned(),
        uri: uri.unwrap_or_default(),
        digest: artifact.digest.clone(),
        size_bytes: number(artifact.size_bytes),
        format: format.unwrap_or_default(),
        model: of_tail(|tail| &tail.model),
        signature: tail.and_then(|tail| tail.signature),
    });
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn notice(reason: &str, message: &str) -> Notice {
    Notice {
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn stored(stored: &WireStoredFile) -> StoredFile {
    StoredFile {
        uri: stored.uri.clone(),
        size_bytes: number(stored.size_bytes),
        truncated: Some(stored.truncated).filter(|truncated| *truncated),
    }
}

fn metric(summary: &MetricSummary) -> Metric {
    let time = summary
        .timestamp
        .and_then(|millis| Timestamp::from_millisecond(millis).ok());
    Metric {
        name: cut(&summary.name, 256),
        value: summary.value.clone(),
        step: Some(summary.step),
        time: time.map(|time| time.to_string()),
        count: Some(number(summary.count)),
        min: Some(summary.min.clone()),
        max: Some(summary.max.clone()),
    }
}

/// Returns a number with about four significant digits, for people. Other texts stay as they are.
fn rounded(text: &str) -> String {
    let Ok(value) = text.parse::<f64>() else {
        return text.to_owned();
    };
    if !value.is_finite() || value == 0.0 {
        return if value == 0.0 { "0".to_owned() } else { text.to_owned() };
    }
    let exponent = value.abs().log10().floor();
    if !(-4.0..9.0).contains(&exponent) {
        return format!("{value:.3e}");
    }
    // At most seven decimals. The range above bounds the cast.
    let decimals = (3.0 - exponent).max(0.0) as usize;
    let fixed = format!("{value:.decimals$}");
    if fixed.contains('.') {
        fixed.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        fixed
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0.9722222222222222", "0.9722")]
    #[case("1.0", "1")]
    #[case("0.0", "0")]
    #[case("-0.00012346", "-0.0001235")]
    #[case("123456.789", "123457")]
    #[case("12.3456", "12.35")]
    #[case("1e-9", "1.000e-9")]
    #[case("1.5e12", "1.500e12")]
    #[case("NaN", "NaN")]
    #[case("-Infinity", "-Infinity")]
    #[case("text", "text")]
    fn scores_are_rounded(#[case] value: &str, #[case] shown: &str) {
        assert_eq!(rounded(value), shown);
    }

    #[rstest]
    #[case("a:1", None, "a:1")]
    #[case("a:1", Some("registry/a@sha256:12"), "a:1@sha256:12")]
    #[case("a@sha256:34", Some("registry/a@sha256:12"), "a@sha256:34")]
    #[case("a:1", Some("sha256:12"), "a:1")]
    fn the_image_gets_its_digest(#[case] image: &str, #[case] id: Option<&str>, #[case] shown: &str) {
        assert_eq!(pinned_image(image, id), shown);
    }
}
