//! GET and LIST.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::body;
use super::negotiate::{self, Representation};
use super::query::VersionMatch;
use super::request::{ApiResult, ResourceRequest};
use super::{meta, table};
use crate::schema::FieldError;
use crate::status::ApiError;
use crate::store::{ListQuery, Listed, Object, ObjectKey};

/// A position in a list. `version` is `None` if the pages need not be consistent.
struct Continue {
    version: Option<u64>,
    after: ObjectKey,
}

impl Continue {
    fn encode(&self) -> String {
        let token = json!({"v": 1, "rv": self.version, "ns": self.after.namespace, "n": self.after.name});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(token: &str) -> Result<Self, ApiError> {
        let decode = || -> Option<Self> {
            let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
            let text = |field: &str| Some(token.get(field)?.as_str()?.to_owned());
            Some(Self {
                version: token.get("rv")?.as_u64(),
                after: ObjectKey::new(text("ns")?, text("n")?),
            })
        };
        decode().ok_or_else(|| {
            ApiError::bad_request(
                "invalid continue token: continue key is not valid: it must be one that a list returned",
            )
        })
    }
}

impl ResourceRequest {
    pub(super) async fn get(&self) -> ApiResult {
        if let Some(asked) = self.query.version()? {
            let current = self.server.store.version();
            if asked > current {
                return Err(ApiError::rv_too_large(asked, current));
            }
        }
        self.reply(200, &*self.live()?).await
    }

    pub(super) async fn list(&self) -> ApiResult {
        let asked = self
            .query
            .version()
            .map_err(|error| ApiError::bad_request(format!("invalid resource version: {}", error.message)))?;
        let matching = self.query.version_match()?;
        if self.query.get("sendInitialEvents").is_some() {
            return Err(list_options(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
        self.query.number("timeoutSeconds")?;
        let limit = self.query.number("limit")?.filter(|l| *l > 0);
        let position = self.query.get("continue").map(Continue::decode).transpose()?;
        if matching.is_some() && position.is_some() {
            return Err(list_options(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if matching.is_some() && asked.is_none() {
            return Err(list_options(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if matching == Some(VersionMatch::Exact) && asked == Some(0) {
            return Err(list_options(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        if position.is_some() && asked.is_some_and(|v| v > 0) {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let current = self.server.store.version();
        if let Some(asked) = asked.filter(|v| *v > current) {
            return Err(ApiError::rv_too_large(asked, current));
        }
        // A limit with a version but without a match means exactly that version, for clients older than the match.
        let exact = matching == Some(VersionMatch::Exact) || (matching.is_none() && limit.is_some());
        let at = match &position {
            Some(position) => position.version,
            None => asked.filter(|v| exact && *v > 0),
        };
        let selector = self.selector()?;
        let filter = |object: &Object| self.selects(&selector, object);
        let listed = self
            .server
            .store
            .list(
                &self.resource.collection,
                &ListQuery {
                    namespace: self.namespace.as_deref(),
                    after: position.as_ref().map(|p| &p.after),
                    at,
                    limit: limit.map(|l| usize::try_from(l).unwrap_or(usize::MAX)),
                    filter: if selector.is_everything() { None } else { Some(&filter) },
                },
            )
            .map_err(|too_old| match &position {
                None => ApiError::expired(format!("too old resource version: {} ({})", too_old.asked, too_old.oldest)),
                Some(position) => {
                    let mut error = ApiError::expired(
                        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
                    );
                    error.continue_token =
                        Some(Continue { version: None, after: position.after.clone() }.encode());
                    error
                }
            })?;
        self.server.durable(listed.version).await?;
        Ok(self.show(&listed))
    }

    /// Shows a list in the requested representation.
    pub(super) fn show(&self, listed: &Listed) -> http::Response<body::ResponseBody> {
        let mut metadata = json!({"resourceVersion": listed.version.to_string()});
        if self.resource.info.custom && self.accept == Representation::Object {
            metadata["continue"] = json!("");
        }
        if let (true, Some(last)) = (listed.more, listed.items.last()) {
            let next = Continue {
                version: Some(listed.version),
                after: last.key().clone(),
            };
            metadata["continue"] = json!(next.encode());
        }
        if let Some(remaining) = listed.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        let info = &self.resource.info;
        match self.accept {
            Representation::Object => {
                let head = format!(
                    "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
                    json!(info.list_kind),
                    json!(self.resource.api_version)
                );
                let items: Vec<_> = listed.items.iter().map(|o| self.resource.bytes(o)).collect();
                let size: usize = items.iter().map(|i| i.len() + 1).sum();
                let mut out = Vec::with_capacity(head.len() + size + 2);
                out.extend_from_slice(head.as_bytes());
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(item);
                }
                out.extend_from_slice(b"]}");
                body::full(200, "application/json", out)
            }
            Representation::Metadata { .. } => {
                let items: Vec<Value> = listed.items.iter().map(|o| negotiate::partial(o.value())).collect();
                body::json(
                    200,
                    &json!({
                        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                        "metadata": metadata, "items": items,
                    }),
                )
            }
            Representation::Table => {
                let served: Vec<Cow<'_, Value>> = listed.items.iter().map(|o| self.resource.served(o)).collect();
                body::json(
                    200,
                    &table::table(info, served.iter().map(|v| &**v), metadata, self.table_options()),
                )
            }
        }
    }
}

/// 422: mutually exclusive parameters of a list.
pub(super) fn list_options(field: &str, rule: &str) -> ApiError {
    ApiError::invalid("meta.k8s.io", "ListOptions", "", &[FieldError::forbidden(field, rule)])
}

/// Returns the bookmark form of an object: only a version.
pub(super) fn bookmark(call: &ResourceRequest, version: u64, initial_end: bool) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    match call.accept {
        Representation::Object => {
            metadata["creationTimestamp"] = Value::Null;
            json!({"kind": call.resource.info.kind, "apiVersion": call.resource.api_version, "metadata": metadata})
        }
        Representation::Metadata { .. } => {
            metadata["creationTimestamp"] = Value::Null;
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
        }
        Representation::Table => table::table(&call.resource.info, std::iter::empty(), metadata, call.table_options()),
    }
}

/// Returns an object as a watch event shows it.
pub(super) fn event_object(call: &ResourceRequest, object: &Object) -> Value {
    let served = call.resource.served(object);
    match call.accept {
        Representation::Object => served.into_owned(),
        Representation::Metadata { .. } => negotiate::partial(&served),
        Representation::Table => {
            let version = json!({"resourceVersion": meta::version(&served)});
            table::table(&call.resource.info, [&*served], version, call.table_options())
        }
    }
}
