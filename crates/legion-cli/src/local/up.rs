//! `legionctl local up`, `down` and `status`.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write},
    os::unix::fs::OpenOptionsExt as _,
    process::{Command, Stdio},
};

use legion_runtime::{
    Shutdown,
    logs::{self, Format as LogFormat},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::server::Server;
use crate::{
    args::{Format, Global, Up},
    data_dir::DataDir,
    exit::{CliError, Code, Result},
    output,
};

/// First word of the line that reports that everything is ready. `--detach` waits for it.
const READY: &str = "ready:";

/// `legionctl local up`.
pub(crate) async fn up(global: &Global, up: &Up, out: &mut dyn Write) -> Result<Code> {
    let data_dir = DataDir::choose(global.data_dir.as_deref())?;
    if up.detach {
        return detach(&data_dir, up, out);
    }
    if up.session {
        // Fails only for the leader of a session. It has its own session already.
        let _ = rustix::process::setsid();
    }
    let lock = match data_dir.lock(true)? {
        Ok(lock) => lock,
        Err(holder) => {
            let pid = holder.map_or_else(String::new, |holder| format!(" (pid {})", holder.pid));
            return Err(
                CliError::new(Code::Other, format!("{} is in use{pid}", data_dir.root().display()))
                    .remedy("stop it with `legionctl local down`, or set --data-dir to another directory"),
            );
        }
    };
    let filter = std::env::var("LEGION_LOG").unwrap_or_else(|_| "warn,legion_operator=info".to_owned());
    logs::init(LogFormat::Text, &filter, None).map_err(|error| CliError::new(Code::Invalid, error.to_string()))?;
    let shutdown = Shutdown::on_signals().map_err(|error| CliError::io("signal handlers", error))?;
    let mut say = |text: &str| tracing::info!("{text}");
    let mut server = Server::start(data_dir, lock, up.port, &mut say).await?;
    output::line(out, format_args!("{READY} {}", server.url()))?;
    output::line(
        out,
        format_args!("  export KUBECONFIG={}", server.data_dir().kubeconfig().display()),
    )?;
    let ended = tokio::select! {
        () = shutdown.requested() => Ok(Code::Ok),
        error = server.failed() => Err(error),
    };
    match ended {
        Ok(code) => {
            server.stop().await;
            Ok(code)
        }
        Err(error) => Err(error),
    }
}

/// Starts this program again in its own session, and returns when the new process reports that it is ready.
fn detach(data_dir: &DataDir, up: &Up, out: &mut dyn Write) -> Result<Code> {
    if let Some(holder) = data_dir.holder().filter(|holder| holder.stays) {
        output::line(
            out,
            format_args!("already up (pid {}), data in {}", holder.pid, data_dir.root().display()),
        )?;
        return Ok(Code::Ok);
    }
    data_dir.create()?;
    let log_path = data_dir.log();
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|error| CliError::io(log_path.display(), error))?;
    let exe = std::env::current_exe().map_err(|error| CliError::io("the path of legionctl", error))?;
    let mut command = Command::new(exe);
    command
        .args(["local", "up", "--session", "--data-dir"])
        .arg(data_dir.root());
    if let Some(port) = up.port {
        command.arg("--port").arg(port.to_string());
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| CliError::io("cannot start legionctl in the background", error))?;
    let stdout = child.stdout.take().map(BufReader::new);
    // The process prints nothing after these two lines, so the pipe may be closed.
    let mut lines = stdout
        .into_iter()
        .flat_map(BufReader::lines)
        .map_while(std::result::Result::ok);
    if let Some(first) = lines.next().filter(|line| line.starts_with(READY)) {
        output::line(out, format_args!("{first}"))?;
        if let Some(second) = lines.next() {
            output::line(out, format_args!("{second}"))?;
        }
        return Ok(Code::Ok);
    }
    let code = child.wait().map(|status| status.code()).ok().flatten();
    let text = fs::read_to_string(&log_path).unwrap_or_default();
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(CliError::new(
        Code::Other,
        format!(
            "the background process ended before it was ready (exit code {}): {}",
            code.unwrap_or(-1),
            last.join("\n  ")
        ),
    )
    .remedy(format!("read the whole log in {}", log_path.display())))
}

/// `legionctl local down`.
pub(crate) fn down(global: &Global, out: &mut dyn Write) -> Result<Code> {
    let data_dir = DataDir::choose(global.data_dir.as_deref())?;
    let Some(holder) = data_dir.holder() else {
        output::line(
            out,
            format_args!("not up: no process serves {}", data_dir.root().display()),
        )?;
        return Ok(Code::Ok);
    };
    // The lock is held, so the process that wrote this id is alive. No other process can have the id.
    let pid =
        Pid::from_raw(holder.pid).ok_or_else(|| CliError::io(data_dir.root().display(), "the lock file is damaged"))?;
    match kill_process(pid, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(CliError::io(format!("process {}", holder.pid), error)),
    }
    data_dir.wait_until_down()?;
    output::line(
        out,
        format_args!(
            "stopped; the data for the next start is in {}",
            data_dir.root().display()
        ),
    )?;
    Ok(Code::Ok)
}

/// `legionctl local status`.
pub(crate) fn status(global: &Global, format: Format, out: &mut dyn Write) -> Result<Code> {
    let data_dir = DataDir::choose(global.data_dir.as_deref())?;
    let holder = data_dir.holder();
    let environments = super::python::cache();
    match format {
        Format::Json | Format::Yaml => {
            let status = json!({
                "up": holder.is_some(),
                "pid": holder.as_ref().map(|holder| holder.pid),
                "version": holder.as_ref().map(|holder| &holder.version),
                "dataDir": data_dir.root(),
                "kubeconfig": data_dir.kubeconfig(),
                "outputs": data_dir.outputs(),
                "log": data_dir.log(),
                "cache": environments,
            });
            output::structured(out, format, &status)?;
        }
        Format::Table | Format::Report => {
            let state = holder.as_ref().map_or_else(
                || "down".to_owned(),
                |holder| format!("up (pid {}, version {})", holder.pid, holder.version),
            );
            output::line(out, format_args!("state       {state}"))?;
            for (name, path) in [
                ("data        ", data_dir.root().to_owned()),
                ("kubeconfig  ", data_dir.kubeconfig()),
                ("outputs     ", data_dir.outputs()),
                ("cache       ", environments),
            ] {
                output::line(out, format_args!("{name}{}", path.display()))?;
            }
        }
    }
    Ok(if holder.is_some() { Code::Ok } else { Code::NotFound })
}
