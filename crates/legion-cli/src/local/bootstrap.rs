//! Creates the initial objects of a local API: the CRDs, the platform namespace, the toolchains, and a default output
//! in every namespace.

use std::{path::Path, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        wait::{await_condition, conditions},
        watcher,
    },
};
use legion_api::{Connection, ToolchainIntegration, connection::DEFAULT_OUTPUT_ANNOTATION};
use serde_json::json;
use url::Url;

use super::toolchains::Toolchain;
use crate::exit::{CliError, Code, Result};

/// Namespace of the platform. All namespaces may use its toolchains.
pub(crate) const PLATFORM_NAMESPACE: &str = "legion-system";
/// Name of the Connection that the local mode creates in every namespace.
pub(crate) const DEFAULT_OUTPUT: &str = "local-output";
const MANAGER: &str = "legionctl-local";

fn apply() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

/// Installs the CRDs and registers the toolchains. A repeated call changes nothing.
pub(crate) async fn install(client: &Client, toolchains: &[Toolchain]) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in legion_api::crd::all() {
        let name = crd.name_any();
        crds.patch(&name, &apply(), &Patch::Apply(&crd)).await?;
        let established = await_condition(crds.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(10), established)
            .await
            .map_err(|_| CliError::new(Code::Other, format!("the CRD {name} is not served after 10 s")))?
            .map_err(|error| CliError::io(format!("the CRD {name}"), error))?;
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLATFORM_NAMESPACE}});
    namespaces
        .patch(PLATFORM_NAMESPACE, &apply(), &Patch::Apply(namespace))
        .await?;
    let api: Api<ToolchainIntegration> = Api::namespaced(client.clone(), PLATFORM_NAMESPACE);
    for toolchain in toolchains {
        api.patch(toolchain.name(), &apply(), &Patch::Apply(&toolchain.manifest))
            .await
            .map_err(|error| CliError::from(error).context(format!("toolchain {}", toolchain.directory.display())))?;
    }
    Ok(())
}

/// Creates the default output in all namespaces that exist now.
pub(crate) async fn default_outputs(client: &Client, outputs: &Path) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for namespace in namespaces.list(&kube::api::ListParams::default()).await? {
        default_output(client, &namespace.name_any(), outputs).await?;
    }
    Ok(())
}

/// Keeps a default output in every namespace, also in new ones, until the future is dropped.
pub(crate) async fn keep_default_outputs(client: Client, outputs: &Path) {
    let namespaces = watcher(Api::<Namespace>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .filter_map(async |event| match event {
            Ok(watcher::Event::Apply(namespace) | watcher::Event::InitApply(namespace))
                if namespace.metadata.deletion_timestamp.is_none() =>
            {
                Some(namespace.name_any())
            }
            _ => None,
        });
    let connections = watcher(Api::<Connection>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .filter_map(async |event| match event {
            Ok(
                watcher::Event::Apply(connection)
                | watcher::Event::InitApply(connection)
                | watcher::Event::Delete(connection),
            ) if is_default(&connection) || connection.name_any() == DEFAULT_OUTPUT => connection.namespace(),
            _ => None,
        });
    let mut changed = futures::stream::select(namespaces.boxed(), connections.boxed());
    while let Some(namespace) = changed.next().await {
        if let Err(error) = default_output(&client, &namespace, outputs).await {
            // The namespace may be terminating. The next change of it or of a connection is a retry.
            tracing::debug!(%error, namespace, "no default output created");
        }
    }
}

fn is_default(connection: &Connection) -> bool {
    connection
        .annotations()
        .get(DEFAULT_OUTPUT_ANNOTATION)
        .is_some_and(|value| value == "true")
}

/// Creates the default output of a namespace. It is not marked as the default if a user's Connection is.
async fn default_output(client: &Client, namespace: &str, outputs: &Path) -> Result<()> {
    let api: Api<Connection> = Api::namespaced(client.clone(), namespace);
    let present = api.list(&kube::api::ListParams::default()).await?;
    let taken = present
        .iter()
        .any(|connection| is_default(connection) && connection.name_any() != DEFAULT_OUTPUT);
    // A user's Connection with this name is not changed.
    let foreign = present.iter().any(|connection| {
        connection.name_any() == DEFAULT_OUTPUT
            && !connection
                .managed_fields()
                .iter()
                .any(|entry| entry.manager.as_deref() == Some(MANAGER))
    });
    if foreign {
        return Ok(());
    }
    let annotations = if taken {
        json!({})
    } else {
        json!({ DEFAULT_OUTPUT_ANNOTATION: "true" })
    };
    // Encoded: a directory may have a space in its name.
    let uri = Url::from_file_path(outputs).map_err(|()| {
        let message = format!(
            "the directory of outputs is not an absolute path: {}",
            outputs.display()
        );
        CliError::new(Code::Other, message)
    })?;
    let connection = json!({
        "apiVersion": "legion-platform.org/v1alpha1",
        "kind": "Connection",
        "metadata": {"name": DEFAULT_OUTPUT, "annotations": annotations},
        "spec": {
            "type": "local",
            "uri": uri.as_str(),
            "description": "Default output of legionctl local.",
        },
    });
    api.patch(DEFAULT_OUTPUT, &apply(), &Patch::Apply(connection)).await?;
    Ok(())
}
