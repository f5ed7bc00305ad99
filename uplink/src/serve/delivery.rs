//! Takes the delivery connection of one sensor; gives its batches to the intake, in the order in which they were
//! sent, and acks back. Never hands a batch over that is damaged, unsigned or of somebody else.
//!
//! ```text
//! streams in order ─► read ─► queue ─► group ─► verify, decode ─► Intake::commit, all of the group ─► acks
//! ```
//!
//! A group is what has arrived by the time the former group is durable. After a Retry the connection is closed
//! and nothing more is handed over: the sensor begins again with the batch that failed. These decisions are
//! [`Reception`]'s; this shell has the streams and the store.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::connections::over;
use super::{Backend, HEALTH_STREAMS_AFTER, STREAMS_AFTER, WINDOW_BYTES_AFTER, condition};
use crate::Peer;
use crate::batch::{Batch, open_signed};
use crate::certificate::PeerCertificate;
use crate::intake::{Commit, CommitError, Intake};
use crate::session::reception::{Deed, Reception, ReceptionSettings};
use crate::spool::Key;
use crate::wire::{self, BATCH_PREFIX, Close, HELLO_BYTES_MAX, Outcome};

/// Batches that wait for the former group.
const QUEUE_BATCHES: usize = 16;
const RECEPTION: ReceptionSettings = ReceptionSettings {
    group_batches: 16,
    // About 40 MiB once decoded.
    group_records: 262_144,
    queue_batches: 16,
};
/// How long one batch may take to arrive, whatever its pauses: 16 MiB at 256 kbit/s.
const BATCH_TIMEOUT: Duration = Duration::from_mins(10);

/// A batch as it came, with the stream that its ack goes back on.
struct Received {
    /// Position among the streams of batches.
    stream: u64,
    key: Key,
    bytes: Bytes,
    answer: SendStream,
    _room: OwnedSemaphorePermit,
}

/// Serves one connection until it ends. The certificate is one of this backend's authority, and not over.
pub(super) async fn run<I: Intake>(
    backend: &Backend<I>,
    connection: &Connection,
    certificate: PeerCertificate,
) {
    let remote = connection.remote_address();
    let PeerCertificate { peer, validity } = certificate;
    tracing::info!(%remote, sensor = %peer.sensor, "sensor connected");
    let close = if let Err(close) = admit(backend, &peer).await {
        close
    } else {
        let (turn, validity) = backend.connections.enter(&peer.sensor, connection, validity);
        connection.set_receive_window(WINDOW_BYTES_AFTER);
        connection.set_max_concurrent_bi_streams(STREAMS_AFTER);
        connection.set_max_concurrent_uni_streams(HEALTH_STREAMS_AFTER);
        let close = tokio::select! {
            close = async {
                let _turn = turn.lock().await;
                session(backend, connection, &peer).await
            } => close,
            close = condition::listen(backend, connection, &peer) => close,
            () = over(validity) => Close::Expired,
        };
        backend.connections.leave(&peer.sensor, connection, &turn);
        close
    };
    close.close(connection);
    tracing::info!(%remote, sensor = %peer.sensor, reason = close.reason(), "sensor disconnected");
}

/// When the store cannot say, the sensor is not let in either; it keeps its batches and tries again.
async fn admit<I: Intake>(backend: &Backend<I>, peer: &Peer) -> Result<(), Close> {
    match backend.intake.admitted(peer).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            backend.totals.peers_not_admitted.add(1);
            Err(Close::NotAdmitted)
        }
        Err(error) => {
            tracing::error!(sensor = %peer.sensor, %error, "cannot tell whether it is admitted");
            Err(Close::Retry)
        }
    }
}

async fn session<I: Intake>(backend: &Backend<I>, connection: &Connection, peer: &Peer) -> Close {
    let mut reception = Reception::new(RECEPTION);
    if let Err(close) = greet(backend, connection, peer, &mut reception).await {
        return close;
    }
    let (queue, queued) = mpsc::channel(QUEUE_BATCHES);
    let mut read = std::pin::pin!(read_batches(backend, connection, queue));
    let mut commit = std::pin::pin!(commit_batches(backend, peer, reception, queued));
    tokio::select! {
        ended = &mut commit => ended.unwrap_or(Close::Done),
        // What has arrived whole is committed even if its ack finds nobody: that much less to send again.
        close = &mut read => commit.await.unwrap_or(close),
    }
}

/// Answers the hello.
async fn greet<I: Intake>(
    backend: &Backend<I>,
    connection: &Connection,
    peer: &Peer,
    reception: &mut Reception,
) -> Result<(), Close> {
    let exchange = async {
        let (mut answer, mut stream) = connection.accept_bi().await.map_err(|_lost| Close::Done)?;
        let bytes = stream.read_to_end(HELLO_BYTES_MAX).await.map_err(|_e| Close::Protocol)?;
        let epochs = wire::read_hello(&bytes).map_err(|error| {
            tracing::warn!(sensor = %peer.sensor, %error, "not a hello");
            Close::Protocol
        })?;
        reception.handle_hello(epochs);
        while let Some(deed) = reception.poll_deed() {
            match deed {
                Deed::Look { boot_epochs } => {
                    reception.handle_held(look(backend, peer, boot_epochs).await);
                }
                Deed::Greet { held } => {
                    answer.write_all(&wire::held(&held)).await.map_err(|_lost| Close::Done)?;
                    answer.finish().map_err(|_closed| Close::Done)?;
                }
                Deed::Close(close) => return Err(close),
                Deed::Commit { .. } | Deed::Ack { .. } => {}
            }
        }
        Ok(())
    };
    timeout(backend.step_timeout(), exchange).await.unwrap_or(Err(Close::Protocol))
}

/// Asks the store what it holds, 0 for nothing; `None` when it cannot say.
async fn look<I: Intake>(
    backend: &Backend<I>,
    peer: &Peer,
    boot_epochs: Vec<u64>,
) -> Option<Vec<u64>> {
    let mut held = Vec::with_capacity(boot_epochs.len());
    for epoch in boot_epochs {
        match backend.intake.last_sequence(&peer.sensor, epoch).await {
            Ok(last) => held.push(last.unwrap_or_default()),
            Err(error) => {
                tracing::error!(sensor = %peer.sensor, %error, "cannot tell what is stored");
                return None;
            }
        }
    }
    Some(held)
}

/// Reads batches in the order of their streams until the connection ends.
async fn read_batches<I: Intake>(
    backend: &Backend<I>,
    connection: &Connection,
    queue: mpsc::Sender<Received>,
) -> Close {
    for number in 0.. {
        let Ok((answer, stream)) = connection.accept_bi().await else { return Close::Done };
        let read = timeout(BATCH_TIMEOUT, read_batch(backend, number, stream, answer)).await;
        let problem = match read {
            Ok(Ok(received)) => match queue.send(received).await {
                Ok(()) => continue,
                Err(_committer_gone) => return Close::Done,
            },
            Ok(Err(problem)) => problem,
            Err(_elapsed) => format!("a batch took more than {} s", BATCH_TIMEOUT.as_secs()),
        };
        // Later batches may be whole, but must not overtake this one.
        backend.totals.streams_broken.add(1);
        tracing::info!(remote = %connection.remote_address(), problem, "batch not received");
        return Close::Protocol;
    }
    Close::Done
}

async fn read_batch<I: Intake>(
    backend: &Backend<I>,
    number: u64,
    mut stream: RecvStream,
    answer: SendStream,
) -> Result<Received, String> {
    let pause = backend.step_timeout();
    let late = |_elapsed| "the sensor paused within a batch".to_owned();
    let mut prefix = [0; BATCH_PREFIX];
    timeout(pause, stream.read_exact(&mut prefix))
        .await
        .map_err(late)?
        .map_err(|error| error.to_string())?;
    let (key, length) = wire::read_batch_prefix(&prefix).map_err(|error| error.to_string())?;
    let permits = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX);
    let room = Arc::clone(&backend.intake_bytes)
        .acquire_many_owned(permits)
        .await
        .map_err(|closed| closed.to_string())?;
    // Grows with what arrives, not with what was announced.
    let mut bytes = BytesMut::new();
    while let Some(chunk) = timeout(pause, stream.read_chunk(usize::MAX, true))
        .await
        .map_err(late)?
        .map_err(|error| error.to_string())?
    {
        if bytes.len() + chunk.bytes.len() > length {
            return Err(format!("more than the {length} bytes that were announced"));
        }
        bytes.extend_from_slice(&chunk.bytes);
    }
    if bytes.len() < length {
        return Err(format!("{} bytes of {length}", bytes.len()));
    }
    Ok(Received { stream: number, key, bytes: bytes.freeze(), answer, _room: room })
}

/// A batch that was looked at, and waits for its turn.
struct Judged {
    bytes: Bytes,
    verdict: Result<Batch, String>,
    answer: SendStream,
    room: OwnedSemaphorePermit,
}

/// Commits groups until the queue ends (`None`), or something makes going on useless.
async fn commit_batches<I: Intake>(
    backend: &Backend<I>,
    peer: &Peer,
    mut reception: Reception,
    mut queued: mpsc::Receiver<Received>,
) -> Option<Close> {
    let mut waiting = BTreeMap::new();
    let mut answers = BTreeMap::new();
    loop {
        let Some(deed) = reception.poll_deed() else {
            // Waits for one, and takes what has come with it.
            let mut next = Some(queued.recv().await?);
            while let Some(received) = next {
                let Received { stream, key, bytes, answer, _room: room } = received;
                let verdict = judge(peer.clone(), key, bytes.clone()).await;
                let records = verdict.as_ref().map_or(0, |batch| batch.records.len());
                waiting.insert(stream, Judged { bytes, verdict, answer, room });
                reception.handle_batch(stream, key, records);
                next = reception.has_room().then(|| queued.try_recv().ok()).flatten();
            }
            continue;
        };
        match deed {
            Deed::Commit { streams } => {
                if let Err(close) = admit(backend, peer).await {
                    if close == Close::NotAdmitted {
                        let batches = waiting.len() + queued.len();
                        let batches = u64::try_from(batches).unwrap_or(u64::MAX);
                        backend.totals.batches_rejected.add(batches);
                        backend.intake.refused(peer, batches).await;
                    }
                    return Some(close);
                }
                let mut commits = Vec::with_capacity(streams.len());
                for stream in streams {
                    if let Some(Judged { bytes, verdict, answer, room }) = waiting.remove(&stream) {
                        answers.insert(stream, (answer, room));
                        commits.push(commit(backend, peer.clone(), verdict, bytes));
                    }
                }
                reception.handle_settled(all_in_order(commits).await);
            }
            Deed::Ack { stream, key, outcome } => {
                count(backend, peer, key, &outcome);
                if let Some((answer, _room)) = answers.remove(&stream) {
                    ack(backend, peer, key, &outcome, answer).await;
                }
            }
            Deed::Close(close) => return Some(close),
            Deed::Look { .. } | Deed::Greet { .. } => {}
        }
    }
}

async fn ack<I: Intake>(
    backend: &Backend<I>,
    peer: &Peer,
    key: Key,
    outcome: &Outcome,
    mut answer: SendStream,
) {
    let sent = answer.write_all(&wire::ack(key, outcome)).await;
    if sent.is_err() || answer.finish().is_err() {
        tracing::debug!(sensor = %peer.sensor, "an ack found nobody");
    }
    if matches!(outcome, Outcome::Retry(_)) {
        // The connection is closed after this: wait until the sensor has the reason.
        let arrived = timeout(backend.step_timeout(), answer.stopped()).await;
        tracing::debug!(acked = arrived.is_ok(), "last ack of a connection");
    }
}

fn count<I>(backend: &Backend<I>, peer: &Peer, key: Key, outcome: &Outcome) {
    let totals = &backend.totals;
    let counter = match outcome {
        Outcome::Stored => &totals.batches_stored,
        Outcome::Duplicate => &totals.batches_duplicate,
        Outcome::Rejected(_) => &totals.batches_rejected,
        Outcome::Retry(_) => &totals.batches_retried,
    };
    counter.add(1);
    let Key { boot_epoch, sequence } = key;
    match outcome {
        Outcome::Rejected(_) => {
            tracing::warn!(sensor = %peer.sensor, boot_epoch, sequence, %outcome, "batch");
        }
        // The store has told its trouble, once; here it would be a line for each batch and attempt.
        Outcome::Retry(_) => {
            tracing::debug!(sensor = %peer.sensor, boot_epoch, sequence, %outcome, "batch");
        }
        Outcome::Stored | Outcome::Duplicate => {}
    }
}

/// Checks everything about a batch that does not need the store; gives the reason when it is refused.
async fn judge(peer: Peer, key: Key, bytes: Bytes) -> Result<Batch, String> {
    // Decoding a large batch takes milliseconds, which would hold up other connections.
    let judged = tokio::task::spawn_blocking(move || {
        let opened = open_signed(&bytes, &peer.public_key);
        let batch = opened.map_err(|error| error.to_string())?;
        let header = &batch.header;
        if (&header.member, &header.sensor) != (&peer.member, &peer.sensor) {
            let (member, sensor) = (&header.member, &header.sensor);
            return Err(format!(
                "the batch is of {member}/{sensor}, the certificate of {}/{}",
                peer.member, peer.sensor
            ));
        }
        if (header.boot_epoch, header.sequence) != (key.boot_epoch, key.sequence) {
            return Err(format!(
                "announced as {}/{}, it is {}/{}",
                key.boot_epoch, key.sequence, header.boot_epoch, header.sequence
            ));
        }
        Ok(batch)
    });
    judged.await.unwrap_or_else(|error| Err(format!("the batch could not be decoded: {error}")))
}

async fn commit<I: Intake>(
    backend: &Backend<I>,
    peer: Peer,
    judged: Result<Batch, String>,
    bytes: Bytes,
) -> Outcome {
    match judged {
        Err(reason) => Outcome::Rejected(reason),
        Ok(batch) => match backend.intake.commit(peer, batch, bytes).await {
            Ok(Commit::Stored) => Outcome::Stored,
            Ok(Commit::Duplicate) => Outcome::Duplicate,
            Err(CommitError::Reject(reason)) => Outcome::Rejected(reason),
            Err(CommitError::Retry(reason)) => Outcome::Retry(reason),
        },
    }
}

/// Polls all futures, each for the first time in the given order, and gives their results in that order.
async fn all_in_order<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (future, result) in running.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                *result = Some(output);
            }
        }
        if results.iter().all(Option::is_some) {
            Poll::Ready(results.drain(..).flatten().collect())
        } else {
            Poll::Pending
        }
    })
    .await
}
