//! Which run a training is in: the one that its status tells of, or a new one.

use legion_api::{
    ModelTrainingStatus, Problem, Reason,
    condition::{SUCCEEDED, find},
    run::{HistoryEntry, RunResult, RunStatus},
};

use super::world::{ConfigMapView, MissingKey, World, config_map_name};
use crate::run::id::{is_same, run_id};

/// Most earlier runs that a status keeps.
const HISTORY_MAX: usize = 5;

/// Which run a training is in.
pub(super) enum Current {
    /// The content of the ConfigMap of that name must be read first.
    Unread(String),
    /// The run of the status, brought up to date.
    Same(RunStatus),
    /// A new one.
    New(RunStatus),
    /// A new one is asked for, but cannot be named yet: its source is missing.
    Blocked(Problem),
}

/// Whether nothing at all is left to be decided. The common case, hence first and cheap.
pub(super) fn is_settled(world: &World) -> bool {
    let Some(status) = &world.training.status else {
        return false;
    };
    let generation = world.generation();
    let Some(run) = status.run.as_ref().filter(|run| run.result.is_some()) else {
        return false;
    };
    let same_source = || match &world.config_map {
        _ if config_map_name(&world.training).is_none() => true,
        // It was removed after the run: that is no new content.
        ConfigMapView::Absent | ConfigMapView::Unreadable { .. } => true,
        ConfigMapView::Seen { resource_version } => run.source_version.as_ref() == Some(resource_version),
        ConfigMapView::Read(content) => content.digest.as_ref().ok() == run.source_digest.as_ref(),
    };
    status.observed_generation == Some(generation)
        && run.generation == generation
        && find(&status.conditions, SUCCEEDED).is_some_and(|condition| Some(&condition.reason) == run.reason.as_ref())
        && world.own_pods().next().is_none()
        && same_source()
}

/// Finds out which run a training is in.
pub(super) fn current(world: &World) -> Current {
    let generation = world.generation();
    let spec = &world.training.spec;
    let previous = world.run();
    let up_to_date = |run: &RunStatus, source: Source| RunStatus {
        generation,
        source_digest: source.digest,
        source_version: source.version,
        ..run.clone()
    };
    let source = match source(world, previous.filter(|run| run.generation == generation)) {
        Ok(source) => source,
        Err(Unavailable::Unread(name)) => return Current::Unread(name),
        Err(Unavailable::Missing(problem)) => {
            // What a run has begun with does not vanish with its source.
            return match previous {
                Some(run)
                    if run.generation == generation
                        || is_same(world.uid(), run, spec, run.source_digest.as_deref()) =>
                {
                    let source = Source {
                        digest: run.source_digest.clone(),
                        version: run.source_version.clone(),
                    };
                    Current::Same(up_to_date(run, source))
                }
                _ => Current::Blocked(problem),
            };
        }
    };
    let digest = source.digest.as_deref();
    match previous {
        Some(run) if run.generation == generation && run.source_digest.as_deref() == digest => {
            Current::Same(up_to_date(run, source))
        }
        Some(run) if is_same(world.uid(), run, spec, digest) => Current::Same(up_to_date(run, source)),
        _ => {
            let sequence = previous.map_or(0, |run| run.sequence).saturating_add(1);
            Current::New(RunStatus {
                id: run_id(world.uid(), sequence, spec, digest),
                sequence,
                generation,
                source_digest: source.digest,
                source_version: source.version,
                attempt: 1,
                ..RunStatus::default()
            })
        }
    }
}

/// What is known of the content of a ConfigMap source; nothing for other kinds of sources.
#[derive(Default)]
struct Source {
    digest: Option<String>,
    version: Option<String>,
}

enum Unavailable {
    Unread(String),
    Missing(Problem),
}

fn source(world: &World, run: Option<&RunStatus>) -> Result<Source, Unavailable> {
    let Some(name) = config_map_name(&world.training) else {
        return Ok(Source::default());
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
            Some(run) if run.source_version.as_ref() == Some(resource_version) => Ok(Source {
                digest: run.source_digest.clone(),
                version: run.source_version.clone(),
            }),
            _ => Err(Unavailable::Unread(name.to_owned())),
        },
        ConfigMapView::Read(content) => match &content.digest {
            Ok(digest) => Ok(Source {
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

/// The status that a new run begins with: nothing of the run before, but for its place in the history and the artifact,
/// which stays the last successful one.
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
