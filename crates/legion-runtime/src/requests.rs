//! Metrics of the requests to the API server.
//!
//! Labels are the verb and the resource, never the namespace or the object. So the number of series does not grow with
//! the number of objects.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, StatusCode, Uri};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio::time::Instant;

use crate::metrics::DURATION_BUCKETS;

/// Verb of a request, as in RBAC and audit logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Reads one object: GET.
    Get,
    /// Reads a collection: GET.
    List,
    /// Follows changes: GET with `watch=true`.
    Watch,
    /// Creates an object: POST.
    Create,
    /// Replaces an object: PUT.
    Update,
    /// Changes fields of an object: PATCH.
    Patch,
    /// Deletes an object: DELETE.
    Delete,
}

impl Verb {
    /// Returns whether the verb changes objects.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete)
    }

    /// Returns the verb as in roles, audit logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

impl EncodeLabelValue for Verb {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// The HTTP status of a response, or `None` without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Code(Option<StatusCode>);

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        match self.0 {
            Some(code) => EncodeLabelValue::encode(&code.as_u16(), encoder),
            None => EncodeLabelValue::encode(&"none", encoder),
        }
    }
}

/// Labels of the request durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Target {
    verb: Verb,
    resource: &'static str,
    subresource: &'static str,
}

/// Labels of the request counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnsweredTarget {
    verb: Verb,
    resource: &'static str,
    subresource: &'static str,
    code: Code,
}

/// Activity of the watch of one collection: its last attempt, and the last successful answer of the server.
#[derive(Debug)]
pub struct WatchActivity {
    path: String,
    state: Mutex<ActivityTimes>,
}

#[derive(Clone, Copy, Debug)]
struct ActivityTimes {
    tried: Instant,
    answered: Instant,
}

impl WatchActivity {
    fn update(&self, change: impl FnOnce(&mut ActivityTimes)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn times(&self) -> ActivityTimes {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the API path of the watched collection.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the time since the last attempt to list or watch. A watch is renewed every five minutes, so a much
    /// longer time means that its task is stuck.
    #[must_use]
    pub fn time_since_attempt(&self) -> Duration {
        self.times().tried.elapsed()
    }

    /// Returns the time since the last successful answer to a list or watch.
    #[must_use]
    pub fn time_since_answer(&self) -> Duration {
        self.times().answered.elapsed()
    }
}

/// Metrics of the requests. Clones share the same counters.
#[derive(Clone, Debug)]
pub struct RequestMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Plural names that appear as labels. All other resources are `other`.
    resources: &'static [&'static str],
    answers: Family<AnsweredTarget, Counter>,
    durations: Family<Target, Histogram, fn() -> Histogram>,
    activities: Mutex<Vec<Arc<WatchActivity>>>,
}

fn histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

impl RequestMetrics {
    /// Creates the metrics, with these plural names as labels. All other resources are counted as `other`.
    #[must_use]
    pub fn new(resources: &'static [&'static str]) -> Self {
        Self(Arc::new(Inner {
            resources,
            answers: Family::default(),
            durations: Family::new_with_constructor(histogram),
            activities: Mutex::default(),
        }))
    }

    /// Adds the metrics `PREFIX_api_requests_total` and `PREFIX_api_request_duration_seconds`.
    pub fn register(&self, registry: &mut Registry, prefix: &str) {
        registry.register(
            format!("{prefix}_api_requests"),
            "Requests to the API server, by the HTTP status of the answer; none where there was no answer",
            self.0.answers.clone(),
        );
        registry.register_with_unit(
            format!("{prefix}_api_request_duration"),
            "Time until the head of the API server's answer",
            Unit::Seconds,
            self.0.durations.clone(),
        );
    }

    /// Records the lists and watches of the collection with this path.
    #[must_use]
    pub fn track(&self, path: impl Into<String>) -> Arc<WatchActivity> {
        let now = Instant::now();
        let activity = Arc::new(WatchActivity {
            path: path.into(),
            state: Mutex::new(ActivityTimes {
                tried: now,
                answered: now,
            }),
        });
        self.activities().push(activity.clone());
        activity
    }

    fn activities(&self) -> std::sync::MutexGuard<'_, Vec<Arc<WatchActivity>>> {
        self.0.activities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the start of a request. Call [`InFlight::end`] when it ends.
    pub(crate) fn begin(&self, method: &Method, uri: &Uri) -> InFlight<'_> {
        let target = target(self.0.resources, method, uri);
        let activity = matches!(target.verb, Verb::List | Verb::Watch)
            .then(|| {
                self.activities()
                    .iter()
                    .find(|activity| activity.path == uri.path())
                    .cloned()
            })
            .flatten();
        if let Some(activity) = &activity {
            activity.update(|times| times.tried = Instant::now());
        }
        InFlight {
            requests: &self.0,
            target,
            activity,
            began: Instant::now(),
        }
    }
}

/// A request without a result yet.
pub(crate) struct InFlight<'a> {
    requests: &'a Inner,
    target: Target,
    activity: Option<Arc<WatchActivity>>,
    began: Instant,
}

impl InFlight<'_> {
    /// Records the end of the request, with its HTTP status or `None` without an answer.
    pub(crate) fn end(self, code: Option<StatusCode>) {
        let Target {
            verb,
            resource,
            subresource,
        } = self.target;
        let answered = AnsweredTarget {
            verb,
            resource,
            subresource,
            code: Code(code),
        };
        self.requests.answers.get_or_create(&answered).inc();
        self.requests
            .durations
            .get_or_create(&self.target)
            .observe(self.began.elapsed().as_secs_f64());
        if let Some(activity) = self.activity.filter(|_| code.is_some_and(|code| code.is_success())) {
            activity.update(|times| times.answered = Instant::now());
        }
    }
}

fn target(known: &'static [&'static str], method: &Method, uri: &Uri) -> Target {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
    // /api/VERSION/... or /apis/GROUP/VERSION/...
    let has_group = parts.next() == Some("apis");
    let _version = parts.nth(usize::from(has_group));
    let (resource, name, subresource) = match (parts.next(), parts.next(), parts.next()) {
        (Some("namespaces"), Some(_), Some(resource)) => (Some(resource), parts.next(), parts.next()),
        (resource, name, subresource) => (resource, name, subresource),
    };
    let resource = match resource {
        None => "discovery",
        Some(resource) => known.iter().find(|known| **known == resource).unwrap_or(&"other"),
    };
    let subresource = match subresource {
        None => "",
        Some("status") => "status",
        Some(_) => "other",
    };
    let is_watch = || {
        let query = uri.query().unwrap_or_default();
        query
            .split('&')
            .any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch"))
    };
    let verb = match *method {
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        _ if resource == "discovery" || name.is_some() => Verb::Get,
        _ if is_watch() => Verb::Watch,
        _ => Verb::List,
    };
    Target {
        verb,
        resource,
        subresource,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_verb_a_resource_and_a_subresource() {
        for (method, uri, expected) in [
            (Method::GET, "/apis/example.org/v1", "get discovery "),
            (Method::GET, "/api/v1/pods?limit=500", "list pods "),
            (Method::GET, "/api/v1/pods?&watch=true&resourceVersion=7", "watch pods "),
            (Method::GET, "/api/v1/namespaces/ns/pods", "list pods "),
            (Method::GET, "/api/v1/namespaces/ns/pods/a", "get pods "),
            (
                Method::POST,
                "/api/v1/namespaces/ns/pods?fieldManager=x",
                "create pods ",
            ),
            (Method::DELETE, "/api/v1/namespaces/ns/pods/a", "delete pods "),
            (
                Method::PATCH,
                "/apis/example.org/v1/namespaces/ns/widgets/a/status?",
                "patch widgets status",
            ),
            (
                Method::PUT,
                "/apis/example.org/v1/namespaces/ns/gadgets/a",
                "update other ",
            ),
            (Method::GET, "/api/v1/namespaces", "list other "),
            (
                Method::POST,
                "/api/v1/namespaces/ns/pods/a/eviction",
                "create pods other",
            ),
        ] {
            let target = target(&["pods", "widgets"], &method, &uri.parse().unwrap());
            let found = format!("{} {} {}", target.verb.as_str(), target.resource, target.subresource);
            assert_eq!(found, expected, "{method} {uri}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watch_activity_distinguishes_attempts_from_answers() {
        let requests = RequestMetrics::new(&["pods"]);
        let activity = requests.track("/api/v1/pods");
        let second = Duration::from_secs(1);
        let watch: Uri = "/api/v1/pods?watch=true".parse().unwrap();
        tokio::time::advance(second).await;
        requests
            .begin(&Method::GET, &watch)
            .end(Some(StatusCode::INTERNAL_SERVER_ERROR));
        assert_eq!(
            (activity.time_since_attempt(), activity.time_since_answer()),
            (Duration::ZERO, second)
        );
        tokio::time::advance(second).await;
        requests.begin(&Method::GET, &watch).end(Some(StatusCode::OK));
        assert_eq!(
            (activity.time_since_attempt(), activity.time_since_answer()),
            (Duration::ZERO, Duration::ZERO)
        );
        tokio::time::advance(second).await;
        // A request for another path does not count.
        let other: Uri = "/api/v1/namespaces/ns/pods?watch=true".parse().unwrap();
        requests.begin(&Method::GET, &other).end(Some(StatusCode::OK));
        assert_eq!(
            (activity.time_since_attempt(), activity.time_since_answer()),
            (second, second)
        );
    }
}
