//! Data from web servers.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use legion_protocol::digest;
use legion_protocol::reason::{StepError, StepReason};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, StatusCode, redirect};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::error::{Result, node_fault};
use crate::fault::{self, Fault, Side};
use crate::retry;
use crate::secrets::{Secret, hide};
use crate::store::runtime::block_on;
use crate::tree::{TreeLimits, TreeSummary};

const MAX_REDIRECTS: usize = 10;

/// A partial download. An interrupted download continues from it.
struct PartialDownload {
    file: std::fs::File,
    hash: Sha256,
    bytes: u64,
    /// The validator of this version of the object: a strong ETag or the time of its last change.
    validator: Option<HeaderValue>,
}

/// Joins the base address of a connection and a relative path.
pub(super) fn address(base: &str, path: &str) -> Result<Url> {
    let wrong = |why: String| StepError::new(StepReason::DataNotFound, why).field("spec.data");
    let mut url = Url::parse(base).map_err(|e| wrong(format!("the connection's address is not a URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.password().is_some() || !url.username().is_empty() {
        return Err(wrong(
            "the connection's address must use http or https and must not contain credentials".into(),
        ));
    }
    if !path.is_empty() {
        crate::paths::relative(path, "spec.data")?;
        url.path_segments_mut()
            .map_err(|()| wrong("the connection's address cannot have a path".into()))?
            .pop_if_empty()
            .extend(path.trim_end_matches('/').split('/'));
    }
    Ok(url)
}

/// Downloads one object.
pub(super) fn download(url: &Url, secret: Option<&Secret>, to: &Path, limits: TreeLimits) -> Result<TreeSummary> {
    let client = client(url)?;
    let failed = |e: &std::io::Error| node_fault(format_args!("cannot write {}", to.display()), e);
    let file = std::fs::File::create(to).map_err(|e| failed(&e))?;
    let mut partial = PartialDownload {
        file,
        hash: Sha256::new(),
        bytes: 0,
        validator: None,
    };
    retry::transient(|| block_on(attempt(&client, url, secret, &mut partial, limits))?)?;
    Ok(TreeSummary {
        digest: digest::render(partial.hash),
        files: 1,
        bytes: partial.bytes,
    })
}

fn client(url: &Url) -> Result<Client> {
    let secure = url.scheme() == "https";
    let policy = redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error("too many redirects");
        }
        // Never from https to http: anyone on the network could read and change the answer.
        match attempt.url().scheme() {
            "https" => attempt.follow(),
            "http" if !secure && attempt.previous().iter().all(|u| u.scheme() == "http") => attempt.follow(),
            _ => attempt.error("redirected to an address without https"),
        }
    });
    block_on(async {
        Client::builder()
            .redirect(policy)
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(60))
            .user_agent(concat!("legion-agent/", env!("CARGO_PKG_VERSION")))
            .build()
    })?
    .map_err(|e| StepError::new(StepReason::NodeFault, format!("cannot create an HTTP client: {e}")))
}

async fn attempt(
    client: &Client,
    url: &Url,
    secret: Option<&Secret>,
    partial: &mut PartialDownload,
    limits: TreeLimits,
) -> Result<()> {
    let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
    if let Some(secret) = secret {
        request = match secret.get("token")? {
            Some(token) => request.bearer_auth(token),
            None => {
                let user = secret.get("username")?.ok_or_else(|| secret.missing(&["token"]))?;
                request.basic_auth(user, Some(secret.require("password")?))
            }
        };
    }
    if let (Some(validator), true) = (&partial.validator, partial.bytes > 0) {
        request = request
            .header(RANGE, format!("bytes={}-", partial.bytes))
            .header(IF_RANGE, validator);
    }
    let mut response = request.send().await.map_err(|e| unreachable(url, &e))?;
    let continues = response.status() == StatusCode::PARTIAL_CONTENT
        && response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.starts_with(&format!("bytes {}-", partial.bytes)));
    match response.status() {
        StatusCode::PARTIAL_CONTENT if continues => {}
        StatusCode::OK => restart(partial)?,
        // The connection ended behind the last byte, or the object became shorter: it is downloaded again.
        StatusCode::RANGE_NOT_SATISFIABLE if partial.bytes > 0 => {
            restart(partial)?;
            let message = format!("{url} has no content behind the part that was downloaded");
            return Err(Fault::Unreachable.error(Side::Data, message).field("spec.data"));
        }
        status => return Err(refused(url, status)),
    }
    let headers = response.headers();
    // A weak ETag does not guarantee equal bytes, so it cannot continue a download.
    let strong = headers
        .get(ETAG)
        .filter(|v| !v.as_bytes().starts_with(b"W/"))
        .or_else(|| headers.get(LAST_MODIFIED));
    partial.validator = strong.cloned();
    if response
        .content_length()
        .is_some_and(|more| partial.bytes.saturating_add(more) > limits.bytes)
    {
        return Err(too_large(url, limits));
    }
    while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(url, &e))? {
        partial.bytes += chunk.len() as u64;
        if partial.bytes > limits.bytes {
            return Err(too_large(url, limits));
        }
        partial.hash.update(&chunk);
        partial
            .file
            .write_all(&chunk)
            .map_err(|e| node_fault("cannot write a download", &e))?;
    }
    Ok(())
}

/// Discards the partial download, because the server sends the object from its beginning.
fn restart(partial: &mut PartialDownload) -> Result<()> {
    use std::io::Seek as _;
    partial.hash = Sha256::new();
    partial.bytes = 0;
    partial
        .file
        .set_len(0)
        .and_then(|()| partial.file.rewind())
        .map_err(|e| node_fault("cannot write a download", &e))
}

fn too_large(url: &Url, limits: TreeLimits) -> StepError {
    StepError::new(
        StepReason::TooLarge,
        format!("{url} is larger than {} bytes", limits.bytes),
    )
    .field("spec.data")
}

fn refused(url: &Url, status: StatusCode) -> StepError {
    fault::of_status(status.as_u16())
        .error(Side::Data, format!("{url} answered {status}"))
        .field("spec.data")
}

fn unreachable(url: &Url, error: &reqwest::Error) -> StepError {
    // The outermost text only repeats the address. The cause is at the end of the chain.
    let cause = crate::tls::root_cause(error);
    let fault = if error.is_redirect() {
        Fault::Denied
    } else if error.is_builder() {
        Fault::Refused
    } else {
        fault::of_connection(&cause)
    };
    fault
        .error(Side::Data, hide(&format!("{url}: {cause}")))
        .field("spec.data")
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn a_path_stays_below_its_base() {
        let at = |base, path| address(base, path).map(|u| u.to_string());
        assert_eq!(
            at("https://e.org/data/", "a b/c.csv").unwrap(),
            "https://e.org/data/a%20b/c.csv"
        );
        assert_eq!(
            at("https://e.org/data", "c?x#y").unwrap(),
            "https://e.org/data/c%3Fx%23y"
        );
        assert_eq!(at("https://e.org/one.csv", "").unwrap(), "https://e.org/one.csv");
        assert!(at("https://e.org/data/", "../secret").is_err());
        assert!(at("https://u:p@e.org/", "x").is_err());
        assert!(at("ftp://e.org/", "x").is_err());
    }
}
