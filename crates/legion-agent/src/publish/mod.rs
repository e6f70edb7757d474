//! The main container `publish`: waits for the trainer, then stores and reports its result.

mod collect;
mod message;
mod upload;
mod wait;

use std::process::ExitCode;
use std::time::Duration;

use legion_protocol::WIRE_VERSION;
use legion_protocol::env::files;
use legion_protocol::message::{PublishMessage, PublishOutcome};
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::task::{MESSAGE_BYTES_MAX, PublishTask};

use self::message::{exit_so_far, failed};
use crate::error::Result;
use crate::{paths, report, terminate};

/// Runs the step and returns its exit code.
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
        // A failed trainer is not a failure of this step.
        PublishOutcome::Published | PublishOutcome::Skipped | PublishOutcome::Failed => ExitCode::SUCCESS,
        PublishOutcome::Error => ExitCode::FAILURE,
    }
}

fn publish(task: &PublishTask) -> Result<PublishMessage> {
    if task.version != WIRE_VERSION {
        let message = format!(
            "the task has version {}, but this agent supports version {WIRE_VERSION}",
            task.version
        );
        return Err(StepError::new(StepReason::TaskInvalid, message));
    }
    let run = paths::run()?;
    if run.join(files::SKIP).exists() {
        return upload::repeat(task);
    }
    // Opened before the wait: until the trainer starts, the lock file is the one that `fetch` created.
    let lock = wait::lock(&run)?;
    wait::for_start(&run)?;
    // From here on there are results to save.
    terminate::prefer_finishing();
    wait::for_end(&lock)?;
    upload::publish(task, &run)
}
