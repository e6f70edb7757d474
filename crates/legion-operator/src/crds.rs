//! Waits until the API server serves the platform's kinds. Otherwise the watch of a missing kind would fail forever
//! without a visible reason.

use std::{collections::BTreeSet, time::Duration};

use kube::Client;
use legion_runtime::health::Health;

/// The command that installs the CRDs.
pub(crate) const INSTALL: &str = "legion-operator crds | kubectl apply --server-side -f -";
/// Between two requests.
const INTERVAL: Duration = Duration::from_secs(2);

/// Returns when every wanted resource is served. Until then `health` reports the missing ones.
pub(crate) async fn wait(client: &Client, health: &Health, wanted: &[&str]) {
    let group_version = format!("{}/{}", legion_api::GROUP, legion_api::VERSION);
    let mut reported = None;
    loop {
        let missing = match client.list_api_group_resources(&group_version).await {
            Ok(list) => {
                let served: BTreeSet<String> = list.resources.into_iter().map(|resource| resource.name).collect();
                let missing = wanted.iter().copied().filter(|plural| !served.contains(*plural));
                missing.collect::<Vec<_>>().join(", ")
            }
            // The server knows no resource of the group. Its answer is a page without a Status.
            Err(kube::Error::Api(status)) if status.code == 404 => wanted.join(", "),
            Err(error) => format!("{} ({error})", wanted.join(", ")),
        };
        if missing.is_empty() {
            return;
        }
        // Once for each change: a cluster may be without them for hours.
        if reported.as_ref() != Some(&missing) {
            tracing::warn!(missing, "waiting for the CRDs: install them with `{INSTALL}`");
            health.set_not_ready(format!("waiting for the CRDs: {missing}"));
            reported = Some(missing);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
