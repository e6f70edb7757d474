//! The operator as the process under test.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use legion_api::{ModelTraining, condition};
use legion_operator::Settings;
use legion_runtime::{Clock, Shutdown, lease::LeaseSettings};
use legion_testkit::{
    cluster::{Cluster, StartProcess},
    fault::{Call, Verb},
    manifests::{AGENT_IMAGE, PLATFORM},
};

/// The API server's clock, as the operator's.
pub(crate) struct ServerClock(pub Arc<dyn kube_embed::Clock>);

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

pub(crate) fn settings() -> Settings {
    let mut settings = Settings::new(legion_plan::Settings::new(PLATFORM, AGENT_IMAGE));
    settings.workers = 4;
    settings
}

/// The operator with these settings.
pub(crate) fn operator_with(settings: Settings) -> StartProcess {
    Arc::new(move |client, clock| {
        let settings = settings.clone();
        Box::pin(async move {
            let ended = legion_operator::run(client, settings, Arc::new(ServerClock(clock)), Shutdown::new()).await;
            panic!("the operator ended: {ended:?}");
        })
    })
}

pub(crate) fn operator() -> StartProcess {
    operator_with(settings())
}

pub(crate) fn lease_of(identity: &str) -> LeaseSettings {
    LeaseSettings::new(PLATFORM, "legion-operator", identity)
}

/// A cluster with everything that [`legion_testkit::manifests::training`] refers to, and a running operator.
pub(crate) async fn furnished() -> Cluster {
    logs();
    let mut cluster = Cluster::new(operator()).await;
    cluster.furnish().await;
    cluster.start();
    cluster.settle(Duration::from_secs(1)).await;
    cluster
}

/// `LEGION_LOG=debug` shows what the operator says.
pub(crate) fn logs() {
    if let Ok(filter) = std::env::var("LEGION_LOG") {
        // A second test of the same process finds them set up.
        let _ = legion_runtime::logs::init(legion_runtime::logs::Format::Text, &filter, None);
    }
}

pub(crate) const LIMIT: Duration = Duration::from_secs(3600);

#[track_caller]
pub(crate) fn succeeded(training: Result<ModelTraining, Box<ModelTraining>>) -> ModelTraining {
    match training {
        Ok(training) => training,
        Err(training) => panic!(
            "not succeeded in time: {}",
            serde_json::to_string_pretty(&training.status).unwrap_or_default()
        ),
    }
}

/// The reason of the condition `Succeeded`.
pub(crate) fn reason(training: &ModelTraining) -> String {
    let conditions = training.status.as_ref().map_or(&[][..], |status| &status.conditions);
    condition::find(conditions, condition::SUCCEEDED)
        .map(|condition| condition.reason.clone())
        .unwrap_or_default()
}

/// Requests that change anything, events aside.
pub(crate) fn writes(calls: &[Call]) -> Vec<String> {
    calls
        .iter()
        .filter(|call| call.verb.is_write() && call.resource != "events" && call.resource != "leases")
        .map(|call| call.id.clone())
        .collect()
}

/// Requests that read, watches and what belongs to them aside.
pub(crate) fn reads(calls: &[Call]) -> Vec<String> {
    calls
        .iter()
        .filter(|call| call.verb == Verb::Get)
        .map(|call| call.id.clone())
        .collect()
}

/// Everything but watches.
pub(crate) fn requests(calls: &[Call]) -> Vec<String> {
    calls
        .iter()
        .filter(|call| call.verb != Verb::Watch)
        .map(|call| call.id.clone())
        .collect()
}
