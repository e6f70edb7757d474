//! Small and complete resources, as users write them.

use k8s_openapi::api::core::v1::ConfigMap;
use legion_api::{Connection, ModelTraining, ToolchainIntegration};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The namespace of the tests.
pub const NAMESPACE: &str = "team";
/// The namespace of the platform.
pub const PLATFORM: &str = "legion-system";
/// The image of the agent.
pub const AGENT_IMAGE: &str = "legion-platform/agent:test";

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("the manifests of the test kit match their types")
}

/// Returns the toolchain `mlflow` of the platform.
#[must_use]
pub fn toolchain() -> ToolchainIntegration {
    parsed(json!({
        "apiVersion": "legion-platform.org/v1alpha1",
        "kind": "ToolchainIntegration",
        "metadata": {"name": "mlflow", "namespace": PLATFORM},
        "spec": {
            "type": "Training",
            "image": "legion-platform/toolchain-mlflow:0.1.0",
            "command": ["legion-mlflow"],
            "format": "gppi/v1",
        },
    }))
}

/// Returns a connection that is the default output of the namespace.
#[must_use]
pub fn default_output() -> Connection {
    parsed(json!({
        "apiVersion": "legion-platform.org/v1alpha1",
        "kind": "Connection",
        "metadata": {
            "name": "models",
            "namespace": NAMESPACE,
            "annotations": {"legion-platform.org/default-output": "true"},
        },
        "spec": {"type": "s3", "uri": "s3://models/team", "region": "eu-central-1", "secretRef": {"name": "models"}},
    }))
}

/// Returns the source of [`training`].
#[must_use]
pub fn source(text: &str) -> ConfigMap {
    parsed(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "wine-source", "namespace": NAMESPACE},
        "data": {"train.py": text},
    }))
}

/// Returns a training with a ConfigMap source, the platform's toolchain and the default output.
#[must_use]
pub fn training(name: &str) -> ModelTraining {
    parsed(json!({
        "apiVersion": "legion-platform.org/v1alpha1",
        "kind": "ModelTraining",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"name": "wine", "version": "1"},
            "toolchain": "mlflow",
            "source": {"configMap": {"name": "wine-source"}},
            "entrypoint": "train.py",
            "hyperParameters": {"c": "0.5"},
            "objective": {"metric": "val_accuracy", "goal": "Maximize"},
            "timeout": "15m",
        },
    }))
}
