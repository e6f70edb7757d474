//! One World for every reason, and its decision. The table is a snapshot for review.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use legion_api::{ModelTrainingStatus, Reason, ReasonKind, condition::SUCCEEDED};
use legion_plan::{
    Action, ApiError, Outcome, Plan, Settings, StatusPatch, StepResult, Write,
    conditions::{self, Explanation},
    connection, toolchain,
    training::{ConfigMapView, World, decide, settle},
};
use legion_protocol::{
    exit::ExitRecord,
    message::PublishOutcome,
    reason::{StepError, StepReason},
    result::{Origin, ToolError},
};
use serde_json::{Value, json};

use crate::{
    factory::{
        self, after, condition, connection, created, end, ended, exit, fetch_failed, fetched, kstatus, phase,
        publish_message, running, schedule, set, settings, status, succeed, time, toolchain, train, training, waiting,
        world,
    },
    universe::merge,
};

/// A case: a World, a time and the answer of the API server.
struct Case {
    world: World,
    settings: Settings,
    /// The answer of the API server to the creation of a pod.
    answer: Option<StepResult>,
    at: Timestamp,
}

fn case(world: World, seconds: i64) -> Case {
    Case {
        world,
        settings: settings(),
        answer: None,
        at: after(seconds),
    }
}

/// The default training with a changed pod, reconciled at a second.
fn with_pod(spec: Value, seconds: i64, change: impl FnOnce(&mut Pod)) -> Case {
    let mut world = world(training(spec));
    let mut pod = created(&world, after(0));
    change(&mut pod);
    world.pods = vec![Arc::new(pod)];
    case(world, seconds)
}

fn with_world(spec: Value, change: impl FnOnce(&mut World)) -> Case {
    let mut world = world(training(spec));
    change(&mut world);
    case(world, 0)
}

fn refused(code: u16, message: &str) -> Case {
    let error = ApiError {
        code,
        reason: String::new(),
        message: message.into(),
    };
    Case {
        answer: Some(StepResult::Refused(error)),
        ..case(world(training(json!({}))), 0)
    }
}

fn outcome_of(plan: &Plan<ModelTrainingStatus>, answer: Option<&StepResult>) -> Outcome {
    let result = |action: &Action| match action {
        Action::CreatePod { .. } => answer.cloned().unwrap_or(StepResult::Created),
        Action::DeletePod { .. } => StepResult::Deleted,
    };
    Outcome {
        results: plan.actions.iter().map(result).collect(),
    }
}

fn apply(world: &mut World, patch: &StatusPatch) {
    let training = Arc::make_mut(&mut world.training);
    let mut value = serde_json::to_value(training.status.clone().unwrap_or_default()).unwrap();
    merge(&mut value, &patch.body["status"]);
    training.status = Some(serde_json::from_value(value).unwrap());
}

/// Returns the world after a reconciliation at a second.
fn reconciled(mut world: World, seconds: i64) -> World {
    let plan = decide(&world, &settings(), after(seconds));
    if let Some(patch) = settle(&world, &plan, &outcome_of(&plan, None), after(seconds)) {
        apply(&mut world, &patch);
    }
    world
}

fn publish_error(reason: StepReason, message: &str) -> Case {
    with_pod(json!({}), 9, |pod| {
        train(pod);
        let message = publish_message(
            PublishOutcome::Error,
            Some(exit(0)),
            Some(StepError::new(reason, message)),
        );
        end(pod, ended(0, "Completed", "", 7), 1, &message, 8);
    })
}

fn ended_with(record: ExitRecord, log: &str) -> Case {
    with_pod(json!({}), 9, |pod| {
        train(pod);
        let message = publish_message(PublishOutcome::Failed, Some(record), None);
        end(pod, ended(1, "Error", log, 7), 1, &message, 8);
    })
}

/// A run that the toolchain ended, and the report of the toolchain.
fn reported(error: ToolError) -> Case {
    with_pod(json!({}), 9, |pod| {
        train(pod);
        let mut message = publish_message(PublishOutcome::Failed, Some(exit(2)), None);
        message.tail.tool_error = Some(error);
        end(pod, ended(1, "Error", "", 7), 1, &message, 8);
    })
}

/// What the toolchain says decides between code, output, input, environment and toolchain.
#[test]
fn every_origin_of_a_reported_error_has_its_reason() {
    for (origin, reason) in [
        (Origin::Code, Reason::TrainerFailed),
        (Origin::Output, Reason::OutputInvalid),
        (Origin::Input, Reason::ToolchainRefused),
        (Origin::Environment, Reason::EnvironmentFailed),
        (Origin::Toolchain, Reason::ToolchainFailed),
    ] {
        let case = reported(ToolError {
            reason: "Word".into(),
            field: "spec.source".into(),
            message: "what ended the run".into(),
            remedy: "change it".into(),
            origin,
        });
        let plan = decide(&case.world, &settings(), case.at);
        let status = plan.status.unwrap();
        let succeeded = status.conditions.iter().find(|found| found.type_ == SUCCEEDED).unwrap();
        assert_eq!(
            (succeeded.status.as_str(), succeeded.reason.as_str()),
            ("False", reason.as_str())
        );
        assert_eq!(succeeded.message, "what ended the run (change it)");
        let failure = status.failure.unwrap();
        assert_eq!(
            (failure.reason.as_str(), failure.field.as_deref()),
            ("Word", Some("spec.source"))
        );
    }
}

/// A run with exhausted retries, and a pod with the given end.
fn retries_exhausted(
    reason: Reason,
    exhaust: fn(&mut legion_api::run::RunStatus),
    change: impl FnOnce(&mut Pod),
) -> (Reason, Case) {
    let mut case = with_pod(json!({}), 3700, train);
    case.world = reconciled(case.world, 4);
    let training = Arc::make_mut(&mut case.world.training);
    exhaust(training.status.as_mut().unwrap().run.as_mut().unwrap());
    change(Arc::make_mut(&mut case.world.pods[0]));
    (reason, case)
}

fn cases() -> Vec<(Reason, Case)> {
    use Reason as R;
    let pod = |seconds, change: fn(&mut Pod)| with_pod(json!({}), seconds, change);
    let stuck = |reason: &'static str, message: &'static str| {
        with_pod(json!({}), 30, move |pod| {
            schedule(pod, 1);
            set(pod, "fetch", waiting(reason, message));
        })
    };
    let out = |type_: &str, uri: &str| connection("out", json!({"type": type_, "uri": uri}));
    let with_output = |type_: &'static str, uri: &'static str| {
        with_world(json!({"output": {"connection": "out"}}), |world| {
            world.connections = BTreeMap::from([("out".to_owned(), out(type_, uri))]);
        })
    };
    let mut cases = vec![
        (R::PodCreated, pod(6, |_| {})),
        (R::Starting, pod(8, |pod| schedule(pod, 1))),
        (
            R::Fetching,
            pod(9, |pod| {
                schedule(pod, 1);
                set(pod, "fetch", running(2));
            }),
        ),
        (R::Training, pod(4, train)),
        (
            R::Publishing,
            pod(20, |pod| {
                train(pod);
                set(pod, "trainer", ended(0, "Completed", "", 9));
            }),
        ),
        (
            R::RunSucceeded,
            pod(12, |pod| {
                train(pod);
                succeed(pod, 11);
            }),
        ),
        (R::Retrying, {
            let record = ExitRecord {
                outside_signal: Some(15),
                ..exit(0)
            };
            ended_with(record, "")
        }),
        (R::Replacing, {
            let mut case = with_pod(json!({}), 5, train);
            case.world = reconciled(case.world, 4);
            let training = Arc::make_mut(&mut case.world.training);
            training.spec.hyper_parameters.insert("c".into(), "1".into());
            training.metadata.generation = Some(2);
            case
        }),
        (R::Suspended, with_world(json!({"suspend": true}), |_| {})),
        (
            R::ToolchainNotFound,
            with_world(json!({}), |world| world.platform_toolchain = None),
        ),
        (
            R::ToolchainNotReady,
            with_world(json!({}), |world| {
                world.toolchain = Some(toolchain(json!({"arguments": {"type": "objct"}})));
            }),
        ),
        (
            R::ConnectionNotFound,
            with_world(json!({"output": {"connection": "out"}}), |_| {}),
        ),
        (R::ConnectionNotReady, with_output("s3", "s4://bucket")),
        (
            R::ConnectionTypeMismatch,
            with_output("http", "https://example.com/models"),
        ),
        (R::LocalConnectionNotAllowed, with_output("local", "file:///srv/models")),
        (
            R::SourceNotFound,
            with_world(json!({}), |world| world.config_map = ConfigMapView::Absent),
        ),
        (
            R::SecretMissing,
            pod(9, |pod| {
                schedule(pod, 1);
                let error = StepError::new(StepReason::SecretMissing, "Secret \"git\" has no key \"password\"")
                    .field("spec.source.git.connection");
                set(pod, "fetch", ended(1, "Error", &fetch_failed(error), 3));
                phase(pod, "Failed");
            }),
        ),
        (
            R::DefaultOutputMissing,
            with_world(json!({}), |world| world.default_outputs.clear()),
        ),
        (
            R::DefaultOutputAmbiguous,
            with_world(json!({}), |world| {
                world
                    .default_outputs
                    .push(connection("more", json!({"type": "s3", "uri": "s3://more"})));
            }),
        ),
        (
            R::Unschedulable,
            pod(30, |pod| {
                let message =
                    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available.";
                status(pod).conditions = Some(vec![condition("PodScheduled", "False", "Unschedulable", message, 1)]);
            }),
        ),
        (R::VolumeNotMounted, {
            let mut case = pod(90, |pod| {
                schedule(pod, 1);
                status(pod).conditions.as_mut().unwrap().push(condition(
                    "PodReadyToStartContainers",
                    "False",
                    "",
                    "",
                    1,
                ));
            });
            let uid = case.world.pods[0].metadata.uid.clone().unwrap();
            let word =
                "MountVolume.SetUp failed for volume \"storage-output\" : hostPath /proc/models cannot be created";
            case.world.mounts = BTreeMap::from([(uid, Some(word.to_owned()))]);
            case
        }),
        (
            R::ImageNotPulled,
            stuck(
                "ImagePullBackOff",
                "Back-off pulling image \"legion-platform/agent:0.1.0\": ErrImagePull: not found",
            ),
        ),
        (
            R::ContainerNotCreated,
            stuck("CreateContainerConfigError", "secret \"x\" not found"),
        ),
        (
            R::QuotaExceeded,
            refused(
                403,
                "pods \"wine\" is forbidden: exceeded quota: gpu, requested: cpu=2, used: cpu=7, limited: cpu=8",
            ),
        ),
        (
            R::ResourcesMissing,
            refused(
                403,
                "pods \"wine\" is forbidden: failed quota: compute: must specify limits.cpu for: trainer",
            ),
        ),
        (
            R::LimitRangeExceeded,
            refused(
                403,
                "pods \"wine\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi",
            ),
        ),
        (
            R::PodReferenceNotFound,
            refused(
                403,
                "pods \"wine\" is forbidden: error looking up service account lab/robot: serviceaccount \"robot\" not found",
            ),
        ),
        (
            R::AdmissionRefused,
            refused(
                403,
                "pods \"wine\" is forbidden: violates PodSecurity \"restricted:latest\": seccompProfile",
            ),
        ),
        (
            R::Forbidden,
            refused(
                403,
                "pods is forbidden: User \"legion\" cannot create resource \"pods\" in API group \"\"",
            ),
        ),
        (
            R::ApiUnavailable,
            Case {
                answer: Some(StepResult::Failed(ApiError {
                    code: 500,
                    message: "failed calling webhook \"mutate.example.com\"".into(),
                    ..ApiError::default()
                })),
                ..case(world(training(json!({}))), 0)
            },
        ),
        (
            R::PodNameTaken,
            Case {
                answer: Some(StepResult::NameTaken),
                ..case(world(training(json!({}))), 0)
            },
        ),
        (
            R::NodeLost,
            pod(500, |pod| {
                train(pod);
                pod.metadata.deletion_timestamp = time(400);
            }),
        ),
        (R::InvalidSpec, with_world(json!({"args": ["--fast"]}), |_| {})),
        (
            R::InvalidArguments,
            with_world(json!({"arguments": {"environment": "moon", "experment": "x"}}), |_| {}),
        ),
        (
            R::InvalidHyperParameters,
            with_world(json!({}), |world| {
                world.toolchain = Some(toolchain(json!({"hyperParametersSchema": {"required": ["folds"]}})));
            }),
        ),
        (
            R::TrainerFailed,
            ended_with(exit(3), "Traceback (most recent call last):\nValueError: c"),
        ),
        (
            R::ToolchainRefused,
            reported(ToolError {
                reason: "UnknownEntryPoint".into(),
                field: "spec.entrypoint".into(),
                message: "the project has no entry point \"man\"; it has main, evaluate".into(),
                remedy: "set spec.entrypoint to one of them".into(),
                origin: Origin::Input,
            }),
        ),
        (
            R::EnvironmentFailed,
            reported(ToolError {
                reason: "EnvironmentFailed".into(),
                field: "spec.source".into(),
                message: "the environment of python_env.yaml cannot be built".into(),
                remedy: "correct python_env.yaml".into(),
                origin: Origin::Environment,
            }),
        ),
        (
            R::ToolchainFailed,
            reported(ToolError {
                reason: "ToolchainFailed".into(),
                message: "the toolchain itself failed: OSError: No space left on device".into(),
                origin: Origin::Toolchain,
                ..ToolError::default()
            }),
        ),
        (
            R::OutOfMemory,
            pod(9, |pod| {
                train(pod);
                end(
                    pod,
                    ended(137, "OOMKilled", "", 7),
                    1,
                    &publish_message(PublishOutcome::Failed, None, None),
                    8,
                );
            }),
        ),
        (
            R::DeadlineExceeded,
            ended_with(
                ExitRecord {
                    timed_out: true,
                    ..exit(143)
                },
                "",
            ),
        ),
        (
            R::Evicted,
            pod(9, |pod| {
                train(pod);
                phase(pod, "Failed");
                status(pod).reason = Some("Evicted".into());
                status(pod).message = Some("Usage of EmptyDir volume \"work\" exceeds the limit \"1Gi\".".into());
                set(pod, "trainer", ended(137, "Error", "", 7));
            }),
        ),
        (
            R::FetchFailed,
            pod(9, |pod| {
                schedule(pod, 1);
                let error = StepError::new(StepReason::GitRefNotFound, "there is no branch, tag or commit \"mian\"")
                    .field("spec.source.git.ref");
                set(pod, "fetch", ended(1, "Error", &fetch_failed(error), 3));
                phase(pod, "Failed");
            }),
        ),
        (
            R::PublishFailed,
            publish_error(StepReason::OutputNotWritable, "permission denied on models/"),
        ),
        (
            R::OutputInvalid,
            publish_error(StepReason::OutputHostile, "the model holds a link: extra/key"),
        ),
    ];
    cases.push(retries_exhausted(
        R::TooManyDisruptions,
        |run| run.disruptions = 20,
        |pod| {
            let message = publish_message(
                PublishOutcome::Failed,
                Some(ExitRecord {
                    outside_signal: Some(15),
                    ..exit(0)
                }),
                None,
            );
            end(pod, ended(0, "Completed", "", 7), 1, &message, 8);
        },
    ));
    cases.push(retries_exhausted(
        R::PodRejected,
        |run| run.rejections = 10,
        |pod| {
            status(pod).container_statuses = None;
            status(pod).init_container_statuses = None;
            phase(pod, "Failed");
            status(pod).reason = Some("OutOfnvidia.com/gpu".into());
            status(pod).message = Some("Node didn't have enough resource: nvidia.com/gpu".into());
        },
    ));
    cases.push(retries_exhausted(
        R::StartTimeout,
        |run| run.rejections = 10,
        |pod| {
            status(pod).container_statuses = None;
            set(pod, "fetch", waiting("PodInitializing", ""));
            phase(pod, "Pending");
        },
    ));
    cases
}

/// Returns the reason and the parts of a decision for the snapshot.
fn summary(case: &Case) -> (Option<String>, Value) {
    let plan = decide(&case.world, &case.settings, case.at);
    let outcome = outcome_of(&plan, case.answer.as_ref());
    let patch = settle(&case.world, &plan, &outcome, case.at);
    let actions: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::CreatePod { pod, only_at } => {
                format!(
                    "create {}{}",
                    pod.metadata.name.as_deref().unwrap(),
                    if only_at.is_some() {
                        ", if nothing has changed"
                    } else {
                        ""
                    }
                )
            }
            Action::DeletePod { name, why, .. } => format!("delete {name}: {why}"),
        })
        .collect();
    let mut world = case.world.clone();
    if let Some(patch) = &patch {
        apply(&mut world, patch);
        // A second pass does not write the same status again.
        let again = decide(&world, &case.settings, case.at);
        let repeated = settle(&world, &again, &outcome_of(&again, case.answer.as_ref()), case.at);
        assert_eq!(repeated, None, "{:#?}", world.training.status);
    }
    let status = world.training.status.clone().unwrap_or_default();
    let run = status.run.clone().unwrap_or_default();
    let conditions: BTreeMap<&str, &str> = status
        .conditions
        .iter()
        .map(|c| (c.type_.as_str(), c.status.as_str()))
        .collect();
    let reported = status.conditions.iter().find(|condition| condition.type_ == SUCCEEDED);
    let generation = case.world.training.metadata.generation;
    if patch.is_some() {
        assert_eq!(status.observed_generation, generation);
        for condition in &status.conditions {
            assert_eq!(condition.observed_generation, generation, "{condition:?}");
        }
    }
    let view = json!({
        "actions": actions,
        "written": patch.is_some(),
        "deferred": matches!(plan.write, Write::NotBefore(at) if at > case.at),
        "requeueIn": plan.requeue_at.map(|at| at.as_second() - case.at.as_second()),
        "message": reported.map(|reported| &reported.message),
        "conditions": conditions,
        "kstatus": kstatus(world.training.metadata.generation, status.observed_generation, &status.conditions),
        "events": patch.iter().flat_map(|patch| &patch.events).map(|event| {
            format!("{} {}", if event.warning { "Warning" } else { "Normal" }, event.reason)
        }).collect::<Vec<_>>(),
        "run": {
            "attempt": run.attempt, "failures": run.failures, "disruptions": run.disruptions,
            "rejections": run.rejections, "stepFailures": run.step_failures, "result": run.result, "waiting": run.waiting.map(|w| w.reason),
        },
        "failure": status.failure,
    });
    (reported.map(|reported| reported.reason.clone()), view)
}

#[test]
fn every_reason_is_reached_with_its_message() {
    let mut views = BTreeMap::new();
    for (reason, case) in cases() {
        let (reported, view) = summary(&case);
        assert_eq!(reported.as_deref(), Some(reason.as_str()), "{view:#}");
        let for_tools = match reason.kind() {
            ReasonKind::Success => "Current",
            ReasonKind::Progress | ReasonKind::Waiting => "InProgress",
            ReasonKind::Invalid | ReasonKind::Failure => "Failed",
        };
        assert_eq!(view["kstatus"], for_tools, "{reason}");
        views.insert(reason.as_str(), view);
    }
    insta::assert_yaml_snapshot!("decisions", views);

    // Two reasons have no World of a training: one is for connections and toolchains, the other for the schema.
    let usable = connection::World {
        connection: factory::default_output(),
    };
    let plan = connection::decide(&usable, &settings(), factory::start());
    assert_eq!(plan.status.unwrap().conditions[0].reason, Reason::Valid.as_str());
    let problems = legion_api::validate::object(&json!({"apiVersion": "v1", "kind": "Pod"}), None);
    assert_eq!(problems[0].reason, Reason::InvalidObject);

    let reached: Vec<&str> = views.keys().copied().chain(["Valid", "InvalidObject"]).collect();
    let missing: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !reached.contains(&reason.as_str()))
        .collect();
    assert!(missing.is_empty(), "no World reaches {missing:?}");
}

/// Returns the parts of an object that waiting tools read, with its kstatus.
fn state(kind: &str, name: &str, status: &Value) -> Value {
    let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
    json!({
        "state": name,
        "kstatus": kstatus(Some(1), status["observedGeneration"].as_i64(), &conditions),
        "object": {
            "apiVersion": "legion-platform.org/v1alpha1", "kind": kind,
            "metadata": {"name": "a", "namespace": "lab", "generation": 1},
            "status": {"observedGeneration": status["observedGeneration"], "conditions": conditions},
        },
    })
}

/// Every state of every kind. `tests/gitops` passes them to the real kstatus and to Argo CD's health checks.
#[test]
fn every_state_as_waiting_tools_see_it() {
    let mut states = Vec::new();
    for (reason, case) in cases() {
        let plan = decide(&case.world, &case.settings, case.at);
        let mut world = case.world.clone();
        let outcome = outcome_of(&plan, case.answer.as_ref());
        if let Some(patch) = settle(&case.world, &plan, &outcome, case.at) {
            apply(&mut world, &patch);
        }
        let status = serde_json::to_value(&world.training.status).unwrap();
        states.push(state("ModelTraining", reason.as_str(), &status));
    }
    for (name, connection) in [
        ("Valid", factory::default_output()),
        (
            "InvalidSpec",
            connection("models", json!({"type": "pvc", "uri": "s3://models"})),
        ),
    ] {
        let world = connection::World { connection };
        let plan = connection::decide(&world, &settings(), factory::start());
        let status = serde_json::to_value(plan.status.unwrap()).unwrap();
        assert_eq!(status["conditions"][0]["reason"], name);
        states.push(state("Connection", name, &status));
    }
    for (name, spec) in [
        ("Valid", json!({})),
        ("InvalidSpec", json!({"arguments": {"type": "wrong"}})),
    ] {
        let world = toolchain::World {
            toolchain: toolchain(spec),
        };
        let plan = toolchain::decide(&world, &settings(), factory::start());
        let status = serde_json::to_value(plan.status.unwrap()).unwrap();
        assert_eq!(status["conditions"][0]["reason"], name);
        states.push(state("ToolchainIntegration", name, &status));
    }
    // An object that an older CRD accepted and that the operator cannot read.
    let explanation = Explanation::new(Reason::InvalidObject, "cannot be read");
    for (kind, conditions) in [
        (
            "ModelTraining",
            conditions::for_run(&[], &explanation, 1, factory::start()),
        ),
        (
            "Connection",
            conditions::for_ready(&[], &explanation, 1, factory::start()),
        ),
        (
            "ToolchainIntegration",
            conditions::for_ready(&[], &explanation, 1, factory::start()),
        ),
    ] {
        let status = json!({"observedGeneration": 1, "conditions": conditions});
        states.push(state(kind, "InvalidObject", &status));
    }
    insta::assert_json_snapshot!("states", states);
}

#[test]
fn the_status_of_a_success() {
    let mut case = with_pod(json!({}), 12, |pod| {
        train(pod);
        set(pod, "fetch", ended(0, "Completed", &fetched(""), 2));
        succeed(pod, 11);
    });
    case.world = reconciled(case.world, 12);
    insta::assert_yaml_snapshot!("succeeded", case.world.training.status);
}
