//! Objects for tests, from short descriptions.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ConfigMap, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, Pod, PodCondition, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use legion_api::{Connection, ModelTraining, ToolchainIntegration};
use legion_plan::{
    Action, Settings,
    training::{ConfigMapContent, ConfigMapView, World, decide},
};
use legion_protocol::{
    exit::ExitRecord,
    message::{
        Counts, FetchHead, FetchMessage, FetchOutcome, FetchTail, FetchedSource, HeadError, PublishHead,
        PublishMessage, PublishOutcome, PublishTail, WireArtifact, WireStoredFile,
    },
    reason::StepError,
    summary::{MetricSummary, NamedValue},
};
use serde_json::{Value, json};

/// The start time of every test.
pub(crate) fn start() -> Timestamp {
    "2026-11-23T17:00:00Z".parse().unwrap()
}

pub(crate) fn after(seconds: i64) -> Timestamp {
    Timestamp::from_second(start().as_second() + seconds).unwrap()
}

pub(crate) fn time(seconds: i64) -> Option<Time> {
    Some(Time(after(seconds)))
}

pub(crate) fn settings() -> Settings {
    Settings::new("legion-system", "legion-platform/agent:0.1.0")
}

/// Returns a training with `spec` merged over a minimal spec, and with the defaults of the API server.
pub(crate) fn training(spec: Value) -> ModelTraining {
    let mut object = json!({
        "apiVersion": "legion-platform.org/v1alpha1", "kind": "ModelTraining",
        "metadata": {
            "name": "wine", "namespace": "lab", "uid": "0b51f2c4-7f0f-4c39-9d2c-3f7a0a1e6f10", "generation": 1,
            "resourceVersion": "100", "creationTimestamp": "2026-11-23T16:59:59Z",
        },
        "spec": {
            "model": {"name": "wine", "version": "1"}, "toolchain": "mlflow",
            "source": {"configMap": {"name": "wine-source"}}, "hyperParameters": {"c": "0.5"},
            "objective": {"metric": "val_accuracy", "goal": "Maximize"},
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    serde_json::from_value(legion_api::validate::with_defaults(&object)).unwrap()
}

pub(crate) fn toolchain(spec: Value) -> Arc<ToolchainIntegration> {
    let mut object = json!({
        "apiVersion": "legion-platform.org/v1alpha1", "kind": "ToolchainIntegration",
        "metadata": {"name": "mlflow", "namespace": "legion-system", "generation": 1, "resourceVersion": "1"},
        "spec": {
            "type": "Training", "image": "legion-platform/toolchain-mlflow:0.1.0", "command": ["legion-mlflow"],
            "format": "gppi/v1",
            "env": [{"name": "MLFLOW_DISABLE_TELEMETRY", "value": "true"}],
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
            "arguments": {
                "type": "object", "additionalProperties": false,
                "properties": {"experiment": {"type": "string"}, "environment": {"enum": ["auto", "project"], "default": "auto"}},
            },
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

pub(crate) fn connection(name: &str, spec: Value) -> Arc<Connection> {
    let object = json!({
        "apiVersion": "legion-platform.org/v1alpha1", "kind": "Connection",
        "metadata": {"name": name, "namespace": "lab", "generation": 1, "resourceVersion": "1"},
        "spec": spec,
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

pub(crate) fn default_output() -> Arc<Connection> {
    let mut connection = Arc::unwrap_or_clone(connection("models", json!({"type": "pvc", "uri": "pvc://models"})));
    connection.metadata.annotations =
        Some([("legion-platform.org/default-output".to_owned(), "true".to_owned())].into());
    Arc::new(connection)
}

pub(crate) fn config_map(version: &str, script: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": "wine-source", "namespace": "lab", "resourceVersion": version},
        "data": {"MLproject": "name: wine", "train.py": script},
    }))
    .unwrap()
}

static TOOLCHAIN: LazyLock<Arc<ToolchainIntegration>> = LazyLock::new(|| toolchain(json!({})));
static OUTPUT: LazyLock<Arc<Connection>> = LazyLock::new(default_output);

/// Returns a world with everything that `training` needs, and without a pod.
pub(crate) fn world(training: ModelTraining) -> World {
    let config_map_view = training
        .spec
        .source
        .config_map
        .as_ref()
        .map_or(ConfigMapView::Absent, |source| {
            ConfigMapView::Read(ConfigMapContent::of(&config_map("5", "print(1)"), source))
        });
    World {
        platform_toolchain: Some(TOOLCHAIN.clone()),
        default_outputs: vec![OUTPUT.clone()],
        config_map: config_map_view,
        ..World::alone(Arc::new(training))
    }
}

/// Returns the pod that a plan creates, as the API server stores it.
#[track_caller]
pub(crate) fn created(world: &World, now: Timestamp) -> Pod {
    let plan = decide(world, &settings(), now);
    let pod = plan.actions.iter().find_map(|action| match action {
        Action::CreatePod { pod, .. } => Some(pod.as_ref().clone()),
        Action::DeletePod { .. } => None,
    });
    stored(pod.unwrap_or_else(|| panic!("no pod is created: {plan:#?}")), now)
}

pub(crate) fn stored(mut pod: Pod, now: Timestamp) -> Pod {
    pod.metadata.uid = Some(format!("uid-of-{}", pod.metadata.name.as_deref().unwrap()));
    pod.metadata.resource_version = Some("1".into());
    pod.metadata.creation_timestamp = Some(Time(now));
    pod.status = Some(PodStatus {
        phase: Some("Pending".into()),
        ..PodStatus::default()
    });
    pod
}

pub(crate) fn status(pod: &mut Pod) -> &mut PodStatus {
    pod.status.get_or_insert_default()
}

pub(crate) fn condition(type_: &str, status: &str, reason: &str, message: &str, seconds: i64) -> PodCondition {
    PodCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()).filter(|reason: &String| !reason.is_empty()),
        message: Some(message.into()).filter(|message: &String| !message.is_empty()),
        last_transition_time: time(seconds),
        ..PodCondition::default()
    }
}

/// Schedules the pod at a second.
pub(crate) fn schedule(pod: &mut Pod, seconds: i64) {
    pod.spec.as_mut().unwrap().node_name = Some("node-1".into());
    status(pod)
        .conditions
        .get_or_insert_default()
        .push(condition("PodScheduled", "True", "", "", seconds));
}

pub(crate) fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.into()),
            message: Some(message.into()),
        }),
        ..ContainerState::default()
    }
}

pub(crate) fn running(seconds: i64) -> ContainerState {
    ContainerState {
        running: Some(ContainerStateRunning {
            started_at: time(seconds),
        }),
        ..ContainerState::default()
    }
}

pub(crate) fn ended(code: i32, reason: &str, message: &str, seconds: i64) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: code,
            reason: Some(reason.into()),
            message: Some(message.into()).filter(|message: &String| !message.is_empty()),
            started_at: time(seconds - 1),
            finished_at: time(seconds),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// Sets the state of a container. The image comes from the pod.
pub(crate) fn set(pod: &mut Pod, name: &str, state: ContainerState) {
    let spec = pod.spec.as_ref().unwrap();
    let init = name == "fetch";
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let image = all
        .filter(|c| c.name == name)
        .find_map(|c| c.image.clone())
        .unwrap_or_default();
    let status = status(pod);
    let list = if init {
        &mut status.init_container_statuses
    } else {
        &mut status.container_statuses
    };
    let list = list.get_or_insert_default();
    list.retain(|container| container.name != name);
    list.push(ContainerStatus {
        name: name.into(),
        image,
        state: Some(state),
        ..ContainerStatus::default()
    });
}

pub(crate) fn phase(pod: &mut Pod, phase: &str) {
    status(pod).phase = Some(phase.into());
}

pub(crate) fn fetched(commit: &str) -> String {
    fetch_message(commit).encode(4096)
}

pub(crate) fn fetch_message(commit: &str) -> FetchMessage {
    let source = FetchedSource {
        commit: commit.into(),
        ..FetchedSource::default()
    };
    FetchMessage {
        head: FetchHead {
            outcome: FetchOutcome::Ready,
            source: Some(source),
            error: None,
        },
        tail: FetchTail::default(),
    }
}

pub(crate) fn fetch_failed(error: StepError) -> String {
    FetchMessage::failed(error, 5).encode(4096)
}

pub(crate) fn exit(code: i32) -> ExitRecord {
    ExitRecord {
        version: 1,
        exit_code: Some(code),
        ..ExitRecord::default()
    }
}

pub(crate) fn publish_message(
    outcome: PublishOutcome,
    exit: Option<ExitRecord>,
    error: Option<StepError>,
) -> PublishMessage {
    let published = matches!(outcome, PublishOutcome::Published | PublishOutcome::Skipped);
    let artifact = WireArtifact {
        digest: format!("sha256:{}", "4b".repeat(32)),
        size_bytes: 20480,
        uri: String::new(),
    };
    let metric = MetricSummary {
        name: "val_accuracy".into(),
        value: "0.9722222222222222".into(),
        step: 4,
        timestamp: Some(1_795_453_297_042),
        count: 5,
        min: "0.9166666666666666".into(),
        max: "1.0".into(),
    };
    PublishMessage {
        head: PublishHead {
            outcome,
            exit,
            artifact: published.then_some(artifact),
            objective: published.then(|| "0.9722222222222222".into()),
            counts: Counts {
                metrics: 1,
                parameters: 1,
                tags: 1,
            },
            error: error.as_ref().map(HeadError::of),
        },
        tail: PublishTail {
            error,
            metrics: if published { vec![metric] } else { Vec::new() },
            parameters: vec![NamedValue {
                name: "c".into(),
                value: "0.5".into(),
            }],
            tags: vec![NamedValue {
                name: "dataset".into(),
                value: "sklearn-wine".into(),
            }],
            format: "gppi/v1".into(),
            model: "model".into(),
            signature: Some(true),
            log: Some(WireStoredFile {
                uri: "pvc://models/log.txt".into(),
                size_bytes: 3121,
                ..WireStoredFile::default()
            }),
            ..PublishTail::default()
        },
    }
}

/// Moves the pod to the state in which the training code runs.
pub(crate) fn train(pod: &mut Pod) {
    schedule(pod, 1);
    set(pod, "fetch", ended(0, "Completed", &fetched(""), 2));
    set(pod, "trainer", running(3));
    set(pod, "publish", running(3));
    phase(pod, "Running");
}

/// Ends the training code and `publish`.
pub(crate) fn end(pod: &mut Pod, trainer: ContainerState, code: i32, message: &PublishMessage, seconds: i64) {
    set(pod, "trainer", trainer);
    set(
        pod,
        "publish",
        ended(
            code,
            if code == 0 { "Completed" } else { "Error" },
            &message.encode(4096),
            seconds,
        ),
    );
    phase(pod, if code == 0 { "Succeeded" } else { "Failed" });
}

/// Ends the pod with a stored result.
pub(crate) fn succeed(pod: &mut Pod, seconds: i64) {
    let message = publish_message(PublishOutcome::Published, Some(exit(0)), None);
    end(pod, ended(0, "Completed", "", seconds - 1), 0, &message, seconds);
}

/// Returns the kstatus of a custom resource. The order of the checks is that of
/// `sigs.k8s.io/cli-utils/pkg/kstatus/status` (`checkGenericProperties`, then the condition `Ready`). Flux, Argo CD and
/// `kubectl wait` use the same fields.
pub(crate) fn kstatus(generation: Option<i64>, observed: Option<i64>, conditions: &[Condition]) -> &'static str {
    let is = |type_: &str, status: &str| conditions.iter().any(|c| c.type_ == type_ && c.status == status);
    let outdated = observed.is_some_and(|observed| Some(observed) != generation);
    if outdated || is("Reconciling", "True") {
        "InProgress"
    } else if is("Stalled", "True") {
        "Failed"
    } else if is("Ready", "False") || is("Ready", "Unknown") {
        "InProgress"
    } else {
        // Also without any condition: such a resource counts as done.
        "Current"
    }
}
