//! The main container `publish`.

mod collect;
mod upload;
mod wait;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use legion_protocol::env::files;
use legion_protocol::exit::ExitRecord;
use legion_protocol::message::{
    Counts, HeadError, PublishHead, PublishMessage, PublishOutcome, PublishTail, WireArtifact, WireStoredFile,
};
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::result::ResultDocument;
use legion_protocol::success::SuccessRecord;
use legion_protocol::summary::Summary;
use legion_protocol::task::{MESSAGE_BYTES_MAX, PublishTask};
use legion_protocol::time::rfc3339_millis;
use legion_protocol::{WIRE_VERSION, env::objects};

use crate::error::Result;
use crate::record::{self, Found};
use crate::{paths, report, retry, terminate};

/// The program.
pub(crate) fn main() -> ExitCode {
    let task = paths::task::<PublishTask>();
    let budget = task.as_ref().map_or(MESSAGE_BYTES_MAX, |t| t.message_budget as usize);
    let grace = task
        .as_ref()
        .map_or(Duration::ZERO, |t| Duration::from_secs(t.grace_seconds.into()));
    terminate::handle(grace, move |error| failed(exit_so_far(), error).encode(budget));
    let message = match task.and_then(|task| publish(&task)) {
        Ok(message) => message,
        Err(error) => failed(None, &error),
    };
    if let Some(error) = &message.tail.error {
        report::error(error);
    }
    report::message(&message.encode(budget));
    match message.head.outcome {
        // The trainer's failure is the trainer's: this step did what it could.
        PublishOutcome::Published | PublishOutcome::Skipped | PublishOutcome::Failed => ExitCode::SUCCESS,
        PublishOutcome::Error => ExitCode::FAILURE,
    }
}

/// How the command ended, for a message that has to be written in the middle of an upload.
static EXIT: Mutex<Option<ExitRecord>> = Mutex::new(None);

fn exit_so_far() -> Option<ExitRecord> {
    EXIT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The message of a step that could not do its work.
fn failed(exit: Option<ExitRecord>, error: &StepError) -> PublishMessage {
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

fn publish(task: &PublishTask) -> Result<PublishMessage> {
    if task.version != WIRE_VERSION {
        let message = format!(
            "the task has version {}, and this agent knows {WIRE_VERSION}",
            task.version
        );
        return Err(StepError::new(StepReason::TaskInvalid, message));
    }
    let run = paths::run()?;
    if run.join(files::SKIP).exists() {
        return repeat(task);
    }
    // Before the wait: while there is no trainer the lock is what `fetch` made.
    let lock = wait::lock(&run)?;
    wait::for_start(&run)?;
    // From here on there is something to save.
    terminate::prefer_finishing();
    wait::for_end(&lock)?;
    upload::publish(task, &run)
}

/// Repeats the facts of the attempt that published.
fn repeat(task: &PublishTask) -> Result<PublishMessage> {
    let store = crate::store::Output::open(&task.output)?;
    match retry::patiently(|| record::find(&store, &task.output, &task.uid, &task.run_id))? {
        Found::Published(record) => Ok(repeated(*record)),
        Found::Nothing | Found::Stale => Err(StepError::new(
            StepReason::UploadFailed,
            format!(
                "the success record {} or its artifact went away after it was found",
                task.output.record
            ),
        )),
    }
}

fn repeated(record: SuccessRecord) -> PublishMessage {
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
struct RunRecord {
    exit: Option<ExitRecord>,
    summary: Summary,
    document: Option<ResultDocument>,
    log: Option<WireStoredFile>,
    series: Option<WireStoredFile>,
    files: Option<WireStoredFile>,
}

impl RunRecord {
    /// The message about the run. What status shows comes from one place for success and failure alike.
    fn message(self, task: &PublishTask, outcome: PublishOutcome, artifact: Option<WireArtifact>) -> PublishMessage {
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

/// The record that proves a message.
fn success_record(task: &PublishTask, message: &PublishMessage) -> SuccessRecord {
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

/// Where an object of this run goes.
fn object(task: &PublishTask, name: &str) -> String {
    format!("{}/{name}", task.output.path)
}

/// Something stored, as status shows it.
fn stored(task: &PublishTask, name: &str, bytes: u64) -> WireStoredFile {
    WireStoredFile {
        uri: task.output.uri_of(name),
        size_bytes: bytes,
        truncated: false,
        points: None,
    }
}

/// The name of the artifact's object.
const MODEL: &str = objects::MODEL;
