//! An API server that throttles the operator.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, header};
use kube::{Client, client::Body};
use legion_runtime::{Shutdown, telemetry::Telemetry};
use legion_testkit::{cluster::Cluster, manifests};
use tokio::time::Instant;

use crate::support::{LIMIT, ServerClock, logs, settings, succeeded};

/// What the API server's priority and fairness answers while it is full: plain text, and the time in a header.
fn please_wait() -> Response<Body> {
    Response::builder()
        .status(429)
        .header(header::RETRY_AFTER, "7")
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Body::from(b"Too many requests, please try again later.\n".to_vec()))
        .expect("a response")
}

/// A way to the server that is full until a time, and every request that came: when, what, by whom.
#[derive(Clone, Default)]
struct Door {
    full_until: Arc<Mutex<Option<Instant>>>,
    requests: Arc<Mutex<Vec<(Instant, String, String)>>>,
}

impl Door {
    fn client(&self, client: Client) -> Client {
        let (door, namespace) = (self.clone(), client.default_namespace().to_owned());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (client, full) = (client.clone(), door.note(&request));
            async move {
                if full {
                    return Ok(please_wait());
                }
                client.send(request).await
            }
        });
        Client::new(service, namespace)
    }

    /// Records a request. Returns whether the server is full.
    fn note(&self, request: &Request<Body>) -> bool {
        let agent = request.headers().get(header::USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let what = format!("{} {}", request.method(), request.uri());
        let now = Instant::now();
        self.requests
            .lock()
            .expect("not poisoned")
            .push((now, what, agent.to_owned()));
        self.full_until
            .lock()
            .expect("not poisoned")
            .is_some_and(|until| now < until)
    }

    fn since(&self, time: Instant) -> Vec<(Instant, String, String)> {
        let requests = self.requests.lock().expect("not poisoned");
        requests.iter().filter(|(at, ..)| *at >= time).cloned().collect()
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_is_repeated_before_the_retry_after_time() {
    logs();
    let (door, telemetry) = (Door::default(), Telemetry::default());
    let started = (door.clone(), telemetry.clone());
    let mut cluster = Cluster::new(Arc::new(move |client, clock| {
        let (door, telemetry) = started.clone();
        Box::pin(async move {
            let mut settings = settings();
            settings.telemetry = Some(telemetry);
            let client = door.client(client);
            let ended = legion_operator::run(client, settings, Arc::new(ServerClock(clock)), Shutdown::new()).await;
            panic!("the operator ended: {ended:?}");
        })
    }))
    .await;
    cluster.furnish().await;
    cluster.start();
    cluster.settle(Duration::from_secs(1)).await;

    // The server is full for half a minute, and forty trainings are to be served.
    let full = Instant::now();
    *door.full_until.lock().expect("not poisoned") = Some(full + Duration::from_secs(30));
    let names: Vec<String> = (0..40).map(|n| format!("wine-{n}")).collect();
    for name in &names {
        cluster.create(&manifests::training(name)).await;
    }
    cluster.settle(Duration::from_secs(29)).await;
    let refused = door.since(full);
    // Of four workers each is refused once; then all wait for seven seconds, and so on.
    assert!((1..=5 * 4).contains(&refused.len()), "{}: {refused:?}", refused.len());
    let rounds = refused
        .iter()
        .fold(Vec::<(Instant, usize)>::new(), |mut rounds, (at, ..)| {
            match rounds.last_mut() {
                Some((first, count)) if at.duration_since(*first) < Duration::from_secs(1) => *count += 1,
                _ => rounds.push((*at, 1)),
            }
            rounds
        });
    for pair in rounds.windows(2) {
        let pause = pair[1].0.duration_since(pair[0].0);
        assert!(
            pause >= Duration::from_secs(7),
            "asked again after {pause:?}: {refused:?}"
        );
    }
    let text = telemetry.metrics.encode().unwrap();
    let throttles = format!("legion_operator_throttles_total {}\n", rounds.len());
    assert!(text.contains(&throttles), "{throttles}{text}");

    // Then every training is served, once.
    for name in &names {
        succeeded(cluster.wait_for(name, "True", LIMIT).await);
    }
    assert_eq!(cluster.history.violations(), Vec::<String>::new());
    let pods = door.since(full + Duration::from_secs(30));
    let pods = pods
        .iter()
        .filter(|(_, what, _)| what.starts_with("POST ") && what.contains("/pods"));
    assert_eq!(pods.count(), names.len());

    // Who asks is in every request, also in watches.
    let all = door.since(full - Duration::from_secs(60));
    assert!(all.iter().any(|(_, what, _)| what.contains("watch=true")));
    let expected = concat!("legion-operator/", env!("CARGO_PKG_VERSION"));
    let nameless: Vec<_> = all.iter().filter(|(.., agent)| agent != expected).collect();
    assert!(nameless.is_empty(), "{nameless:?}");
    cluster.shutdown().await;
}
