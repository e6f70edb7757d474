//! The `/scale` subresource: an object's replicas.

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::request::{ApiResult, ResourceRequest};
use super::{body, meta};
use crate::patch;
use crate::status::ApiError;

impl ResourceRequest {
    pub(super) async fn scale(self, method: &Method, given: Bytes) -> ApiResult {
        if *method == Method::GET {
            let live = self.live()?;
            return Ok(body::json(200, &self.scale_of(&self.resource.served(&live))?));
        }
        let given = if *method == Method::PUT {
            self.decode(&given)?
        } else {
            serde_json::from_slice(&given).map_err(|_| ApiError::bad_request("invalid JSON patch"))?
        };
        let content_type = self.content_type.split(';').next().unwrap_or_default().trim();
        let response = self
            .modify(
                |live| {
                    let path = pointer(&self.paths()?.spec);
                    let found = live.pointer(&path).is_some();
                    let before = self.scale_with(live, live.pointer(&path).unwrap_or(&Value::Null))?;
                    let scale = match (method, content_type) {
                        (&Method::PUT, _) => Ok(given.clone()),
                        (_, "application/json-patch+json") => patch::json(&before, &given),
                        // Neither contains lists, for which merge patch and strategic merge patch differ.
                        (_, "application/merge-patch+json" | "application/strategic-merge-patch+json") => {
                            Ok(patch::merge(&before, &given))
                        }
                        _ => return Err(ApiError::unsupported_patch()),
                    };
                    let scale = scale.map_err(|_| ApiError::unprocessable_patch())?;
                    let replicas = match scale.pointer("/spec/replicas") {
                        Some(replicas) if !replicas.is_null() => replicas.clone(),
                        _ if found => json!(0),
                        _ => {
                            let why = format!("the spec replicas field {:?} cannot be empty", self.paths()?.spec);
                            return Err(ApiError::bad_request(why));
                        }
                    };
                    let mut new = live.clone();
                    if let Some((parent, field)) = path.rsplit_once('/')
                        && let Some(Value::Object(fields)) = new.pointer_mut(parent)
                    {
                        fields.insert(field.to_owned(), replicas);
                    }
                    meta::set(&mut new, "resourceVersion", Some(json!(meta::version(&scale))));
                    Ok(new)
                },
                true,
            )
            .await?;
        let object = response
            .into_body()
            .collect()
            .await
            .map_err(ApiError::internal)?
            .to_bytes();
        let object: Value = serde_json::from_slice(&object).map_err(ApiError::internal)?;
        Ok(body::json(200, &self.scale_of(&object)?))
    }

    fn paths(&self) -> Result<&crate::resource::ScalePaths, ApiError> {
        self.resource.info.scale.as_ref().ok_or_else(ApiError::no_such_path)
    }

    /// Returns the Scale of an object.
    fn scale_of(&self, object: &Value) -> Result<Value, ApiError> {
        let paths = self.paths()?;
        let Some(replicas) = object.pointer(&pointer(&paths.spec)) else {
            let why = format!("the spec replicas field {:?} does not exist", paths.spec);
            return Err(ApiError::internal(why));
        };
        self.scale_with(object, replicas)
    }

    fn scale_with(&self, object: &Value, replicas: &Value) -> Result<Value, ApiError> {
        let paths = self.paths()?;
        let mut status = json!({"replicas": object.pointer(&pointer(&paths.status)).unwrap_or(&json!(0))});
        match paths.selector.as_ref().and_then(|path| object.pointer(&pointer(path))) {
            Some(Value::String(text)) => status["selector"] = json!(text),
            Some(selector) => status["selector"] = json!(labels(selector)),
            None => {}
        }
        let metadata: serde_json::Map<String, Value> =
            ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
                .into_iter()
                .filter_map(|field| Some((field.to_owned(), meta::at(object, &["metadata", field])?.clone())))
                .collect();
        Ok(json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
            "spec": {"replicas": replicas}, "status": status,
        }))
    }
}

/// Returns a path such as `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

/// Returns the labels of a LabelSelector as text.
fn labels(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let terms: Vec<String> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    terms.join(",")
}
