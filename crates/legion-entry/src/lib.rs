//! PID 1 of the trainer's container.
//!
//! It runs the toolchain's command as an argument vector, never through a shell. It holds a lock while it runs, so that
//! `publish` notices the end immediately. It forwards signals and reaps every orphan. It copies the output and keeps
//! a bounded copy. It enforces the timeout and writes an exit record. It uses no async runtime and no TLS, allocates
//! little, and waits in one `poll` call.

mod control;
mod log;
mod settings;
mod stream;
mod supervise;
mod sys;

use std::ffi::OsString;
use std::io::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use control::ControlDir;
use legion_protocol::exit::{ExitError, ExitRecord};
use legion_protocol::reason::StepReason;
use legion_protocol::{WIRE_VERSION, time::rfc3339_millis};
use settings::Settings;

/// Exit code when the command or its working directory does not exist.
const NOT_FOUND: u8 = 127;
/// Exit code when the command cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code when `legion-entry` itself fails.
const INTERNAL_ERROR: u8 = 125;
/// Exit code when the command exceeds its timeout.
const TIMED_OUT: u8 = 124;

/// Runs the command and returns the exit code of the container. `process_start` is the start time of this process.
pub fn run(process_start: Instant, args: Vec<OsString>) -> u8 {
    let settings = match Settings::from_env(args) {
        Ok(settings) => settings,
        Err(message) => return internal_error(&message),
    };
    let control = match ControlDir::lock(&settings.run) {
        Ok(control) => control,
        Err(message) => return internal_error(&message),
    };
    if control.is_skipped() {
        report("this run has already published its result, so the command is not run again");
        return 0;
    }
    let (record, code) = supervise(process_start, &settings, &control);
    if let Some(error) = &record.error {
        report(&error.message);
    }
    // The end of the process releases the lock. Everything that the lock protects has been written by then.
    code
}

fn supervise(process_start: Instant, settings: &Settings, control: &ControlDir) -> (ExitRecord, u8) {
    let mut record = ExitRecord {
        version: WIRE_VERSION,
        started_at: now(),
        ..ExitRecord::default()
    };
    let code = match supervise::RunningCommand::start(settings, control) {
        Ok(mut command) => {
            record.exec_delay_ms = u32::try_from(process_start.elapsed().as_millis()).ok();
            let end = command.wait();
            record.exit_code = end.code;
            record.signal = end.signal;
            record.outside_signal = end.outside_signal;
            record.timed_out = end.timed_out;
            record.max_rss_bytes = Some(end.max_rss_bytes);
            record.finished_at = now();
            // Written before stray children are ended, so that the end of the command is on disk whatever happens next.
            control.write_exit_record(&record);
            command.finish();
            match (end.timed_out, end.code, end.signal) {
                (true, _, _) => TIMED_OUT,
                // `exit` keeps only the low eight bits, and `wait4` never reports more.
                (_, Some(code), _) => u8::try_from(code & 0xff).unwrap_or(INTERNAL_ERROR),
                (_, None, signal) => signal
                    .and_then(|s| u8::try_from(128 + s).ok())
                    .unwrap_or(INTERNAL_ERROR),
            }
        }
        Err(error) => {
            let code = match error.reason {
                StepReason::CommandNotExecutable => NOT_EXECUTABLE,
                StepReason::CommandNotFound | StepReason::WorkDirMissing => NOT_FOUND,
                _ => INTERNAL_ERROR,
            };
            record.finished_at = now();
            record.error = Some(error);
            control.write_exit_record(&record);
            code
        }
    };
    (record, code)
}

fn internal_error(message: &str) -> u8 {
    report(message);
    INTERNAL_ERROR
}

/// Writes a line to the container's stderr. An error is ignored because there is no other place to report it.
fn report(message: &str) {
    let _ = writeln!(std::io::stderr(), "legion-entry: {message}");
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn not_started(reason: StepReason, message: String) -> ExitError {
    ExitError { reason, message }
}
