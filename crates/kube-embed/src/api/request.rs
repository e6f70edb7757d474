//! A decoded request for a resource.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, header};
use serde_json::{Value, json};

use super::body::{self, ResponseBody};
use super::negotiate::{self, Representation};
use super::query::Query;
use super::registry::{Registry, Resource};
use super::selector::Selector;
use super::server::ApiServer;
use super::{meta, protobuf, table};
use crate::resource::Subresource;
use crate::schema::FieldError;
use crate::status::ApiError;
use crate::store::{CommitError, Object, ObjectKey};

pub(super) struct ResourceRequest {
    pub(super) server: Arc<ApiServer>,
    pub(super) resource: Arc<Resource>,
    /// `None` for cluster-scoped resources and for requests across all namespaces.
    pub(super) namespace: Option<String>,
    /// Empty for requests for collections.
    pub(super) name: String,
    pub(super) subresource: Option<Subresource>,
    pub(super) query: Query,
    pub(super) accept: Representation,
    pub(super) content_type: String,
    /// The first part of `User-Agent`. It is the default field manager.
    pub(super) agent: String,
}

pub(super) type ApiResult = Result<Response<ResponseBody>, ApiError>;

impl ResourceRequest {
    pub(super) fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.clone().unwrap_or_default(), self.name.clone())
    }

    pub(super) fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.resource.info, &self.name)
    }

    /// Returns the current object, which may not be durable yet.
    pub(super) fn live(&self) -> Result<Arc<Object>, ApiError> {
        self.server
            .store
            .get(&self.resource.collection, &self.key())
            .ok_or_else(|| self.not_found())
    }

    /// Returns whether the resource's schema has changed since the request came. A resource that is being deleted does
    /// not count.
    pub(super) fn is_replaced(&self, registry: &Registry) -> bool {
        let info = &self.resource.info;
        registry
            .find(&info.group, &info.version, &info.plural)
            .is_some_and(|now| !now.terminating && !Arc::ptr_eq(now, &self.resource))
    }

    pub(super) fn selector(&self) -> Result<Selector, ApiError> {
        Selector::parse(
            &self.resource.info,
            self.query.get("labelSelector"),
            self.query.get("fieldSelector"),
        )
    }

    /// Returns the field manager for managedFields.
    pub(super) fn manager(&self) -> &str {
        match self.query.get("fieldManager") {
            Some(manager) => manager,
            None if self.agent.is_empty() => "unknown",
            None => &self.agent,
        }
    }

    /// Returns whether a selector matches an object in its served form.
    pub(super) fn selects(&self, selector: &Selector, object: &Object) -> bool {
        selector.is_everything() || selector.matches(&self.resource.served(object))
    }

    /// Validates the options of a write. Every object stores its field managers, so their names have a maximum length.
    pub(super) fn check_manager(&self, method: &Method) -> Result<(), ApiError> {
        const LIMIT: usize = 128;
        let mut errors = Vec::new();
        if self.query.get("fieldManager").is_some_and(|m| m.len() > LIMIT) {
            errors.push(FieldError::too_long("fieldManager", LIMIT as u64));
        }
        if let Some(other) = self.query.get("dryRun").filter(|given| *given != "All") {
            errors.push(FieldError::not_supported("dryRun", json!([other]), ["All"]));
        }
        if let Some(other) = self.query.get("fieldValidation")
            && !matches!(other, "Ignore" | "Strict" | "Warn")
        {
            let supported = ["", "Ignore", "Strict", "Warn"];
            errors.push(FieldError::not_supported("fieldValidation", other, supported));
        }
        if errors.is_empty() {
            return Ok(());
        }
        let kind = match *method {
            Method::POST => "CreateOptions",
            Method::PUT => "UpdateOptions",
            Method::DELETE => "DeleteOptions",
            _ => "PatchOptions",
        };
        Err(ApiError::invalid("meta.k8s.io", kind, "", &errors))
    }

    /// Validates `includeObject`: the part of each object that a table's rows contain.
    pub(super) fn check_include(&self) -> Result<(), ApiError> {
        match self.query.get("includeObject") {
            Some(other) if self.accept == Representation::Table && !matches!(other, "None" | "Metadata" | "Object") => {
                Err(ApiError::bad_request(format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a metadata list for a single object, and single metadata for a list.
    pub(super) fn check_representation(&self, method: &Method) -> Result<(), ApiError> {
        let Representation::Metadata { list } = self.accept else {
            return Ok(());
        };
        let info = &self.resource.info;
        let many = self.name.is_empty() && *method == Method::GET;
        if list == many || self.query.flag("watch") {
            return Ok(());
        }
        let (wanted, not) = if list {
            ("PartialObjectMetadataList", "not a list")
        } else {
            ("PartialObjectMetadata", "a list")
        };
        let kind = if many { &info.list_kind } else { &info.kind };
        Err(ApiError::wrong_representation(format!(
            "you requested {wanted}, but the requested object is {not} (*{}.{kind})",
            if info.custom {
                "unstructured"
            } else {
                info.internal_group()
            }
        )))
    }

    /// Converts a failed commit into an API error.
    pub(super) fn refused(&self, error: &CommitError) -> ApiError {
        let info = &self.resource.info;
        let namespace = self.namespace.as_deref().unwrap_or_default();
        match error {
            CommitError::AlreadyExists => {
                let mut error = ApiError::already_exists(info, &self.name);
                if self.live().is_ok_and(|live| live.is_terminating()) {
                    error.message = format!("object is being deleted: {}", error.message);
                }
                error
            }
            CommitError::NotFound => self.not_found(),
            CommitError::Conflict => ApiError::modified(info, &self.name),
            CommitError::CollectionNotFound => ApiError::no_such_path(),
            CommitError::NamespaceNotFound => {
                let mut error = ApiError::new(404, "NotFound", format!("namespaces {namespace:?} not found"));
                error.details.name = namespace.to_owned();
                error.details.kind = "namespaces".into();
                error
            }
            CommitError::NamespaceTerminating => {
                let mut error = ApiError::forbidden(
                    info,
                    &self.name,
                    format!("unable to create new content in namespace {namespace} because it is being terminated"),
                );
                error.details.causes.push(crate::status::Cause {
                    reason: "NamespaceTerminating".into(),
                    message: format!("namespace {namespace} is being terminated"),
                    field: "metadata.namespace".into(),
                });
                error
            }
            CommitError::Failed(why) => ApiError::internal(format!("the storage failed: {why}")),
        }
    }

    /// Answers with an object in the requested representation, after it is durable.
    pub(super) async fn reply(&self, status: u16, object: &Object) -> ApiResult {
        self.server.durable(object.version()).await?;
        let served = self.resource.served(object);
        Ok(match self.accept {
            Representation::Object => body::full(status, "application/json", self.resource.bytes(object)),
            Representation::Metadata { .. } => body::json(status, &negotiate::partial(&served)),
            Representation::Table => {
                let version = json!({"resourceVersion": meta::version(&served)});
                body::json(
                    status,
                    &table::table(&self.resource.info, [&*served], version, self.table_options()),
                )
            }
        })
    }

    pub(super) fn table_options(&self) -> table::TableOptions {
        table::TableOptions {
            now: self.server.clock().now(),
            include: match self.query.get("includeObject") {
                Some("None") => table::IncludeObject::None,
                Some("Object") => table::IncludeObject::Object,
                _ => table::IncludeObject::Metadata,
            },
        }
    }

    /// Decodes a body that must be one object.
    pub(super) fn decode(&self, bytes: &Bytes) -> Result<Value, ApiError> {
        decode(&self.content_type, bytes)
    }
}

/// Decodes a body that must be one object.
pub(super) fn decode(content_type: &str, bytes: &Bytes) -> Result<Value, ApiError> {
    const KNOWN: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let mut value: Value = match media_type {
        "" | "application/json" | "*/*" => serde_json::from_slice(bytes)
            .map_err(|e| ApiError::bad_request(format!("the body is not valid JSON: {e}")))?,
        "application/yaml" | "application/apply-patch+yaml" => std::str::from_utf8(bytes)
            .map_err(|e| e.to_string())
            .and_then(|text| serde_saphyr::from_str(text).map_err(|e| e.to_string()))
            .map_err(|e| ApiError::bad_request(format!("the body is not valid YAML: {e}")))?,
        "application/vnd.kubernetes.protobuf" => protobuf::decode(bytes).map_err(|fault| match fault {
            protobuf::DecodeError::Malformed => ApiError::bad_request("the body is not valid protobuf"),
            protobuf::DecodeError::Kind(kind) => {
                ApiError::unsupported_media_type(&format!("application/json, application/yaml for a {kind}"))
            }
        })?,
        _ => return Err(ApiError::unsupported_media_type(KNOWN)),
    };
    if !value.is_object() {
        return Err(ApiError::bad_request("the body must be an object"));
    }
    if value.get("metadata").is_some_and(|m| !m.is_object() && !m.is_null()) {
        return Err(ApiError::bad_request("metadata must be an object"));
    }
    // A Go map of strings cannot contain null.
    for map in ["/metadata/labels", "/metadata/annotations"] {
        let entries = value.pointer_mut(map).and_then(Value::as_object_mut);
        for text in entries
            .into_iter()
            .flat_map(|map| map.values_mut())
            .filter(|v| v.is_null())
        {
            *text = "".into();
        }
    }
    write_whole_numbers_as_integers(&mut value);
    Ok(value)
}

/// Turns `2.0` and `2e3` into `2` and `2000`. Kubernetes accepts them as integers. Its own encoder writes them without
/// a point, so no client ever sees another form.
pub(super) fn write_whole_numbers_as_integers(value: &mut Value) {
    /// Up to this number, a double represents every integer exactly.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= EXACT) {
                #[expect(clippy::cast_possible_truncation, reason = "a whole number within the exact range")]
                let whole = whole as i64;
                *value = Value::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers_as_integers),
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers_as_integers),
        _ => {}
    }
}

/// Adds warning headers. kubectl and client libraries show them.
pub(super) fn warn(response: &mut Response<ResponseBody>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = header::HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_integers_however_they_are_written() {
        let body = Bytes::from_static(br#"{"a": 2.0, "b": [1e3, 0.5, "2.0"], "c": {"d": -3.0, "e": 1e300}}"#);
        let value = decode("application/json", &body).unwrap();
        assert_eq!(
            value.to_string(),
            r#"{"a":2,"b":[1000,0.5,"2.0"],"c":{"d":-3,"e":1e+300}}"#
        );
    }
}
