//! The requests of the controllers. Each has a deadline, and only the leader writes.

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
    retry::{ErrorClass, Throttle, classify},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    key::Key,
    metrics::Metrics,
    watch::{guarded::Guarded, projection::Projection},
};

/// How long one request may take, its body included.
const DEADLINE: Duration = Duration::from_secs(15);

/// A failed request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{request}: {message}")]
pub(crate) struct RequestError {
    /// The request, in words.
    pub(crate) request: String,
    /// The class of the error.
    pub(crate) class: ErrorClass,
    /// The message of the server or of the client.
    pub(crate) message: String,
    /// The server's status, if the server answered.
    pub(crate) status: Option<Box<Status>>,
}

impl RequestError {
    fn new(request: String, error: kube::Error) -> Self {
        let class = classify(&error);
        match error {
            kube::Error::Api(status) => Self {
                request,
                class,
                message: status.message.clone(),
                status: Some(status),
            },
            other => Self {
                request,
                class,
                message: other.to_string(),
                status: None,
            },
        }
    }

    /// Returns the error in the form for the planner.
    #[must_use]
    pub(crate) fn answer(&self) -> ApiError {
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

    fn of_client(request: String, message: &str) -> Self {
        Self {
            request,
            class: ErrorClass::Transient,
            message: message.to_owned(),
            status: None,
        }
    }
}

/// The result of a deletion.
#[derive(Debug)]
pub(crate) enum Deletion<K> {
    /// It has started. The object as the server returned it, if it did.
    Begun(Option<Box<K>>),
    /// There was nothing to delete.
    NotFound,
}

/// Makes requests.
#[derive(Clone)]
pub(crate) struct ApiRequests {
    client: Client,
    leadership: Leadership,
    manager: String,
    throttle: Arc<Throttle>,
    metrics: Metrics,
}

/// What every kind that we read or write is.
pub(crate) trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Projection
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
        + Projection
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

impl ApiRequests {
    /// Requests through this client, writes under this field manager and only while leading.
    #[must_use]
    pub(crate) fn new(client: Client, leadership: Leadership, manager: impl Into<String>, metrics: Metrics) -> Self {
        Self {
            client,
            leadership,
            manager: manager.into(),
            throttle: Arc::default(),
            metrics,
        }
    }

    /// Waits while the API server throttles the operator. New work starts after this.
    pub(crate) async fn allowed(&self) {
        self.throttle.wait().await;
    }

    fn api<K: Object>(&self, namespace: &str) -> Api<Guarded<K>> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn read<T>(&self, request: String, call: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
        let error = match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => RequestError::new(request, error),
            Err(_) => RequestError::of_client(request, "no answer in time"),
        };
        if let ErrorClass::Throttled(Some(asked)) = error.class
            && self.throttle.pause_for(asked)
        {
            tracing::warn!(?asked, "the API server throttles the operator: new work waits");
            self.metrics.throttle();
        }
        Err(error)
    }

    /// Sends a request that changes something. Only the leader sends it, and does not wait for it beyond its lease. A
    /// request that was sent by then may still take effect: its precondition decides.
    async fn write<T>(&self, request: String, call: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
        if !self.leadership.is_current() {
            return Err(RequestError::of_client(request, "this replica does not lead"));
        }
        tracing::debug!(%request, "write");
        let on_loss = request.clone();
        tokio::select! {
            answer = self.read(request, call) => answer,
            () = self.leadership.lost() => Err(RequestError::of_client(on_loss, "this replica is no longer the leader")),
        }
    }

    /// Reads the live object from the API server. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// When the server does not say.
    pub(crate) async fn get<K: Object>(&self, key: &Key) -> Result<Option<K>, RequestError> {
        let request = format!("get {} {key}", K::kind(&()));
        let api = self.api::<K>(&key.namespace);
        self.read(request, async {
            api.get_opt(&key.name).await?.map(Guarded::typed).transpose()
        })
        .await
    }

    /// Reads the live object without its type. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// When the server does not say.
    pub(crate) async fn get_untyped<K: Object>(&self, key: &Key) -> Result<Option<DynamicObject>, RequestError> {
        let request = format!("get {} {key}", K::kind(&()));
        let api = self.untyped::<K>(&key.namespace);
        self.read(request, api.get_opt(&key.name)).await
    }

    /// [`ApiRequests::patch_status`] of an object that is not of its type.
    ///
    /// # Errors
    /// As [`ApiRequests::patch_status`].
    pub(crate) async fn patch_status_untyped<K: Object>(&self, key: &Key, patch: &Value) -> Result<(), RequestError> {
        let request = format!("patch status of {} {key}", K::kind(&()));
        let params = PatchParams {
            field_manager: Some(self.manager.clone()),
            ..PatchParams::default()
        };
        let api = self.untyped::<K>(&key.namespace);
        self.write(request, api.patch_status(&key.name, &params, &Patch::Merge(patch)))
            .await
            .map(drop)
    }

    fn untyped<K: Object>(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<K>(&()))
    }

    /// Returns the message of the kubelet's last event about a volume of this pod that cannot be mounted.
    ///
    /// # Errors
    /// When the server does not say.
    pub(crate) async fn mount_failure(&self, pod: &Key, uid: &str) -> Result<Option<String>, RequestError> {
        let request = format!("list events of Pod {pod}");
        let params = ListParams::default()
            .fields(&format!("involvedObject.uid={uid},type=Warning"))
            .limit(100);
        let events = self
            .read(request, self.api::<Event>(&pod.namespace).list(&params))
            .await?;
        let reported_at = |event: &Event| {
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
        let last = events.filter(of_volumes).max_by_key(reported_at);
        Ok(last.and_then(|event| event.message))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// When the server does not say that it did.
    pub(crate) async fn create<K: Object>(&self, object: &K) -> Result<K, RequestError> {
        let key = Key::of(object.meta());
        let request = format!("create {} {key}", K::kind(&()));
        let params = PostParams {
            field_manager: Some(self.manager.clone()),
            ..PostParams::default()
        };
        self.write(request, async {
            let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
            let collection = Request::new(K::url_path(&(), Some(&key.namespace)));
            let mut request = collection.create(&params, body).map_err(kube::Error::BuildRequest)?;
            // What kube's own method does: its span has this name.
            request.extensions_mut().insert("create");
            self.client.request::<Guarded<K>>(request).await?.typed()
        })
        .await
    }

    /// Deletes the object with this uid, never another one of the same name. A missing object counts as deleted.
    ///
    /// # Errors
    /// When the server does not say that it did.
    pub(crate) async fn delete<K: Object>(&self, key: &Key, uid: &str) -> Result<Deletion<K>, RequestError> {
        let request = format!("delete {} {key}", K::kind(&()));
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let api = self.api::<K>(&key.namespace);
        match self.write(request, api.delete(&key.name, &params)).await {
            Ok(answer) => Ok(Deletion::Begun(
                answer.left().and_then(|deleted| deleted.typed().ok()).map(Box::new),
            )),
            Err(error) if error.class == ErrorClass::Gone => Ok(Deletion::NotFound),
            Err(error) => Err(error),
        }
    }

    /// Changes the status of an object by a merge patch, which carries the resourceVersion that it was computed from.
    ///
    /// # Errors
    /// When the server does not say that it did; [`ErrorClass::Conflict`] when the object has changed.
    pub(crate) async fn patch_status<K: Object>(&self, key: &Key, patch: &Value) -> Result<K, RequestError> {
        let request = format!("patch status of {} {key}", K::kind(&()));
        let params = PatchParams {
            field_manager: Some(self.manager.clone()),
            ..PatchParams::default()
        };
        let api = self.api::<K>(&key.namespace);
        self.write(request, async {
            let patch = Patch::Merge(patch);
            api.patch_status(&key.name, &params, &patch).await?.typed()
        })
        .await
    }
}
