//! What `publish` reports: the termination message and the success record of a run.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use legion_protocol::exit::ExitRecord;
use legion_protocol::message::{
    Counts, HeadError, PublishHead, PublishMessage, PublishOutcome, PublishTail, WireArtifact, WireStoredFile,
};
use legion_protocol::reason::StepError;
use legion_protocol::result::ResultDocument;
use legion_protocol::success::SuccessRecord;
use legion_protocol::summary::Summary;
use legion_protocol::task::PublishTask;
use legion_protocol::time::rfc3339_millis;
use legion_protocol::{WIRE_VERSION, env::objects};

/// The name of the artifact's object.
pub(super) const MODEL: &str = objects::MODEL;

/// How the command ended. The signal handler needs it when it writes a message in the middle of an upload.
static EXIT: Mutex<Option<ExitRecord>> = Mutex::new(None);

pub(super) fn exit_so_far() -> Option<ExitRecord> {
    EXIT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(super) fn remember_exit(exit: Option<&ExitRecord>) {
    *EXIT.lock().unwrap_or_else(PoisonError::into_inner) = exit.cloned();
}

/// Returns the message of a step that failed.
pub(super) fn failed(exit: Option<ExitRecord>, error: &StepError) -> PublishMessage {
    PublishMessage {
        head: PublishHead {
            outcome: PublishOutcome::Error,
            exit,
            artifact: None,
            objective: None,
            counts: Counts::default(),
            error: Some(HeadError::of(error)),
        },
        tail: PublishTail {
            error: Some(error.clone()),
            ..PublishTail::default()
        },
    }
}

pub(super) fn repeated(record: SuccessRecord) -> PublishMessage {
    PublishMessage {
        head: PublishHead {
            outcome: PublishOutcome::Skipped,
            ..record.head
        },
        tail: record.facts,
    }
}

/// What is known about a run before its artifact is packed.
#[derive(Debug, Default)]
pub(super) struct RunRecord {
    pub(super) exit: Option<ExitRecord>,
    pub(super) summary: Summary,
    pub(super) document: Option<ResultDocument>,
    pub(super) log: Option<WireStoredFile>,
    pub(super) series: Option<WireStoredFile>,
    pub(super) files: Option<WireStoredFile>,
}

impl RunRecord {
    /// Returns the message about the run, for success and for failure.
    pub(super) fn message(
        self,
        task: &PublishTask,
        outcome: PublishOutcome,
        artifact: Option<WireArtifact>,
    ) -> PublishMessage {
        let Self {
            exit,
            summary,
            document,
            log,
            series,
            files,
        } = self;
        let document = document.unwrap_or_default();
        let model = document.model.unwrap_or_default();
        let first = summary.metrics.first();
        let objective = task.objective.as_ref();
        let objective = first
            .filter(|m| objective.is_some_and(|o| o.metric == m.name))
            .map(|m| m.value.clone());
        let mut notices = document.notices;
        notices.extend(summary.notices);
        notices.truncate(legion_protocol::result::MAX_NOTICES);
        let format = if model.format.is_empty() {
            task.format.clone()
        } else {
            model.format
        };
        let has_artifact = artifact.is_some();
        PublishMessage {
            head: PublishHead {
                outcome,
                exit,
                objective,
                counts: Counts {
                    metrics: summary.metrics.len() as u64 + summary.omitted.metrics,
                    parameters: summary.parameters.len() as u64 + summary.omitted.parameters,
                    tags: summary.tags.len() as u64 + summary.omitted.tags,
                },
                error: None,
                artifact: artifact.clone(),
            },
            tail: PublishTail {
                tool_error: document.error,
                artifact_uri: artifact.map(|a| a.uri).unwrap_or_default(),
                format: if has_artifact { format } else { String::new() },
                model: if has_artifact { model.name } else { String::new() },
                signature: model.signature.filter(|_| has_artifact),
                log,
                series,
                files,
                metrics: summary.metrics,
                parameters: summary.parameters,
                tags: summary.tags,
                omitted: summary.omitted,
                external: document.external,
                environment: document.environment,
                notices,
                ..PublishTail::default()
            },
        }
    }
}

/// Returns the success record for a message.
pub(super) fn success_record(task: &PublishTask, message: &PublishMessage) -> SuccessRecord {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SuccessRecord {
        version: WIRE_VERSION,
        namespace: task.namespace.clone(),
        name: task.name.clone(),
        uid: task.uid.clone(),
        run_id: task.run_id.clone(),
        sequence: task.sequence,
        attempt: task.attempt,
        path: task.output.path.clone(),
        created_at: rfc3339_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
        head: message.head.clone(),
        facts: message.tail.clone(),
    }
}

/// Returns the path of an object of this run.
pub(super) fn object(task: &PublishTask, name: &str) -> String {
    format!("{}/{name}", task.output.path)
}

/// Returns a stored file as the status shows it.
pub(super) fn stored(task: &PublishTask, name: &str, bytes: u64) -> WireStoredFile {
    WireStoredFile {
        uri: task.output.uri_of(name),
        size_bytes: bytes,
        truncated: false,
        points: None,
    }
}
