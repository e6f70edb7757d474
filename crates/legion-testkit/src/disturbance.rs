//! Actions of users and machines on a training and its pods while the process under test runs.
//!
//! A [`Disturbance`] happens at a [`Moment`](crate::fault::Moment): during one request of the process, or just before
//! one event reaches it. It uses a client without faults, like another client of the server.

use std::{sync::Weak, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use kube_embed::node::Node;
use legion_api::ModelTraining;
use legion_plan::training::labels;
use serde_json::{Value, json};

use crate::manifests::NAMESPACE;

/// An action on the training or its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disturbance {
    /// A user deletes the pods, which end within their grace period.
    DeletePod,
    /// A user deletes the pods without a grace period, so that they no longer exist immediately afterwards.
    KillPod,
    /// A user removes Legion's labels from the pods.
    RelabelPod,
    /// The node is disconnected for a while.
    LoseNode,
    /// A user suspends the training and resumes it later.
    Suspend,
    /// A user changes a hyperparameter.
    Change,
    /// A user triggers another run of the same spec.
    Trigger,
    /// A user deletes the training.
    Delete,
    /// A user deletes and recreates the training.
    Recreate,
}

/// The time until a suspended training is resumed, and a disconnected node connected.
pub const SPELL: Duration = Duration::from_secs(200);

impl Disturbance {
    /// Every disturbance.
    pub const ALL: [Self; 9] = [
        Self::DeletePod,
        Self::KillPod,
        Self::RelabelPod,
        Self::LoseNode,
        Self::Suspend,
        Self::Change,
        Self::Trigger,
        Self::Delete,
        Self::Recreate,
    ];

    /// Returns the name in the text form of a plan.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeletePod => "delete-pod",
            Self::KillPod => "kill-pod",
            Self::RelabelPod => "relabel-pod",
            Self::LoseNode => "lose-node",
            Self::Suspend => "suspend",
            Self::Change => "change",
            Self::Trigger => "trigger",
            Self::Delete => "delete",
            Self::Recreate => "recreate",
        }
    }
}

/// An executor of disturbances.
#[derive(Clone)]
pub struct Disturber {
    client: Client,
    node: Weak<Node>,
}

impl Disturber {
    /// Creates an executor with a client without faults and the node of the cluster.
    #[must_use]
    pub fn new(client: Client, node: Weak<Node>) -> Self {
        Self { client, node }
    }

    /// Executes a disturbance on all trainings and pods in the namespace of the tests.
    ///
    /// # Panics
    /// When the server refuses a request, except for an object that no longer exists.
    pub(crate) async fn disturb(&self, disturbance: Disturbance) {
        self.act(disturbance)
            .await
            .unwrap_or_else(|error| panic!("{} is refused: {error}", disturbance.as_str()));
    }

    async fn act(&self, disturbance: Disturbance) -> Result<(), kube::Error> {
        match disturbance {
            Disturbance::DeletePod => self.delete_pods(&DeleteParams::default()).await,
            Disturbance::KillPod => self.delete_pods(&DeleteParams::default().grace_period(0)).await,
            Disturbance::RelabelPod => self.relabel_pods().await,
            Disturbance::LoseNode => {
                self.connect_node(false).await;
                self.later(|this| async move { this.connect_node(true).await });
                Ok(())
            }
            Disturbance::Suspend => {
                self.change(&json!({"spec": {"suspend": true}})).await?;
                // If the server refuses this, the training never ends, and the test fails.
                self.later(|this| async move { drop(this.change(&json!({"spec": {"suspend": false}})).await) });
                Ok(())
            }
            Disturbance::Change => self.change(&json!({"spec": {"hyperParameters": {"c": "0.7"}}})).await,
            Disturbance::Trigger => self.change(&json!({"spec": {"trigger": "again"}})).await,
            Disturbance::Delete => self.delete_trainings().await.map(drop),
            Disturbance::Recreate => {
                for training in self.delete_trainings().await? {
                    let again = ModelTraining::new(&training.name_any(), training.spec);
                    self.trainings().create(&PostParams::default(), &again).await?;
                }
                Ok(())
            }
        }
    }

    /// Runs the second part of a disturbance after [`SPELL`].
    fn later<F: Future<Output = ()> + Send + 'static>(&self, what: impl FnOnce(Self) -> F) {
        let future = what(self.clone());
        tokio::spawn(async move {
            tokio::time::sleep(SPELL).await;
            future.await;
        });
    }

    async fn connect_node(&self, connected: bool) {
        // Without a node, the test has ended.
        let Some(node) = self.node.upgrade() else { return };
        let done = if connected {
            node.recover().await
        } else {
            node.lose().await
        };
        done.expect("the API server has the node");
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn trainings(&self) -> Api<ModelTraining> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn delete_pods(&self, how: &DeleteParams) -> Result<(), kube::Error> {
        let api = self.pods();
        for pod in api.list(&ListParams::default()).await? {
            ignore_not_found(api.delete(&pod.name_any(), how).await)?;
        }
        Ok(())
    }

    async fn relabel_pods(&self) -> Result<(), kube::Error> {
        let api = self.pods();
        let patch = Patch::Merge(json!({"metadata": {"labels": {
            labels::TRAINING: null, labels::RUN: null, labels::ATTEMPT: null,
        }}}));
        for pod in api.list(&ListParams::default()).await? {
            ignore_not_found(api.patch(&pod.name_any(), &PatchParams::default(), &patch).await)?;
        }
        Ok(())
    }

    async fn change(&self, patch: &Value) -> Result<(), kube::Error> {
        let api = self.trainings();
        for training in api.list(&ListParams::default()).await? {
            let changed = api
                .patch(&training.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await;
            ignore_not_found(changed)?;
        }
        Ok(())
    }

    /// Deletes all trainings and returns them.
    async fn delete_trainings(&self) -> Result<Vec<ModelTraining>, kube::Error> {
        let api = self.trainings();
        let trainings = api.list(&ListParams::default()).await?.items;
        for training in &trainings {
            ignore_not_found(api.delete(&training.name_any(), &DeleteParams::background()).await)?;
        }
        Ok(trainings)
    }
}

/// Ignores the error for an object that no longer exists, because another client may have deleted it.
fn ignore_not_found<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
