//! The columns of built-in kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age;
use crate::api::meta::{at, is_deleting, name, text};
use crate::resource::ResourceInfo;

type Column = (&'static str, &'static str, i32);

/// Name, type and priority of each column.
pub(super) fn columns(info: &ResourceInfo) -> &'static [Column] {
    match info.kind.as_str() {
        "Pod" => &[
            ("Name", "string", 0),
            ("Ready", "string", 0),
            ("Status", "string", 0),
            ("Restarts", "string", 0),
            ("Age", "string", 0),
            ("IP", "string", 1),
            ("Node", "string", 1),
            ("Nominated Node", "string", 1),
            ("Readiness Gates", "string", 1),
        ],
        "ConfigMap" => &[("Name", "string", 0), ("Data", "string", 0), ("Age", "string", 0)],
        "Secret" => &[
            ("Name", "string", 0),
            ("Type", "string", 0),
            ("Data", "string", 0),
            ("Age", "string", 0),
        ],
        "Namespace" => &[("Name", "string", 0), ("Status", "string", 0), ("Age", "string", 0)],
        "Node" => &[
            ("Name", "string", 0),
            ("Status", "string", 0),
            ("Roles", "string", 0),
            ("Age", "string", 0),
            ("Version", "string", 0),
        ],
        "PersistentVolumeClaim" => &[
            ("Name", "string", 0),
            ("Status", "string", 0),
            ("Volume", "string", 0),
            ("Capacity", "string", 0),
            ("Access Modes", "string", 0),
            ("StorageClass", "string", 0),
            ("Age", "string", 0),
        ],
        "Event" => &[
            ("Last Seen", "string", 0),
            ("Type", "string", 0),
            ("Reason", "string", 0),
            ("Object", "string", 0),
            ("Subobject", "string", 1),
            ("Source", "string", 1),
            ("Message", "string", 0),
            ("First Seen", "string", 1),
            ("Count", "string", 1),
            ("Name", "string", 1),
        ],
        "Lease" => &[("Name", "string", 0), ("Holder", "string", 0), ("Age", "string", 0)],
        "CustomResourceDefinition" => &[
            ("Name", "string", 0),
            ("Scope", "string", 0),
            ("Versions", "string", 0),
            ("Created At", "date", 0),
            ("Group", "string", 1),
            ("Kind", "string", 1),
            ("ShortNames", "string", 1),
            ("Established", "boolean", 1),
        ],
        _ => &[("Name", "string", 0), ("Age", "string", 0)],
    }
}

/// Returns the cells of a row.
pub(super) fn cells(info: &ResourceInfo, object: &Value, now: Timestamp) -> Vec<Value> {
    let created = text(object, &["metadata", "creationTimestamp"]);
    let old = json!(age(created, now));
    let name = json!(name(object));
    let or_none = |path: &[&str]| match text(object, path) {
        "" => json!("<none>"),
        given => json!(given),
    };
    match info.kind.as_str() {
        "Pod" => {
            let (ready, total, restarts) = readiness(object);
            vec![
                name,
                json!(format!("{ready}/{total}")),
                json!(pod_status(object)),
                json!(restarts.to_string()),
                old,
                or_none(&["status", "podIP"]),
                or_none(&["spec", "nodeName"]),
                or_none(&["status", "nominatedNodeName"]),
                // This server does not evaluate readiness gates.
                json!("<none>"),
            ]
        }
        "ConfigMap" => vec![
            name,
            json!(entries(object, "data") + entries(object, "binaryData")),
            old,
        ],
        "Secret" => vec![
            name,
            json!(text(object, &["type"])),
            json!(entries(object, "data")),
            old,
        ],
        "Namespace" => vec![name, json!(text(object, &["status", "phase"])), old],
        "Node" => vec![
            name,
            json!(node_status(object)),
            json!("<none>"),
            old,
            json!(text(object, &["status", "nodeInfo", "kubeletVersion"])),
        ],
        "PersistentVolumeClaim" => {
            let phase = if is_deleting(object) {
                "Terminating"
            } else {
                text(object, &["status", "phase"])
            };
            vec![
                name,
                json!(phase),
                json!(text(object, &["spec", "volumeName"])),
                json!(text(object, &["status", "capacity", "storage"])),
                json!(access_modes(object)),
                json!(text(object, &["spec", "storageClassName"])),
                old,
            ]
        }
        "Event" => event(object, now),
        "Lease" => vec![name, json!(text(object, &["spec", "holderIdentity"])), old],
        "CustomResourceDefinition" => {
            let list = |path: &[&str]| at(object, path).and_then(Value::as_array).cloned().unwrap_or_default();
            let versions: Vec<String> = list(&["spec", "versions"])
                .iter()
                .map(|version| {
                    let stored = if version["storage"] == true { "(storage)" } else { "" };
                    format!("{}{stored}", text(version, &["name"]))
                })
                .collect();
            let short: Vec<String> = list(&["spec", "names", "shortNames"])
                .iter()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect();
            let established = list(&["status", "conditions"])
                .iter()
                .any(|c| c["type"] == "Established" && c["status"] == "True");
            vec![
                name,
                json!(text(object, &["spec", "scope"])),
                json!(versions.join(",")),
                json!(created),
                json!(text(object, &["spec", "group"])),
                json!(text(object, &["spec", "names", "kind"])),
                json!(short.join(",")),
                json!(established),
            ]
        }
        _ => vec![name, old],
    }
}

fn entries(object: &Value, field: &str) -> usize {
    at(object, &[field])
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn access_modes(claim: &Value) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "?",
    };
    let modes = at(claim, &["status", "accessModes"]).or_else(|| at(claim, &["spec", "accessModes"]));
    modes
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(short)
        .collect::<Vec<_>>()
        .join(",")
}

fn node_status(node: &Value) -> String {
    let ready = list(node, &["status", "conditions"])
        .find(|c| c["type"] == "Ready")
        .map(|c| text(c, &["status"]));
    let mut status = match ready {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if at(node, &["spec", "unschedulable"]).and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let first = [
        &["firstTimestamp"][..],
        &["eventTime"],
        &["metadata", "creationTimestamp"],
    ]
    .iter()
    .map(|path| text(event, path))
    .find(|t| !t.is_empty())
    .unwrap_or_default();
    let last = match text(event, &["series", "lastObservedTime"]) {
        "" => text(event, &["lastTimestamp"]),
        series => series,
    };
    let last = if last.is_empty() { first } else { last };
    let count = at(event, &["series", "count"])
        .or_else(|| at(event, &["count"]))
        .and_then(Value::as_i64)
        .unwrap_or(1);
    let object = at(event, &["involvedObject"])
        .or_else(|| at(event, &["regarding"]))
        .unwrap_or(&Value::Null);
    let message = match text(event, &["message"]) {
        "" => text(event, &["note"]),
        message => message,
    };
    let source = [
        &["source", "component"][..],
        &["reportingComponent"],
        &["reportingController"],
    ]
    .iter()
    .map(|path| text(event, path))
    .find(|s| !s.is_empty())
    .unwrap_or_default();
    vec![
        json!(age(last, now)),
        json!(text(event, &["type"])),
        json!(text(event, &["reason"])),
        json!(format!(
            "{}/{}",
            text(object, &["kind"]).to_lowercase(),
            text(object, &["name"])
        )),
        json!(text(object, &["fieldPath"])),
        json!(source),
        json!(message.trim()),
        json!(age(first, now)),
        json!(count.to_string()),
        json!(name(event)),
    ]
}

fn list<'a>(object: &'a Value, path: &[&str]) -> impl DoubleEndedIterator<Item = &'a Value> + use<'a> {
    at(object, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
}

/// Returns ready containers, all containers, and restarts.
fn readiness(pod: &Value) -> (usize, usize, i64) {
    let total = list(pod, &["spec", "containers"]).count();
    let statuses = || list(pod, &["status", "containerStatuses"]);
    let ready = statuses()
        .filter(|c| c["ready"] == true && at(c, &["state", "running"]).is_some())
        .count();
    let restarts = statuses().filter_map(|c| c["restartCount"].as_i64()).sum();
    (ready, total, restarts)
}

/// Returns the word in the STATUS column, by kubectl's rules.
fn pod_status(pod: &Value) -> String {
    let mut status = match text(pod, &["status", "reason"]) {
        "" => text(pod, &["status", "phase"]).to_owned(),
        reason => reason.to_owned(),
    };
    let ended = |terminated: &Value| -> String {
        match (
            text(terminated, &["reason"]),
            at(terminated, &["signal"]).and_then(Value::as_i64).unwrap_or(0),
        ) {
            ("", 0) => format!(
                "ExitCode:{}",
                at(terminated, &["exitCode"]).and_then(Value::as_i64).unwrap_or(0)
            ),
            ("", signal) => format!("Signal:{signal}"),
            (reason, _) => reason.to_owned(),
        }
    };
    let total = list(pod, &["spec", "initContainers"]).count();
    let initialising = list(pod, &["status", "initContainerStatuses"])
        .enumerate()
        .find_map(|(i, container)| {
            if let Some(terminated) = at(container, &["state", "terminated"]) {
                let code = at(terminated, &["exitCode"]).and_then(Value::as_i64).unwrap_or(0);
                return (code != 0).then(|| format!("Init:{}", ended(terminated)));
            }
            match text(container, &["state", "waiting", "reason"]) {
                "" | "PodInitializing" => Some(format!("Init:{i}/{total}")),
                reason => Some(format!("Init:{reason}")),
            }
        });
    if let Some(word) = initialising {
        status = word;
    } else {
        let mut running = false;
        for container in list(pod, &["status", "containerStatuses"]).rev() {
            let waiting = text(container, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                status = waiting.to_owned();
            } else if let Some(terminated) = at(container, &["state", "terminated"]) {
                status = ended(terminated);
            } else if container["ready"] == true && at(container, &["state", "running"]).is_some() {
                running = true;
            }
        }
        if status == "Completed" && running {
            status = "Running".to_owned();
        }
    }
    let phase = text(pod, &["status", "phase"]);
    if is_deleting(pod) && text(pod, &["status", "reason"]) == "NodeLost" {
        "Unknown".to_owned()
    } else if is_deleting(pod) && !matches!(phase, "Succeeded" | "Failed") {
        "Terminating".to_owned()
    } else {
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_words() {
        let pod = |status: Value| json!({"spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}, "status": status});
        let done = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let running = json!({"ready": true, "state": {"running": {}}});
        for (status, word) in [
            (json!({"phase": "Pending"}), "Pending"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}),
                "Init:0/1",
            ),
            (
                json!({"phase": "Failed", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]}),
                "Init:Error",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}),
                "Init:ErrImagePull",
            ),
            (
                json!({"phase": "Running", "initContainerStatuses": [done], "containerStatuses": [done, running]}),
                "Running",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [done, done]}),
                "Completed",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
                "ExitCode:3",
            ),
            (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        ] {
            assert_eq!(pod_status(&pod(status.clone())), word, "{status}");
        }
    }
}
