//! Admission policies of the cluster that refuse pods or change them.

use anyhow::ensure;
use legion_tests::{
    cluster::{Cluster, script},
    local::succeeded,
    tool,
};
use serde_json::{Value, json};

use crate::{QUICK, cluster, ended_in_attempt};

/// An admission policy for the pods of one namespace. Dropping it deletes the policy.
struct Policy<'a> {
    cluster: &'a Cluster,
    kind: &'static str,
}

impl<'a> Policy<'a> {
    fn new(cluster: &'a Cluster, kind: &'static str, mut spec: Value, binding: Value) -> anyhow::Result<Self> {
        let name = cluster.namespace();
        spec["matchConstraints"] = json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        });
        let object = |kind: String, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let mut binding = binding;
        binding["policyName"] = name.into();
        let policy = Self { cluster, kind };
        cluster.apply(&format!(
            "{}\n---\n{}",
            object(kind.to_owned(), spec),
            object(format!("{kind}Binding"), binding)
        ))?;
        Ok(policy)
    }

    fn remove(&self) -> anyhow::Result<()> {
        let name = self.cluster.namespace();
        for kind in [format!("{}Binding", self.kind), self.kind.to_owned()] {
            self.cluster.run(&["delete", &kind, name, "--ignore-not-found"])?;
        }
        Ok(())
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        // The policy concerns only this namespace, and the namespace is about to be deleted. The test reports its own
        // failure.
        let _ = self.remove();
    }
}

/// Sends [`probe`] as a dry run. A policy takes effect a moment after it was stored.
const DRY_RUN: [&str; 5] = ["create", "--dry-run=server", "--output=json", "-f", "-"];

/// A pod that Pod Security accepts at its strictest level.
fn probe() -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "probe", "image": "none", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }})
    .to_string()
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn a_refused_pod_waits_until_the_policy_is_deleted() -> anyhow::Result<()> {
    let cluster = cluster("refused")?;
    let rule = json!({"expression": "false", "message": "no pods on Thursdays"});
    let policy = Policy::new(
        &cluster,
        "ValidatingAdmissionPolicy",
        json!({"validations": [rule]}),
        json!({"validationActions": ["Deny"]}),
    )?;
    cluster.until("none", "the policy is in force", |_| {
        let said = tool::run(&mut cluster.kubectl(&DRY_RUN), &probe())?;
        Ok(said.all.contains("Thursdays").then_some(()))
    })?;
    cluster.apply(&script("refused", QUICK, json!({})))?;
    let waiting = cluster.waiting("refused", "AdmissionRefused")?;
    let message = succeeded(&waiting)["message"].as_str().unwrap_or_default();
    ensure!(message.contains("no pods on Thursdays"), "{message}");
    policy.remove()?;
    ended_in_attempt(&cluster.success("refused")?, 1)
}

#[test]
#[ignore = "needs a cluster with Legion: cargo xtask test --kubernetes"]
fn an_injected_sidecar_that_never_exits_delays_nothing() -> anyhow::Result<()> {
    let cluster = cluster("sidecar")?;
    let sidecar = r#"[JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{
        name: "mesh", image: "legion.internal/busybox:1", command: ["/bin/busybox", "sleep", "100000"],
        securityContext: Object.spec.containers.securityContext{
            allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 65532,
            capabilities: Object.spec.containers.securityContext.capabilities{drop: ["ALL"]},
            seccompProfile: Object.spec.containers.securityContext.seccompProfile{type: "RuntimeDefault"}
        }
    }}]"#;
    let _policy = Policy::new(
        &cluster,
        "MutatingAdmissionPolicy",
        json!({
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": sidecar}}],
        }),
        json!({}),
    )?;
    cluster.until("none", "the policy is in force", |_| {
        let said = tool::run(&mut cluster.kubectl(&DRY_RUN), &probe())?;
        ensure!(said.ok, "{}", said.all);
        Ok(said.out.contains("mesh").then_some(()))
    })?;
    cluster.apply(&script("meshed", QUICK, json!({"gracePeriod": "1s"})))?;
    let training = cluster.success("meshed")?;
    ended_in_attempt(&training, 1)?;
    // The sidecar never ends, so the operator deletes the pod.
    cluster.until("meshed", "the pod with the sidecar is deleted", |_| {
        let running = cluster
            .pods("meshed")?
            .into_iter()
            .any(|pod| pod["status"]["phase"] == "Running");
        Ok((!running).then_some(()))
    })
}
