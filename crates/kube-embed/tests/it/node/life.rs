//! The lifecycle of a pod, under paused time.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use kube_embed::node::runtime::scripted::Script;
use serde_json::{Value, json};

use super::cluster::{condition, ended, phase, pod, scripted, scripted_with, status, waiting};

const SECOND: Duration = Duration::from_secs(1);

fn containers(names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| json!({"name": name, "image": "image"}))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_through_its_phases() {
    let (cluster, runtime) = scripted().await;
    runtime.script("first", Script::new().runs(2 * SECOND));
    runtime.script("second", Script::new().runs(3 * SECOND));
    runtime.script("main", Script::new().runs(30 * SECOND).message("done"));
    let pod = pod(
        "p",
        json!({"initContainers": containers(&["first", "second"]), "containers": containers(&["main", "side"])}),
    );
    runtime.script("side", Script::new().runs(10 * SECOND));
    cluster.create(&pod).await;

    let starting = cluster.until("p", |p| status_running(p, "second")).await;
    assert_eq!(phase(&starting), "Pending");
    assert_eq!(condition(&starting, "PodScheduled"), ("True", ""));
    assert_eq!(condition(&starting, "PodReadyToStartContainers"), ("True", ""));
    assert_eq!(
        condition(&starting, "Initialized"),
        ("False", "ContainersNotInitialized")
    );
    assert_eq!(waiting(&starting, "main").0, "PodInitializing");
    assert!(status(&starting, "first").ready && !status(&starting, "second").ready);

    let running = cluster.phase("p", "Running").await;
    assert_eq!(condition(&running, "Initialized"), ("True", ""));
    assert_eq!(condition(&running, "Ready"), ("True", ""));
    let half = cluster
        .until("p", |p| !status_running(p, "side") && phase(p) == "Running")
        .await;
    assert_eq!(condition(&half, "Ready"), ("False", "ContainersNotReady"));

    let done = cluster.phase("p", "Succeeded").await;
    assert_eq!(condition(&done, "Ready"), ("False", "PodCompleted"));
    assert_eq!(condition(&done, "PodReadyToStartContainers"), ("False", ""));
    let end = ended(&done, "main");
    assert_eq!(
        (end.exit_code, end.reason.as_deref(), end.message.as_deref()),
        (0, Some("Completed"), Some("done"))
    );
    let took = end
        .finished_at
        .clone()
        .unwrap()
        .0
        .duration_since(end.started_at.clone().unwrap().0);
    assert_eq!(took.as_secs(), 30);

    let order: Vec<_> = runtime
        .started()
        .into_iter()
        .map(|s| (s.key.name, s.at.as_secs()))
        .collect();
    assert_eq!(
        order,
        [
            ("first".into(), 0),
            ("second".into(), 2),
            ("main".into(), 5),
            ("side".into(), 5)
        ]
    );
    cluster.event("p", "Started").await;
    assert_eq!(
        cluster.reasons("p").await[..4],
        ["Scheduled", "Pulled", "Created", "Started"]
    );
}

fn status_running(pod: &k8s_openapi::api::core::v1::Pod, container: &str) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten());
    let mut found = statuses.into_iter().flatten().filter(|s| s.name == container);
    found.any(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()))
}

#[tokio::test(start_paused = true)]
async fn container_exits_are_reported_as_by_the_kubelet() {
    let cases = [
        ("code", Script::new().exits(3), "Failed", 3, None, "Error"),
        ("signal", Script::new().dies_of(11), "Failed", 139, Some(11), "Error"),
        (
            "memory",
            Script::new().runs_out_of_memory(),
            "Failed",
            137,
            Some(9),
            "OOMKilled",
        ),
        ("good", Script::new(), "Succeeded", 0, None, "Completed"),
    ];
    for (name, script, expected, code, signal, reason) in cases {
        let (cluster, runtime) = scripted().await;
        runtime.script("main", script.runs(SECOND));
        let done = cluster.run(&pod(name, json!({}))).await;
        let end = ended(&done, "main");
        assert_eq!(phase(&done), expected, "{name}");
        assert_eq!(
            (end.exit_code, end.signal, end.reason.as_deref()),
            (code, signal, Some(reason)),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_start_fails_its_pod() {
    let (cluster, runtime) = scripted().await;
    runtime.script(
        "main",
        Script::new().fails_to_start("exec: \"x\": executable file not found in $PATH"),
    );
    let done = cluster.run(&pod("p", json!({}))).await;
    let end = ended(&done, "main");
    assert_eq!(
        (phase(&done), end.exit_code, end.reason.as_deref()),
        ("Failed", 128, Some("StartError"))
    );
    assert!(end.message.as_ref().unwrap().contains("executable file not found"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_init_container_ends_the_pod_before_its_main_containers() {
    let (cluster, runtime) = scripted().await;
    runtime.script("init", Script::new().exits(1));
    let done = cluster
        .run(&pod("p", json!({"initContainers": containers(&["init"])})))
        .await;
    assert_eq!(phase(&done), "Failed");
    assert_eq!(waiting(&done, "main").0, "PodInitializing");
    assert_eq!(runtime.started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_active_deadline_starts_with_the_pod() {
    let (cluster, runtime) = scripted().await;
    runtime.script("main", Script::new().runs_for_ever().traps_term(3 * SECOND, 0));
    let began = tokio::time::Instant::now();
    let done = cluster.run(&pod("p", json!({"activeDeadlineSeconds": 60}))).await;
    assert_eq!(began.elapsed().as_secs(), 63);
    let status = done.status.as_ref().unwrap();
    assert_eq!(
        (phase(&done), status.reason.as_deref()),
        ("Failed", Some("DeadlineExceeded"))
    );
    assert_eq!(ended(&done, "main").exit_code, 0);
}

#[tokio::test(start_paused = true)]
async fn deletion_kills_after_the_grace_period() {
    for (script, grace, expected) in [
        (Script::new().runs_for_ever(), 30, 0),
        (Script::new().runs_for_ever().traps_term(7 * SECOND, 0), 30, 7),
        (Script::new().runs_for_ever().ignores_term(), 20, 20),
        (Script::new().runs_for_ever().ignores_term(), 0, 0),
    ] {
        let (cluster, runtime) = scripted().await;
        runtime.script("main", script.clone());
        cluster
            .create(&pod("p", json!({"terminationGracePeriodSeconds": 60})))
            .await;
        cluster.phase("p", "Running").await;
        let began = tokio::time::Instant::now();
        let params = DeleteParams {
            grace_period_seconds: Some(grace),
            ..DeleteParams::default()
        };
        let _ = cluster.pods().delete("p", &params).await.unwrap();
        cluster.gone("p").await;
        assert_eq!(began.elapsed().as_secs(), expected, "{script:?} with {grace} s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_status_is_written_before_the_pod_is_removed() {
    let (cluster, runtime) = scripted().await;
    runtime.script(
        "main",
        Script::new().runs_for_ever().traps_term(SECOND, 9).message("bye"),
    );
    cluster.create(&pod("p", json!({}))).await;
    cluster.phase("p", "Running").await;
    let last = cluster.until("p", |p| phase(p) == "Failed");
    let (last, ()) = tokio::join!(last, cluster.delete("p"));
    assert_eq!(
        (ended(&last, "main").exit_code, ended(&last, "main").message.as_deref()),
        (9, Some("bye"))
    );
    cluster.gone("p").await;
    assert!(cluster.reasons("p").await.contains(&"Killing".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn deletion_removes_a_finished_pod() {
    let (cluster, _runtime) = scripted().await;
    cluster.run(&pod("p", json!({}))).await;
    cluster.delete("p").await;
    cluster.gone("p").await;
    // The name can be reused. The new pod has another uid.
    cluster.run(&pod("p", json!({}))).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_image_is_reported_with_a_remedy_and_the_pod_can_be_deleted() {
    let (cluster, runtime) = scripted().await;
    let spec = json!({"containers": [{"name": "main", "image": "nowhere/none:1"}]});
    cluster.create(&pod("p", spec)).await;
    let first = cluster.until("p", |p| waiting(p, "main").0 == "ErrImagePull").await;
    let (_, message) = waiting(&first, "main");
    assert!(
        message.contains("\"nowhere/none:1\" not found") && message.contains("image table"),
        "{message}"
    );
    let second = cluster.until("p", |p| waiting(p, "main").0 == "ImagePullBackOff").await;
    assert!(waiting(&second, "main").1.contains("nowhere/none:1"));
    assert_eq!(phase(&second), "Pending");
    let event = cluster.event("p", "BackOff").await;
    assert_eq!(event.type_.as_deref(), Some("Normal"));
    cluster.delete("p").await;
    cluster.gone("p").await;
    assert_eq!(runtime.started(), []);
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_missing_configuration() {
    let (cluster, runtime) = scripted().await;
    let env = json!([
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k", "optional": true}}},
        {"name": "C", "value": "$(A)-$(POD)"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "D", "value": "$(A)-$(POD)"},
    ]);
    let main = json!({"name": "main", "image": "image", "env": env, "args": ["$(A)", "$$(A)"]});
    cluster.create(&pod("p", json!({"containers": [main]}))).await;
    let blocked = cluster
        .until("p", |p| waiting(p, "main").0 == "CreateContainerConfigError")
        .await;
    assert_eq!(waiting(&blocked, "main").1, "secret \"s\" not found");

    let secrets: Api<Secret> = Api::default_namespaced(cluster.client.clone());
    let secret = serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"k": "v$(POD)"}})).unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    cluster.phase("p", "Succeeded").await;
    let started = &runtime.started()[0].command;
    assert_eq!(started.argv, ["v$(POD)", "$(A)"]);
    assert_eq!(started.env["C"], "v$(POD)-$(POD)");
    assert_eq!(started.env["D"], "v$(POD)-p");
    assert!(!started.env.contains_key("B"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_missing_volumes() {
    let (cluster, runtime) = scripted().await;
    let spec = json!({"volumes": [
        {"name": "config", "configMap": {"name": "c"}},
        {"name": "maybe", "secret": {"secretName": "none", "optional": true}},
    ]});
    cluster.create(&pod("p", spec)).await;
    let event = cluster.event("p", "FailedMount").await;
    assert_eq!(
        event.message.as_deref(),
        Some("MountVolume.SetUp failed for volume \"config\" : configmap \"c\" not found")
    );
    let stuck = cluster.get("p").await;
    assert_eq!(waiting(&stuck, "main").0, "ContainerCreating");
    assert_eq!(condition(&stuck, "PodReadyToStartContainers"), ("False", ""));

    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let map = serde_json::from_value(json!({"metadata": {"name": "c"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let done = cluster.phase("p", "Succeeded").await;
    assert_eq!(runtime.volumes(&done.uid().unwrap()).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn restarts_follow_the_restart_policy_with_backoff() {
    let (cluster, runtime) = scripted().await;
    runtime.scripts(
        "main",
        [
            Script::new().exits(1),
            Script::new().exits(2),
            Script::new().exits(3),
            Script::new(),
        ],
    );
    cluster.create(&pod("p", json!({"restartPolicy": "OnFailure"}))).await;
    let waits = cluster.until("p", |p| waiting(p, "main").0 == "CrashLoopBackOff").await;
    assert_eq!(
        status(&waits, "main")
            .last_state
            .as_ref()
            .unwrap()
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        2
    );
    let done = cluster.phase("p", "Succeeded").await;
    assert_eq!(status(&done, "main").restart_count, 3);
    let starts: Vec<_> = runtime.started().iter().map(|s| s.at.as_secs()).collect();
    assert_eq!(starts, [0, 0, 10, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_runs_alongside_the_main_containers_and_terminates_after_them() {
    let (cluster, runtime) = scripted().await;
    runtime.script("side", Script::new().runs_for_ever());
    runtime.script("main", Script::new().runs(5 * SECOND));
    let side = json!([{"name": "side", "image": "image", "restartPolicy": "Always"}]);
    let began = tokio::time::Instant::now();
    let done = cluster.run(&pod("p", json!({"initContainers": side}))).await;
    assert_eq!((phase(&done), began.elapsed().as_secs()), ("Succeeded", 5));
    assert_eq!(ended(&done, "side").signal, Some(15));
}

#[tokio::test(start_paused = true)]
async fn a_pod_above_a_volume_size_limit_is_evicted() {
    let (cluster, runtime) = scripted().await;
    runtime.script("main", Script::new().runs_for_ever());
    let spec = json!({"volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Mi"}}]});
    let created = cluster.create(&pod("p", spec)).await;
    cluster.phase("p", "Running").await;
    runtime.outgrow(&created.uid().unwrap(), "work");
    let done = cluster.phase("p", "Failed").await;
    let status = done.status.as_ref().unwrap();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(
        status.message.as_deref(),
        Some("Usage of EmptyDir volume \"work\" exceeds the limit \"1Mi\". ")
    );
    assert_eq!(condition(&done, "DisruptionTarget"), ("", ""));
}

#[tokio::test(start_paused = true)]
async fn termination_messages_share_twelve_kib_and_fall_back_to_logs() {
    let (cluster, runtime) = scripted().await;
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut list = containers(&names);
    list[6]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    for name in &names[..6] {
        runtime.script(name, Script::new().message("m".repeat(4000)));
    }
    runtime.script("init", Script::new().message("i".repeat(4000)));
    runtime.script(
        "g",
        Script::new().exits(1).logs("first\n".to_owned() + &"x\n".repeat(100)),
    );
    let done = cluster
        .run(&pod(
            "p",
            json!({"initContainers": containers(&["init"]), "containers": list}),
        ))
        .await;
    for name in ["init", "a", "f"] {
        assert_eq!(ended(&done, name).message.as_ref().unwrap().len(), 1536, "{name}");
    }
    assert_eq!(ended(&done, "g").message.as_deref(), Some("x\n".repeat(80).as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_keeps_its_pods_until_it_recovers() {
    let (cluster, runtime) = scripted().await;
    runtime.script("main", Script::new().runs(1000 * SECOND));
    cluster.create(&pod("p", json!({}))).await;
    cluster.phase("p", "Running").await;
    let began = tokio::time::Instant::now();
    cluster.node.lose().await.unwrap();
    let marked = cluster.until("p", |p| p.metadata.deletion_timestamp.is_some()).await;
    assert_eq!(began.elapsed().as_secs(), 300);
    assert_eq!(
        condition(&marked, "DisruptionTarget"),
        ("True", "DeletionByTaintManager")
    );
    tokio::time::advance(100 * SECOND).await;
    assert_eq!(
        phase(&cluster.get("p").await),
        "Running",
        "only the node can report that it has ended"
    );
    cluster.node.recover().await.unwrap();
    cluster.gone("p").await;
}

#[tokio::test(start_paused = true)]
async fn a_recovered_node_reports_exits_during_its_absence() {
    let (cluster, runtime) = scripted().await;
    runtime.script("main", Script::new().runs(50 * SECOND).exits(4));
    cluster.create(&pod("p", json!({}))).await;
    cluster.phase("p", "Running").await;
    cluster.node.lose().await.unwrap();
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(phase(&cluster.get("p").await), "Running");
    cluster.node.recover().await.unwrap();
    assert_eq!(ended(&cluster.phase("p", "Failed").await, "main").exit_code, 4);
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_shuts_down_have_a_disruption_condition() {
    let (cluster, runtime) = scripted_with(|_| {}).await;
    runtime.script("main", Script::new().runs_for_ever().ignores_term());
    cluster.create(&pod("p", json!({}))).await;
    cluster.phase("p", "Running").await;
    let began = tokio::time::Instant::now();
    cluster.node.shutdown(5 * SECOND).await;
    assert_eq!(began.elapsed().as_secs(), 5);
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(cluster.client.clone());
    let done = pods.get("p").await.unwrap();
    assert_eq!(
        (phase(&done), done.status.as_ref().unwrap().reason.as_deref()),
        ("Failed", Some("Terminated"))
    );
    assert_eq!(condition(&done, "DisruptionTarget"), ("True", "TerminationByKubelet"));
}

#[tokio::test(start_paused = true)]
async fn followed_logs_end_with_the_container() {
    use futures::AsyncReadExt;
    let (cluster, runtime) = scripted().await;
    runtime.script(
        "main",
        Script::new()
            .runs(10 * SECOND)
            .logs("one\n")
            .logs_at(5 * SECOND, "two\n")
            .logs_at(9 * SECOND, "three\n"),
    );
    cluster.create(&pod("p", json!({}))).await;
    cluster.phase("p", "Running").await;
    let params = kube::api::LogParams {
        follow: true,
        ..Default::default()
    };
    let began = tokio::time::Instant::now();
    let mut text = String::new();
    cluster
        .pods()
        .log_stream("p", &params)
        .await
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!((text.as_str(), began.elapsed().as_secs()), ("one\ntwo\nthree\n", 10));
    let tail = kube::api::LogParams {
        tail_lines: Some(1),
        ..Default::default()
    };
    assert_eq!(cluster.pods().logs("p", &tail).await.unwrap(), "three\n");
}
