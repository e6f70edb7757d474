//! The scheduler. It checks whether a pod fits on the one node and reports like kube-scheduler if it does not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node as NodeObject, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaim, Pod, PodSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::watch;

use super::Context;
use super::events::{EventType, InvolvedObject};
use super::kubelet::{PodTable, is_terminal};
use super::quantity;

const SCHEDULER: &str = "default-scheduler";

/// Binds pods until canceled.
pub(crate) async fn run(ctx: Arc<Context>, mut pods: watch::Receiver<PodTable>) {
    // The last message about each pod, so that an unschedulable pod is reported once and not at every change.
    let mut reported: HashMap<String, String> = HashMap::new();
    loop {
        tokio::select! {
            changed = pods.changed() => if changed.is_err() { return },
            () = ctx.reschedule.notified() => {}
        }
        if !ctx.is_reporting() {
            continue;
        }
        let table = pods.borrow_and_update().clone();
        reported.retain(|uid, _| table.contains_key(uid));
        let mut waiting: Vec<_> = table.values().filter(|pod| is_waiting(pod)).cloned().collect();
        if waiting.is_empty() {
            continue;
        }
        waiting.sort_by_key(|pod| {
            let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
            (
                std::cmp::Reverse(priority),
                pod.metadata.creation_timestamp.clone(),
                pod.namespace(),
                pod.metadata.name.clone(),
            )
        });
        let node = match Api::<NodeObject>::all(ctx.client.clone()).get(&ctx.options.name).await {
            Ok(node) => node,
            Err(error) => {
                tracing::warn!(%error, "the node object cannot be read, so no pod is scheduled");
                continue;
            }
        };
        let mut used = Used::default();
        for pod in table
            .values()
            .filter(|p| !is_waiting(p) && is_bound(p) && !is_terminal(p))
        {
            used.add(&requests(pod));
        }
        for pod in waiting {
            let uid = pod.uid().unwrap_or_default();
            let result = match claims(&ctx, &pod).await {
                Some(problem) => Err(problem),
                None => fits(&pod, &node, &used),
            };
            match result {
                Ok(()) => {
                    if bind(&ctx, &pod).await {
                        reported.remove(&uid);
                        used.add(&requests(&pod));
                    }
                }
                Err(problem) => {
                    let message = format!("0/1 nodes are available: {problem}.");
                    if reported.get(&uid) != Some(&message) {
                        refuse(&ctx, &pod, &message).await;
                        reported.insert(uid, message);
                    }
                }
            }
        }
    }
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|s| s.node_name.as_deref())
        .is_some_and(|name| !name.is_empty())
}

fn is_waiting(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == SCHEDULER);
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    ours && !gated && !is_bound(pod) && !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

async fn bind(ctx: &Context, pod: &Pod) -> bool {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let node = &ctx.options.name;
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let binding = serde_json::json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let sent = api
        .create_subresource::<serde_json::Value, serde_json::Value>("binding", &name, &PostParams::default(), &binding)
        .await;
    match sent {
        Ok(_) => {
            let text = format!("Successfully assigned {namespace}/{name} to {node}");
            ctx.recorder.record(
                SCHEDULER,
                InvolvedObject::pod(pod),
                EventType::Normal,
                "Scheduled",
                text,
            );
            true
        }
        // The pod was deleted, replaced or bound by another client. The watch delivers its new state.
        Err(error) => {
            tracing::debug!(%error, namespace, pod = name, "pod not bound");
            false
        }
    }
}

async fn refuse(ctx: &Context, pod: &Pod, message: &str) {
    ctx.recorder.record(
        SCHEDULER,
        InvolvedObject::pod(pod),
        EventType::Warning,
        "FailedScheduling",
        message,
    );
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &pod.namespace().unwrap_or_default());
    let patch = serde_json::json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": Time(ctx.clock.now()), "observedGeneration": pod.metadata.generation,
    }]}});
    if let Err(error) = api
        .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch))
        .await
    {
        tracing::debug!(%error, pod = pod.name_any(), "unschedulable condition not written");
    }
}

async fn claims(ctx: &Context, pod: &Pod) -> Option<String> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &pod.namespace().unwrap_or_default());
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let Some(claim) = &volume.persistent_volume_claim else {
            continue;
        };
        match api.get_opt(&claim.claim_name).await {
            Ok(None) => return Some(format!("persistentvolumeclaim {:?} not found", claim.claim_name)),
            Ok(Some(found)) if found.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") => {
                return Some("pod has unbound immediate PersistentVolumeClaims".into());
            }
            Ok(Some(_)) => {}
            Err(error) => {
                return Some(format!(
                    "persistentvolumeclaim {:?} cannot be read: {error}",
                    claim.claim_name
                ));
            }
        }
    }
    None
}

/// Thousandths by resource name. `pods` counts pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Used(BTreeMap<String, i128>);

impl Used {
    fn add(&mut self, other: &Used) {
        for (name, value) in &other.0 {
            *self.0.entry(name.clone()).or_default() += value;
        }
    }

    fn max(&mut self, other: &Used) {
        for (name, value) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = (*mine).max(*value);
        }
    }

    fn of(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let each = quantities.into_iter().flatten();
        Self(
            each.filter_map(|(name, q)| Some((name.clone(), quantity::milli(q)?)))
                .collect(),
        )
    }
}

/// Returns the resources of a pod: the sum over its main containers and sidecars, or the largest init container if
/// that is more (with the sidecars that were started before it). The pod's overhead is added.
fn requests(pod: &Pod) -> Used {
    let Some(spec) = &pod.spec else { return Used::default() };
    // As in the API server's defaults, a limit without a request is a request.
    let of = |c: &k8s_openapi::api::core::v1::Container| {
        let resources = c.resources.as_ref();
        let mut used = Used::of(resources.and_then(|r| r.limits.as_ref()));
        used.0.extend(Used::of(resources.and_then(|r| r.requests.as_ref())).0);
        used
    };
    let mut sidecars = Used::default();
    let mut peak = Used::default();
    for init in spec.init_containers.iter().flatten() {
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&of(init));
            peak.max(&sidecars);
        } else {
            let mut beside = sidecars.clone();
            beside.add(&of(init));
            peak.max(&beside);
        }
    }
    let mut total = sidecars;
    for container in &spec.containers {
        total.add(&of(container));
    }
    total.max(&peak);
    total.add(&Used::of(spec.overhead.as_ref()));
    total.0.insert("pods".into(), 1000);
    total
}

fn fits(pod: &Pod, node: &NodeObject, used: &Used) -> Result<(), String> {
    let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
    let mut problems = Vec::new();
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        problems.push("1 node(s) were unschedulable".to_owned());
    }
    if !selected(spec, node) {
        problems.push("1 node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    if let Some(taint) = untolerated(spec, node) {
        problems.push(format!("1 node(s) had untolerated taint(s) {{{taint}}}"));
    }
    if problems.is_empty() {
        let room = Used::of(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
        for (name, wanted) in &requests(pod).0 {
            let free = room.0.get(name).copied().unwrap_or(0) - used.0.get(name).copied().unwrap_or(0);
            if *wanted > 0 && *wanted > free {
                // Local disk space belongs to the machine and is not counted.
                match name.as_str() {
                    "ephemeral-storage" => {}
                    "pods" => problems.push("1 Too many pods".to_owned()),
                    _ => problems.push(format!("1 Insufficient {name}")),
                }
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join(", "))
    }
}

fn selected(spec: &PodSpec, node: &NodeObject) -> bool {
    let labels = node.labels();
    let selector = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selector && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| matches(term, node)))
}

fn matches(term: &NodeSelectorTerm, node: &NodeObject) -> bool {
    let (expressions, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
    let (expressions, fields) = (expressions.unwrap_or_default(), fields.unwrap_or_default());
    // An empty term matches no node.
    !(expressions.is_empty() && fields.is_empty())
        && expressions
            .iter()
            .all(|r| holds(r, node.labels().get(&r.key).map(String::as_str)))
        && fields
            .iter()
            .all(|r| r.key == "metadata.name" && holds(r, node.metadata.name.as_deref()))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
    let bound = || number(values.first().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|x| x == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|x| x != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound()).is_some_and(|(v, b)| v > b),
        "Lt" => number(value).zip(bound()).is_some_and(|(v, b)| v < b),
        _ => false,
    }
}

fn untolerated(spec: &PodSpec, node: &NodeObject) -> Option<String> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| {
            !tolerations.iter().any(|t| {
                let effect = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == taint.effect);
                let exists = t.operator.as_deref() == Some("Exists");
                let key = t.key.as_deref().unwrap_or_default();
                effect
                    && (key.is_empty() && exists
                        || key == taint.key
                            && (exists
                                || t.value.as_deref().unwrap_or_default()
                                    == taint.value.as_deref().unwrap_or_default()))
            })
        })
        .map(|taint| format!("{}: {}", taint.key, taint.value.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(extra: Value) -> NodeObject {
        let mut node = json!({
            "metadata": {"name": "n", "labels": {"zone": "a", "size": "10"}},
            "spec": {},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "2"}},
        });
        node["spec"] = extra;
        serde_json::from_value(node).unwrap()
    }

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn affinity(requirement: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}}}})
    }

    #[test]
    fn reasons_are_those_of_a_kube_scheduler() {
        const AFFINITY: Result<(), &str> = Err("1 node(s) didn't match Pod's node affinity/selector");
        let ask = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        let cases = vec![
            ("plain", json!({}), json!({}), Ok(())),
            ("selector", json!({"nodeSelector": {"zone": "a"}}), json!({}), Ok(())),
            (
                "wrong selector",
                json!({"nodeSelector": {"zone": "b"}}),
                json!({}),
                AFFINITY,
            ),
            (
                "in",
                affinity(json!({"key": "zone", "operator": "In", "values": ["a", "b"]})),
                json!({}),
                Ok(()),
            ),
            (
                "not in",
                affinity(json!({"key": "zone", "operator": "NotIn", "values": ["a"]})),
                json!({}),
                AFFINITY,
            ),
            (
                "greater",
                affinity(json!({"key": "size", "operator": "Gt", "values": ["9"]})),
                json!({}),
                Ok(()),
            ),
            (
                "less",
                affinity(json!({"key": "size", "operator": "Lt", "values": ["9"]})),
                json!({}),
                AFFINITY,
            ),
            (
                "absent",
                affinity(json!({"key": "gpu", "operator": "Exists"})),
                json!({}),
                AFFINITY,
            ),
            (
                "cordoned",
                json!({}),
                json!({"unschedulable": true}),
                Err("1 node(s) were unschedulable"),
            ),
            (
                "tainted",
                json!({}),
                json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}),
                Err("1 node(s) had untolerated taint(s) {k: v}"),
            ),
            (
                "tolerated",
                json!({"tolerations": [{"key": "k", "operator": "Exists"}]}),
                json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}),
                Ok(()),
            ),
            ("enough", ask("1500m"), json!({}), Ok(())),
            ("too much cpu", ask("2500m"), json!({}), Err("1 Insufficient cpu")),
            (
                "unknown resource",
                json!({"containers": [{"name": "c", "resources": {"limits": {"example.com/gpu": "1"}}}]}),
                json!({}),
                Err("1 Insufficient example.com/gpu"),
            ),
        ];
        for (name, spec, node_spec, expected) in cases {
            let result = fits(&pod(spec), &node(node_spec), &Used::default());
            assert_eq!(result, expected.map_err(str::to_owned), "{name}");
        }
    }

    #[test]
    fn what_runs_is_counted() {
        let half = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}));
        let mut used = Used::default();
        used.add(&requests(&half));
        assert_eq!(fits(&half, &node(json!({})), &used), Ok(()));
        used.add(&requests(&half));
        assert_eq!(
            fits(&half, &node(json!({})), &used),
            Err("1 Insufficient cpu, 1 Too many pods".into())
        );
    }

    #[test]
    fn init_containers_count_by_their_maximum_and_sidecars_with_the_rest() {
        let cpu = |n: &str| json!({"requests": {"cpu": n}});
        let pod = pod(json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": cpu("100m")},
                {"name": "one", "resources": cpu("1")},
                {"name": "two", "resources": cpu("2")},
            ],
            "containers": [{"name": "a", "resources": cpu("500m")}, {"name": "b", "resources": cpu("500m")}],
        }));
        assert_eq!(requests(&pod).0["cpu"], 2100);
    }
}
