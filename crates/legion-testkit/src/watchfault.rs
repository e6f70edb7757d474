//! Faults of watch streams: delayed, duplicated, repeated and lost events.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, future::BoxFuture, stream};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use kube_embed::ResponseBody;
use serde_json::json;

/// A fault of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchFault {
    /// The event and all later ones are delayed. Meanwhile the cache is stale.
    Delay,
    /// Like [`WatchFault::Delay`], but longer than any back-off.
    Freeze,
    /// The event arrives twice.
    Duplicate,
    /// The event never arrives. The stream ends with 410 Gone, and the client lists again.
    DropAndExpire,
    /// All earlier events of the stream arrive again before this one: the cache goes back in time.
    Rewind,
    /// The connection ends in the middle of the event.
    Truncate,
}

impl WatchFault {
    /// Every fault.
    pub const ALL: [Self; 6] = [
        Self::Delay,
        Self::Freeze,
        Self::Duplicate,
        Self::DropAndExpire,
        Self::Rewind,
        Self::Truncate,
    ];

    /// Returns the name in the text form of a plan.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Freeze => "freeze",
            Self::Duplicate => "duplicate",
            Self::DropAndExpire => "drop-and-expire",
            Self::Rewind => "rewind",
            Self::Truncate => "truncate",
        }
    }
}

/// Delay of a delayed stream.
const DELAY: Duration = Duration::from_secs(20);
/// Delay of a frozen stream.
const FREEZE: Duration = Duration::from_secs(180);

/// The fault of the next event, if it has one. The future ends after the disturbances before that event.
pub(crate) type NextFault = Box<dyn Fn() -> BoxFuture<'static, Option<WatchFault>> + Send>;

/// The body of a watch response on its way to the client.
pub(crate) struct Stream {
    next_fault: NextFault,
    body: BodyStream<ResponseBody>,
    buffer: BytesMut,
    brought: Vec<Bytes>,
    ending: bool,
}

impl Stream {
    pub(crate) fn wrap(response: Response<ResponseBody>, next_fault: NextFault) -> Response<ResponseBody> {
        if response.status() != 200 {
            return response;
        }
        let (parts, body) = response.into_parts();
        let this = Self {
            next_fault,
            body: BodyStream::new(body),
            buffer: BytesMut::new(),
            brought: Vec::new(),
            ending: false,
        };
        let frames = stream::unfold(this, |mut this| async move {
            let bytes = this.next().await?;
            Some((Ok(Frame::data(bytes)), this))
        });
        Response::from_parts(parts, StreamBody::new(frames.boxed()).boxed_unsync())
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.ending {
            return None;
        }
        let line = self.line().await?;
        if is_bookmark(&line) {
            return Some(line);
        }
        let fault = (self.next_fault)().await;
        let answer = match fault {
            None => line.clone(),
            Some(WatchFault::Delay) => {
                tokio::time::sleep(DELAY).await;
                line.clone()
            }
            Some(WatchFault::Freeze) => {
                tokio::time::sleep(FREEZE).await;
                line.clone()
            }
            Some(WatchFault::Duplicate) => [line.clone(), line.clone()].concat().into(),
            Some(WatchFault::DropAndExpire) => {
                self.ending = true;
                return Some(expired());
            }
            Some(WatchFault::Rewind) => {
                let mut again = self.brought.concat();
                again.extend_from_slice(&line);
                again.into()
            }
            Some(WatchFault::Truncate) => {
                self.ending = true;
                return Some(line.slice(..line.len() / 2));
            }
        };
        self.brought.push(line);
        Some(answer)
    }

    /// Returns the next line with its line end.
    async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                return Some(self.buffer.split_to(end + 1).freeze());
            }
            let frame = self.body.next().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

fn is_bookmark(line: &[u8]) -> bool {
    let event: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    event["type"] == "BOOKMARK"
}

fn expired() -> Bytes {
    let event = json!({"type": "ERROR", "object": {
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version (injected)",
    }});
    Bytes::from(format!("{event}\n"))
}
