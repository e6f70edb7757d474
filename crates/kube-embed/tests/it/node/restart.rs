//! The process of the API and the node is killed with SIGKILL and restarted on the same directory.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::json;

use super::cluster::{ended, phase, pod, sh, status, wait};
use super::process::processes_with;

struct Host {
    child: Child,
    client: Client,
}

impl Drop for Host {
    fn drop(&mut self) {
        // Fails if the test has already killed it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Host {
    /// Starts kube-embed and waits for its kubeconfig.
    async fn start(dir: &Path) -> Self {
        let kubeconfig = dir.join("kubeconfig");
        if kubeconfig.exists() {
            std::fs::remove_file(&kubeconfig).unwrap();
        }
        let child = Command::new(env!("CARGO_BIN_EXE_kube-embed")).arg(dir).spawn().unwrap();
        let ready = tokio::time::timeout(Duration::from_secs(60), async {
            while !kubeconfig.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        ready.await.expect("the host did not start");
        let config = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .unwrap();
        Self {
            child,
            client: Client::try_from(config).unwrap(),
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn pods(&self) -> Api<k8s_openapi::api::core::v1::Pod> {
        Api::default_namespaced(self.client.clone())
    }
}

#[tokio::test]
async fn a_running_container_is_adopted_and_runs_once() {
    let dir = tempfile::tempdir().unwrap();
    let (started, go) = (dir.path().join("started"), dir.path().join("go"));
    let script = format!(
        "echo x >>{}; while [ ! -e {} ]; do sleep 0.02; done; echo done; exit 6",
        started.display(),
        go.display()
    );
    let host = Host::start(dir.path()).await;
    host.pods()
        .create(
            &PostParams::default(),
            &pod("p", json!({"containers": [sh("main", &script)]})),
        )
        .await
        .unwrap();
    let running = wait(host.client.clone(), "p", |p| phase(p) == "Running").await;
    host.kill();
    assert!(
        !processes_with(&running.uid().unwrap()).is_empty(),
        "the container ended with its host"
    );

    let host = Host::start(dir.path()).await;
    std::fs::write(&go, "").unwrap();
    let done = wait(host.client.clone(), "p", |p| phase(p) == "Failed").await;
    assert_eq!(ended(&done, "main").exit_code, 6);
    assert_eq!(
        status(&done, "main").container_id,
        status(&running, "main").container_id
    );
    assert_eq!(
        std::fs::read_to_string(&started).unwrap(),
        "x\n",
        "it ran more than once"
    );
    assert_eq!(host.pods().logs("p", &Default::default()).await.unwrap(), "done\n");
    assert_eq!(processes_with(&running.uid().unwrap()), [0_i32; 0]);
}

#[tokio::test]
async fn a_container_exit_during_downtime_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (go, over) = (dir.path().join("go"), dir.path().join("over"));
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; echo why >$LOG; touch {}; exit 9",
        go.display(),
        over.display()
    );
    let mut main = sh("main", &script);
    main["env"] = json!([{"name": "LOG", "value": "/dev/termination-log"}]);
    let host = Host::start(dir.path()).await;
    host.pods()
        .create(&PostParams::default(), &pod("p", json!({"containers": [main]})))
        .await
        .unwrap();
    let running = wait(host.client.clone(), "p", |p| phase(p) == "Running").await;
    host.kill();
    std::fs::write(&go, "").unwrap();
    while !over.exists() || !processes_with(&running.uid().unwrap()).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let host = Host::start(dir.path()).await;
    let done = wait(host.client.clone(), "p", |p| phase(p) == "Failed").await;
    let end = ended(&done, "main");
    assert_eq!((end.exit_code, end.message.as_deref()), (9, Some("why\n")));
}
