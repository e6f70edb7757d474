//! The real kubectl against the local API, as `docs/kubectl.md` shows it.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use legion_tests::{Killed, Local, repository, text};

struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    fn new(local: &Local) -> Self {
        let built = Command::new(repository().join("tests/kubectl/build"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(built.status.success(), "kubectl does not build");
        Self {
            binary: PathBuf::from(String::from_utf8(built.stdout).unwrap().trim()),
            kubeconfig: local.data.path().join("kubeconfig"),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(repository())
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output: Output = self.command(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            text(&output)
        );
        text(&output)
    }
}

#[test]
fn what_people_do_with_trainings() {
    let local = Local::up();
    let kubectl = Kubectl::new(&local);
    let mut watch = kubectl
        .command(&["get", "mt", "-w"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let watched = BufReader::new(watch.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let _watch = Killed(watch);

    let applied = kubectl.ok(&["apply", "--server-side", "-f", "examples/script/training.yaml"]);
    assert!(
        applied.contains("modeltraining.legion-platform.org/script serverside-applied"),
        "{applied}"
    );
    kubectl.ok(&["wait", "--for=condition=Succeeded", "mt/script", "--timeout=60s"]);

    // The watch shows the training come, work and end.
    let seen: Vec<String> = watched.take_while(|line| !line.contains("RunSucceeded")).collect();
    assert!(
        seen.iter()
            .any(|line| line.starts_with("NAME") && line.contains("SCORE")),
        "{seen:#?}"
    );

    let row = kubectl.ok(&["get", "mt", "script"]);
    assert!(row.contains("True") && row.contains("mse="), "{row}");
    let all = kubectl.ok(&["get", "legion", "-A"]);
    for kind in [
        "modeltraining.legion-platform.org/script",
        "toolchainintegration.legion-platform.org/mlflow",
        "connection",
    ] {
        assert!(all.contains(kind), "{kind} is not in:\n{all}");
    }
    let described = kubectl.ok(&["describe", "mt", "script"]);
    for part in ["RunSucceeded", "Score:", "Digest:"] {
        assert!(described.contains(part), "{part} is not in:\n{described}");
    }
    let pod = kubectl.ok(&["get", "mt", "script", "-o", "jsonpath={.status.run.pod}"]);
    assert!(
        kubectl.ok(&["logs", &pod]).contains("slope 2.5"),
        "the default container is the trainer"
    );

    // The other kind of apply, on top of the first: nothing changes, nothing is started.
    kubectl.ok(&["apply", "-f", "examples/script/training.yaml"]);
    assert_eq!(
        kubectl.ok(&["get", "mt", "script", "-o", "jsonpath={.status.run.sequence}"]),
        "1"
    );

    kubectl.ok(&["delete", "-f", "examples/script/training.yaml", "--timeout=60s"]);
    let gone = kubectl
        .command(&["wait", "--for=delete", &format!("pod/{pod}"), "--timeout=60s"])
        .output()
        .unwrap();
    assert!(
        gone.status.success() || text(&gone).contains("not found"),
        "{}",
        text(&gone)
    );
}
