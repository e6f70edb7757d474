//! What people and machines do to a training and its pod while the process under test is at work.
//!
//! A [`Disturbance`] happens at a [`Moment`](crate::fault::Moment): while one request of the process is under way, or just
//! before one event reaches it. It acts on the server without faults, as somebody else's client would.

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

/// What befalls the training or its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disturbance {
    /// Somebody deletes the pods; they end within their grace period.
    DeletePod,
    /// Somebody deletes the pods by force: they are gone at once.
    KillPod,
    /// Somebody takes Legion's labels off the pods.
    RelabelPod,
    /// The node is cut off for a while.
    LoseNode,
    /// Somebody suspends the training, and resumes it later.
    Suspend,
    /// Somebody changes a hyperparameter.
    Change,
    /// Somebody asks for another run of the same spec.
    Trigger,
    /// Somebody deletes the training.
    Delete,
    /// Somebody deletes the training and makes it again.
    Recreate,
}

/// How long a suspended training stays suspended, and a lost node lost.
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

    /// As it stands in a plan.
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

/// Carries disturbances out.
#[derive(Clone)]
pub struct Disturber {
    client: Client,
    node: Weak<Node>,
}

impl Disturber {
    /// Acts through this client, on which no fault acts, and on this node.
    #[must_use]
    pub fn new(client: Client, node: Weak<Node>) -> Self {
        Self { client, node }
    }

    /// Does it, to everything in the tests' namespace.
    ///
    /// # Panics
    /// When the server refuses, other than because something is gone already.
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
                // If that is refused, the training never ends, which the test notices.
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

    /// Does the second half of a disturbance when its spell is over.
    fn later<F: Future<Output = ()> + Send + 'static>(&self, what: impl FnOnce(Self) -> F) {
        let future = what(self.clone());
        tokio::spawn(async move {
            tokio::time::sleep(SPELL).await;
            future.await;
        });
    }

    async fn connect_node(&self, connected: bool) {
        // Without a node the test is over.
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
            gone_is_well(api.delete(&pod.name_any(), how).await)?;
        }
        Ok(())
    }

    async fn relabel_pods(&self) -> Result<(), kube::Error> {
        let api = self.pods();
        let patch = Patch::Merge(json!({"metadata": {"labels": {
            labels::TRAINING: null, labels::RUN: null, labels::ATTEMPT: null,
        }}}));
        for pod in api.list(&ListParams::default()).await? {
            gone_is_well(api.patch(&pod.name_any(), &PatchParams::default(), &patch).await)?;
        }
        Ok(())
    }

    async fn change(&self, patch: &Value) -> Result<(), kube::Error> {
        let api = self.trainings();
        for training in api.list(&ListParams::default()).await? {
            let changed = api
                .patch(&training.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await;
            gone_is_well(changed)?;
        }
        Ok(())
    }

    /// Those that were there.
    async fn delete_trainings(&self) -> Result<Vec<ModelTraining>, kube::Error> {
        let api = self.trainings();
        let trainings = api.list(&ListParams::default()).await?.items;
        for training in &trainings {
            gone_is_well(api.delete(&training.name_any(), &DeleteParams::background()).await)?;
        }
        Ok(trainings)
    }
}

/// Somebody else may have been quicker.
fn gone_is_well<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
