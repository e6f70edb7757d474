//! Namespaces that are being deleted: deletes their content, then removes the finalizer.

use std::sync::Arc;

use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams};
use serde_json::Value;

/// Deletes the remaining objects of a namespace, and finalizes the namespace when it is empty. Runs again after every
/// change or deletion of an object in the namespace.
pub(super) async fn empty(client: &Client, kinds: &[Arc<ApiResource>], namespace: &str) -> Result<(), kube::Error> {
    let url = format!("/api/v1/namespaces/{namespace}");
    let mut object: Value = match client.request(request(http::Method::GET, &url, None)?).await {
        Ok(object) => object,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error),
    };
    if object["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let mut left = 0;
    for resource in kinds {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource.as_ref());
        let list = match api.list(&ListParams::default()).await {
            Ok(list) => list,
            // The kind has just been deleted, together with its objects.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error),
        };
        for object in list {
            left += 1;
            let Some(name) = object
                .metadata
                .name
                .filter(|_| object.metadata.deletion_timestamp.is_none())
            else {
                continue;
            };
            match api.delete(&name, &DeleteParams::background()).await {
                Ok(either) => left -= usize::from(either.is_right()),
                Err(kube::Error::Api(status)) if status.code == 404 => left -= 1,
                Err(error) => return Err(error),
            }
        }
    }
    if left > 0 {
        // Their deletion triggers the next call.
        return Ok(());
    }
    object["spec"]["finalizers"] = Value::Array(Vec::new());
    let put = request(http::Method::PUT, &format!("{url}/finalize"), Some(&object))?;
    match client.request::<Value>(put).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

fn request(method: http::Method, url: &str, body: Option<&Value>) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let body = body
        .map(serde_json::to_vec)
        .transpose()
        .map_err(kube::Error::SerdeError)?
        .unwrap_or_default();
    http::Request::builder()
        .method(method)
        .uri(url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)
}
