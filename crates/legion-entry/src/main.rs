//! `legion-entry -- COMMAND [ARGUMENT...]`: PID 1 of the trainer's container.

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let begun = Instant::now();
    ExitCode::from(legion_entry::run(begun, std::env::args_os().skip(1).collect()))
}
