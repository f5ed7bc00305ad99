//! Takes connections; answers one request on each and closes it. How many there are at once, how long one
//! lasts and how much it may send are bounded, and what ended badly is counted.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::request::{REQUEST_BYTES_MAX, Refusal, Wish, wish};
use super::{Shared, exposition};

/// Connections at once; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// A connection that is not done by then is closed.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// After the system refused a connection (no file descriptor left), it is asked again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How requests ended.
#[derive(Debug, Default)]
pub(super) struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
    /// Too slow, or gone before the end.
    broken: AtomicU64,
}

impl Counts {
    /// By outcome.
    pub(super) fn by_outcome(&self) -> [(&'static str, u64); 3] {
        [
            ("answered", self.answered.load(Ordering::Relaxed)),
            ("refused", self.refused.load(Ordering::Relaxed)),
            ("broken", self.broken.load(Ordering::Relaxed)),
        ]
    }
}

/// Serves until it is stopped.
pub(super) async fn serve(
    listener: StdListener,
    connection_timeout: Duration,
    shared: &Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            // Also when the other end was dropped.
            _ = stopped.changed() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let outcome = timeout(connection_timeout, answer(stream, &shared)).await;
            let counter = match outcome {
                Ok(Ok(Some(Answered::Metrics))) => &shared.counts.answered,
                Ok(Ok(Some(Answered::Refusal))) => &shared.counts.refused,
                Ok(Ok(None) | Err(_)) | Err(_) => &shared.counts.broken,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            drop(place);
        });
    }
}

enum Answered {
    Metrics,
    Refusal,
}

/// Reads a request and answers it; `None` when the client went before it was whole.
async fn answer(mut stream: TcpStream, shared: &Shared) -> io::Result<Option<Answered>> {
    let mut received = [0; REQUEST_BYTES_MAX];
    let mut length = 0;
    let wish = loop {
        let read = stream.read(&mut received[length..]).await?;
        if read == 0 {
            return Ok(None);
        }
        length += read;
        if let Some(wish) = wish(&received[..length]) {
            break wish;
        }
    };
    let latest = shared.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (text, with_body) = match (wish, latest) {
        (Wish::Metrics, Some(summary)) => (Ok(render(&summary, shared)), true),
        (Wish::MetricsHead, Some(summary)) => (Ok(render(&summary, shared)), false),
        (Wish::Metrics | Wish::MetricsHead, None) => (Err(Refusal::NotYet), true),
        (Wish::Refused(refusal), _) => (Err(refusal), true),
    };
    let (status, content_type, body, answered) = match &text {
        Ok(text) => ("200 OK", exposition::CONTENT_TYPE, text.as_str(), Answered::Metrics),
        Err(refusal) => {
            let (status, told) = refusal.told();
            (status, "text/plain; charset=utf-8", told, Answered::Refusal)
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if with_body {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await?;
    Ok(Some(answered))
}

fn render(summary: &crate::summary::Summary, shared: &Shared) -> String {
    exposition::render(summary, &shared.counts.by_outcome())
}
