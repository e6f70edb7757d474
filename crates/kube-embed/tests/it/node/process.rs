//! Containers as real processes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::api::{Api, LogParams, PostParams};
use serde_json::json;

use super::cluster::{ended, phase, pod, processes, sh, waiting};

/// Returns the PIDs of processes whose environment contains this text.
pub(super) fn processes_with(marker: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ
            .split(|b| *b == 0)
            .any(|v| String::from_utf8_lossy(v).contains(marker))
    })
    .collect()
}

#[tokio::test]
async fn exit_codes_and_signals_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = processes(dir.path(), |_| {}).await;
    for (name, script, code, signal, reason) in [
        ("good", "exit 0", 0, None, "Completed"),
        ("three", "exit 3", 3, None, "Error"),
        ("missing", "definitely-not-a-command", 127, None, "Error"),
        ("segv", "kill -s SEGV $$$$", 139, Some(11), "Error"),
        ("kill", "kill -s KILL $$$$", 137, Some(9), "Error"),
    ] {
        let done = cluster
            .run(&pod(name, json!({"containers": [sh("main", script)]})))
            .await;
        let end = ended(&done, "main");
        assert_eq!(
            (end.exit_code, end.signal, end.reason.as_deref()),
            (code, signal, Some(reason)),
            "{name}"
        );
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_waits_for_a_missing_host_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let cluster = processes(&dir.path().join("node"), |_| {}).await;
    let volume = json!({"name": "data", "hostPath": {"path": data, "type": "Directory"}});
    let spec = json!({"volumes": [volume], "containers": [sh("main", "exit 0")]});
    cluster.create(&pod("p", spec)).await;
    let event = cluster.event("p", "FailedMount").await;
    assert_eq!(
        event.message.unwrap(),
        format!(
            "MountVolume.SetUp failed for volume \"data\" : hostPath type check failed: {} is not a directory",
            data.display()
        )
    );
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let stuck = cluster.get("p").await;
    assert_eq!(event.involved_object.uid, stuck.uid());
    assert_eq!(waiting(&stuck, "main").0, "ContainerCreating");
    std::fs::create_dir(&data).unwrap();
    cluster.phase("p", "Succeeded").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_container_that_cannot_start_reports_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let cluster = processes(&dir.path().join("node"), |_| {}).await;
    for (name, command, dir, expected) in [
        (
            "not-found",
            "definitely-not-a-command",
            "/",
            "executable file not found in $PATH",
        ),
        ("no-file", "/definitely/not/there", "/", "no such file or directory"),
        ("not-executable", plain.to_str().unwrap(), "/", "permission denied"),
        ("no-dir", "/bin/true", "/definitely/not/there", "chdir to cwd"),
    ] {
        let main = json!({"name": "main", "image": "image", "command": [command], "workingDir": dir});
        let done = cluster.run(&pod(name, json!({"containers": [main]}))).await;
        let end = ended(&done, "main");
        assert_eq!(
            (end.exit_code, end.reason.as_deref()),
            (128, Some("StartError")),
            "{name}"
        );
        assert!(
            end.message.as_ref().unwrap().contains(expected),
            "{name}: {:?}",
            end.message
        );
    }
    cluster.stop().await;
}

#[tokio::test]
async fn deletion_sends_sigterm_and_then_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = processes(dir.path(), |_| {}).await;
    let trap = "trap 'echo bye >$MESSAGE; exit 7' TERM; echo ready; while :; do sleep 0.02; done";
    let mut main = sh("main", trap);
    main["env"] = json!([{"name": "MESSAGE", "value": "/dev/termination-log"}]);
    cluster.create(&pod("polite", json!({"containers": [main]}))).await;
    said(&cluster, "polite", "ready").await;
    let last = cluster.phase("polite", "Failed");
    let (last, ()) = tokio::join!(last, cluster.delete("polite"));
    assert_eq!(
        (ended(&last, "main").exit_code, ended(&last, "main").message.as_deref()),
        (7, Some("bye\n"))
    );
    cluster.gone("polite").await;

    let deaf = sh("main", "trap '' TERM; echo ready; while :; do sleep 0.02; done");
    cluster
        .create(&pod(
            "deaf",
            json!({"containers": [deaf], "terminationGracePeriodSeconds": 1}),
        ))
        .await;
    said(&cluster, "deaf", "ready").await;
    let last = cluster.phase("deaf", "Failed");
    let (last, ()) = tokio::join!(last, cluster.delete("deaf"));
    assert_eq!(
        (ended(&last, "main").exit_code, ended(&last, "main").signal),
        (137, Some(9))
    );
    cluster.gone("deaf").await;
    cluster.stop().await;
}

/// Follows the pod's log until it contains this line.
pub(super) async fn said(cluster: &super::cluster::Cluster, name: &str, line: &str) {
    use futures::{AsyncBufReadExt, StreamExt};
    cluster.phase(name, "Running").await;
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = cluster.pods().log_stream(name, &params).await.unwrap().lines();
    while let Some(said) = lines.next().await {
        if said.unwrap() == line {
            return;
        }
    }
    panic!("the log of {name} ended without {line:?}");
}

#[tokio::test]
async fn no_process_of_a_container_survives_it() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = processes(dir.path(), |_| {}).await;
    let script = "
        sleep 1000 &
        (sleep 1000 &) &
        setsid sh -c 'trap \"\" TERM HUP; (setsid sleep 1000 &); sleep 1000' &
        i=0; while [ $i -lt 50 ]; do sh -c 'sleep 1000; :' & i=$((i+1)); done
        exit 5";
    let done = cluster
        .run(&pod("p", json!({"containers": [sh("main", script)]})))
        .await;
    assert_eq!(ended(&done, "main").exit_code, 5);
    assert_eq!(processes_with(&done.uid().unwrap()), [0_i32; 0]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_container_above_its_memory_limit_is_killed() {
    // Doubles a string until it is killed.
    let hog = "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done";
    for groups in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let cluster = processes(dir.path(), |options| options.control_groups = groups).await;
        let mut main = sh("main", hog);
        main["resources"] = json!({"limits": {"memory": "64Mi"}});
        let done = cluster.run(&pod("p", json!({"containers": [main]}))).await;
        let end = ended(&done, "main");
        assert_eq!(
            (end.exit_code, end.reason.as_deref()),
            (137, Some("OOMKilled")),
            "control groups: {groups}"
        );
        cluster.stop().await;
    }
}

#[tokio::test]
async fn logs_are_limited_in_size_and_keep_the_end_of_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = processes(dir.path(), |options| options.log_limit = 8 << 20).await;
    let script = "head -c 100000000 /dev/zero | tr '\\0' x | fold -w 999; echo; echo the end; exit 1";
    let mut main = sh("main", script);
    main["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let done = cluster.run(&pod("p", json!({"containers": [main]}))).await;
    assert!(ended(&done, "main").message.as_ref().unwrap().ends_with("the end\n"));
    let tail = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    assert_eq!(cluster.pods().logs("p", &tail).await.unwrap(), "the end\n");
    let logs = dir
        .path()
        .join("pods")
        .join(done.uid().unwrap())
        .join("containers/main/0");
    let size: u64 = ["log", "log.1"]
        .iter()
        .map(|f| std::fs::metadata(logs.join(f)).unwrap().len())
        .sum();
    assert!(size < 18 << 20, "{size}");
    cluster.stop().await;
}

#[tokio::test]
async fn volumes_are_directories_and_paths_point_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = processes(&dir.path().join("node"), |_| {}).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let map = json!({"metadata": {"name": "c"}, "data": {"a": "one", "b": "two"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap())
        .await
        .unwrap();
    let secrets: Api<Secret> = Api::default_namespaced(cluster.client.clone());
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"key": "hidden"}});
    secrets
        .create(&PostParams::default(), &serde_json::from_value(secret).unwrap())
        .await
        .unwrap();
    let host = dir.path().join("host");
    std::fs::create_dir(&host).unwrap();

    let spec = json!({
        "volumes": [
            {"name": "work", "emptyDir": {}},
            {"name": "config", "configMap": {"name": "c", "items": [{"key": "a", "path": "deep/file"}]}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "info", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"name": "host", "hostPath": {"path": host}},
        ],
        "initContainers": [{
            "name": "init", "image": "image", "command": ["/bin/sh", "-c", "echo made >$OUT/by-init"],
            "env": [{"name": "OUT", "value": "/work/sub"}],
            "volumeMounts": [{"name": "work", "mountPath": "/work/sub", "subPath": "inner"}],
        }],
        "containers": [{
            "name": "main", "image": "image", "workingDir": "/work/inner",
            "command": ["/bin/sh", "-c", "set -e; pwd; cat by-init $CONFIG $SECRET $1; ls -l $SECRET; cp by-init $HOST/copied; \
                         echo fine >$MESSAGE; env | sort | cut -d= -f1", "sh"],
            "args": ["/info/name"],
            "env": [
                {"name": "ROOT", "value": "/config"}, {"name": "CONFIG", "value": "$(ROOT)/deep/file"},
                {"name": "SECRET", "value": "/secret/key"}, {"name": "HOST", "value": "/host"},
                {"name": "MESSAGE", "value": "/dev/termination-log"},
            ],
            "volumeMounts": [
                {"name": "work", "mountPath": "/work"}, {"name": "config", "mountPath": "/config"},
                {"name": "secret", "mountPath": "/secret"}, {"name": "info", "mountPath": "/info"},
                {"name": "host", "mountPath": "/host"},
            ],
        }],
    });
    let done = cluster.run(&pod("p", spec)).await;
    let params = LogParams {
        container: Some("main".into()),
        ..LogParams::default()
    };
    let log = cluster.pods().logs("p", &params).await.unwrap();
    assert_eq!(
        (phase(&done), ended(&done, "main").message.as_deref()),
        ("Succeeded", Some("fine\n")),
        "{log}"
    );
    let lines: Vec<_> = log.lines().collect();
    assert!(lines[0].ends_with("/volumes/work/inner"), "{log}");
    assert_eq!(lines[1], "made");
    assert!(
        lines[2].starts_with("onehiddenp") && lines[2].contains("-rw-------"),
        "{log}"
    );
    assert_eq!(std::fs::read_to_string(host.join("copied")).unwrap(), "made\n");
    // A container inherits no variables from this test or from the machine.
    let names: Vec<_> = lines[3..].to_vec();
    let known = [
        "CONFIG",
        "HOST",
        "HOSTNAME",
        "KUBE_EMBED_CONTAINER",
        "MESSAGE",
        "PATH",
        "PWD",
        "ROOT",
        "SECRET",
    ];
    let strange: Vec<_> = names
        .iter()
        .filter(|n| !known.contains(n) && !matches!(**n, "_" | "OLDPWD" | "SHLVL"))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");

    let root = dir.path().join("node/pods").join(done.uid().unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root.join("volumes/secret")), 0o700);
    cluster.delete("p").await;
    cluster.gone("p").await;
    cluster.stop().await;
    assert!(!root.exists() && host.join("copied").exists());
}

#[tokio::test]
async fn a_pod_above_the_size_limit_of_its_empty_dir_is_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = processes(dir.path(), |options| {
        options.measure_every = std::time::Duration::from_millis(50)
    })
    .await;
    let mut main = sh("main", "head -c 3000000 /dev/zero >$WORK/file; sleep 1000");
    main["env"] = json!([{"name": "WORK", "value": "/work"}]);
    main["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
    let spec = json!({"containers": [main], "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Mi"}}]});
    let done = cluster.run(&pod("p", spec)).await;
    assert_eq!(done.status.as_ref().unwrap().reason.as_deref(), Some("Evicted"));
    assert_eq!(processes_with(&done.uid().unwrap()), [0_i32; 0]);
    cluster.stop().await;
}
