//! Answers `pods/log` from the runtime's logs.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;

use super::Context;
use super::runtime::{ContainerKey, LogItem};
use crate::logs::{LogOptions, LogRequest, LogStream, PodLogs};
use crate::status::ApiError;

pub(crate) struct NodeLogs {
    ctx: Arc<Context>,
}

impl NodeLogs {
    pub(crate) fn new(ctx: Arc<Context>) -> Self {
        Self { ctx }
    }
}

/// Number of attempts to find the log of a running container, and the pauses between them.
const LOG_TRIES: u32 = 100;
const LOG_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

impl PodLogs for NodeLogs {
    fn open(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, ApiError>> {
        let ctx = Arc::clone(&self.ctx);
        async move {
            let (container, pod) = (&request.container, &request.pod);
            let status = container_status(&request);
            let current = status.map_or(0, |s| s["restartCount"].as_u64().unwrap_or(0));
            let running = status.is_some_and(|s| s["state"].get("waiting").is_none());
            // While a container waits for its restart, its log is that of the previous instance.
            let attempt = match (request.options.previous, running) {
                (false, true) => Some(current),
                _ => current.checked_sub(1),
            };
            let previous = request.options.previous;
            let Some(attempt) = attempt.and_then(|n| u32::try_from(n).ok()).or((!previous).then_some(0)) else {
                let text = format!("previous terminated container {container:?} in pod {pod:?} not found");
                return Err(ApiError::bad_request(text));
            };
            let key = ContainerKey {
                pod: request.uid.clone(),
                name: container.clone(),
                attempt,
            };
            let mut items = ctx.runtime.log(&key, request.options.follow).await;
            // The status may report a running container shortly before its supervisor has created the log.
            for _ in 0..LOG_TRIES {
                if items.is_some() || !running || status.is_none() {
                    break;
                }
                tokio::time::sleep(LOG_PAUSE).await;
                items = ctx.runtime.log(&key, request.options.follow).await;
            }
            match items {
                Some(items) => Ok(render(items, request.options)),
                None => {
                    let waiting = status
                        .and_then(|s| s["state"]["waiting"]["reason"].as_str())
                        .unwrap_or("ContainerCreating");
                    let text = format!("container {container:?} in pod {pod:?} is waiting to start: {waiting}");
                    Err(ApiError::bad_request(text))
                }
            }
        }
        .boxed()
    }
}

fn container_status(request: &LogRequest) -> Option<&serde_json::Value> {
    let status = &request.object["status"];
    ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .filter_map(|list| status[list].as_array())
        .flatten()
        .find(|s| s["name"] == request.container.as_str())
}

struct Rendering {
    items: BoxStream<'static, std::io::Result<LogItem>>,
    options: LogOptions,
    /// The last lines before the reader reached the end of the log, while `tailLines` is being counted.
    tail: Option<VecDeque<(Timestamp, Bytes)>>,
    /// Whether the next chunk begins a line.
    fresh: bool,
    left: Option<u64>,
}

/// Selects lines and adds timestamps.
fn render(items: BoxStream<'static, std::io::Result<LogItem>>, options: LogOptions) -> LogStream {
    let left = options.limit_bytes;
    let tail = options.tail_lines.map(|_| VecDeque::new());
    let state = Rendering {
        items,
        options,
        tail,
        fresh: true,
        left,
    };
    futures::stream::unfold(state, |mut state| async move {
        loop {
            if state.left == Some(0) {
                return None;
            }
            let mut out = BytesMut::new();
            match state.items.next().await {
                Some(Ok(LogItem::Line { time, data })) => {
                    if state.options.since.is_some_and(|since| time < since) {
                        continue;
                    }
                    let keep = state
                        .options
                        .tail_lines
                        .map(|n| usize::try_from(n).unwrap_or(usize::MAX));
                    match (&mut state.tail, keep) {
                        (Some(tail), Some(keep)) => {
                            tail.push_back((time, data));
                            while tail.len() > keep {
                                tail.pop_front();
                            }
                            continue;
                        }
                        _ => state.put(&mut out, time, &data),
                    }
                }
                Some(Ok(LogItem::CaughtUp)) => state.flush(&mut out),
                Some(Err(error)) => return Some((Err(error), state)),
                None => {
                    state.flush(&mut out);
                    if out.is_empty() {
                        return None;
                    }
                }
            }
            if let Some(left) = &mut state.left {
                out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= out.len() as u64;
            }
            if !out.is_empty() {
                return Some((Ok(out.freeze()), state));
            }
        }
    })
    .boxed()
}

impl Rendering {
    fn flush(&mut self, out: &mut BytesMut) {
        for (time, data) in self.tail.take().into_iter().flatten() {
            self.put(out, time, &data);
        }
    }

    fn put(&mut self, out: &mut BytesMut, time: Timestamp, data: &Bytes) {
        if self.fresh && self.options.timestamps {
            out.extend_from_slice(format!("{} ", time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ")).as_bytes());
        }
        self.fresh = data.ends_with(b"\n");
        out.extend_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(options: LogOptions) -> String {
        let line = |second: i64, data: &'static str| {
            Ok(LogItem::Line {
                time: Timestamp::from_second(second).unwrap(),
                data: Bytes::from(data),
            })
        };
        let items = vec![
            line(1, "one\n"),
            line(2, "two "),
            line(2, "halves\n"),
            Ok(LogItem::CaughtUp),
            line(3, "three\n"),
        ];
        let stream = render(futures::stream::iter(items).boxed(), options);
        let parts: Vec<_> = stream.map(|part| part.unwrap()).collect().await;
        String::from_utf8(parts.concat()).unwrap()
    }

    #[tokio::test]
    async fn options_choose_what_is_sent() {
        let all = LogOptions::default;
        assert_eq!(text(all()).await, "one\ntwo halves\nthree\n");
        assert_eq!(
            text(LogOptions {
                tail_lines: Some(0),
                ..all()
            })
            .await,
            "three\n"
        );
        assert_eq!(
            text(LogOptions {
                limit_bytes: Some(6),
                ..all()
            })
            .await,
            "one\ntw"
        );
        let since = Some(Timestamp::from_second(2).unwrap());
        assert_eq!(text(LogOptions { since, ..all() }).await, "two halves\nthree\n");
        let stamped = text(LogOptions {
            timestamps: true,
            ..all()
        })
        .await;
        assert_eq!(
            stamped.lines().nth(1),
            Some("1970-01-01T00:00:02.000000000Z two halves")
        );
    }
}
