//! The watch verb.
//!
//! A watch is a cursor into the event ring of its resource. It has no queue. A slow client finds its events in the
//! ring. If the client is too slow and the ring has dropped them, it gets 410.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::body::{self, ResponseBody};
use super::negotiate::Representation;
use super::query::VersionMatch;
use super::read::{bookmark, event_object, list_options};
use super::registry::Registry;
use super::request::{ApiResult, ResourceRequest};
use super::selector::Selector;
use crate::status::ApiError;
use crate::store::{CollectionNews, ListQuery, Object, WatchEvent, WatchEventType, frame};

/// The default duration of a watch.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
/// The interval of bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of events in one read from the ring.
const BATCH: usize = 256;

struct Watcher {
    call: ResourceRequest,
    selector: Selector,
    changes: Receiver<CollectionNews>,
    registry: Receiver<Arc<Registry>>,
    cursor: u64,
    ready: VecDeque<Bytes>,
    bookmarks: bool,
    /// The last version that the client has received.
    sent: u64,
    next_bookmark: Instant,
    deadline: Instant,
    ended: bool,
}

impl ResourceRequest {
    pub(super) async fn watch(self) -> ApiResult {
        let selector = self.selector()?;
        let asked = self.query.version()?;
        let bookmarks = self.query.flag("allowWatchBookmarks");
        let matching = self.query.version_match()?;
        let initial = match self.query.get("sendInitialEvents") {
            None if matching.is_some() => {
                return Err(list_options(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            None => None,
            Some(_) if matching != Some(VersionMatch::NotOlderThan) => {
                return Err(list_options(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            Some(_) => Some(self.query.flag("sendInitialEvents")),
        };
        let timeout = self
            .query
            .number("timeoutSeconds")?
            .filter(|s| *s > 0)
            .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let store = &self.server.store;
        let changes = store
            .subscribe(&self.resource.collection)
            .ok_or_else(ApiError::no_such_path)?;
        let registry = self.server.registry.subscribe();
        let current = store.version();
        if let Some(asked) = asked.filter(|v| *v > current && initial.is_some()) {
            return Err(ApiError::rv_too_large(asked, current));
        }
        let now = Instant::now();
        let mut watcher = Watcher {
            selector,
            changes,
            registry,
            cursor: asked.unwrap_or(0),
            ready: VecDeque::new(),
            bookmarks,
            sent: asked.unwrap_or(0),
            next_bookmark: now + BOOKMARK_INTERVAL,
            // A century is practically forever, and cannot overflow the clock.
            deadline: now + timeout.min(Duration::from_secs(100 * 365 * 86400)),
            ended: false,
            call: self,
        };
        // Without a version (or with "any"), a watch starts with the current objects, unless the client disables that.
        let from_now = matches!(asked, None | Some(0));
        match initial {
            Some(true) => watcher.start(true, bookmarks).await?,
            None if from_now => watcher.start(true, false).await?,
            Some(false) if from_now => watcher.start(false, false).await?,
            _ => {}
        }
        let stream = futures::stream::unfold(watcher, |mut watcher| async move {
            let bytes = watcher.next().await?;
            Some((Ok(Frame::data(bytes)), watcher))
        });
        let mut response: Response<ResponseBody> = body::full(200, "application/json", Bytes::new());
        *response.body_mut() = StreamBody::new(stream).boxed_unsync();
        Ok(response)
    }
}

impl Watcher {
    /// Positions the watch at the current version, with synthetic events for existing objects.
    async fn start(&mut self, with_objects: bool, mark_end: bool) -> Result<(), ApiError> {
        let call = &self.call;
        let selector = &self.selector;
        let filter = |object: &Object| with_objects && call.selects(selector, object);
        let query = ListQuery {
            namespace: call.namespace.as_deref(),
            after: None,
            at: None,
            limit: None,
            filter: Some(&filter),
        };
        let listed = call
            .server
            .store
            .list(&call.resource.collection, &query)
            .map_err(|e| ApiError::internal(format!("cannot list the current state: {e:?}")))?;
        call.server.durable(listed.version).await?;
        self.cursor = listed.version;
        self.sent = listed.version;
        self.ready.extend(
            listed
                .items
                .iter()
                .map(|object| shown(call, WatchEventType::Added, object)),
        );
        if mark_end {
            let mark = bookmark(call, listed.version, true).to_string();
            self.ready.push_back(frame("BOOKMARK", mark.as_bytes()));
        }
        Ok(())
    }

    async fn next(&mut self) -> Option<Bytes> {
        let stopping = self.call.server.stopping();
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            // Under another schema the events would look different. The client restarts the watch at its version. A
            // Kubernetes API server requires the same.
            if self.ended || self.call.is_replaced(&self.registry.borrow_and_update()) {
                return None;
            }
            self.changes.borrow_and_update();
            match self
                .call
                .server
                .store
                .events(&self.call.resource.collection, &self.changes, self.cursor, BATCH)
            {
                Err(too_old) => {
                    self.ended = true;
                    let error = ApiError::expired(format!(
                        "too old resource version: {} ({})",
                        too_old.asked, too_old.oldest
                    ));
                    return Some(frame("ERROR", error.to_value().to_string().as_bytes()));
                }
                Ok(batch) => {
                    self.cursor = batch.cursor;
                    for event in &batch.events {
                        if let Some(line) = self.line(event) {
                            self.sent = event.version();
                            self.ready.push_back(line);
                        }
                    }
                    if !batch.events.is_empty() {
                        continue;
                    }
                }
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return None,
                changed = self.changes.changed() => {
                    // The resource was deleted. The client has received all events up to that point.
                    self.ended = changed.is_err();
                }
                changed = self.registry.changed() => self.ended = changed.is_err(),
                () = tokio::time::sleep_until(self.deadline) => {
                    self.ended = true;
                    self.bookmark();
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    self.bookmark();
                }
            }
        }
    }

    /// Sends a bookmark with the watch's position, if the client requested bookmarks and does not know the position
    /// yet.
    fn bookmark(&mut self) {
        if self.bookmarks && self.cursor > self.sent {
            self.sent = self.cursor;
            let mark = bookmark(&self.call, self.cursor, false).to_string();
            self.ready.push_back(frame("BOOKMARK", mark.as_bytes()));
        }
    }

    /// Returns the client's form of an event. An object that starts or stops matching the selector is reported as ADDED
    /// or DELETED.
    fn line(&self, event: &WatchEvent) -> Option<Bytes> {
        if self
            .call
            .namespace
            .as_ref()
            .is_some_and(|n| *n != event.object.key().namespace)
        {
            return None;
        }
        let kind = if self.selector.is_everything() {
            event.kind
        } else {
            let selected = |object: &Object| self.call.selects(&self.selector, object);
            let before = event.previous.as_ref().is_some_and(|o| selected(o));
            let after = event.kind != WatchEventType::Deleted && selected(&event.object);
            match (before, after) {
                (false, false) => return None,
                (false, true) => WatchEventType::Added,
                (true, true) => WatchEventType::Modified,
                (true, false) => WatchEventType::Deleted,
            }
        };
        // A deleted or no longer selected object is shown in its last state, with the version of that change.
        if kind == WatchEventType::Deleted
            && let Some(previous) = &event.previous
        {
            let last = Object::new(
                event.object.key().clone(),
                event.version(),
                (**previous.value()).clone(),
            );
            return Some(shown(&self.call, kind, &last));
        }
        let as_stored = self.call.accept == Representation::Object && self.call.resource.is_stored_form(&event.object);
        Some(if as_stored && kind == event.kind {
            event.frame().clone()
        } else {
            shown(&self.call, kind, &event.object)
        })
    }
}

fn shown(call: &ResourceRequest, kind: WatchEventType, object: &Object) -> Bytes {
    if call.accept == Representation::Object {
        frame(kind.as_str(), &call.resource.bytes(object))
    } else {
        frame(kind.as_str(), event_object(call, object).to_string().as_bytes())
    }
}
