//! Takes the summary as it changes; serves it as counters for Prometheus, at `/metrics`, to whoever
//! connects. It never reads anything else of the sensor, and nobody who connects can make the sensor
//! wait: the pipeline stores a copy now and then and goes on.

mod exposition;
mod request;
mod serve;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;

use crate::summary::Summary;
use serve::{CONNECTION_TIMEOUT, Counts};

/// What the pipeline and the server share.
#[derive(Debug, Default)]
struct Shared {
    /// `None` until the first epoch has ended: nothing is known before.
    latest: Mutex<Option<Arc<Summary>>>,
    counts: Counts,
}

/// A running server; dropping it ends it.
pub(crate) struct MetricsServer {
    shared: Arc<Shared>,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for tests, which let the system choose a port")
    )]
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens.
    ///
    /// # Errors
    /// When the address cannot be had, or no thread be started.
    pub(crate) fn start(listen: SocketAddr) -> io::Result<Self> {
        Self::start_with(listen, CONNECTION_TIMEOUT)
    }

    fn start_with(listen: SocketAddr, connection_timeout: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let thread = thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            if let Err(error) =
                runtime.block_on(serve::serve(listener, connection_timeout, &served, stopped))
            {
                tracing::error!("metrics are served no longer: {error}");
            }
        })?;
        tracing::info!("metrics are at http://{address}/metrics");
        Ok(Self { shared, address, stop, thread: Some(thread) })
    }

    /// From now on this is what is served.
    pub(crate) fn publish(&self, summary: &Summary) {
        let next = Arc::new(summary.clone());
        *self.shared.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        let _already_ended = self.stop.send(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the metrics server stopped by a fault of its own");
        }
    }
}
