//! Computes the `PodStatus` from what is known about a pod's containers. It is pure and follows the kubelet's rules.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::quantity;

/// What is known about one container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContainerRecord {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    /// Whether it is an init container. Sidecars are init containers too.
    pub(crate) init: bool,
    /// Whether it is a sidecar: an init container that always restarts and runs beside the main containers.
    pub(crate) sidecar: bool,
    pub(crate) state: RecordedState,
    pub(crate) last: Option<Terminated>,
    pub(crate) restarts: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RecordedState {
    Waiting { reason: String, message: Option<String> },
    Running { id: String, started_at: Timestamp },
    Terminated(Terminated),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terminated {
    pub(crate) id: String,
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
}

impl RecordedState {
    pub(crate) fn waiting(reason: &str) -> Self {
        Self::Waiting {
            reason: reason.into(),
            message: None,
        }
    }
}

impl ContainerRecord {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, RecordedState::Running { .. })
    }

    pub(crate) fn exit(&self) -> Option<&Terminated> {
        match &self.state {
            RecordedState::Terminated(t) => Some(t),
            _ => None,
        }
    }

    /// Returns whether the next init container may start.
    pub(crate) fn init_passed(&self) -> bool {
        if self.sidecar {
            self.is_running() || self.exit().is_some()
        } else {
            self.exit().is_some_and(|t| t.code == 0)
        }
    }
}

/// The parts of a pod's state that do not belong to a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodRecord {
    /// Whether volumes are ready and containers may start.
    pub(crate) ready_to_start: bool,
    /// Whether no container runs and none will be started.
    pub(crate) finished: bool,
    /// Reason and message of a pod that the node terminated (`DeadlineExceeded`, `Evicted`, `Terminated`).
    pub(crate) failure: Option<(String, String)>,
    /// Conditions that the node adds (`DisruptionTarget`).
    pub(crate) extra: Vec<(String, String, String)>,
    pub(crate) start_time: Option<Timestamp>,
    pub(crate) container_prefix: &'static str,
}

/// Returns whether a phase is final.
pub(crate) fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Returns the pod's phase.
pub(crate) fn phase(records: &[ContainerRecord], pod_record: &PodRecord) -> &'static str {
    let main = || records.iter().filter(|r| !r.init);
    if pod_record.finished {
        let all_succeeded = main().all(|r| r.exit().is_some_and(|t| t.code == 0));
        return if all_succeeded && pod_record.failure.is_none() {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if records.iter().any(|r| r.init && !r.init_passed()) && main().all(|r| !r.is_running() && r.exit().is_none()) {
        return "Pending";
    }
    if main().any(|r| matches!(r.state, RecordedState::Waiting { .. }) && r.last.is_none()) {
        return "Pending";
    }
    if main().any(ContainerRecord::is_running) {
        return "Running";
    }
    // Every main container has ended, but the node has not yet reported the end of the pod: sidecars are being
    // stopped, a restart is due, or the node cleans up.
    "Running"
}

/// Returns the whole status. `old` is the last known status. Conditions keep their transition times, and conditions
/// of other clients stay.
pub(crate) fn build(
    pod: &Pod,
    records: &[ContainerRecord],
    pod_record: &PodRecord,
    old: &PodStatus,
    now: Timestamp,
) -> PodStatus {
    let phase = phase(records, pod_record);
    let ended = is_terminal(phase);
    let status_of = |r: &ContainerRecord| container_status(r, pod_record.container_prefix, ended);
    let statuses = |init: bool| {
        let list: Vec<_> = records.iter().filter(|r| r.init == init).map(status_of).collect();
        (!list.is_empty()).then_some(list)
    };

    let mut conditions = Conditions {
        old: old.conditions.clone().unwrap_or_default(),
        now,
        generation: pod.metadata.generation,
    };
    conditions.set(
        "PodReadyToStartContainers",
        pod_record.ready_to_start && !ended,
        "",
        String::new(),
    );
    let unfinished: Vec<_> = records
        .iter()
        .filter(|r| r.init && !r.init_passed())
        .map(|r| r.name.as_str())
        .collect();
    match (phase, unfinished.is_empty()) {
        ("Succeeded", _) => conditions.set("Initialized", true, "PodCompleted", String::new()),
        (_, true) => conditions.set("Initialized", true, "", String::new()),
        _ => {
            let message = format!("containers with incomplete status: [{}]", unfinished.join(" "));
            conditions.set("Initialized", false, "ContainersNotInitialized", message);
        }
    }
    let unready: Vec<_> = records
        .iter()
        .filter(|r| (!r.init || r.sidecar) && !r.is_running())
        .map(|r| r.name.as_str())
        .collect();
    let (ready, reason, message) = match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if unready.is_empty() => (true, "", String::new()),
        _ => (
            false,
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ),
    };
    conditions.set("Ready", ready, reason, message.clone());
    conditions.set("ContainersReady", ready, reason, message);
    conditions.set("PodScheduled", true, "", String::new());
    for (type_, reason, message) in &pod_record.extra {
        conditions.set(type_, true, reason, message.clone());
    }

    let (reason, message) = match &pod_record.failure {
        Some((reason, message)) if ended => (Some(reason.clone()), Some(message.clone())),
        _ => (None, None),
    };
    let ip = "127.0.0.1".to_owned();
    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions.old),
        init_container_statuses: statuses(true),
        container_statuses: statuses(false),
        host_ip: Some(ip.clone()),
        host_ips: Some(vec![HostIP { ip: ip.clone() }]),
        pod_ip: pod_record.ready_to_start.then(|| ip.clone()),
        pod_ips: pod_record.ready_to_start.then(|| vec![PodIP { ip }]),
        qos_class: Some(qos_class(pod).to_owned()),
        start_time: pod_record.start_time.map(Time),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

struct Conditions {
    old: Vec<PodCondition>,
    now: Timestamp,
    generation: Option<i64>,
}

impl Conditions {
    fn set(&mut self, type_: &str, status: bool, reason: &str, message: String) {
        let status = if status { "True" } else { "False" };
        let reason = (!reason.is_empty()).then(|| reason.to_owned());
        let message = (!message.is_empty()).then_some(message);
        let found = self.old.iter_mut().find(|c| c.type_ == type_);
        let transition = match &found {
            Some(c) if c.status == status => c.last_transition_time.clone(),
            _ => Some(Time(self.now)),
        };
        let condition = PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: transition,
            last_probe_time: None,
            observed_generation: self.generation,
        };
        match found {
            Some(c) => *c = condition,
            None => self.old.push(condition),
        }
    }
}

fn container_status(record: &ContainerRecord, prefix: &str, ended: bool) -> ContainerStatus {
    let id = |id: &str| (!id.is_empty()).then(|| format!("{prefix}://{id}"));
    let terminated = |t: &Terminated| ContainerStateTerminated {
        container_id: id(&t.id),
        exit_code: t.code,
        // The kubelet leaves `signal` to the runtime, and containerd reports only 128 + signal. This status has both.
        signal: t.signal,
        reason: Some(t.reason.clone()),
        message: t.message.clone(),
        started_at: Some(Time(t.started_at)),
        finished_at: Some(Time(t.finished_at)),
    };
    let state = match &record.state {
        RecordedState::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: message.clone(),
            }),
            ..ContainerState::default()
        },
        RecordedState::Running { started_at, .. } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(*started_at)),
            }),
            ..ContainerState::default()
        },
        RecordedState::Terminated(t) => ContainerState {
            terminated: Some(terminated(t)),
            ..ContainerState::default()
        },
    };
    let current = match &record.state {
        RecordedState::Running { id, .. } => id.as_str(),
        RecordedState::Terminated(t) => t.id.as_str(),
        RecordedState::Waiting { .. } => record.last.as_ref().map_or("", |t| t.id.as_str()),
    };
    ContainerStatus {
        name: record.name.clone(),
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        container_id: id(current),
        ready: if record.init && !record.sidecar {
            record.init_passed()
        } else {
            !ended && record.is_running()
        },
        started: Some(record.is_running()),
        restart_count: i32::try_from(record.restarts).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: record.last.as_ref().map(|t| ContainerState {
            terminated: Some(terminated(t)),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}

/// Returns the pod's quality of service class.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let (mut any, mut guaranteed) = (false, true);
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.clone().unwrap_or_default();
        let (requests, limits) = (
            resources.requests.unwrap_or_default(),
            resources.limits.unwrap_or_default(),
        );
        for name in ["cpu", "memory"] {
            let limit = limits.get(name).and_then(quantity::milli).filter(|v| *v > 0);
            let request = requests.get(name).and_then(quantity::milli).filter(|v| *v > 0);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "generation": 1},
            "spec": {"restartPolicy": policy, "containers": []}
        }))
        .unwrap()
    }

    fn record(name: &str, init: bool, state: RecordedState) -> ContainerRecord {
        ContainerRecord {
            name: name.into(),
            image: "i".into(),
            image_id: String::new(),
            init,
            sidecar: false,
            state,
            last: None,
            restarts: 0,
        }
    }

    fn done(code: i32) -> RecordedState {
        RecordedState::Terminated(Terminated {
            id: "x".into(),
            code,
            signal: None,
            reason: if code == 0 { "Completed" } else { "Error" }.into(),
            message: None,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
        })
    }

    fn running() -> RecordedState {
        RecordedState::Running {
            id: "x".into(),
            started_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn phases_of_a_pod_that_never_restarts() {
        let waiting = || RecordedState::waiting("PodInitializing");
        let cases: Vec<(&str, Vec<ContainerRecord>, bool, &str)> = vec![
            (
                "init runs",
                vec![record("i", true, running()), record("a", false, waiting())],
                false,
                "Pending",
            ),
            (
                "init done",
                vec![record("i", true, done(0)), record("a", false, waiting())],
                false,
                "Pending",
            ),
            (
                "init failed",
                vec![record("i", true, done(1)), record("a", false, waiting())],
                true,
                "Failed",
            ),
            (
                "one of two",
                vec![record("a", false, running()), record("b", false, waiting())],
                false,
                "Pending",
            ),
            (
                "both run",
                vec![record("a", false, running()), record("b", false, running())],
                false,
                "Running",
            ),
            (
                "one failed",
                vec![record("a", false, done(3)), record("b", false, running())],
                false,
                "Running",
            ),
            (
                "all ended",
                vec![record("a", false, done(0)), record("b", false, done(0))],
                true,
                "Succeeded",
            ),
            (
                "one bad end",
                vec![record("a", false, done(3)), record("b", false, done(0))],
                true,
                "Failed",
            ),
        ];
        for (name, records, finished, expected) in cases {
            let pod_record = PodRecord {
                finished,
                ..PodRecord::default()
            };
            assert_eq!(phase(&records, &pod_record), expected, "{name}");
        }
    }

    #[test]
    fn conditions_keep_their_times_and_those_of_others() {
        let records = [record("a", false, running())];
        let pod_record = PodRecord {
            ready_to_start: true,
            ..PodRecord::default()
        };
        let foreign = PodCondition {
            type_: "Other".into(),
            status: "True".into(),
            ..PodCondition::default()
        };
        let old = PodStatus {
            conditions: Some(vec![foreign]),
            ..PodStatus::default()
        };
        let first = build(&pod("Never"), &records, &pod_record, &old, Timestamp::UNIX_EPOCH);
        let later = Timestamp::from_second(60).unwrap();
        let second = build(&pod("Never"), &records, &pod_record, &first, later);
        assert_eq!(first, second, "nothing changed, so nothing may differ");
        assert!(second.conditions.as_ref().unwrap().iter().any(|c| c.type_ == "Other"));
        let third = build(
            &pod("Never"),
            &[record("a", false, done(0))],
            &PodRecord {
                finished: true,
                ..pod_record
            },
            &second,
            later,
        );
        let ready = third
            .conditions
            .unwrap()
            .into_iter()
            .find(|c| c.type_ == "Ready")
            .unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_deref()),
            ("False", Some("PodCompleted"))
        );
        assert_eq!(ready.last_transition_time, Some(Time(later)));
    }

    #[test]
    fn a_failure_reason_fails_a_pod_whose_containers_ended_well() {
        let failure = Some(("DeadlineExceeded".to_owned(), "too long".to_owned()));
        let pod_record = PodRecord {
            finished: true,
            failure,
            ..PodRecord::default()
        };
        let status = build(
            &pod("Never"),
            &[record("a", false, done(0))],
            &pod_record,
            &PodStatus::default(),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(
            (status.phase.as_deref(), status.reason.as_deref()),
            (Some("Failed"), Some("DeadlineExceeded"))
        );
    }
}
