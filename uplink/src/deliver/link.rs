//! Takes what one connection is to do; gives what came of it, as events. Never decides what to do next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::exchange::any_address;
use crate::outbox::Shared;
use crate::session::Silence;
use crate::spool::{Key, read_bounded};
use crate::tls::{BACKEND_NAME, explain};
use crate::wire::{self, ACK_BYTES_MAX, HELLO_BYTES_MAX, Outcome};

/// Time between two looks for a sign of life.
const LOOK: Duration = Duration::from_millis(250);
/// Round trips without a sign of life, each long enough for QUIC to have sent something again.
const ROUND_TRIPS_MAX: u32 = 8;

/// What came of something.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Connected(Connection, Endpoint),
    Failed(String),
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
        Err(reason) => LinkEvent::Failed(reason),
    };
    events.send(event).await;
}

async fn try_connect(
    backend: &str,
    config: ClientConfig,
    attempt: u64,
) -> Result<(Connection, Endpoint), String> {
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host(backend).await.map_err(|error| error.to_string())?.collect();
    let count = u64::try_from(addresses.len()).unwrap_or(u64::MAX);
    let chosen = attempt.checked_rem(count).and_then(|n| usize::try_from(n).ok());
    let Some(address) = chosen.and_then(|number| addresses.get(number)) else {
        return Err("the name has no address".to_owned());
    };
    // A new socket each time: the box may have moved to another network since.
    let endpoint = Endpoint::client(any_address(*address)).map_err(|error| error.to_string())?;
    let connecting =
        endpoint.connect_with(config, *address, BACKEND_NAME).map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| reason(&error))?;
    Ok((connection, endpoint))
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
    events.send(LinkEvent::Failed(reason(&error))).await;
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
            events.send(LinkEvent::Failed(reason)).await;
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
        Err(error) => events.send(LinkEvent::Failed(error)).await,
    }
}

/// Sends batches in the order of `keys`, each on a stream of its own, until the connection ends.
pub(super) async fn write_batches(
    connection: Connection,
    shared: Arc<Shared>,
    mut keys: mpsc::Receiver<Key>,
    events: Events,
) {
    let mut answers = JoinSet::new();
    let mut priority = i32::MAX;
    loop {
        let key = tokio::select! {
            key = keys.recv() => key,
            Some(_read) = answers.join_next() => continue,
        };
        let Some(key) = key else { return };
        let path = shared.spool.path(key);
        let read = tokio::task::spawn_blocking(move || read_bounded(&path));
        let bytes = match read.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                events.send(LinkEvent::Missing(key)).await;
                continue;
            }
            Ok(Err(error)) => {
                events.send(LinkEvent::Unreadable(key, error.to_string())).await;
                continue;
            }
            Err(error) => {
                events.send(LinkEvent::Unreadable(key, error.to_string())).await;
                continue;
            }
        };
        // Earlier batches first, or a later one could use up the window that the backend needs to read on.
        priority = priority.saturating_sub(1);
        match send_batch(&connection, key, bytes, priority).await {
            Ok(answer) => {
                answers.spawn(read_answer(connection.clone(), key, answer, events.clone()));
            }
            Err(_lost) if connection.close_reason().is_some() => return,
            Err(error) => {
                events.send(LinkEvent::Failed(error)).await;
                return;
            }
        }
    }
}

async fn send_batch(
    connection: &Connection,
    key: Key,
    bytes: Vec<u8>,
    priority: i32,
) -> Result<RecvStream, String> {
    let (mut stream, answer) = connection.open_bi().await.map_err(|error| reason(&error))?;
    stream.set_priority(priority).map_err(|error| error.to_string())?;
    let prefix = wire::batch_prefix(key, bytes.len());
    stream.write_all(&prefix).await.map_err(|error| error.to_string())?;
    stream.write_chunk(bytes.into()).await.map_err(|error| error.to_string())?;
    stream.finish().map_err(|error| error.to_string())?;
    Ok(answer)
}

async fn read_answer(connection: Connection, key: Key, mut answer: RecvStream, events: Events) {
    let read = match answer.read_to_end(ACK_BYTES_MAX).await {
        Ok(bytes) => wire::read_ack(&bytes).map_err(|error| error.to_string()),
        Err(_lost) if connection.close_reason().is_some() => return,
        Err(error) => Err(error.to_string()),
    };
    let event = match read {
        Ok((acked, outcome)) if acked == key => LinkEvent::Answered(key, outcome),
        Ok((acked, _)) => LinkEvent::Failed(format!("an ack for {acked:?} in place of {key:?}")),
        Err(error) => LinkEvent::Failed(error),
    };
    events.send(event).await;
}
