//! The doors of a live process: listeners for people and machines, and the signals that end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::config::Config;
use crate::sink::http::{self, Board, Health, Limits, Roads};
use crate::sink::metrics::Metrics;
use crate::units::EventTime;

/// Time that open requests are given at the end.
const GRACE: Duration = Duration::from_secs(2);
/// A process that has not ended by itself this long after the signal is ended: all state that counts is in
/// the checkpoints, and a client library that hangs must not keep the service from restarting.
const WATCHDOG: Duration = Duration::from_secs(14);

/// Board, metrics, health and the listeners that show them.
pub struct Shell {
    /// What the API and the page show.
    pub board: Arc<Board>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What the probes say.
    pub health: Arc<Health>,
    handle: http::Handle,
}

impl Shell {
    /// Opens the listeners of `config` over a map. `now` is the clock that the age of data is measured by.
    ///
    /// # Errors
    /// Which address cannot be opened, and which key names it.
    pub fn open(
        config: &Config,
        roads: Arc<dyn Roads>,
        now: impl Fn() -> EventTime + Send + Sync + 'static,
    ) -> Result<Self> {
        let board = Arc::new(Board::with_clock(roads, Limits::default(), now));
        let metrics = Arc::new(Metrics::new(config.metrics.max_series as usize));
        let health = Arc::new(Health::default());
        health.fail("data", "no pane has been closed yet");
        let handle = http::serve(
            &config.server,
            &config.admin,
            Arc::clone(&board),
            Arc::clone(&metrics),
            Arc::clone(&health),
        )?;
        Ok(Self {
            board,
            metrics,
            health,
            handle,
        })
    }

    /// The listeners.
    pub fn handle(&self) -> &http::Handle {
        &self.handle
    }

    /// Closes the listeners.
    pub fn close(self) {
        self.health.stopping();
        self.handle.shutdown(GRACE);
    }
}

/// A flag that is raised by SIGINT and SIGTERM. A second one, or too long a time, ends the process at once.
///
/// # Errors
/// The handlers cannot be installed.
pub(super) fn stop_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the watch for signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                if wait().await.is_err() {
                    return;
                }
                tracing::info!("stopping");
                raised.store(true, Ordering::Release);
                tokio::select! {
                    _ = wait() => tracing::warn!("stopped at once"),
                    () = tokio::time::sleep(WATCHDOG) => tracing::error!("did not stop in time; ended"),
                }
                std::process::exit(1);
            });
        })
        .context("starting the watch for signals")?;
    Ok(stop)
}

#[cfg(unix)]
async fn wait() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn wait() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
