//! Graceful shutdown: one token for the whole process. SIGTERM or SIGINT cancels it, and every task awaits it.

use tokio_util::sync::CancellationToken;

/// A shutdown request. Clones share the same state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Creates a token without a request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a token that SIGTERM and SIGINT cancel. A second signal ends the process immediately.
    ///
    /// # Errors
    /// When the process cannot install signal handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = Self::new();
        let token = shutdown.clone();
        tokio::spawn(async move {
            for signals in 0.. {
                let name = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if signals > 0 {
                    tracing::warn!(signal = name, "second signal: exiting immediately");
                    std::process::exit(130);
                }
                tracing::info!(signal = name, "shutting down");
                token.request();
            }
        });
        Ok(shutdown)
    }

    /// Requests the shutdown.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Returns whether a shutdown was requested.
    #[must_use]
    pub(crate) fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Completes when a shutdown is requested.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// Returns a token that is cancelled together with this one, and can also be cancelled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}
