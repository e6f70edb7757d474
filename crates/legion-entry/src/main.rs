//! `legion-entry -- COMMAND [ARGUMENT...]`: PID 1 of the trainer's container.

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let process_start = Instant::now();
    ExitCode::from(legion_entry::run(process_start, std::env::args_os().skip(1).collect()))
}
