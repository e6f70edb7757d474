//! The operator's traces, as a collector receives them.
//!
//! This file is the collector. It decodes requests with the OpenTelemetry project's own protobuf definitions. A real
//! collector would only print them in another form.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;
use rustix::process::Signal;
use tokio::net::TcpListener;

use crate::{replica::Replica, world::World};

/// A span, and the resource attributes of its process.
struct Received {
    span: Span,
    resource: Vec<KeyValue>,
}

type All = Arc<Mutex<Vec<Received>>>;

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes
        .iter()
        .find(|attribute| attribute.key == name)?
        .value
        .clone()?
        .value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// Starts a server that collects the bodies of `POST /v1/traces`, and returns its address.
async fn collect(into: All) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let into = into.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| take(request, into.clone()));
            tokio::spawn(async move {
                let connection = auto::Builder::new(TokioExecutor::new());
                // A client that disconnects is no failure of the collector.
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(format!("http://{address}"))
}

async fn take(request: Request<Incoming>, into: All) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_of_traces =
        request.uri().path() == "/v1/traces" && request.headers()["content-type"] == "application/x-protobuf";
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let mut answer = Response::new(Full::default());
    match ExportTraceServiceRequest::decode(body) {
        Ok(sent) if is_of_traces => {
            let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
            for of_resource in sent.resource_spans {
                let resource = of_resource.resource.unwrap_or_default().attributes;
                let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                into.extend(spans.map(|span| Received {
                    span,
                    resource: resource.clone(),
                }));
            }
        }
        _ => *answer.status_mut() = http::StatusCode::BAD_REQUEST,
    }
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real API server"]
async fn a_collector_receives_every_reconciliation_with_its_requests() -> anyhow::Result<()> {
    let world = World::new("ha-traces").await?;
    let all = All::default();
    let endpoint = collect(all.clone()).await?;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let mut replica = Replica::start_with(&world, "a", &variables).await?;
    world.led_by("a", Instant::now()).await?;
    world.train(0..5).await?;
    world.all_succeed(5).await?;
    // The operator sends the remaining spans before it ends.
    replica.signal(Signal::TERM)?;
    ensure!(replica.ended(&world).await?.success(), "{}", replica.log()?);

    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, value) in [
        ("service.name", "legion-operator"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("deployment.environment.name", "test"),
    ] {
        let other = all
            .iter()
            .find(|received| attribute(&received.resource, name).as_deref() != Some(value));
        ensure!(other.is_none(), "{name} is not {value}");
    }
    let spans: Vec<&Span> = all.iter().map(|received| &received.span).collect();
    let mut requests = 0;
    for number in 0..5 {
        let name = format!("wine-{number}");
        let reconciliations: Vec<_> = spans
            .iter()
            .filter(|span| span.name == "reconcile" && attribute(&span.attributes, "name").as_ref() == Some(&name))
            .collect();
        ensure!(
            !reconciliations.is_empty(),
            "no reconciliation of {name} among {} spans",
            spans.len()
        );
        let mut writes = 0;
        for reconciliation in &reconciliations {
            ensure!(
                reconciliation.parent_span_id.is_empty(),
                "a reconciliation starts a trace"
            );
            ensure!(reconciliation.end_time_unix_nano > reconciliation.start_time_unix_nano);
            for request in spans
                .iter()
                .filter(|span| span.parent_span_id == reconciliation.span_id)
            {
                ensure!(request.trace_id == reconciliation.trace_id);
                ensure!(request.kind == SpanKind::Client as i32, "{request:?}");
                let url = attribute(&request.attributes, "http.url").context("a request has a URL")?;
                ensure!(url.contains(&world.namespace), "{url}");
                let code = attribute(&request.attributes, "http.status_code").context("it was answered")?;
                let method = attribute(&request.attributes, "http.method").context("it has a method")?;
                writes += usize::from(method != "GET" && matches!(code.as_str(), "200" | "201"));
                requests += 1;
            }
        }
        // The pod, and at least the final status.
        ensure!(writes >= 2, "{writes} writes for {name}");
    }
    println!(
        "{} spans, {requests} of them requests of reconciliations of five trainings",
        spans.len()
    );
    Ok(())
}
