//! Locates the programs of Legion that run in pods: `legion-agent` and `legion-entry`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::exit::{CliError, Code, Result};

const PROGRAMS: [&str; 2] = ["legion-agent", "legion-entry"];

/// Returns the directory of the programs: `$LEGION_PROGRAMS`, or else the directory of `legionctl`. If cargo runs
/// `legionctl` in the repository, it builds only that binary. In that case, this function builds the other two.
pub(crate) fn directory(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let absent = match present() {
        Err(error) if env::var_os("LEGION_PROGRAMS").is_none_or(|value| value.is_empty()) => error,
        known => return known,
    };
    let beside = beside()?;
    match build(&beside, say) {
        Some(true) if missing(&beside).is_none() => Ok(beside),
        Some(_) => Err(absent.context("building legion-agent and legion-entry failed")),
        None => Err(absent),
    }
}

/// Returns the directory of the programs, and builds nothing.
pub(crate) fn present() -> Result<PathBuf> {
    if let Some(named) = env::var_os("LEGION_PROGRAMS").filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        return match missing(&named) {
            None => Ok(named),
            Some(program) => Err(CliError::new(
                Code::NotFound,
                format!("LEGION_PROGRAMS is {}, but {program} is not in it", named.display()),
            )
            .remedy("name the directory that contains legion-agent and legion-entry")),
        };
    }
    let beside = beside()?;
    match missing(&beside) {
        None => Ok(beside),
        Some(program) => Err(
            CliError::new(Code::NotFound, format!("{program} is not in {}", beside.display())).remedy(
                "install legion-agent and legion-entry next to legionctl, or name their directory with LEGION_PROGRAMS",
            ),
        ),
    }
}

/// Returns the directory of `legionctl`.
fn beside() -> Result<PathBuf> {
    let exe = env::current_exe().map_err(|error| CliError::io("the path of legionctl", error))?;
    Ok(exe.parent().unwrap_or(Path::new("/")).to_owned())
}

fn missing(directory: &Path) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| !directory.join(program).is_file())
}

/// Builds the programs in the profile of this binary. Returns `None` if this binary is not in a target directory of
/// cargo, or whether the build succeeded.
fn build(beside: &Path, say: &mut dyn FnMut(&str)) -> Option<bool> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .ok()?;
    let target = beside.parent()?;
    let profile = match beside.file_name()?.to_str()? {
        "debug" => "dev",
        "release" => "release",
        _ => return None,
    };
    // Cargo marks its target directories with this file. Another directory called `release` has none.
    if !target.join("CACHEDIR.TAG").is_file() || !repository.join("Cargo.toml").is_file() {
        return None;
    }
    say("building legion-agent and legion-entry (once)");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "legion-agent",
            "--package",
            "legion-entry",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(repository)
        .stdout(std::io::stderr())
        .status()
        .ok()?;
    Some(status.success())
}
