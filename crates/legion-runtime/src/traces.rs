//! Traces: spans sent to a collector by OTLP over HTTP, when the environment names one.
//!
//! The variables are OpenTelemetry's own (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES` and
//! so on: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). Without an endpoint nothing is
//! set up and spans cost what they cost the logs.

use std::{env, time::Duration};

use opentelemetry::{KeyValue, global, propagation::Injector, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::{Resource, error::OTelSdkError, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// How long the last spans may take to reach the collector when the process ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there are no traces although they are asked for.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The collector is to be spoken to in a way that is not built in.
    #[error(
        "{variable}={value}: traces are sent by http/protobuf alone; unset it, and name the collector's HTTP port (4318 by default)"
    )]
    Protocol {
        /// The environment variable.
        variable: &'static str,
        /// What it says.
        value: String,
    },
    /// The exporter cannot be set up.
    #[error("traces cannot be sent: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// Sends spans to a collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    service: &'static str,
}

/// A variable that is set and not empty: the specification takes an empty one for one that is not set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

impl Traces {
    /// To the collector that the environment names; nothing when it names none or says that no traces are wanted.
    ///
    /// # Errors
    /// When what the environment says cannot be done.
    pub fn from_env(service: &'static str, version: &'static str) -> Result<Option<Self>, TraceError> {
        let named = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if disabled || named.into_iter().all(|name| variable(name).is_none()) {
            return Ok(None);
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(value) = variable(name).filter(|value| value != "http/protobuf") {
                return Err(TraceError::Protocol { variable: name, value });
            }
        }
        let exporter = SpanExporter::builder().with_http().build()?;
        let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", version));
        if variable("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(service);
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Some(Self { provider, service }))
    }

    /// Takes the spans of this process: Legion's own, and kube's of each request.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(self.service))
            .with_filter(filter_fn(is_exported))
    }

    /// Sends what was not sent yet. Blocks for up to five seconds.
    ///
    /// # Errors
    /// When the collector did not take it.
    pub fn shut_down(self) -> Result<(), OTelSdkError> {
        self.provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)
    }
}

fn is_exported(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of_request = || metadata.is_span() && target.starts_with("kube_client");
    target.starts_with("legion") && *metadata.level() <= Level::INFO || is_of_request()
}

/// Tells whom a request goes to of which trace it is, by the headers of W3C Trace Context. Nothing without traces.
pub(crate) fn inject(headers: &mut http::HeaderMap) {
    struct Headers<'a>(&'a mut http::HeaderMap);
    impl Injector for Headers<'_> {
        fn set(&mut self, key: &str, value: String) {
            let name = http::HeaderName::try_from(key);
            if let (Ok(name), Ok(value)) = (name, http::HeaderValue::try_from(value)) {
                self.0.insert(name, value);
            }
        }
    }
    let context = Span::current().context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut Headers(headers)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these needs an environment of its own: this test starts itself again in one.
    fn in_environment(test: &str, variables: &[(&str, &str)]) -> String {
        let output = std::process::Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env_clear()
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    #[ignore = "tells what the environment asks for: others start it"]
    fn told() {
        match Traces::from_env("it", "1.2.3") {
            Ok(None) => println!("none"),
            Ok(Some(traces)) => {
                println!("{:?}", traces.provider);
                traces.shut_down().unwrap();
            }
            Err(error) => println!("error: {error}"),
        }
    }

    #[test]
    fn the_environment_says_whether_where_and_how() {
        let told = |variables: &[(&str, &str)]| in_environment("traces::tests::told", variables);
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        for none in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[endpoint, ("OTEL_SDK_DISABLED", "true")],
            &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(told(none).contains("\nnone\n"), "{none:?}: {}", told(none));
        }
        let set_up = told(&[endpoint]);
        for part in ["service.name", "\"it\"", "service.version", "1.2.3"] {
            assert!(set_up.contains(part), "{part} is not in {set_up}");
        }
        let renamed = told(&[endpoint, ("OTEL_SERVICE_NAME", "other")]);
        assert!(renamed.contains("other") && !renamed.contains("\"it\""), "{renamed}");
        let grpc = told(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert!(grpc.contains("error: OTEL_EXPORTER_OTLP_PROTOCOL=grpc: "), "{grpc}");
        let invalid = told(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url")]);
        assert!(
            invalid.contains("error: traces cannot be sent") && invalid.contains("not a url"),
            "{invalid}"
        );
    }
}
