//! The pod of an attempt: a snapshot of the whole pod, and rules for every spec.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use legion_protocol::task::{FetchTask, PublishTask};
use serde_json::{Value, json};

use crate::factory::{connection, created, settings, start, training, world};

fn pod_of(spec: Value) -> Pod {
    let mut world = world(training(spec));
    let s3 = json!({"type": "s3", "uri": "s3://data/sets/", "endpoint": "http://minio:9000", "region": "eu", "secretRef": {"name": "s3-keys"}});
    let git = json!({"type": "git", "uri": "git@example.com:lab/wine.git", "reference": "main", "secretRef": {"name": "deploy-key"}});
    world.connections = BTreeMap::from([
        ("data".to_owned(), connection("data", s3)),
        ("code".to_owned(), connection("code", git)),
        (
            "nas".to_owned(),
            connection("nas", json!({"type": "pvc", "uri": "pvc://nas/public"})),
        ),
    ]);
    created(&world, start())
}

fn container<'a>(pod: &'a Pod, name: &str) -> &'a Container {
    let spec = pod.spec.as_ref().unwrap();
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .find(|container| container.name == name)
        .unwrap()
}

fn variable<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    container
        .env
        .iter()
        .flatten()
        .find(|variable| variable.name == name)?
        .value
        .as_deref()
}

fn rich() -> Pod {
    pod_of(json!({
        "source": {"git": {"connection": "code", "ref": "v2"}}, "workDir": "examples/./wine/",
        "data": [
            {"name": "train", "connection": "data", "remotePath": "wine.csv", "localPath": "data/wine.csv"},
            {"name": "more", "connection": "nas"},
        ],
        "output": {"connection": "nas", "pathTemplate": "{model}/{version}/{runId}"},
        "env": [{"name": "OMP_NUM_THREADS", "value": "2"}, {"name": "MLFLOW_DISABLE_TELEMETRY", "value": "false"}],
        "resources": {"limits": {"memory": "4Gi", "nvidia.com/gpu": "1"}}, "sharedMemory": "1Gi",
        "workspace": {"size": "20Gi"}, "timeout": "2h", "gracePeriod": "30s", "priorityClassName": "high",
        "podMetadata": {"labels": {"team": "a", "sidecar.istio.io/inject": "true"}, "annotations": {"note": "x"}},
        "nodeSelector": {"gpu": "yes"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "pull"}], "image": "lab/own:1",
    }))
}

#[test]
fn the_whole_pod() {
    insta::assert_yaml_snapshot!("pod", rich());
}

#[test]
fn the_pod_passes_pod_security_restricted_and_a_quota_on_all_resources() {
    let pod = rich();
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.automount_service_account_token, Some(false));
    let context = spec.security_context.as_ref().unwrap();
    assert_eq!(context.run_as_non_root, Some(true));
    assert_eq!(context.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let context = container.security_context.as_ref().unwrap();
        assert_eq!(context.allow_privilege_escalation, Some(false));
        assert_eq!(
            context.capabilities.as_ref().unwrap().drop,
            Some(vec!["ALL".to_owned()])
        );
        assert!(context.privileged.is_none() && context.capabilities.as_ref().unwrap().add.is_none());
    }
    for name in ["fetch", "publish"] {
        let resources = container(&pod, name).resources.as_ref().unwrap();
        for list in [&resources.requests, &resources.limits] {
            assert!(
                ["cpu", "memory"]
                    .iter()
                    .all(|resource| list.as_ref().unwrap().contains_key(*resource)),
                "{name}"
            );
        }
    }
    assert!(spec.volumes.iter().flatten().all(|volume| volume.host_path.is_none()));
}

#[test]
fn a_config_map_source_is_mounted() {
    let pod =
        pod_of(json!({"source": {"configMap": {"name": "wine-source", "items": [{"key": "train.py", "path": "p"}]}}}));
    let volumes = pod.spec.unwrap().volumes.unwrap();
    let mounted = volumes.into_iter().find_map(|volume| volume.config_map).unwrap();
    let items = mounted.items.unwrap();
    assert_eq!((mounted.name.as_str(), mounted.optional), ("wine-source", Some(true)));
    assert_eq!((items[0].key.as_str(), items[0].path.as_str()), ("train.py", "p"));
}

#[test]
fn the_training_code_gets_no_credentials() {
    let pod = rich();
    let trainer = container(&pod, "trainer");
    for mount in trainer.volume_mounts.iter().flatten() {
        assert!(
            !mount.name.starts_with("secret-") && !mount.name.starts_with("storage-"),
            "{}",
            mount.name
        );
    }
    assert!(variable(trainer, "LEGION_TASK").is_none());
    // `publish` reads the output of the code and gets the credentials of the output only.
    for mount in container(&pod, "publish").volume_mounts.iter().flatten() {
        assert!(
            !mount.name.contains("source") && !mount.name.contains("data"),
            "{}",
            mount.name
        );
    }
}

#[test]
fn the_later_variable_wins_and_legions_own_variables_stay() {
    let pod = rich();
    let trainer = container(&pod, "trainer");
    assert_eq!(variable(trainer, "MLFLOW_DISABLE_TELEMETRY"), Some("false"));
    assert_eq!(
        variable(trainer, "LEGION_SOURCE"),
        Some("/legion/work/source/examples/wine")
    );
    assert_eq!(variable(trainer, "LEGION_TIMEOUT_SECONDS"), Some("7200"));
    let names: Vec<&str> = trainer
        .env
        .iter()
        .flatten()
        .map(|variable| variable.name.as_str())
        .collect();
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(names.len(), distinct.len(), "{names:?}");
    assert!(names.iter().position(|name| *name == "OMP_NUM_THREADS") > names.iter().position(|name| *name == "HOME"));
}

#[test]
fn tasks_can_be_read() {
    let pod = rich();
    let fetch: FetchTask = serde_json::from_str(variable(container(&pod, "fetch"), "LEGION_TASK").unwrap()).unwrap();
    let publish: PublishTask =
        serde_json::from_str(variable(container(&pod, "publish"), "LEGION_TASK").unwrap()).unwrap();
    assert_eq!(fetch.training.pod, pod.metadata.name.clone().unwrap());
    assert_eq!(
        fetch.training.arguments["environment"], "auto",
        "defaults of the toolchain's schema are filled in"
    );
    assert_eq!(fetch.output, publish.output);
    assert_eq!(publish.output.path, format!("wine/1/{}", publish.run_id));
    assert_eq!(fetch.message_budget, 4096);
    assert_eq!(publish.grace_seconds, 45);
}

#[test]
fn local_directories_are_mounted_only_where_allowed() {
    let mut world = world(training(json!({"output": {"connection": "here"}})));
    world.connections = BTreeMap::from([(
        "here".to_owned(),
        connection("here", json!({"type": "local", "uri": "file:///srv/models/"})),
    )]);
    let mut allowed = settings();
    allowed.allow_local_connections = true;
    let plan = legion_plan::training::decide(&world, &allowed, start());
    let legion_plan::Action::CreatePod { pod, .. } = &plan.actions[0] else {
        panic!("{plan:#?}")
    };
    let volume = pod
        .spec
        .as_ref()
        .unwrap()
        .volumes
        .iter()
        .flatten()
        .find(|volume| volume.name == "storage-output")
        .unwrap();
    assert_eq!(volume.host_path.as_ref().unwrap().path, "/srv/models");
    assert!(
        legion_plan::training::decide(&world, &settings(), start())
            .actions
            .is_empty()
    );
}

#[test]
fn the_longest_name_still_fits() {
    let mut training = training(json!({}));
    training.metadata.name = Some("a".repeat(40));
    let pod = created(&world(training), start());
    assert!(pod.metadata.name.as_deref().unwrap().len() <= 63);
    let mut longer = crate::factory::training(json!({}));
    longer.metadata.name = Some("a".repeat(41));
    let plan = legion_plan::training::decide(&world(longer), &settings(), start());
    assert_eq!(plan.problems[0].field, "metadata.name");
}

#[test]
fn the_deadline_is_always_finite() {
    let pod = pod_of(json!({"timeout": "87600h", "startTimeout": "87600h"}));
    assert_eq!(
        pod.spec.unwrap().active_deadline_seconds,
        Some(315_360_000 * 2 + 3600 + 75)
    );
}
