//! `legionctl model serve`, and the server that other commands start for themselves.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use legion_server::{
    http::Front,
    serve::{Options, Server},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{environment, place};
use crate::{
    args::{Global, ModelServe},
    exit::{CliError, Code, Result},
    output,
};

/// Serves a model until Ctrl-C or SIGTERM.
pub(super) async fn run(global: &Global, serve: &ModelServe, out: &mut dyn Write) -> Result<Code> {
    let place = place::find(global, &serve.model.model).await?;
    let (python, _in_use) = environment::python(&serve.model, &place.directory).await?;
    let running = Running::start(&place.directory, &python, &serve.options).await?;
    output::note(format_args!("Loading {}", running.title()));
    let loaded = tokio::select! {
        loaded = running.front.pool.loaded() => loaded,
        () = interrupted() => {
            running.stop().await;
            return Ok(Code::Interrupted);
        }
    };
    if let Err(why) = loaded {
        running.stop().await;
        return Err(not_loaded(&serve.model.model, &why));
    }
    let url = running.url();
    output::line(out, format_args!("{} is served at {url}\n", running.title()))?;
    output::line(
        out,
        format_args!("{}", curl(&url, running.front.model.sample.request.get())),
    )?;
    output::line(out, format_args!("\nCtrl-C ends it."))?;
    out.flush().map_err(|error| CliError::io("standard output", error))?;
    interrupted().await;
    running.stop().await;
    Ok(Code::Ok)
}

/// Returns a command that predicts.
fn curl(url: &str, body: &str) -> String {
    // A quote ends the text of a shell, and stands between two texts.
    let body = one_line(body).replace('\'', r"'\''");
    format!("  curl {url}/invocations -H 'content-type: application/json' -d '{body}'")
}

/// Returns JSON without its white space. Its numbers stay as they are written.
fn one_line(json: &str) -> String {
    let (mut is_text, mut is_escaped) = (false, false);
    let is_kept = |c: &char| {
        let kept = is_text || !c.is_ascii_whitespace();
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_text = !is_text,
            _ => {}
        }
        kept
    };
    json.chars().filter(is_kept).collect()
}

pub(super) fn not_loaded(model: &str, why: &str) -> CliError {
    CliError::new(Code::Failed, format!("{model}: {why}"))
        .remedy("the lines above are the log of the model's process; another environment can be named with --python")
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}

/// A server in this process.
pub(super) struct Running {
    /// What requests need.
    pub(super) front: Arc<Front>,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts a server for the model in a directory.
    pub(super) async fn start(directory: &Path, python: &Path, options: &Options) -> Result<Self> {
        let server = Server::bind(directory, python, options)
            .await
            .map_err(|error| CliError::new(Code::Invalid, format!("{error:#}")))?;
        let stop = CancellationToken::new();
        Ok(Self {
            front: server.front(),
            address: server.address(),
            task: tokio::spawn(server.serve(stop.clone())),
            stop,
        })
    }

    /// Returns the address as a URL that a client on this machine can use.
    pub(super) fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }

    fn title(&self) -> String {
        let model = &self.front.model;
        format!("{} {}", model.name, model.version).trim_end().to_owned()
    }

    /// Finishes the requests and ends the processes of the model.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        // It has no result, and a panic was reported when it happened.
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_command_is_one_argument_for_a_shell() {
        let command = curl(
            "http://127.0.0.1:1",
            "{\n  \"inputs\": [\"it's \\\" \", 9007199254740993]\n}",
        );
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(command.replace("curl", "printf '%s\\n'"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().last(), Some(r#"{"inputs":["it's \" ",9007199254740993]}"#));
    }
}
