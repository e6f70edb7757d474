//! Entry point of `legionctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A node starts this program again, as the supervisor of each container.
    kube_embed::node::runtime::process::supervisor::run_if_requested();
    // All codes are below 256.
    ExitCode::from(legion_cli::main() as u8)
}
