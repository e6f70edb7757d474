//! Legion's own programs that run in pods: `legion-agent` and `legion-entry`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::exit::{CliError, Code, Result};

/// Names of the programs.
const PROGRAMS: [&str; 2] = ["legion-agent", "legion-entry"];

/// The directory that holds them: `$LEGION_PROGRAMS`, else that of `legionctl` itself. Where `legionctl` was started by
/// cargo in its repository, which builds the one binary that was asked for, the other two are built now.
pub(crate) fn directory(say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    if let Some(named) = env::var_os("LEGION_PROGRAMS").filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        return match missing(&named) {
            None => Ok(named),
            Some(program) => Err(CliError::new(
                Code::NotFound,
                format!("LEGION_PROGRAMS is {}, which holds no {program}", named.display()),
            )
            .remedy("name the directory that holds legion-agent and legion-entry")),
        };
    }
    let exe = env::current_exe().map_err(|error| CliError::io("the path of legionctl", error))?;
    let beside = exe.parent().unwrap_or(Path::new("/")).to_owned();
    let Some(program) = missing(&beside) else {
        return Ok(beside);
    };
    let absent = CliError::new(Code::NotFound, format!("{program} is not in {}", beside.display()))
        .remedy("install legion-agent and legion-entry beside legionctl, or name their directory with LEGION_PROGRAMS");
    match build(&beside, say) {
        Some(true) if missing(&beside).is_none() => Ok(beside),
        Some(_) => Err(absent.context("building legion-agent and legion-entry failed")),
        None => Err(absent),
    }
}

fn missing(directory: &Path) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| !directory.join(program).is_file())
}

/// Builds them in the profile of this binary; none where this binary does not stand in a target directory of cargo.
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
    // Cargo marks its target directories so; a `bin/release` of somebody's has no such file.
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
