//! Logs on standard error.

use std::{io::IsTerminal as _, str::FromStr};

use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line of text per event, in color on a terminal.
    #[default]
    Text,
    /// One JSON object per event, for log collectors.
    Json,
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(s: &str) -> Result<Self, UnknownFormat> {
        match s {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat(s.to_owned())),
        }
    }
}

/// The name of an unknown format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown log format {0:?}: use text or json")]
pub struct UnknownFormat(String);

/// Failure to set up the logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter has a wrong form.
    #[error("the log filter {filter:?} is not valid: {source}; use a level such as info, or target=level pairs")]
    Filter {
        /// The given filter.
        filter: String,
        /// The error of the parser.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has another log subscriber already.
    #[error("logs are already set up in this process")]
    AlreadySetUp,
}

/// A further destination of events and spans, besides the logs.
pub type ExtraLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Writes the events that pass `filter` (`info`, or `target=level` pairs) to standard error. Sends all events to
/// `extra`.
///
/// # Errors
/// When the filter is not valid, or logs are set up already.
pub fn init(format: Format, filter: &str, extra: Option<ExtraLayer>) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let registry = tracing_subscriber::registry().with(extra);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Text => registry
            .with(layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter))
            .try_init(),
        Format::Json => registry
            .with(layer.json().flatten_event(true).with_filter(filter))
            .try_init(),
    }
    .map_err(|_| LogError::AlreadySetUp)
}
