//! Every state of every kind, as tools that wait read it.

use std::fs;

use anyhow::{Context as _, ensure};
use legion_tests::local::repository;
use serde_json::{Value, json};

/// An object in a state.
#[derive(Debug, Clone)]
pub(crate) struct ObjectState {
    /// Name of the state: a reason, or the change of the object.
    pub name: String,
    /// The result that kstatus must compute.
    pub verdict: String,
    /// The object.
    pub object: Value,
}

impl ObjectState {
    pub(crate) fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// Returns its name for error messages.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.kind(), self.name)
    }
}

/// Returns the states that the planner decides (its golden Worlds, one for every reason), and three more: not yet
/// reconciled, changed since, under deletion.
pub(crate) fn all() -> anyhow::Result<Vec<ObjectState>> {
    let file = repository().join("crates/legion-plan/tests/it/snapshots/it__golden__states.snap");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let json = text.splitn(3, "---\n").nth(2).context("a snapshot has a header")?;
    let decided: Vec<Value> = serde_json::from_str(json)?;
    ensure!(decided.len() >= 50, "{} states only", decided.len());
    let mut states = Vec::new();
    for state in &decided {
        let text = |field: &str| state[field].as_str().map(str::to_owned).context("a text");
        let decided = ObjectState {
            name: text("state")?,
            verdict: text("kstatus")?,
            object: state["object"].clone(),
        };
        // A status is outdated once the spec has changed.
        let mut changed = decided.clone();
        changed.name = format!("{}, changed since", decided.name);
        changed.verdict = "InProgress".to_owned();
        changed.object["metadata"]["generation"] = json!(2);
        let mut going = decided.clone();
        going.name = format!("{}, going", decided.name);
        going.verdict = "Terminating".to_owned();
        going.object["metadata"]["deletionTimestamp"] = json!("2026-11-23T17:00:00Z");
        states.extend([decided, changed, going]);
    }
    for kind in ["ModelTraining", "Connection", "ToolchainIntegration"] {
        states.push(ObjectState {
            name: "not yet seen".to_owned(),
            verdict: "InProgress".to_owned(),
            // The default that the CRDs set in a status.
            object: json!({
                "apiVersion": "legion-platform.org/v1alpha1", "kind": kind,
                "metadata": {"name": "a", "namespace": "lab", "generation": 1},
                "status": {"observedGeneration": -1},
            }),
        });
    }
    Ok(states)
}
