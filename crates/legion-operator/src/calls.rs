//! The requests that controllers make: few, each with a deadline, each write only by the replica that leads.

use std::{fmt::Debug, sync::Arc, time::Duration};

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Event};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::{Request, Status},
};
use legion_plan::ApiError;
use legion_runtime::{
    lease::Leadership,
    retry::{Class, Throttle, classify},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{key::Key, metrics::Metrics, told::Told, view::View};

/// How long one request may take, its body included.
const DEADLINE: Duration = Duration::from_secs(15);

/// A request that did not do what it should.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {message}")]
pub struct CallError {
    /// The request, in words.
    pub what: String,
    /// What it means.
    pub class: Class,
    /// What the server or the client says.
    pub message: String,
    /// The server's own words, when it was the server.
    pub status: Option<Box<Status>>,
}

impl CallError {
    fn new(what: String, error: kube::Error) -> Self {
        let class = classify(&error);
        match error {
            kube::Error::Api(status) => Self {
                what,
                class,
                message: status.message.clone(),
                status: Some(status),
            },
            other => Self {
                what,
                class,
                message: other.to_string(),
                status: None,
            },
        }
    }

    /// As the planner is told.
    #[must_use]
    pub fn answer(&self) -> ApiError {
        let (code, reason) = self
            .status
            .as_ref()
            .map_or_else(Default::default, |status| (status.code, status.reason.clone()));
        ApiError {
            code,
            reason,
            message: self.message.clone(),
        }
    }

    fn of_client(what: String, message: &str) -> Self {
        Self {
            what,
            class: Class::Transient,
            message: message.to_owned(),
            status: None,
        }
    }
}

/// What became of a deletion.
#[derive(Debug)]
pub enum Deletion<K> {
    /// It has begun; the object as the server left it, if it says.
    Begun(Option<Box<K>>),
    /// There was nothing to delete.
    WasGone,
}

/// Makes requests.
#[derive(Clone)]
pub struct Calls {
    client: Client,
    leadership: Leadership,
    manager: String,
    throttle: Arc<Throttle>,
    metrics: Metrics,
}

/// What every kind that we read or write is.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + View
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + View
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

impl Calls {
    /// Requests through this client, writes under this field manager and only while leading.
    #[must_use]
    pub fn new(client: Client, leadership: Leadership, manager: impl Into<String>, metrics: Metrics) -> Self {
        Self {
            client,
            leadership,
            manager: manager.into(),
            throttle: Arc::default(),
            metrics,
        }
    }

    /// Ends when the API server asks for no patience. Whoever begins new work waits for this first.
    pub async fn allowed(&self) {
        self.throttle.passed().await;
    }

    fn api<K: Object>(&self, namespace: &str) -> Api<Told<K>> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn read<T>(&self, what: String, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        let error = match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => CallError::new(what, error),
            Err(_) => CallError::of_client(what, "no answer in time"),
        };
        if let Class::Throttled(Some(asked)) = error.class
            && self.throttle.hold_back(asked)
        {
            tracing::warn!(?asked, "the API server asks for patience: new work waits");
            self.metrics.throttle();
        }
        Err(error)
    }

    /// A request that changes something: only by the replica that leads, and not waited for beyond its lease. What was
    /// sent by then may still take effect; its precondition decides.
    async fn write<T>(&self, what: String, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        if !self.leadership.is_current() {
            return Err(CallError::of_client(what, "this replica does not lead"));
        }
        tracing::debug!(%what, "write");
        let on_loss = what.clone();
        tokio::select! {
            answer = self.read(what, call) => answer,
            () = self.leadership.lost() => Err(CallError::of_client(on_loss, "this replica leads no longer")),
        }
    }

    /// The live object, past every cache; `None` when it is not there.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn get<K: Object>(&self, key: &Key) -> Result<Option<K>, CallError> {
        let what = format!("get {} {key}", K::kind(&()));
        let api = self.api::<K>(&key.namespace);
        self.read(what, async {
            api.get_opt(&key.name).await?.map(Told::typed).transpose()
        })
        .await
    }

    /// The live object as it stands, whether it is of its type or not; `None` when it is not there.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn get_untyped<K: Object>(&self, key: &Key) -> Result<Option<DynamicObject>, CallError> {
        let what = format!("get {} {key}", K::kind(&()));
        let api = self.untyped::<K>(&key.namespace);
        self.read(what, api.get_opt(&key.name)).await
    }

    /// [`Calls::patch_status`] of an object that is not of its type.
    ///
    /// # Errors
    /// As [`Calls::patch_status`].
    pub async fn patch_status_untyped<K: Object>(&self, key: &Key, patch: &Value) -> Result<(), CallError> {
        let what = format!("patch status of {} {key}", K::kind(&()));
        let params = PatchParams {
            field_manager: Some(self.manager.clone()),
            ..PatchParams::default()
        };
        let api = self.untyped::<K>(&key.namespace);
        self.write(what, api.patch_status(&key.name, &params, &Patch::Merge(patch)))
            .await
            .map(drop)
    }

    fn untyped<K: Object>(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<K>(&()))
    }

    /// The last event that tells of a volume of this pod that cannot be mounted, in the kubelet's words.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn mount_failure(&self, pod: &Key, uid: &str) -> Result<Option<String>, CallError> {
        let what = format!("list events of Pod {pod}");
        let params = ListParams::default()
            .fields(&format!("involvedObject.uid={uid},type=Warning"))
            .limit(100);
        let events = self.read(what, self.api::<Event>(&pod.namespace).list(&params)).await?;
        let told_at = |event: &Event| {
            let last = event.last_timestamp.as_ref().map(|at| at.0);
            let series = event
                .series
                .as_ref()
                .and_then(|series| series.last_observed_time.as_ref());
            last.max(series.or(event.event_time.as_ref()).map(|at| at.0))
        };
        let of_volumes = |event: &Event| {
            let reason = event.reason.as_deref().unwrap_or_default();
            matches!(reason, "FailedMount" | "FailedAttachVolume" | "FailedMapVolume")
        };
        let events = events.items.into_iter().filter_map(|event| event.0.ok());
        let last = events.filter(of_volumes).max_by_key(told_at);
        Ok(last.and_then(|event| event.message))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// When the server does not say that it did.
    pub async fn create<K: Object>(&self, object: &K) -> Result<K, CallError> {
        let key = Key::of(object.meta());
        let what = format!("create {} {key}", K::kind(&()));
        let params = PostParams {
            field_manager: Some(self.manager.clone()),
            ..PostParams::default()
        };
        self.write(what, async {
            let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
            let collection = Request::new(K::url_path(&(), Some(&key.namespace)));
            let mut request = collection.create(&params, body).map_err(kube::Error::BuildRequest)?;
            // What kube's own method does: its span has this name.
            request.extensions_mut().insert("create");
            self.client.request::<Told<K>>(request).await?.typed()
        })
        .await
    }

    /// Deletes this very object, not another of its name. One that is gone counts as deleted.
    ///
    /// # Errors
    /// When the server does not say that it did.
    pub async fn delete<K: Object>(&self, key: &Key, uid: &str) -> Result<Deletion<K>, CallError> {
        let what = format!("delete {} {key}", K::kind(&()));
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let api = self.api::<K>(&key.namespace);
        match self.write(what, api.delete(&key.name, &params)).await {
            Ok(answer) => Ok(Deletion::Begun(
                answer.left().and_then(|told| told.typed().ok()).map(Box::new),
            )),
            Err(error) if error.class == Class::Gone => Ok(Deletion::WasGone),
            Err(error) => Err(error),
        }
    }

    /// Changes the status of an object by a merge patch, which carries the resourceVersion that it was computed from.
    ///
    /// # Errors
    /// When the server does not say that it did; [`Class::Conflict`] when the object has changed.
    pub async fn patch_status<K: Object>(&self, key: &Key, patch: &Value) -> Result<K, CallError> {
        let what = format!("patch status of {} {key}", K::kind(&()));
        let params = PatchParams {
            field_manager: Some(self.manager.clone()),
            ..PatchParams::default()
        };
        let api = self.api::<K>(&key.namespace);
        self.write(what, async {
            let patch = Patch::Merge(patch);
            api.patch_status(&key.name, &params, &patch).await?.typed()
        })
        .await
    }
}
