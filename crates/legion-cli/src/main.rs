//! Entry point of `legionctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A node starts this very program as the supervisor of each container.
    kube_embed::node::runtime::process::supervisor::run_if_requested();
    // The codes are all below 256.
    ExitCode::from(legion_cli::main() as u8)
}
