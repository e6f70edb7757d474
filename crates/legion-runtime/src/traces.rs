//! Traces: exports spans to a collector with OTLP over HTTP, if the environment sets an endpoint.
//!
//! The variables are those of OpenTelemetry, such as `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER` and
//! `OTEL_RESOURCE_ATTRIBUTES`. See
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. Without an endpoint no exporter
//! is set up, and spans have no cost beyond their cost in the logs.

use std::{env, time::Duration};

use opentelemetry::{KeyValue, global, propagation::Injector, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::{Resource, error::OTelSdkError, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// Deadline for the export of the last spans when the process ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Failure to set up the traces that the environment requests.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The environment requests a protocol that is not built in.
    #[error(
        "{variable}={value}: only http/protobuf is supported; unset the variable, and use the HTTP port of the collector \
         (4318 by default)"
    )]
    Protocol {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// The exporter cannot be created.
    #[error("traces cannot be sent: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// An exporter of spans to a collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    service: &'static str,
}

/// Returns a variable that is set and not empty. In the specification, an empty variable counts as unset.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

impl Traces {
    /// Creates the exporter from the environment. Returns `None` without an endpoint, or if traces are disabled.
    ///
    /// # Errors
    /// When the environment requests another protocol, or the exporter cannot be created.
    pub fn from_env(service: &'static str, version: &'static str) -> Result<Option<Self>, TraceError> {
        let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if disabled || endpoints.into_iter().all(|name| variable(name).is_none()) {
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

    /// Returns the layer that exports Legion's own spans and those of kube for each request.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(self.service))
            .with_filter(filter_fn(is_exported))
    }

    /// Exports the remaining spans. Blocks for up to five seconds.
    ///
    /// # Errors
    /// When the collector did not accept them.
    pub fn shut_down(self) -> Result<(), OTelSdkError> {
        self.provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)
    }
}

fn is_exported(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of_request = || metadata.is_span() && target.starts_with("kube_client");
    target.starts_with("legion") && *metadata.level() <= Level::INFO || is_of_request()
}

/// Adds the headers of W3C Trace Context for the current span. Adds none without traces.
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

    /// Runs a test of this binary in its own process, because each case needs its own environment.
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
    #[ignore = "another test starts it in a separate process"]
    fn print_configuration() {
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
    fn the_environment_configures_the_exporter() {
        let printed = |variables: &[(&str, &str)]| in_environment("traces::tests::print_configuration", variables);
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        for none in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[endpoint, ("OTEL_SDK_DISABLED", "true")],
            &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(printed(none).contains("\nnone\n"), "{none:?}: {}", printed(none));
        }
        let enabled = printed(&[endpoint]);
        for part in ["service.name", "\"it\"", "service.version", "1.2.3"] {
            assert!(enabled.contains(part), "{part} is not in {enabled}");
        }
        let renamed = printed(&[endpoint, ("OTEL_SERVICE_NAME", "other")]);
        assert!(renamed.contains("other") && !renamed.contains("\"it\""), "{renamed}");
        let grpc = printed(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert!(grpc.contains("error: OTEL_EXPORTER_OTLP_PROTOCOL=grpc: "), "{grpc}");
        let invalid = printed(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url")]);
        assert!(
            invalid.contains("error: traces cannot be sent") && invalid.contains("not a url"),
            "{invalid}"
        );
    }
}
