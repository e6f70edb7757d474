//! The API: paths, verbs and representations on top of the [store](crate::store).

pub(crate) mod body;
mod crd;
mod delete;
mod discovery;
mod events;
mod go_duration;
mod kinds;
mod meta;
mod negotiate;
mod path;
mod pods;
mod protobuf;
mod protobuf_kinds;
mod query;
mod read;
mod registry;
mod request;
mod review;
mod scale;
mod selector;
pub(crate) mod server;
pub(crate) mod service;
mod table;
mod watch;
mod write;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;

use self::body::ResponseBody;
use self::path::{Route, Target};
use self::query::Query;
use self::registry::Resource;
use self::request::{ApiResult, ResourceRequest};
use self::server::ApiServer;
use crate::clock;
use crate::resource::Subresource;
use crate::status::ApiError;

/// The maximum size of a body, as in Kubernetes.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

impl ApiServer {
    pub(crate) async fn handle<B>(self: &Arc<Self>, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let mut response = match self.respond(request).await {
            Ok(response) => response,
            Err(error) => body::error(&error),
        };
        // Clients may judge the ages of objects by it.
        if let Ok(date) = header::HeaderValue::from_str(&clock::http_date(self.clock().now())) {
            response.headers_mut().insert(header::DATE, date);
        }
        response
    }

    async fn respond<B>(self: &Arc<Self>, request: Request<B>) -> ApiResult
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query());
        query.check_timeout(parts.uri.path())?;
        let accept = text(&parts.headers, header::ACCEPT);
        let registry = self.registry();
        let get_only = || {
            if parts.method == Method::GET {
                Ok(())
            } else {
                Err(ApiError::method_not_allowed())
            }
        };
        let target = match path::parse(parts.uri.path()) {
            Route::Object(target) => target,
            route => {
                get_only()?;
                let aggregated = negotiate::aggregated_discovery(accept);
                return match route {
                    Route::Version => Ok(discovery::version()),
                    Route::Health => Ok(body::full(200, "text/plain", "ok")),
                    Route::CoreVersions => Ok(discovery::core_versions(&registry, aggregated)),
                    Route::Groups => Ok(discovery::group_list(&registry, aggregated)),
                    Route::Group(group) => discovery::group(&registry, &group),
                    Route::Resources { group, version } => discovery::resource_list(&registry, &group, &version),
                    Route::OpenApiRoot => Ok(self.openapi_root()),
                    Route::OpenApi { group, version } => self.openapi(&group, &version),
                    Route::Object(_) | Route::Unknown => Err(ApiError::page_not_found()),
                };
            }
        };
        let Some(resource) = registry.find(&target.group, &target.version, &target.plural) else {
            if parts.method == Method::POST && target.name.is_none() && target.version == "v1" {
                let bytes = read(body).await?;
                let content_type = text(&parts.headers, header::CONTENT_TYPE);
                if let Some(answer) = review::answer(&target.group, &target.plural, content_type, &bytes) {
                    return answer;
                }
            }
            return Err(registry.nothing_at(&target.group));
        };
        let warning = resource.warning.clone();
        let call = self.call(&parts, query, Arc::clone(resource), target)?;
        let bytes = if parts.method == Method::GET {
            Bytes::new()
        } else {
            read(body).await?
        };
        let mut response = call.dispatch(&parts.method, bytes).await?;
        request::warn(&mut response, warning.as_slice());
        Ok(response)
    }

    fn call(
        self: &Arc<Self>,
        parts: &http::request::Parts,
        mut query: Query,
        resource: Arc<Resource>,
        target: Target,
    ) -> Result<ResourceRequest, ApiError> {
        if target.namespace.is_some() && !resource.info.namespaced {
            return Err(if resource.info.custom {
                ApiError::page_not_found()
            } else {
                ApiError::no_such_path()
            });
        }
        if target.namespace.is_none() && resource.info.namespaced && target.name.is_some() {
            return Err(ApiError::no_such_path());
        }
        let subresource = target
            .subresource
            .map(|name| {
                let known = resource.info.subresources.iter().copied().find(|s| s.as_str() == name);
                known.ok_or_else(ApiError::no_such_path)
            })
            .transpose()?;
        let agent = text(&parts.headers, header::USER_AGENT)
            .split('/')
            .next()
            .unwrap_or_default();
        let accept = match subresource {
            // A log is always text, whatever the client accepts.
            Some(Subresource::Log) => negotiate::Representation::default(),
            _ => {
                negotiate::representation(text(&parts.headers, header::ACCEPT)).ok_or_else(ApiError::not_acceptable)?
            }
        };
        let mut name = target.name.unwrap_or_default();
        if target.watch {
            query.set("watch", "true");
            if !name.is_empty() {
                query.set("fieldSelector", &format!("metadata.name={}", std::mem::take(&mut name)));
            }
        }
        Ok(ResourceRequest {
            server: Arc::clone(self),
            resource,
            namespace: target.namespace,
            name,
            subresource,
            query,
            accept,
            content_type: text(&parts.headers, header::CONTENT_TYPE).to_owned(),
            agent: agent.chars().take(128).collect(),
        })
    }
}

impl ResourceRequest {
    async fn dispatch(self, method: &Method, body: Bytes) -> ApiResult {
        let reads = *method == Method::GET;
        if !reads {
            self.check_manager(method)?;
        }
        self.check_include()?;
        self.check_representation(method)?;
        match (method.as_str(), self.name.is_empty(), self.subresource) {
            ("GET", true, None) if self.query.flag("watch") => self.watch().await,
            ("GET", true, _) => self.list().await,
            ("GET" | "PUT" | "PATCH", false, Some(Subresource::Scale)) => self.scale(method, body).await,
            ("GET", false, None | Some(Subresource::Status)) => self.get().await,
            ("GET", false, Some(Subresource::Log)) => self.log().await,
            ("POST", true, _) if self.resource.info.namespaced && self.namespace.is_none() => {
                Err(ApiError::method_not_allowed())
            }
            ("POST", true, _) => self.create(body).await,
            ("POST", false, Some(Subresource::Binding)) => self.bind(&body).await,
            ("POST", false, Some(Subresource::Eviction)) => self.evict(&body).await,
            ("PUT", false, None | Some(Subresource::Status | Subresource::Finalize)) => self.update(body).await,
            ("PATCH", false, None | Some(Subresource::Status)) => self.patch(body).await,
            ("DELETE", false, None) => self.delete(&body).await,
            ("DELETE", true, _)
                if self.resource.info.kind != "Namespace"
                    && self.resource.info.namespaced == self.namespace.is_some() =>
            {
                self.delete_collection(&body).await
            }
            _ if reads => Err(ApiError::no_such_path()),
            _ => Err(ApiError::method_not_allowed()),
        }
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// Reads a body up to the maximum size.
async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("the body cannot be read: {e}")))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > BODY_LIMIT {
                return Err(ApiError::too_large(BODY_LIMIT));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}
