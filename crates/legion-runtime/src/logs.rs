//! Logs on standard error.

use std::{io::IsTerminal as _, str::FromStr};

use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line of text an event, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object an event, for log collectors.
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

/// A format that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown log format {0:?}: use text or json")]
pub struct UnknownFormat(String);

/// Why logs cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("the log filter {filter:?} is not valid: {source}; use a level such as info, or target=level pairs")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else already writes the logs of this process.
    #[error("logs are already set up in this process")]
    AlreadySetUp,
}

/// Where events and spans go besides the logs.
pub type ExtraLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Sends the events of this process that pass `filter` (`info`, or `target=level` pairs) to standard error, and all of them
/// to `beside`.
///
/// # Errors
/// When the filter is not valid, or logs were set up before.
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
