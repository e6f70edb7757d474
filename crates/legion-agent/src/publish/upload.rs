//! Checks the output of the trainer, and stores it.

use std::io::Write;
use std::path::{Path, PathBuf};

use legion_protocol::env::{self, objects};
use legion_protocol::message::{HeadError, PublishMessage, PublishOutcome, WireArtifact, WireStoredFile};
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::result::ResultDocument;
use legion_protocol::task::PublishTask;

use super::collect::{self, TrainerLog};
use super::message::{MODEL, RunRecord, failed, object, remember_exit, repeated, stored, success_record};
use crate::confined::ConfinedDir;
use crate::error::{Result, sink_error};
use crate::pack::{PackLimits, Packing};
use crate::record::{self, RecordLookup};
use crate::store::{Created, Output, StoredObject};
use crate::{paths, retry};

/// Checks and stores the result of the run.
pub(super) fn publish(task: &PublishTask, run: &Path) -> Result<PublishMessage> {
    let run = ConfinedDir::open(run)
        .map_err(|e| StepError::new(StepReason::NodeFault, format!("the control directory {e}")))?;
    let exit = collect::exit(&run);
    remember_exit(exit.as_ref());
    match store(task, &run, exit.clone()) {
        Ok(message) => Ok(message),
        // The message reports how the trainer ended even if nothing can be stored.
        Err(error) => Ok(failed(exit, &error)),
    }
}

fn store(
    task: &PublishTask,
    run: &ConfinedDir,
    exit: Option<legion_protocol::exit::ExitRecord>,
) -> Result<PublishMessage> {
    let store = Output::open(&task.output)?;
    // This step may run twice, and an attempt that was considered lost may have completed. Its result is not
    // overwritten.
    let found = retry::while_store_is_unavailable(|| record::find(&store, &task.output, &task.uid, &task.run_id))?;
    if let RecordLookup::Published(record) = found {
        return Ok(repeated(*record));
    }
    let mut run_record = RunRecord {
        exit,
        ..RunRecord::default()
    };
    let mut log = TrainerLog::open(run);
    run_record.log = log_object(task, &store, &mut log)?;
    let (summary, violation) = series(task, &store, run, &mut run_record.series)?;
    run_record.summary = summary;
    let document = collect::result(run);
    let (document, violation) = match (document, violation) {
        (Ok(document), violation) => (document, violation),
        (Err(error), violation) => (None, violation.or(Some(error))),
    };
    run_record.document = document;

    let succeeded = run_record
        .exit
        .as_ref()
        .is_some_and(legion_protocol::exit::ExitRecord::succeeded);
    let tool_error = run_record.document.as_ref().and_then(|d| d.error.clone());
    if !succeeded {
        let mut message = run_record.message(task, PublishOutcome::Failed, None);
        message.tail.log_tail = log.tail();
        return Ok(message);
    }
    // The command ended with 0, so any error from here on is about its output.
    let problem = violation.or_else(|| {
        tool_error.map(|e| {
            let error =
                StepError::new(StepReason::ToolchainError, format!("{}: {}", e.reason, e.message)).field(e.field);
            if e.remedy.is_empty() {
                error
            } else {
                error.remedy(e.remedy)
            }
        })
    });
    let artifact = match problem {
        Some(error) => Err(error),
        None => artifact(task, &store, &mut run_record),
    };
    match artifact {
        Ok(artifact) => {
            let message = run_record.message(task, PublishOutcome::Published, artifact);
            finish(task, &store, message, matches!(found, RecordLookup::Stale))
        }
        Err(error) => {
            let mut message = run_record.message(task, PublishOutcome::Error, None);
            message.head.error = Some(HeadError::of(&error));
            message.tail.error = Some(error);
            message.tail.log_tail = log.tail();
            Ok(message)
        }
    }
}

/// Writes the success record. This is the moment at which the run has a result. A `stale` record is replaced.
fn finish(task: &PublishTask, store: &Output, message: PublishMessage, stale: bool) -> Result<PublishMessage> {
    retry::while_store_is_unavailable(|| store.sync(&object(task, MODEL)))?;
    let record = serde_json::to_vec(&success_record(task, &message)).map_err(|e| {
        StepError::new(
            StepReason::UploadFailed,
            format!("cannot write the success record: {e}"),
        )
    })?;
    if stale {
        let size = record.len() as u64;
        put(store, &task.output.record, size, |sink| {
            sink.write_all(&record).map_err(|e| sink_error(&e))
        })?;
        return Ok(message);
    }
    match retry::while_store_is_unavailable(|| store.create(&task.output.record, &record))? {
        Created::New => Ok(message),
        // Another attempt was faster. The first record counts.
        Created::Exists => repeat(task),
    }
}

/// Returns the message of the attempt that published.
pub(super) fn repeat(task: &PublishTask) -> Result<PublishMessage> {
    let store = Output::open(&task.output)?;
    match retry::while_store_is_unavailable(|| record::find(&store, &task.output, &task.uid, &task.run_id))? {
        RecordLookup::Published(record) => Ok(repeated(*record)),
        RecordLookup::Nothing | RecordLookup::Stale => Err(StepError::new(
            StepReason::UploadFailed,
            format!(
                "the success record {} or its artifact was deleted after it was found",
                task.output.record
            ),
        )),
    }
}

fn put(
    store: &Output,
    path: &str,
    estimate: u64,
    mut write: impl FnMut(&mut dyn Write) -> Result<()>,
) -> Result<StoredObject> {
    retry::while_store_is_unavailable(|| {
        let mut upload = store.upload(path, estimate)?;
        write(&mut upload)?;
        upload.finish()
    })
}

fn log_object(task: &PublishTask, store: &Output, log: &mut TrainerLog) -> Result<Option<WireStoredFile>> {
    let done = put(store, &object(task, objects::LOG), log.estimate(), |sink| {
        log.copy(sink)
    })?;
    Ok(Some(WireStoredFile {
        truncated: log.truncated(),
        ..stored(task, objects::LOG, done.bytes)
    }))
}

fn series(
    task: &PublishTask,
    store: &Output,
    run: &ConfinedDir,
    series: &mut Option<WireStoredFile>,
) -> Result<(legion_protocol::summary::Summary, Option<StepError>)> {
    let mut found = None;
    let limit = task.limits.events_bytes;
    let done = put(store, &object(task, objects::SERIES), limit, |sink| {
        found = Some(collect::events(run, limit, sink)?);
        Ok(())
    })?;
    let (summary, violation) = found.unwrap_or_default();
    let summary = summary.finish(task.objective.as_ref().map(|o| o.metric.as_str()));
    *series = Some(WireStoredFile {
        points: Some(summary.points),
        ..stored(task, objects::SERIES, done.bytes)
    });
    Ok((summary, violation))
}

/// Packs and stores the model and the other files of the run. Returns `None` if the toolchain reports no model.
fn artifact(task: &PublishTask, store: &Output, run_record: &mut RunRecord) -> Result<Option<WireArtifact>> {
    let output = paths::in_work(env::OUTPUT, "output")?;
    let document = run_record.document.clone();
    run_record.files = match document.as_ref().filter(|d| !d.files.is_empty()) {
        Some(document) => Some(run_files(task, store, &output, document)?),
        None => None,
    };
    let path = match &document {
        // A command without a result document writes its model here.
        None => PathBuf::from("model"),
        Some(ResultDocument { model: None, .. }) => return Ok(None),
        Some(ResultDocument { model: Some(model), .. }) => below(&model.path, "model.path")?,
    };
    let limits = PackLimits {
        bytes: task.limits.model_bytes,
        entries: task.limits.entries,
    };
    let packing = Packing::of(&output, &[(&path, Path::new(""))], limits)?;
    if packing.files() == 0 {
        let message = format!(
            "the trainer wrote no file to LEGION_OUTPUT/{}",
            crate::confined::shown(&path)
        );
        return Err(StepError::new(StepReason::ModelMissing, message));
    }
    let done = put(store, &object(task, MODEL), packing.estimate(), |sink| {
        packing.write(sink)
    })?;
    Ok(Some(WireArtifact {
        digest: done.digest,
        size_bytes: done.bytes,
        uri: task.output.uri_of(MODEL),
    }))
}

fn run_files(task: &PublishTask, store: &Output, output: &Path, document: &ResultDocument) -> Result<WireStoredFile> {
    let mut paths = Vec::new();
    for (i, file) in document.files.iter().enumerate() {
        let name = if file.name.is_empty() { &file.path } else { &file.name };
        paths.push((
            below(&file.path, &format!("files[{i}].path"))?,
            below(name, &format!("files[{i}].name"))?,
        ));
    }
    let paths: Vec<_> = paths
        .iter()
        .map(|(path, name)| (path.as_path(), name.as_path()))
        .collect();
    let limits = PackLimits {
        bytes: task.limits.files_bytes,
        entries: task.limits.entries,
    };
    let packing = Packing::of(output, &paths, limits)?;
    let done = put(store, &object(task, objects::FILES), packing.estimate(), |sink| {
        packing.write(sink)
    })?;
    Ok(stored(task, objects::FILES, done.bytes))
}

/// Checks a path of the result document. It is relative to LEGION_OUTPUT.
fn below(path: &str, field: &str) -> Result<PathBuf> {
    let path = paths::relative(path, field).map_err(|e| {
        StepError {
            reason: StepReason::ProtocolViolation,
            ..e
        }
        .remedy("name a path relative to LEGION_OUTPUT in the result document")
    })?;
    Ok(path
        .components()
        .filter(|c| matches!(c, std::path::Component::Normal(_)))
        .collect())
}
