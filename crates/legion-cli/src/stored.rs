//! Stored results: the log, the series and the archive of a training, read from the store of its output connection.
//!
//! - `file://`: a directory of this machine.
//! - `pvc://`: a claim of the local API. Its directory is on this machine, too.
//! - `s3://`: with the credentials in the environment variables of this process, like other S3 clients. The Secret of
//!   the connection is for pods. A user who may see a training is not always allowed to read it.

use std::{
    env,
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt as _};
use legion_api::{Connection, ModelTraining, connection::ConnectionSpec};
use legion_protocol::events::{MetricPoint, ToolEvent};
use object_store::{ClientOptions, ObjectStoreExt as _, RetryConfig, aws::AmazonS3Builder, path::Path as Key};

use crate::{
    client::Session,
    exit::{CliError, Code, Result},
};

/// Maximum number of bytes of a series that are read for plots. A plot is one line, so the rest would not be visible.
const MAX_SERIES: u64 = 64 << 20;
/// Maximum number of points that are kept for plots.
const MAX_POINTS: usize = 200_000;

/// Reads the whole log at `uri`.
pub(crate) async fn log(session: &Session, training: &ModelTraining, uri: &str) -> Result<Vec<u8>> {
    read(session, training, uri, u64::MAX).await
}

/// Reads the archive of the last successful run.
pub(crate) async fn artifact(session: &Session, training: &ModelTraining, uri: &str) -> Result<Vec<u8>> {
    read(session, training, uri, u64::MAX).await
}

/// Reads the metrics of the main run, in the order of the log. Returns no points if no series is stored.
pub(crate) async fn series(session: &Session, training: &ModelTraining) -> Result<Vec<MetricPoint>> {
    let stored = training.status.as_ref().and_then(|status| status.series.as_ref());
    let Some(stored) = stored else { return Ok(Vec::new()) };
    Ok(points(&read(session, training, &stored.uri, MAX_SERIES).await?))
}

fn points(text: &[u8]) -> Vec<MetricPoint> {
    text.split(|byte| *byte == b'\n')
        // Lines of other types, lines of later versions and a truncated line have no points.
        .filter_map(|line| match ToolEvent::parse(line) {
            Ok(ToolEvent::Metric(point)) if point.child.is_none() => Some(point),
            _ => None,
        })
        .take(MAX_POINTS)
        .collect()
}

/// Reads the first `limit` bytes of a stored file.
async fn read(session: &Session, training: &ModelTraining, uri: &str, limit: u64) -> Result<Vec<u8>> {
    match uri.split_once("://") {
        Some(("file", path)) => file(uri, &PathBuf::from(path), limit),
        Some(("pvc", rest)) => claim(session, training, uri, rest, limit).await,
        Some(("s3", rest)) => object(session, training, uri, rest, limit).await,
        _ => Err(CliError::new(
            Code::NotFound,
            format!("{uri}: legionctl can read only file, pvc and s3 addresses"),
        )
        .remedy("read it with a client of the store")),
    }
}

fn file(uri: &str, path: &PathBuf, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_found(uri),
            _ => CliError::io(uri, error),
        })?;
    Ok(bytes)
}

fn not_found(uri: &str) -> CliError {
    CliError::new(Code::NotFound, format!("{uri}: no such file"))
        .remedy("it was moved or deleted: train again with `legionctl rerun` and the name of the training")
}

fn namespace<'a>(session: &'a Session, training: &'a ModelTraining) -> &'a str {
    training.metadata.namespace.as_deref().unwrap_or(&session.namespace)
}

/// Reads a file of a claim. A claim of the local API is a directory of its node. Its name is the uid of the claim.
async fn claim(session: &Session, training: &ModelTraining, uri: &str, rest: &str, limit: u64) -> Result<Vec<u8>> {
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(session.client.clone(), namespace(session, training));
    let uid = claims.get_opt(name).await?.and_then(|claim| claim.uid());
    let directory = session
        .data_dir
        .as_ref()
        .zip(uid)
        .map(|(data_dir, uid)| data_dir.node().join("claims").join(uid))
        .filter(|directory| directory.is_dir());
    match directory {
        Some(directory) => file(uri, &directory.join(path), limit),
        None => Err(CliError::new(
            Code::NotFound,
            format!("{uri}: the claim {name:?} is not on this machine, and only a pod can read it"),
        )
        .remedy(format!(
            "mount the claim {name:?} in a pod of namespace {:?} and read {path:?} there",
            namespace(session, training)
        ))),
    }
}

async fn object(session: &Session, training: &ModelTraining, uri: &str, rest: &str, limit: u64) -> Result<Vec<u8>> {
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let output = training.status.as_ref().and_then(|status| status.output.as_ref());
    let connection = match output {
        Some(output) => {
            let connections: Api<Connection> = Api::namespaced(session.client.clone(), namespace(session, training));
            // If it was deleted, the environment variables may still locate the store.
            connections.get_opt(&output.connection).await?.map(|found| found.spec)
        }
        None => None,
    };
    let environment: Vec<(String, String)> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
        .collect();
    let store = bucket_of(uri, bucket, connection.as_ref(), &environment)?
        .build()
        .map_err(|error| CliError::new(Code::Invalid, format!("{uri}: {error}")))?;
    let key = Key::parse(key).map_err(|error| CliError::new(Code::Invalid, format!("{uri}: {error}")))?;
    let failed = |error: object_store::Error| refused(uri, &error);
    let mut chunks = store.get(&key).await.map_err(failed)?.into_stream();
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < limit
        && let Some(chunk) = chunks.next().await
    {
        bytes.extend_from_slice(&chunk.map_err(failed)?);
    }
    bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(bytes)
}

/// Returns a client for a bucket. The address comes from the connection, the credentials from environment variables.
/// The variables may override the address, because the address of the connection may exist only inside the cluster.
fn bucket_of(
    uri: &str,
    bucket: &str,
    connection: Option<&ConnectionSpec>,
    environment: &[(String, String)],
) -> Result<AmazonS3Builder> {
    let named = |names: &[&str]| {
        let value = |name: &&str| environment.iter().find(|(found, _)| found == name);
        names.iter().find_map(value).map(|(_, value)| value.clone())
    };
    let mut builder = AmazonS3Builder::new();
    for (name, value) in environment {
        // Variables of other programs are no settings of the client.
        if let Ok(setting) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(setting, value);
        }
    }
    let region = named(&["AWS_REGION", "AWS_DEFAULT_REGION"])
        .or_else(|| connection?.region.clone())
        .unwrap_or_else(|| "us-east-1".to_owned());
    let endpoint =
        named(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]).or_else(|| connection?.endpoint.clone());
    let client = ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_secs(60))
        .with_allow_http(endpoint.as_deref().is_some_and(|url| url.starts_with("http://")));
    let retry = RetryConfig {
        max_retries: 2,
        retry_timeout: Duration::from_secs(15),
        ..RetryConfig::default()
    };
    builder = builder
        .with_bucket_name(bucket)
        .with_region(region)
        .with_client_options(client)
        .with_retry(retry);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let has_credentials = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ]
    .iter()
    .any(|name| named(&[name]).is_some());
    if has_credentials {
        return Ok(builder);
    }
    match connection.and_then(|connection| connection.secret_ref.as_ref()) {
        // A connection without a Secret needs no credentials. By default, the client would query a cloud's metadata
        // server.
        None if connection.is_some() => Ok(builder.with_skip_signature(true)),
        _ => Err(CliError::new(
            Code::NotFound,
            format!("{uri}: the store needs credentials, and AWS_ACCESS_KEY_ID is not set"),
        )
        .remedy(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN if there is one; set AWS_ENDPOINT_URL \
             if the store has a different address here than in its Connection",
        )),
    }
}

fn refused(uri: &str, error: &object_store::Error) -> CliError {
    match error {
        object_store::Error::NotFound { .. } => not_found(uri),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => CliError::new(
            Code::Other,
            format!("{uri}: the store rejects the credentials in the environment variables"),
        )
        .remedy("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to credentials that may read it"),
        _ => CliError::new(Code::NotFound, format!("{uri}: {error}"))
            .remedy("set AWS_ENDPOINT_URL if the store has a different address here than in its Connection"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn connection(more: serde_json::Value) -> ConnectionSpec {
        let mut spec = json!({"type": "s3", "uri": "s3://models"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn setting(builder: &AmazonS3Builder, name: &str) -> Option<String> {
        builder.get_config_value(&name.parse().unwrap())
    }

    #[test]
    fn without_credentials_the_error_names_the_variables_unless_the_store_is_public() {
        let private = connection(json!({"secretRef": {"name": "keys"}}));
        let error = bucket_of("s3://models/log.txt", "models", Some(&private), &[]).unwrap_err();
        assert!(error.message.contains("s3://models/log.txt"), "{error}");
        assert!(error.remedy.unwrap().contains("AWS_SECRET_ACCESS_KEY"));

        let open = bucket_of("s3://models/log.txt", "models", Some(&connection(json!({}))), &[]).unwrap();
        assert_eq!(setting(&open, "aws_skip_signature").as_deref(), Some("true"));
    }

    #[test]
    fn environment_variables_override_the_address_of_the_store() {
        let spec = connection(
            json!({"endpoint": "http://minio.storage:9000", "region": "eu-1", "secretRef": {"name": "keys"}}),
        );
        let key = ("AWS_ACCESS_KEY_ID".to_owned(), "me".to_owned());
        let inside = bucket_of("", "models", Some(&spec), std::slice::from_ref(&key)).unwrap();
        assert_eq!(
            setting(&inside, "aws_endpoint").as_deref(),
            Some("http://minio.storage:9000")
        );
        assert_eq!(setting(&inside, "aws_region").as_deref(), Some("eu-1"));
        let url = ("AWS_ENDPOINT_URL".to_owned(), "https://s3.example.com/".to_owned());
        let outside = bucket_of("", "models", Some(&spec), &[key, url]).unwrap();
        assert_eq!(
            setting(&outside, "aws_endpoint").as_deref(),
            Some("https://s3.example.com")
        );
        assert_eq!(setting(&outside, "aws_access_key_id").as_deref(), Some("me"));
    }

    #[test]
    fn points_belong_to_the_main_run_and_a_truncated_line_is_ignored() {
        let text = b"{\"type\":\"metric\",\"name\":\"a\",\"value\":1,\"step\":2}\n{\"type\":\"param\",\"name\":\"p\",\"value\":\"x\"}\n{\"type\":\"metric\",\"name\":\"a\",\"value\":1,\"child\":\"c\"}\n{\"type\":\"metric\",\"na";
        let points = points(text);
        assert_eq!(points.len(), 1);
        assert_eq!((points[0].name.as_str(), points[0].step), ("a", 2));
    }
}
