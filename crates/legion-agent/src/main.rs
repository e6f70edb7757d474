//! `legion-agent fetch` and `legion-agent publish`.

use std::process::ExitCode;

fn main() -> ExitCode {
    legion_agent::main(std::env::args_os().skip(1).collect())
}
