//! The local mode: sources from directories, interpreters, the cache, and the commands that its messages name.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use legion_tests::local::{Local, programs, text};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;

/// Writes the manifest of a training of the script toolchain, and returns its path.
fn manifest(local: &Local, name: &str, more: &str) -> PathBuf {
    let path = local.path().join(format!("{name}.yaml"));
    let text = format!(
        "apiVersion: legion-platform.org/v1alpha1\nkind: ModelTraining\nmetadata: {{name: {name}}}\nspec:\n  \
         model: {{name: {name}, version: \"1\"}}\n  toolchain: script\n  entrypoint: train.sh\n  \
         source: {{git: {{uri: \"https://example.com/replaced.git\"}}}}\n{more}"
    );
    fs::write(&path, text).unwrap();
    path
}

/// Creates a project with `train.sh`.
fn project(script: &str) -> tempfile::TempDir {
    let project = tempfile::tempdir().unwrap();
    let text = format!("set -eu\nmkdir -p \"$LEGION_OUTPUT/model\"; echo ok > \"$LEGION_OUTPUT/model/m\"\n{script}\n");
    fs::write(project.path().join("train.sh"), text).unwrap();
    project
}

/// Returns the command `legionctl local run -f MANIFEST --source PROJECT`.
fn run_command(local: &Local, manifest: &Path, project: &Path) -> Command {
    let manifest = manifest.to_str().unwrap();
    let project = project.to_str().unwrap();
    local
        .legionctl(&["local", "run", "-f", manifest, "--source", project])
        .unwrap()
}

fn run(local: &Local, manifest: &Path, project: &Path) -> Output {
    run_command(local, manifest, project).output().unwrap()
}

/// Runs a command that a message names between backticks, in a shell that finds `legionctl`.
fn named_command(message: &str, word: &str) -> Output {
    let command = message
        .split('`')
        .skip(1)
        .step_by(2)
        .find(|command| command.contains(word))
        .unwrap_or_else(|| panic!("no command with {word}: {message}"));
    let path = format!("{}:/usr/bin:/bin", programs().unwrap().display());
    let output = Command::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {}", text(&output));
    output
}

#[test]
fn a_directory_is_a_source_whatever_its_size_with_links_and_pipes() {
    let local = Local::new().unwrap();
    let project = project("wc -c < link; ls many | wc -l; test ! -e pipe");
    let at = |name: &str| project.path().join(name);
    fs::write(at("large"), vec![b'x'; 2_000_000]).unwrap();
    symlink("large", at("link")).unwrap();
    fs::create_dir(at("many")).unwrap();
    for number in 0..600 {
        fs::write(at(&format!("many/{number}")), "x").unwrap();
    }
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let manifest = manifest(&local, "directory", "");

    let output = run(&local, &manifest, project.path());
    assert!(output.status.success(), "{}", text(&output));
    for line in ["| 2000000", "| 600", "not in the source: pipe (a named pipe)"] {
        assert!(text(&output).contains(line), "{line}: {}", text(&output));
    }

    let again = run(&local, &manifest, project.path());
    assert!(text(&again).contains("nothing was started"), "{}", text(&again));
    let rerun = named_command(&text(&again), "rerun");
    assert!(rerun.status.success());
    local.run(&["wait", "directory", "--timeout", "60s"]).unwrap();
    assert_eq!(local.training("directory").unwrap()["status"]["run"]["sequence"], 2);
    local.down().unwrap();

    fs::write(at("many/0"), "changed").unwrap();
    let changed = run(&local, &manifest, project.path());
    assert!(text(&changed).contains("(run 3, attempt 1)"), "{}", text(&changed));
    local.deserted().unwrap();
}

#[test]
fn interpreters_of_pyenv_are_reachable_and_path_in_the_manifest_keeps_the_toolchain() {
    let local = Local::new().unwrap();
    let pyenv = tempfile::tempdir().unwrap();
    let bin = pyenv.path().join("versions/3.99.0/bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["python3.99", "other"] {
        fs::write(bin.join(name), "#!/bin/sh\necho \"found $0\"\n").unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let project = project("python3.99; if command -v other; then exit 9; fi; echo \"path $PATH\"");
    let manifest = manifest(&local, "path", "  env: [{name: PATH, value: /nowhere/bin}]\n");
    let output = run_command(&local, &manifest, project.path())
        .env("PYENV_ROOT", pyenv.path())
        .env("LEGION_CACHE_DIR", local.path().join("cache"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let found = format!("| found {}", bin.join("python3.99").display());
    for part in [&*found, "/nowhere/bin:"] {
        assert!(text(&output).contains(part), "{part}: {}", text(&output));
    }
    local.deserted().unwrap();
}

#[test]
fn after_an_interrupt_the_training_goes_on_if_the_local_mode_is_up() {
    let local = Local::new().unwrap();
    local.up().unwrap();
    let go = local.path().join("go");
    // The training waits until something writes into the pipe.
    mknodat(CWD, &go, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let project = project(&format!("cat {}", go.display()));
    let manifest = manifest(&local, "interrupted", "");
    let mut child = run_command(&local, &manifest, project.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("pod interrupted-") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "ended without a pod");
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(
        rest.contains("the training goes on, because the local mode is up"),
        "{rest}"
    );

    fs::write(&go, "go").unwrap();
    named_command(&rest, "legionctl wait");
    let training = local.training("interrupted").unwrap();
    assert_eq!(
        training["status"]["run"]["attempt"], 1,
        "it was not interrupted: {training:#}"
    );
    local.down().unwrap();
}

#[test]
fn doctor_names_what_is_there_and_what_is_missing() {
    let local = Local::new().unwrap();
    let of = |path: Option<&Path>| {
        let mut command = local.legionctl(&["doctor", "-o", "json"]).unwrap();
        command.env("HTTPS_PROXY", "http://me:secret@proxy.example.com");
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let output = command.output().unwrap();
        assert!(!text(&output).contains("secret"), "{}", text(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (answer, output.status.code())
    };
    let named = |answer: &Value, name: &str| -> Vec<Value> {
        let checks = answer["checks"].as_array().unwrap().clone();
        checks.into_iter().filter(|check| check["name"] == name).collect()
    };
    let (here, code) = of(None);
    assert_eq!((&here["ready"], code), (&Value::Bool(true), Some(0)), "{here:#}");
    for name in ["git", "python", "agent", "toolchain", "data", "cache", "certificates"] {
        assert!(
            named(&here, name).iter().any(|check| check["state"] == "ok"),
            "{here:#}"
        );
    }
    let empty = tempfile::tempdir().unwrap();
    let (without, code) = of(Some(empty.path()));
    assert_eq!((&without["ready"], code), (&Value::Bool(false), Some(3)), "{without:#}");
    let git = &named(&without, "git")[0];
    assert_eq!(git["state"], "missing");
    assert!(git["remedy"].as_str().unwrap().starts_with("install git"), "{git}");
    let table = local.output(&["doctor"]).unwrap();
    assert!(
        text(&table)
            .lines()
            .any(|line| line.starts_with("ok        git ") && line.contains("git version")),
        "{}",
        text(&table)
    );
}

#[test]
fn the_cache_is_pruned_of_what_nothing_uses() {
    let local = Local::new().unwrap();
    let cache = local.path().join("cache");
    let unused = cache.join("environments/python-0123456789abcdef");
    fs::create_dir_all(&unused).unwrap();
    fs::write(unused.join("file"), vec![0; 4096]).unwrap();
    let legionctl = |arguments: &[&str]| {
        let mut command = local.legionctl(arguments).unwrap();
        let output = command.env("LEGION_CACHE_DIR", &cache).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let prune = ["cache", "prune", "--older-than", "0s"];
    legionctl(&["local", "up", "--detach"]);
    let listed: Value = serde_json::from_str(&legionctl(&["cache", "list", "-o", "json"])).unwrap();
    assert_eq!(listed["entries"][0]["sizeBytes"], 4096, "{listed:#}");
    assert_eq!(listed["entries"][0]["inUse"], true, "{listed:#}");
    let kept = legionctl(&prune);
    assert!(
        kept.contains("0 B removed") && kept.contains("4.0 KiB in use"),
        "{kept}"
    );
    local.down().unwrap();

    let young = legionctl(&["cache", "prune"]);
    assert!(young.contains("0 B removed"), "{young}");
    let dry = legionctl(&[&prune[..], &["--dry-run"]].concat());
    assert!(dry.contains("4.0 KiB would be removed"), "{dry}");
    assert!(unused.exists());
    let pruned = legionctl(&prune);
    assert!(pruned.contains("4.0 KiB removed"), "{pruned}");
    assert!(!unused.exists());
    assert!(!legionctl(&["cache", "list"]).contains("python-0123456789abcdef"));
}
