//! The real kubectl against the listener.
//!
//! `cargo xtask cluster tool kubectl` builds it from its published module, which needs Go. These tests are therefore
//! ignored by default, and run with `cargo test -p kube-embed -- --ignored`.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use kube_embed::Embedded;
use kube_embed::gc::GarbageCollector;
use kube_embed::node::images::{ImageEnvironment, StaticImages};
use kube_embed::node::runtime::scripted::{Script, ScriptedRuntime};
use kube_embed::node::{Node, NodeOptions};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::support::*;

struct Kubectl {
    binary: PathBuf,
    directory: tempfile::TempDir,
    server: Embedded,
}

struct Output {
    code: i32,
    out: String,
    err: String,
}

impl Output {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }
}

impl Kubectl {
    async fn start() -> Self {
        let binary = crate::built::kubectl().await;
        let server = Embedded::builder().build().await.unwrap();
        let endpoint = server.listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join("kubeconfig"),
            endpoint.kubeconfig("test", "default"),
        )
        .unwrap();
        Self {
            binary,
            directory,
            server,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.feed(arguments, "").await
    }

    async fn feed(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

const WIDGET: &str = "apiVersion: demo.io/v1\nkind: Widget\nmetadata: {name: a}\nspec: {size: 3}\n";

#[tokio::test]
#[ignore = "builds the real kubectl, which needs Go"]
async fn common_kubectl_commands() {
    let kubectl = Kubectl::start().await;
    assert!(kubectl.run(&["version"]).await.ok().contains("Server Version: v1.37"));
    kubectl
        .feed(&["apply", "-f", "-"], &widget_crd().to_string())
        .await
        .ok();
    kubectl
        .run(&[
            "wait",
            "--for=condition=Established",
            "crd/widgets.demo.io",
            "--timeout=10s",
        ])
        .await
        .ok();
    let resources = kubectl.run(&["api-resources"]).await.ok();
    assert!(
        resources.lines().any(|l| l.starts_with("widgets") && l.contains("wd")),
        "{resources}"
    );

    // Client-side and server-side apply, alone and in combination.
    assert_eq!(
        kubectl.feed(&["apply", "-f", "-"], WIDGET).await.ok(),
        "widget.demo.io/a created\n"
    );
    assert_eq!(
        kubectl.feed(&["apply", "-f", "-"], WIDGET).await.ok(),
        "widget.demo.io/a unchanged\n"
    );
    let bigger = WIDGET.replace("size: 3", "size: 4");
    let diff = kubectl.feed(&["diff", "-f", "-"], &bigger).await;
    assert_eq!(diff.code, 1, "{}", diff.err);
    assert!(diff.out.contains("+  size: 4"), "{}", diff.out);
    kubectl.feed(&["apply", "--server-side", "-f", "-"], &bigger).await.ok();
    let rival = kubectl
        .feed(
            &["apply", "--server-side", "--field-manager=rival", "-f", "-"],
            &WIDGET.replace("size: 3", "size: 5"),
        )
        .await;
    assert_ne!(rival.code, 0);
    assert!(rival.err.contains("Apply failed with 1 conflict"), "{}", rival.err);
    assert!(rival.err.contains(".spec.size"), "{}", rival.err);

    // Get, describe and explain.
    let table = kubectl.run(&["get", "demo"]).await.ok();
    assert_eq!(
        table.split_whitespace().take(6).collect::<Vec<_>>(),
        ["NAME", "SIZE", "READY", "AGE", "a", "4"]
    );
    let described = kubectl.run(&["describe", "wd", "a"]).await.ok();
    assert!(described.contains("Colour:  grey"), "{described}");
    let explained = kubectl.run(&["explain", "wd.spec.size"]).await.ok();
    assert!(explained.contains("How big."), "{explained}");

    // Watch an object while it changes.
    let mut command = kubectl.command(&["get", "wd", "-w", "--no-headers"]);
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let size = |line: Option<String>| line.unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(size(lines.next_line().await.unwrap()), "4");
    kubectl
        .run(&["patch", "wd", "a", "--type=merge", "-p", r#"{"spec":{"size":9}}"#])
        .await
        .ok();
    assert_eq!(size(lines.next_line().await.unwrap()), "9");
    watch.kill().await.unwrap();

    // Wait for a condition that is set later.
    let waiting = kubectl
        .command(&["wait", "--for=condition=Ready", "wd/a", "--timeout=60s"])
        .output();
    let becoming = async {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        patch(&kubectl.server, &format!("{WIDGETS}/a/status"), ready).await.ok();
    };
    let (waited, ()) = tokio::join!(waiting, becoming);
    assert!(waited.unwrap().status.success());

    // Label, annotate and edit.
    kubectl.run(&["label", "wd", "a", "x=y"]).await.ok();
    kubectl.run(&["annotate", "wd", "a", "note=hello"]).await.ok();
    let edited = kubectl
        .command(&["edit", "wd", "a"])
        .env("EDITOR", "sed -i s/size:.*/size:\\ 11/")
        .output()
        .await
        .unwrap();
    assert!(edited.status.success(), "{edited:?}");
    let shown = kubectl.run(&[
        "get",
        "wd",
        "-l",
        "x=y",
        "-o",
        "jsonpath={.items[*].spec.size} {.items[*].metadata.annotations.note}",
    ]);
    assert_eq!(shown.await.ok(), "11 hello");

    // Invalid objects.
    let typo = kubectl
        .feed(&["apply", "-f", "-"], &WIDGET.replace("size", "sise"))
        .await;
    assert!(typo.err.contains("unknown field \"spec.sise\""), "{}", typo.err);
    let zero = kubectl
        .feed(
            &["create", "-f", "-"],
            &WIDGET.replace("name: a", "name: z").replace("size: 3", "size: 0"),
        )
        .await;
    assert!(
        zero.err
            .contains("The Widget \"z\" is invalid: spec.size: Invalid value: 0"),
        "{}",
        zero.err
    );

    // For built-in kinds, kubectl sends protobuf.
    kubectl
        .run(&["create", "configmap", "made", "--from-literal=a=b"])
        .await
        .ok();
    kubectl
        .run(&["create", "secret", "generic", "hidden", "--from-literal=p=q"])
        .await
        .ok();
    kubectl.run(&["create", "namespace", "team"]).await.ok();
    assert_eq!(
        kubectl
            .run(&["get", "cm", "made", "-o", "jsonpath={.data.a}"])
            .await
            .ok(),
        "b"
    );
    assert_eq!(
        kubectl
            .run(&["get", "secret", "hidden", "-o", "jsonpath={.data.p}"])
            .await
            .ok(),
        "cQ=="
    );
    assert_eq!(kubectl.run(&["auth", "can-i", "delete", "pods"]).await.ok(), "yes\n");

    // Events.
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "Because", "type": "Normal",
        "message": "it happened", "source": {"component": "tests"}, "lastTimestamp": "2026-01-01T00:00:00Z",
        "involvedObject": {"apiVersion": "demo.io/v1", "kind": "Widget", "name": "a", "namespace": "default"},
    });
    post(&kubectl.server, "/api/v1/namespaces/default/events", event)
        .await
        .ok();
    assert!(kubectl.run(&["get", "events"]).await.ok().contains("widget/a"));
    assert!(
        kubectl
            .run(&["events", "--for", "widget/a"])
            .await
            .ok()
            .contains("it happened")
    );

    // Delete.
    assert_eq!(
        kubectl.run(&["delete", "wd", "a"]).await.ok(),
        "widget.demo.io \"a\" deleted from default namespace\n"
    );
    kubectl.run(&["delete", "cm", "--all"]).await.ok();
    kubectl
        .run(&["delete", "crd", "widgets.demo.io", "--timeout=10s"])
        .await
        .ok();
    let gone = kubectl.run(&["get", "widgets"]).await;
    // The message depends on the age of kubectl's discovery cache.
    assert_eq!(gone.code, 1, "{}{}", gone.out, gone.err);
}

#[tokio::test]
#[ignore = "builds the real kubectl, which needs Go"]
async fn kubectl_with_pods_and_namespaces() {
    let kubectl = Kubectl::start().await;
    let server = &kubectl.server;
    let runtime = ScriptedRuntime::new(server.clock());
    runtime.script(
        "job",
        Script::new().runs(Duration::from_millis(500)).logs("first\nlast\n"),
    );
    runtime.script("service", Script::new().runs_for_ever().logs("up\n"));
    let images = StaticImages::new().otherwise(ImageEnvironment::system());
    let options = NodeOptions::new(server.clock());
    let node = Node::start(server.client("default"), options, Arc::new(runtime), Arc::new(images))
        .await
        .unwrap();
    server.set_pod_logs(node.logs());
    let collector = GarbageCollector::start(server.client("default"), server.clock());

    kubectl.run(&["create", "namespace", "team"]).await.ok();
    for name in ["job", "service"] {
        kubectl
            .run(&[
                "run",
                name,
                "-n",
                "team",
                "--image=demo",
                "--restart=Never",
                "--",
                "work",
            ])
            .await
            .ok();
    }
    let succeeded = "--for=jsonpath={.status.phase}=Succeeded";
    kubectl
        .run(&["wait", "-n", "team", "pod/job", succeeded, "--timeout=30s"])
        .await
        .ok();
    assert_eq!(kubectl.run(&["logs", "-n", "team", "job"]).await.ok(), "first\nlast\n");

    // Follow a log until the container terminates.
    kubectl
        .run(&[
            "wait",
            "-n",
            "team",
            "pod/service",
            "--for=condition=Ready",
            "--timeout=30s",
        ])
        .await
        .ok();
    let mut follow = kubectl.command(&["logs", "-n", "team", "-f", "service"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("up"));
    kubectl
        .run(&["delete", "pod", "-n", "team", "service", "--timeout=30s"])
        .await
        .ok();
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert!(follow.wait().await.unwrap().success());

    let table = kubectl.run(&["get", "pods", "-A", "--no-headers"]).await.ok();
    assert_eq!(
        table.split_whitespace().take(4).collect::<Vec<_>>(),
        ["team", "job", "0/1", "Completed"]
    );
    assert!(
        kubectl
            .run(&["describe", "pod", "job", "-n", "team"])
            .await
            .ok()
            .contains("Scheduled")
    );
    assert!(kubectl.run(&["get", "nodes"]).await.ok().contains("Ready"));

    kubectl
        .run(&["delete", "namespace", "team", "--timeout=30s"])
        .await
        .ok();
    assert_eq!(kubectl.run(&["get", "pods", "-A"]).await.ok(), "");
    collector.shutdown().await;
    node.shutdown(Duration::ZERO).await;
}
