//! S3-compatible stores.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use legion_protocol::reason::{StepError, StepReason};
use legion_protocol::task::WireStore;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{
    ClientOptions, Error, GetResult, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload, RetryConfig, WriteMultipart,
};

use super::create::{Created, FIELD};
use super::runtime::block_on;
use crate::error::Result;
use crate::fault::{self, Fault, Side};
use crate::secrets::{Secret, hide};
use crate::{tls, tree};

/// Smallest size of an upload's parts, in bytes.
const PART: u64 = 8 << 20;
/// Most parts of an upload. S3 accepts 10,000. The rest is a reserve for an estimate that is too low.
const MAX_PARTS: u64 = 9_000;
/// Objects that are listed for the names in a message: one page.
const NAMES_LISTED: usize = 1000;
/// Parts in flight. This number bounds the memory of an upload.
const IN_FLIGHT: usize = 2;

/// A bucket, below a prefix.
#[derive(Debug)]
pub(crate) struct Bucket {
    store: AmazonS3,
    prefix: String,
    name: String,
    side: Side,
}

impl Bucket {
    /// Opens the bucket of a task. Sends no request.
    pub(crate) fn open(store: &WireStore, secret: Option<&Secret>, side: Side) -> Result<Self> {
        let WireStore::S3 {
            bucket,
            prefix,
            endpoint,
            region,
            ..
        } = store
        else {
            return Err(StepError::new(
                StepReason::TaskInvalid,
                "the connection is not of type s3",
            ));
        };
        let client = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(10))
            // The timeout of one request: a part of 8 MiB takes this long at 50 KiB/s.
            .with_timeout(Duration::from_secs(180))
            .with_allow_http(endpoint.starts_with("http://"));
        let retry = RetryConfig {
            max_retries: 5,
            retry_timeout: Duration::from_secs(60),
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(if region.is_empty() { "us-east-1" } else { region })
            .with_client_options(client)
            .with_retry(retry);
        if !endpoint.is_empty() {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        builder = match secret {
            None => builder.with_skip_signature(true),
            Some(secret) => {
                let builder = builder
                    .with_access_key_id(secret.require("AWS_ACCESS_KEY_ID")?)
                    .with_secret_access_key(secret.require("AWS_SECRET_ACCESS_KEY")?);
                match secret.get("AWS_SESSION_TOKEN")? {
                    Some(token) => builder.with_token(token),
                    None => builder,
                }
            }
        };
        // Building the client sets up TLS, and TLS needs the crypto provider that the runtime installs.
        let store = block_on(async { builder.build() })?.map_err(|e| {
            StepError::new(
                StepReason::TaskInvalid,
                format!("the configuration of the bucket {bucket:?} is invalid: {e}"),
            )
        })?;
        Ok(Self {
            store,
            prefix: prefix.trim_matches('/').to_owned(),
            name: bucket.clone(),
            side,
        })
    }

    fn key(&self, path: &str) -> Result<Key> {
        let joined = if self.prefix.is_empty() {
            path.to_owned()
        } else {
            format!("{}/{path}", self.prefix)
        };
        Key::parse(joined.trim_matches('/')).map_err(|e| {
            StepError::new(
                StepReason::PathEscapes,
                format!("{path:?} is not a valid object name: {e}"),
            )
        })
    }

    fn failed(&self, key: &Key, error: &Error) -> StepError {
        let cause = match error {
            // The text at the end of the chain does not name the key.
            Error::InvalidPath { .. } => error.to_string(),
            _ => tls::root_cause(error),
        };
        let (code, text) = (code(&cause), safe_text(&cause));
        let no_bucket = code == Some(NO_BUCKET);
        let fault = match fault::of_bucket(error, &cause, code, status(&cause)) {
            // A server that knows no buckets does not learn about them.
            Fault::Missing if self.side == Side::Output && !no_bucket => Fault::Refused,
            fault => fault,
        };
        let place = if no_bucket {
            format!("s3://{}", self.name)
        } else {
            format!("s3://{}/{key}", self.name)
        };
        let what = match fault {
            Fault::Missing => "does not exist",
            Fault::Denied => "refuses the credentials",
            _ => "cannot be used",
        };
        let error = fault
            .error(self.side, hide(&format!("{place} {what}: {text}")))
            .field(self.field());
        match fault {
            Fault::Missing if no_bucket => error.remedy("create the bucket, or correct spec.uri of the connection"),
            Fault::Content => error.remedy(
                "rename the object that the message names. Each part of a key between two slashes needs a name other \
                 than '.' and '..'",
            ),
            Fault::Refused if text.contains("region") => {
                error.remedy("set spec.region of the connection to the bucket's region")
            }
            Fault::Refused if text.starts_with("NotImplemented") && self.side == Side::Output => error
                .remedy("use a store that supports conditional writes (If-None-Match), for example S3, MinIO or Ceph"),
            _ => error,
        }
    }

    fn field(&self) -> &'static str {
        match self.side {
            Side::Source => "spec.source.objectStore",
            Side::Data => "spec.data",
            Side::Output | Side::Workspace => FIELD,
        }
    }

    /// Checks that the store can create an object only if it does not exist. The success record needs this.
    pub(super) fn probe(&self, path: &str) -> Result<()> {
        self.create(path, b"?")?;
        let key = self.key(path)?;
        // Some policies allow writes but not deletes. In that case one byte stays.
        let _ = block_on(async { self.store.delete(&key).await })?;
        Ok(())
    }

    pub(super) fn create(&self, path: &str, bytes: &[u8]) -> Result<Created> {
        let key = self.key(path)?;
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        let payload = PutPayload::from_bytes(Bytes::copy_from_slice(bytes));
        match block_on(async { self.store.put_opts(&key, payload, options).await })? {
            Ok(_) => Ok(Created::New),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Exists),
            Err(e) => Err(self.failed(&key, &e)),
        }
    }

    pub(super) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let key = self.key(path)?;
        let read = block_on(async {
            let object = self.store.get(&key).await?;
            if object.meta.size > limit {
                return Ok(None);
            }
            object.bytes().await.map(|bytes| Some(bytes.to_vec()))
        })?;
        match read {
            Ok(bytes) => Ok(bytes),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed(&key, &e)),
        }
    }

    pub(super) fn size(&self, path: &str) -> Result<Option<u64>> {
        Ok(self.head(path)?.map(|meta| meta.size))
    }

    /// Returns the metadata of an object, or `None` if it does not exist.
    pub(crate) fn head(&self, path: &str) -> Result<Option<ObjectMeta>> {
        let key = self.key(path)?;
        match block_on(async { self.store.head(&key).await })? {
            Ok(meta) => Ok(Some(meta)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed(&key, &e)),
        }
    }

    /// Starts reading an object.
    pub(crate) fn get(&self, path: &str) -> Result<(GetResult, Reader<'_>)> {
        let key = self.key(path)?;
        let mut object = block_on(async { self.store.get(&key).await })?.map_err(|e| self.failed(&key, &e))?;
        let empty = object_store::GetResultPayload::Stream(futures::stream::empty().boxed());
        let payload = std::mem::replace(&mut object.payload, empty);
        let stream = match payload {
            object_store::GetResultPayload::Stream(stream) => stream,
            // Only a local store returns a file.
            object_store::GetResultPayload::File(..) => futures::stream::empty().boxed(),
        };
        Ok((
            object,
            Reader {
                bucket: self,
                key,
                stream,
                chunk: Bytes::new(),
            },
        ))
    }

    /// Lists the objects below a path, sorted, each with its relative path and size. Number and bytes are limited.
    pub(crate) fn list(&self, path: &str, limits: tree::TreeLimits) -> Result<Vec<(String, u64)>> {
        let key = self.key(path)?;
        let mut objects = Vec::new();
        let mut bytes = 0u64;
        let listed: Result<()> = block_on(async {
            let mut listing = self.store.list(Some(&key));
            while let Some(meta) = listing.next().await {
                let meta = meta.map_err(|e| self.failed(&key, &e))?;
                let Some(rest) = meta.location.as_ref().strip_prefix(key.as_ref()) else {
                    continue;
                };
                let rest = rest.trim_start_matches('/');
                // The marker of the directory itself: `Bucket::is_marker` explains markers.
                if rest.is_empty() {
                    continue;
                }
                bytes += meta.size;
                objects.push((rest.to_owned(), meta.size));
                if bytes > limits.bytes || objects.len() as u64 > limits.entries {
                    let what = format!(
                        "s3://{}/{key} contains more than {} objects or {} bytes",
                        self.name, limits.entries, limits.bytes
                    );
                    return Err(StepError::new(StepReason::TooLarge, what));
                }
            }
            Ok(())
        })?;
        listed?;
        objects.sort_unstable();
        // A marker and an object may have the same name.
        objects.dedup_by(|(next, _), (name, _)| next == name);
        Ok(objects)
    }

    /// Returns whether an entry of a listing is only the marker of a directory: an empty object whose key ends in "/".
    /// Web consoles create it with each new directory. The client's listing drops the slash, so the marker has the name
    /// of an object that does not exist.
    pub(crate) fn is_marker(&self, path: &str, size: u64) -> Result<bool> {
        Ok(size == 0 && self.head(path)?.is_none())
    }

    /// Returns some names below a path, sorted, for a message. Directories end in "/". The list is empty if the bucket
    /// cannot be listed.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let Ok(key) = self.key(path) else { return Vec::new() };
        let listed = block_on(async {
            let listing = self.store.list(Some(&key)).take(NAMES_LISTED);
            listing.filter_map(async |meta| meta.ok()).collect::<Vec<_>>().await
        });
        let names = listed.unwrap_or_default().into_iter().filter_map(|meta| {
            let rest = meta
                .location
                .as_ref()
                .strip_prefix(key.as_ref())?
                .trim_start_matches('/');
            match rest.split_once('/') {
                Some((directory, _)) => Some(format!("{directory}/")),
                None => Some(rest.to_owned()).filter(|name| !name.is_empty()),
            }
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(super) fn start(&self, path: &str, estimate: u64) -> PendingObject<'_> {
        let part = PART.max(estimate.div_ceil(MAX_PARTS));
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        PendingObject {
            bucket: self,
            path: path.to_owned(),
            part,
            buffer: Vec::new(),
            upload: None,
        }
    }
}

/// Returns the status of a server's answer. It is only in the text of the library's error.
fn status(cause: &str) -> Option<u16> {
    cause.split_once(STATUS)?.1.get(..3)?.parse().ok()
}

/// The library's text before the status of an answer.
const STATUS: &str = "non-2xx status code: ";

/// The error code for a bucket that does not exist.
const NO_BUCKET: &str = "NoSuchBucket";

/// Returns the error code in a server's answer, for example `NoSuchBucket`.
fn code(cause: &str) -> Option<&str> {
    element(cause, "Code")
}

fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0)
}

/// Returns the part of an error that is safe to show: the code and the message of the server's answer. The rest is left
/// out, because S3 repeats parts of the request in it, including a session token.
fn safe_text(cause: &str) -> String {
    let text = match (code(cause), element(cause, "Message"), cause.split_once(STATUS)) {
        (Some(code), Some(message), _) => format!("{code}: {message}"),
        (Some(code), None, _) => code.to_owned(),
        (None, _, Some((_, rest))) => format!("the server answered {}", rest.split(": ").next().unwrap_or(rest)),
        (None, _, None) => cause.to_owned(),
    };
    legion_protocol::text::bounded(&text, 300)
}

/// Reads an object. An interruption is an error, and the caller starts again from the beginning.
pub(crate) struct Reader<'a> {
    bucket: &'a Bucket,
    key: Key,
    stream: futures::stream::BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl std::io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.chunk.is_empty() {
            match block_on(self.stream.next()).map_err(std::io::Error::other)? {
                None => return Ok(0),
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(e)) => return Err(std::io::Error::other(self.bucket.failed(&self.key, &e))),
            }
        }
        let n = buffer.len().min(self.chunk.len());
        buffer[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}

/// An upload in progress. A small object is one request. A larger one is uploaded in parts.
pub(super) struct PendingObject<'a> {
    bucket: &'a Bucket,
    path: String,
    part: usize,
    buffer: Vec<u8>,
    upload: Option<WriteMultipart>,
}

impl PendingObject<'_> {
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = (self.part - self.buffer.len()).min(bytes.len());
            self.buffer.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
            if self.buffer.len() == self.part {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Uploads a full part, when fewer than the maximum are in flight.
    fn send(&mut self) -> Result<()> {
        let key = self.bucket.key(&self.path)?;
        let failed = |e: Error| self.bucket.failed(&key, &e);
        if self.upload.is_none() {
            let upload = block_on(async { self.bucket.store.put_multipart(&key).await })?.map_err(failed)?;
            self.upload = Some(WriteMultipart::new_with_chunk_size(upload, self.part));
        }
        let part = Bytes::from(std::mem::take(&mut self.buffer));
        if let Some(upload) = &mut self.upload {
            block_on(async {
                upload.wait_for_capacity(IN_FLIGHT).await?;
                upload.put(part);
                Ok(())
            })?
            .map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let key = self.bucket.key(&self.path)?;
        let last = Bytes::from(std::mem::take(&mut self.buffer));
        let done = match self.upload.take() {
            None => block_on(async {
                self.bucket
                    .store
                    .put(&key, PutPayload::from_bytes(last))
                    .await
                    .map(drop)
            })?,
            Some(mut upload) => block_on(async {
                upload.put(last);
                upload.finish().await.map(drop)
            })?,
        };
        done.map_err(|e| self.bucket.failed(&key, &e))
    }
}

impl Drop for PendingObject<'_> {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            // Parts of an abandoned upload cost money until they are deleted. If this request fails, only a lifecycle
            // rule of the bucket deletes them.
            let _ = block_on(upload.abort());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{safe_text, status};

    #[test]
    fn only_code_and_message_of_an_answer_are_quoted() {
        let expired = "Server returned non-2xx status code: 400 Bad Request: <?xml version=\"1.0\"?><Error><Code>ExpiredToken\
            </Code><Message>The provided token has expired.</Message><Token-0>FwoGZXIvYXdzEXAMPLE</Token-0></Error>";
        assert_eq!(safe_text(expired), "ExpiredToken: The provided token has expired.");
        let proxy = "Server returned non-2xx status code: 502 Bad Gateway: <html>you sent: secret</html>";
        assert_eq!(safe_text(proxy), "the server answered 502 Bad Gateway");
        assert_eq!(safe_text("connection refused"), "connection refused");
    }

    #[test]
    fn the_status_of_an_answer_is_read_from_the_text_of_the_library() {
        assert_eq!(
            status("Server returned non-2xx status code: 429 Too Many Requests: "),
            Some(429)
        );
        assert_eq!(status("operation timed out"), None);
    }
}
