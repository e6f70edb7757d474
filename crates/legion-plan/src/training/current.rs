//! The current run of a training: the one in its status, or a new one.

use legion_api::{
    ModelTrainingStatus, Problem, Reason,
    condition::{SUCCEEDED, find},
    run::{HistoryEntry, RunResult, RunStatus},
};

use super::{
    fields::{content_hash, run_id},
    world::{ConfigMapView, MissingKey, World, config_map_name},
};
use crate::run::id;

/// Maximum number of earlier runs in the status.
const HISTORY_MAX: usize = 5;

/// The current run of a training.
pub(super) enum CurrentRun {
    /// The content of the ConfigMap of that name must be read first.
    Unread(String),
    /// The run of the status, updated.
    Same(RunStatus),
    New(RunStatus),
    /// A new run is requested but has no id yet: its source is missing.
    Blocked(Problem),
}

/// Returns whether nothing is left to decide. This is the common case, and it is checked first and cheaply.
pub(super) fn is_settled(world: &World) -> bool {
    let Some(status) = &world.training.status else {
        return false;
    };
    let generation = world.generation();
    let Some(run) = status.run.as_ref().filter(|run| run.result.is_some()) else {
        return false;
    };
    let same_source = || match &world.config_map {
        // It was deleted after the run, or the source is of another kind. That is no new content.
        ConfigMapView::Absent | ConfigMapView::Unreadable { .. } => true,
        ConfigMapView::Seen { resource_version } => run.source_version.as_ref() == Some(resource_version),
        ConfigMapView::Read(content) => content.digest.as_ref().ok() == run.source_digest.as_ref(),
    };
    let same_content = || run.content_hash == Some(content_hash(&world.training.spec, run.source_digest.as_deref()));
    status.observed_generation == Some(generation)
        && run.generation == generation
        && find(&status.conditions, SUCCEEDED).is_some_and(|condition| Some(&condition.reason) == run.reason.as_ref())
        && world.own_pods().next().is_none()
        && same_source()
        && same_content()
}

/// Returns the current run of a training. `previous` is the run of its status, or what its pods show of it.
pub(super) fn current(world: &World, previous: Option<&RunStatus>) -> CurrentRun {
    let generation = world.generation();
    let spec = &world.training.spec;
    let up_to_date = |run: &RunStatus, source: SourceVersion| RunStatus {
        generation,
        content_hash: Some(content_hash(spec, source.digest.as_deref())),
        source_digest: source.digest,
        source_version: source.version,
        ..run.clone()
    };
    let source = match source(world, previous.filter(|run| run.generation == generation)) {
        Ok(source) => source,
        Err(Unavailable::Unread(name)) => return CurrentRun::Unread(name),
        Err(Unavailable::Missing(problem)) => {
            // A run that has started continues without its source.
            return match previous {
                Some(run) if is_same_run(world, run, run.source_digest.as_deref()) => {
                    let source = SourceVersion {
                        digest: run.source_digest.clone(),
                        version: run.source_version.clone(),
                    };
                    CurrentRun::Same(up_to_date(run, source))
                }
                _ => CurrentRun::Blocked(problem),
            };
        }
    };
    let digest = source.digest.as_deref();
    if let Some(run) = previous.filter(|run| is_same_run(world, run, digest)) {
        return CurrentRun::Same(up_to_date(run, source));
    }
    let status = world.status();
    let recorded = previous.map(|run| run.sequence);
    let in_history = || status.history.first().map(|run| run.sequence);
    let sequence = recorded.or_else(in_history).unwrap_or(0).saturating_add(1);
    let new = RunStatus {
        id: run_id(world.uid(), sequence, spec, digest),
        sequence,
        attempt: 1,
        ..RunStatus::default()
    };
    let new = up_to_date(&new, source);
    // A status that lost its run still has the artifact. The id proves that it is of this run.
    let trained = status
        .artifact
        .as_ref()
        .is_some_and(|artifact| artifact.run_id == new.id);
    if previous.is_none() && trained {
        return CurrentRun::Same(RunStatus {
            result: Some(RunResult::Succeeded),
            reason: Some(Reason::RunSucceeded.as_str().to_owned()),
            ..new
        });
    }
    CurrentRun::New(new)
}

/// Returns whether `run` is the run of the training's spec and of this source.
///
/// The hash of the content decides, because uid and generation change when an object is created again from a backup.
/// A run without a hash of this version was recorded by another version of the operator, or recovered from its pod. It
/// is the same while nothing has changed since, or if its id says so.
fn is_same_run(world: &World, run: &RunStatus, source_digest: Option<&str>) -> bool {
    let spec = &world.training.spec;
    match run.content_hash.as_deref().filter(|hash| id::is_known_hash(hash)) {
        Some(recorded) => recorded == content_hash(spec, source_digest),
        None => {
            (run.generation == world.generation() && run.source_digest.as_deref() == source_digest)
                || run_id(world.uid(), run.sequence, spec, source_digest) == run.id
        }
    }
}

/// What is known about the content of a ConfigMap source. It is empty for other kinds of sources.
#[derive(Default)]
struct SourceVersion {
    digest: Option<String>,
    version: Option<String>,
}

enum Unavailable {
    Unread(String),
    Missing(Problem),
}

fn source(world: &World, run: Option<&RunStatus>) -> Result<SourceVersion, Unavailable> {
    let Some(name) = config_map_name(&world.training) else {
        return Ok(SourceVersion::default());
    };
    let missing =
        |field: &str, message: String| Unavailable::Missing(Problem::new(Reason::SourceNotFound, field, message));
    match &world.config_map {
        ConfigMapView::Absent => {
            let message = format!("there is no ConfigMap {name:?} in namespace {:?}", world.namespace());
            Err(missing("spec.source.configMap.name", message))
        }
        ConfigMapView::Unreadable { forbidden, message } => {
            let reason = if *forbidden {
                Reason::Forbidden
            } else {
                Reason::ApiUnavailable
            };
            let message = format!("the ConfigMap {name:?} cannot be read: {message}");
            Err(Unavailable::Missing(Problem::new(
                reason,
                "spec.source.configMap.name",
                message,
            )))
        }
        ConfigMapView::Seen { resource_version } => match run {
            Some(run) if run.source_version.as_ref() == Some(resource_version) => Ok(SourceVersion {
                digest: run.source_digest.clone(),
                version: run.source_version.clone(),
            }),
            _ => Err(Unavailable::Unread(name.to_owned())),
        },
        ConfigMapView::Read(content) => match &content.digest {
            Ok(digest) => Ok(SourceVersion {
                digest: Some(digest.clone()),
                version: Some(content.resource_version.clone()),
            }),
            Err(MissingKey(key)) => Err(missing(
                "spec.source.configMap.items",
                format!("the ConfigMap {name:?} has no key {key:?}"),
            )),
        },
    }
}

/// Returns the status at the start of a new run. Of the previous run it keeps the history entry and the artifact,
/// because the status shows the last successful artifact.
pub(super) fn begin(old: &ModelTrainingStatus) -> ModelTrainingStatus {
    let mut history = old.history.clone();
    if let Some(run) = &old.run {
        let condition = find(&old.conditions, SUCCEEDED);
        history.insert(
            0,
            HistoryEntry {
                run_id: run.id.clone(),
                sequence: run.sequence,
                generation: run.generation,
                result: run.result.unwrap_or(RunResult::Superseded),
                reason: run
                    .reason
                    .clone()
                    .or_else(|| condition.map(|condition| condition.reason.clone())),
                score: old.score.clone(),
                artifact_digest: old
                    .artifact
                    .as_ref()
                    .filter(|artifact| artifact.run_id == run.id)
                    .map(|artifact| artifact.digest.clone()),
                started_at: run.started_at.clone(),
                finished_at: run.finished_at.clone(),
            },
        );
        history.truncate(HISTORY_MAX);
    }
    ModelTrainingStatus {
        conditions: old.conditions.clone(),
        artifact: old.artifact.clone(),
        history,
        ..ModelTrainingStatus::default()
    }
}
