//! The command line of Legion. It has a local mode that needs no cluster.

mod args;
mod client;
mod columns;
mod command;
mod conformance;
mod data_dir;
pub mod exit;
mod findings;
mod follow;
mod gppi;
mod kinds;
mod local;
mod log_lines;
mod manifest;
mod model;
mod output;
mod plot;
mod report;
mod stored;
mod training;

use std::io::Write;

use clap::{CommandFactory as _, Parser as _};

use crate::{
    args::{Cli, Command, Local, Toolchain},
    exit::{Code, Result},
};

/// Returns the definition of the command line, for the reference docs.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn main() -> Code {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output. Everything else is a wrong command line.
            let code = if error.use_stderr() { Code::Invalid } else { Code::Ok };
            // If the terminal is closed, there is no place left to report that.
            let _ = error.print();
            return code;
        }
    };
    match run(cli, &mut std::io::stdout().lock()) {
        Ok(code) => code,
        Err(error) => {
            if !error.message.is_empty() {
                output::note(format_args!("legionctl: {error}"));
            }
            error.code
        }
    }
}

fn run(cli: Cli, out: &mut dyn Write) -> Result<Code> {
    let global = &cli.global;
    // These commands need no API and no async runtime.
    match &cli.command {
        Command::Validate(validate) => return command::validate::run(&validate.files, validate.output, out),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command(), "legionctl", &mut script);
            output::bytes(out, &script)?;
            return Ok(Code::Ok);
        }
        Command::Cache(cache) => return local::cache_command(cache, out),
        Command::Doctor { output } => return local::doctor(global, *output, out),
        Command::Local(Local::Status { output }) => return local::status(global, *output, out),
        Command::Local(Local::Down) => return local::down(global, out),
        _ => {}
    }
    // It fails only if a provider is installed already, and then that one serves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| exit::CliError::io("cannot start the async runtime", error))?;
    runtime.block_on(dispatch(cli, out))
}

async fn dispatch(cli: Cli, out: &mut dyn Write) -> Result<Code> {
    let global = &cli.global;
    match &cli.command {
        Command::Get(get) => command::get::run(&client::reach(global).await?, get, out).await,
        Command::Logs(logs) => command::logs::run(&client::reach(global).await?, logs, out).await,
        Command::Rerun(rerun) => command::rerun::run(&client::reach(global).await?, rerun, out).await,
        Command::Wait(wait) => {
            let session = client::reach(global).await?;
            follow::limited(wait.timeout, "wait", command::wait::run(&session, wait, out)).await
        }
        Command::Local(Local::Up(up)) => local::up(global, up, out).await,
        Command::Local(Local::Run(run)) => local::run(global, run, out).await,
        Command::Toolchain(Toolchain::Test { directory, case, jobs }) => {
            command::toolchain::test(directory, case.as_deref(), *jobs, out).await
        }
        Command::Model(command) => model::run(global, command, out).await,
        // `run` has handled these before it started the async runtime.
        Command::Local(Local::Status { .. } | Local::Down)
        | Command::Cache(_)
        | Command::Doctor { .. }
        | Command::Validate(_)
        | Command::Completions { .. } => Ok(Code::Ok),
    }
}
