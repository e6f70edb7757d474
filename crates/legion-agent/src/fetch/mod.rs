//! The init container `fetch`: downloads the source and the data, and installs `legion-entry`.

mod address;
pub(crate) mod askpass;
mod credentials;
mod data;
mod fetched;
mod git;
mod http;
mod lfs;
mod notices;
mod source;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use legion_protocol::WIRE_VERSION;
use legion_protocol::env::{self, files};
use legion_protocol::message::{FetchHead, FetchMessage, FetchOutcome, FetchTail};
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::task::{FetchTask, MESSAGE_BYTES_MAX};

use self::fetched::Fetched;
use crate::error::{Result, node_fault};
use crate::record::{self, RecordLookup};
use crate::store::Output;
use crate::tree::TreeLimits;
use crate::{paths, report, terminate};

/// For a tree whose parts were checked on their way.
const UNLIMITED: TreeLimits = TreeLimits {
    bytes: u64::MAX,
    entries: u64::MAX,
};

/// Runs the step and returns its exit code.
pub(crate) fn main() -> ExitCode {
    let started_at = Instant::now();
    let elapsed = move || u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let task = paths::task::<FetchTask>();
    let budget = task.as_ref().map_or(MESSAGE_BYTES_MAX, |t| t.message_budget as usize);
    terminate::handle(Duration::ZERO, move |error| {
        FetchMessage::failed(error.clone(), elapsed()).encode(budget)
    });
    match task.and_then(|task| fetch(&task)) {
        Ok((head, tail)) => {
            let message = FetchMessage {
                head,
                tail: FetchTail {
                    elapsed_ms: elapsed(),
                    ..tail
                },
            };
            report::line(&format!("ready after {} ms", elapsed()));
            report::message(&message.encode(budget));
            ExitCode::SUCCESS
        }
        Err(error) => {
            report::error(&error);
            report::message(&FetchMessage::failed(error, elapsed()).encode(budget));
            ExitCode::FAILURE
        }
    }
}

fn fetch(task: &FetchTask) -> Result<(FetchHead, FetchTail)> {
    if task.version != WIRE_VERSION {
        let message = format!(
            "the task has version {}, but this agent supports version {WIRE_VERSION}",
            task.version
        );
        return Err(StepError::new(StepReason::TaskInvalid, message));
    }
    install_entry()?;
    let run = paths::run()?;
    paths::create_dir(&run)?;
    paths::write(&run.join(files::LOCK), b"")?;
    let work = paths::directory(env::WORK)?;
    let [source, data, output] = ["source", "data", "output"].map(|name| work.join(name));
    for directory in [&source, &data, &output, &work.join("home"), &work.join("tmp")] {
        paths::create_dir(directory)?;
    }
    let missing = credentials::missing(task)?;
    let store = Output::open(&task.output).map_err(|error| missing.clone().unwrap_or(error))?;
    if already_published(task, &store)? {
        paths::write(&run.join(files::SKIP), b"")?;
        report::line("this run has already published its result, so nothing is fetched");
        return Ok((
            FetchHead {
                outcome: FetchOutcome::Skip,
                source: None,
                error: None,
            },
            FetchTail::default(),
        ));
    }
    if let Some(error) = missing {
        return Err(error);
    }
    // Hours of training must not be lost because the store refuses the result.
    let probe = format!("{}/.probe-{}", task.output.path, task.training.attempt);
    store.probe(&probe)?;

    paths::empty(&source)?;
    paths::empty(&data)?;
    let limits = TreeLimits {
        bytes: task.limits.max_bytes,
        entries: task.limits.max_files,
    };
    let Fetched {
        source: fetched,
        notice,
    } = source::fetch(&task.source, &source, limits)?;
    let project = project_directory(&source, &task.training.work_dir)?;
    let mut training = task.training.clone();
    training.source.kind = task.source.kind();
    training.source.commit.clone_from(&fetched.commit);
    training.source.digest.clone_from(&fetched.digest);
    training.data.clear();
    let mut tail = FetchTail {
        notices: notice.into_iter().collect(),
        ..FetchTail::default()
    };
    for binding in &task.data {
        let (fact, seen) = data::fetch(binding, &data, &project, limits)?;
        tail.data.push(fact);
        training.data.push(seen);
    }
    // After the data: a binding may have put the content in the place of a pointer.
    tail.notices.extend(lfs::withhold(&source, UNLIMITED)?);
    for notice in &tail.notices {
        report::line(&format!("notice: {}: {}", notice.reason, notice.message));
    }
    let document = serde_json::to_vec_pretty(&training).map_err(|e| {
        StepError::new(
            StepReason::TaskInvalid,
            format!("cannot write the training document: {e}"),
        )
    })?;
    paths::write(&run.join(files::TRAINING), &document)?;
    Ok((
        FetchHead {
            outcome: FetchOutcome::Ready,
            source: Some(fetched),
            error: None,
        },
        tail,
    ))
}

/// Copies `legion-entry` to the directory from which the trainer's container runs it.
fn install_entry() -> Result<()> {
    let bin = paths::directory(env::BIN)?;
    paths::create_dir(&bin)?;
    let from = match paths::optional(env::ENTRY_BINARY) {
        Some(path) => path,
        None => std::env::current_exe()
            .map(|agent| agent.with_file_name("legion-entry"))
            .map_err(|e| node_fault("cannot find this program", &e))?,
    };
    let (target, partial) = (bin.join("legion-entry"), bin.join("legion-entry.partial"));
    std::fs::copy(&from, &partial)
        .and_then(|_| std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&partial, &target))
        .map_err(|e| {
            node_fault(
                format_args!("cannot install {} as {}", from.display(), target.display()),
                &e,
            )
        })
}

/// Returns whether an earlier attempt of this run has published.
fn already_published(task: &FetchTask, store: &Output) -> Result<bool> {
    match record::find(store, &task.output, &task.training.uid, &task.training.run_id) {
        Ok(found) => Ok(matches!(found, RecordLookup::Published(_))),
        // Some credentials can write but not read. The first attempt has no earlier record in any case.
        Err(error) if task.training.attempt <= 1 => {
            report::line(&format!("cannot check for a success record: {error}"));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Returns the directory `spec.workDir` of the source.
fn project_directory(source: &Path, work_dir: &str) -> Result<PathBuf> {
    const FIELD: &str = "spec.workDir";
    let project = source.join(paths::relative(work_dir, FIELD)?);
    let (Ok(real), Ok(root)) = (project.canonicalize(), source.canonicalize()) else {
        return Err(missing(work_dir, source));
    };
    if !real.starts_with(&root) {
        let message = format!("the directory {work_dir:?} is outside of the source");
        return Err(StepError::new(StepReason::PathEscapes, message).field(FIELD));
    }
    if real.is_dir() {
        Ok(project)
    } else {
        Err(missing(work_dir, source))
    }
}

fn missing(work_dir: &str, source: &Path) -> StepError {
    let known = notices::directories(source);
    StepError::new(
        StepReason::WorkDirMissing,
        format!("the source has no directory {work_dir:?}"),
    )
    .field("spec.workDir")
    .remedy(if known.is_empty() {
        "leave spec.workDir empty: the source has no directories".to_owned()
    } else {
        format!("set spec.workDir to a directory of the source. Directories at its top level: {known}")
    })
}
