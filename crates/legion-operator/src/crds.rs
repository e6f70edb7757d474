//! Waits until the API server serves the platform's kinds. Without that, a watch of a missing kind fails for ever, and
//! nobody sees why.

use std::{collections::BTreeSet, time::Duration};

use kube::{Client, Resource as _};
use legion_api::{Connection, ModelTraining, ToolchainIntegration};
use legion_runtime::health::Health;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

fn wanted() -> [String; 3] {
    [
        ToolchainIntegration::plural(&()),
        Connection::plural(&()),
        ModelTraining::plural(&()),
    ]
    .map(std::borrow::Cow::into_owned)
}

/// Returns when every kind of the platform is served; until then `health` says which are missing.
pub(crate) async fn wait(client: &Client, health: &Health) {
    let group_version = format!("{}/{}", legion_api::GROUP, legion_api::VERSION);
    let mut told = None;
    loop {
        let missing = match client.list_api_group_resources(&group_version).await {
            Ok(list) => {
                let served: BTreeSet<String> = list.resources.into_iter().map(|resource| resource.name).collect();
                wanted()
                    .into_iter()
                    .filter(|plural| !served.contains(plural))
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            Err(error) => format!("{} ({error})", wanted().join(", ")),
        };
        if missing.is_empty() {
            return;
        }
        // Once for each state: a cluster may be without them for hours.
        if told.as_ref() != Some(&missing) {
            tracing::warn!(
                missing,
                "waiting for the CRDs: install them with `legion-operator crds | kubectl apply --server-side -f -`"
            );
            health.set_not_ready(format!("waiting for the CRDs: {missing}"));
            told = Some(missing);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
