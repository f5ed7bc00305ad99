//! Takes what one connection is to do; gives what came of it, as events. Never decides what to do next.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::exchange::any_address;
use crate::health::{self, PERIOD_MS};
use crate::outbox::Shared;
use crate::session::{Bucket, Cause, Silence};
use crate::spool::Key;
use crate::tls::{BACKEND_NAME, explain};
use crate::wire::{self, ACK_BYTES_MAX, HELLO_BYTES_MAX, Outcome};

/// Time between two looks for a sign of life.
const LOOK: Duration = Duration::from_millis(250);
/// Round trips without a sign of life, each long enough for QUIC to have sent something again.
const ROUND_TRIPS_MAX: u32 = 8;
/// A batch is handed to QUIC in parts of this length; under a cap in smaller ones, so that it is sent evenly.
const PART_BYTES: usize = 64 << 10;
const CAPPED_PART_BYTES: usize = 8 << 10;
/// How often it is told that a batch is on its way.
const PROGRESS: Duration = Duration::from_secs(1);

/// What came of something.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Connected(Connection, Endpoint),
    Failed(Cause, String),
    /// Some more of a batch went out.
    Progress,
    Held(Vec<u64>),
    Answered(Key, Outcome),
    /// Evicted before it could be sent.
    Missing(Key),
    /// There, but not to be read.
    Unreadable(Key, String),
}

/// Where events go, marked with the attempt they belong to: those of an earlier one are stale.
#[derive(Clone, Debug)]
pub(super) struct Events {
    pub(super) attempt: u64,
    pub(super) sender: mpsc::Sender<(u64, LinkEvent)>,
}

impl Events {
    pub(super) async fn send(&self, event: LinkEvent) {
        // Without a receiver the delivery has ended, and nobody needs the event.
        let _gone = self.sender.send((self.attempt, event)).await.is_err();
    }
}

/// Connects; takes another of the backend's addresses with each attempt.
pub(super) async fn connect(backend: String, config: ClientConfig, events: Events) {
    let event = match try_connect(&backend, config, events.attempt).await {
        Ok((connection, endpoint)) => LinkEvent::Connected(connection, endpoint),
        Err((cause, reason)) => LinkEvent::Failed(cause, reason),
    };
    events.send(event).await;
}

async fn try_connect(
    backend: &str,
    config: ClientConfig,
    attempt: u64,
) -> Result<(Connection, Endpoint), (Cause, String)> {
    let nobody = |reason: String| (Cause::Unreachable, reason);
    let found = tokio::net::lookup_host(backend).await;
    let addresses: Vec<SocketAddr> = found.map_err(|error| nobody(error.to_string()))?.collect();
    let count = u64::try_from(addresses.len()).unwrap_or(u64::MAX);
    let chosen = attempt.checked_rem(count).and_then(|n| usize::try_from(n).ok());
    let Some(address) = chosen.and_then(|number| addresses.get(number)) else {
        return Err(nobody("the name has no address".to_owned()));
    };
    // A new socket each time: the box may have moved to another network since.
    let endpoint =
        Endpoint::client(any_address(*address)).map_err(|error| nobody(error.to_string()))?;
    let connecting = endpoint
        .connect_with(config, *address, BACKEND_NAME)
        .map_err(|error| nobody(error.to_string()))?;
    let connection = connecting.await.map_err(|error| (cause(&error), reason(&error)))?;
    Ok((connection, endpoint))
}

/// Whether somebody has ended a connection, or nobody was there.
const fn cause(error: &ConnectionError) -> Cause {
    match error {
        // A restarted backend knows nothing of the connection.
        ConnectionError::TimedOut | ConnectionError::Reset => Cause::Unreachable,
        _ => Cause::Refused,
    }
}

/// Why a connection ended, without the wrapping: the backend's own words where it had some.
pub(super) fn reason(error: &ConnectionError) -> String {
    if let Some(explained) = explain(error) {
        return explained;
    }
    match error {
        ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        ConnectionError::TimedOut => "no answer".to_owned(),
        other => other.to_string(),
    }
}

/// Tells when the connection ends.
pub(super) async fn watch(connection: Connection, events: Events) {
    let error = connection.closed().await;
    events.send(LinkEvent::Failed(cause(&error), reason(&error))).await;
}

/// Tells when nothing at all is heard while an answer is due. Even a backend that is busy confirms packets.
pub(super) async fn listen(
    connection: Connection,
    due: Arc<AtomicBool>,
    silence_max: Duration,
    events: Events,
) {
    let mut silence = Silence::default();
    loop {
        sleep(LOOK).await;
        let longest = silence_max.max(connection.rtt() * ROUND_TRIPS_MAX);
        let looks_max = longest.as_millis().div_ceil(LOOK.as_millis());
        let looks_max = u32::try_from(looks_max).unwrap_or(u32::MAX);
        let heard = connection.stats().udp_rx.datagrams;
        if silence.handle_look(heard, due.load(Ordering::Relaxed), looks_max) {
            let reason = format!("nothing was heard for {} ms", longest.as_millis());
            events.send(LinkEvent::Failed(Cause::Unreachable, reason)).await;
            return;
        }
    }
}

/// Asks what the backend holds.
pub(super) async fn greet(connection: Connection, boot_epochs: Vec<u64>, events: Events) {
    let exchange = async {
        let (mut stream, mut answer) = connection.open_bi().await.map_err(|e| reason(&e))?;
        stream.write_all(&wire::hello(&boot_epochs)).await.map_err(|error| error.to_string())?;
        stream.finish().map_err(|error| error.to_string())?;
        let bytes = answer.read_to_end(HELLO_BYTES_MAX).await.map_err(|error| error.to_string())?;
        wire::read_held(&bytes).map_err(|error| error.to_string())
    };
    match exchange.await {
        Ok(held) => events.send(LinkEvent::Held(held)).await,
        // `watch` knows better why, when the whole connection has ended.
        Err(_lost) if connection.close_reason().is_some() => {}
        Err(error) => events.send(LinkEvent::Failed(Cause::Refused, error)).await,
    }
}

/// Tells of the sensor at once and then every ten seconds, until the connection ends.
pub(super) async fn tell(connection: Connection, shared: Arc<Shared>) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let path = connection.stats().path;
        let health = crate::Health {
            clock_ms: now.and_then(|now| u64::try_from(now.as_millis()).ok()),
            link_packets_sent: Some(path.sent_packets),
            link_packets_lost: Some(path.lost_packets),
            ..shared.health()
        };
        let told = async {
            let mut stream = connection.open_uni().await?;
            stream.set_priority(i32::MAX)?;
            stream.write_all(&health::write(&health)).await?;
            stream.finish()?;
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        };
        if let Err(error) = told.await {
            // `watch` says why the connection has ended; health is worth no line of its own.
            tracing::debug!(%error, "the backend was not told how this sensor is");
            return;
        }
        sleep(Duration::from_millis(PERIOD_MS)).await;
    }
}

/// The cap of the line, over all connections.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<Mutex<Paced>>);

#[derive(Debug)]
struct Paced {
    bucket: Bucket,
    started: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_second_max: u64) -> Self {
        let bucket = Bucket::new(bytes_per_second_max, 0);
        Self(Arc::new(Mutex::new(Paced { bucket, started: Instant::now() })))
    }

    /// Waits until these bytes may be sent.
    async fn take(&self, bytes: u64) {
        let wait_us = {
            let mut paced = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now_us = u64::try_from(paced.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            paced.bucket.take(now_us, bytes)
        };
        if wait_us > 0 {
            sleep(Duration::from_micros(wait_us)).await;
        }
    }
}

/// Sends batches over one connection.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) pace: Option<Pace>,
    pub(super) events: Events,
}

impl Writer {
    /// Sends batches in the order of `keys`, each on a stream of its own, until the connection ends.
    pub(super) async fn run(self, mut keys: mpsc::Receiver<Key>) {
        let mut answers = JoinSet::new();
        let mut priority = i32::MAX;
        let mut paid = 0;
        loop {
            let key = tokio::select! {
                key = keys.recv() => key,
                Some(_read) = answers.join_next() => continue,
            };
            let Some(key) = key else { return };
            let shared = Arc::clone(&self.shared);
            let read = tokio::task::spawn_blocking(move || shared.spool.read(key));
            let bytes = match read.await.unwrap_or_else(|error| Err(error.into())) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.events.send(LinkEvent::Missing(key)).await;
                    continue;
                }
                Err(error) => {
                    self.events.send(LinkEvent::Unreadable(key, error.to_string())).await;
                    continue;
                }
            };
            // Earlier batches first, or a later one could use up the window that the backend needs to read on.
            priority = priority.saturating_sub(1);
            match self.send(key, bytes.into(), priority, &mut paid).await {
                Ok(answer) => {
                    let (connection, events) = (self.connection.clone(), self.events.clone());
                    answers.spawn(read_answer(connection, key, answer, events));
                }
                Err(_lost) if self.connection.close_reason().is_some() => return,
                Err(error) => {
                    self.events.send(LinkEvent::Failed(Cause::Refused, error)).await;
                    return;
                }
            }
        }
    }

    async fn send(
        &self,
        key: Key,
        mut bytes: Bytes,
        priority: i32,
        paid: &mut u64,
    ) -> Result<RecvStream, String> {
        let opened = self.connection.open_bi().await;
        let (mut stream, answer) = opened.map_err(|error| reason(&error))?;
        stream.set_priority(priority).map_err(|error| error.to_string())?;
        let prefix = wire::batch_prefix(key, bytes.len());
        stream.write_all(&prefix).await.map_err(|error| error.to_string())?;
        let part_bytes = if self.pace.is_some() { CAPPED_PART_BYTES } else { PART_BYTES };
        let mut told = Instant::now();
        while !bytes.is_empty() {
            let part = bytes.split_to(part_bytes.min(bytes.len()));
            self.pay(part.len(), paid).await;
            stream.write_chunk(part).await.map_err(|error| error.to_string())?;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                self.events.send(LinkEvent::Progress).await;
            }
        }
        stream.finish().map_err(|error| error.to_string())?;
        Ok(answer)
    }

    /// Waits as the cap wants it. What went over the line beside the batches (headers, acknowledgements, what was lost
    /// and sent again) is paid for afterwards.
    async fn pay(&self, part_bytes: usize, paid: &mut u64) {
        let Some(pace) = &self.pace else { return };
        let more = self.connection.stats().udp_tx.bytes.saturating_sub(*paid);
        let bytes = more.saturating_add(u64::try_from(part_bytes).unwrap_or(u64::MAX));
        *paid = paid.saturating_add(bytes);
        pace.take(bytes).await;
    }
}

async fn read_answer(connection: Connection, key: Key, mut answer: RecvStream, events: Events) {
    let read = match answer.read_to_end(ACK_BYTES_MAX).await {
        Ok(bytes) => wire::read_ack(&bytes).map_err(|error| error.to_string()),
        Err(_lost) if connection.close_reason().is_some() => return,
        Err(error) => Err(error.to_string()),
    };
    let event = match read {
        Ok((acked, outcome)) if acked == key => LinkEvent::Answered(key, outcome),
        Ok((acked, _)) => {
            let reason = format!("an ack for {acked:?} in place of {key:?}");
            LinkEvent::Failed(Cause::Refused, reason)
        }
        Err(error) => LinkEvent::Failed(Cause::Refused, error),
    };
    events.send(event).await;
}
