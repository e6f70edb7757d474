//! The API: paths, verbs and representations over the [store](crate::store).

pub mod body;
pub mod service;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ids::Ids;
use crate::logs::PodLogs;
use crate::status::ApiError;
use crate::store::Store;

pub(crate) struct Options {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Ids,
    pub(crate) stopping: CancellationToken,
}

/// The server behind an [`ApiService`](service::ApiService).
pub struct ApiServer {
    store: Arc<Store>,
    options: Options,
    logs: Mutex<Option<Arc<dyn PodLogs>>>,
}

impl ApiServer {
    pub(crate) async fn start(store: Arc<Store>, options: Options) -> Result<Self, ApiError> {
        Ok(Self { store, options, logs: Mutex::new(None) })
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.options.clock)
    }

    pub(crate) fn set_pod_logs(&self, logs: Arc<dyn PodLogs>) {
        *self.logs.lock().unwrap_or_else(PoisonError::into_inner) = Some(logs);
    }

    pub(crate) async fn stopped(&self) {
        self.store.close().await;
    }

    pub(crate) async fn handle<B>(&self, _request: Request<B>) -> Response<body::ResponseBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        body::error(&ApiError::no_such_path())
    }
}
