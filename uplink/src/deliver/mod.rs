//! Takes the spool; gives its batches to the backend over QUIC. The decisions are [`crate::session`]'s; this
//! shell has the sockets, the clock and the files. Never removes a batch without an ack.

mod event;
mod link;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::{ClientConfig, Connection, Endpoint};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub use event::DeliveryEvent;

use crate::code::{CodeError, check_address};
use crate::outbox::{Shared, SpoolHandle};
use crate::renew::Renewer;
use crate::session::{Action, Session, SessionSettings};
use crate::spool::Key;
use crate::tls::{self, TlsError};
use crate::wire::Close;
use crate::{BatchId, state::Identity};
use link::{Events, LinkEvent, Pace, Writer};

/// What the backend may send before it is read: acks, of at most a few hundred bytes each.
const WINDOW_BYTES: u32 = 256 << 10;
/// How long the end of a connection may take to be told to the backend.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a delivery is made with.
#[derive(Clone, Debug)]
pub struct DeliverOptions {
    /// The outbox's spool.
    pub spool: SpoolHandle,
    /// Where the backend is, `host:port`, in place of the address it had at enrolment.
    pub backend: Option<String>,
    /// Batches sent and not yet acked; 1 to 32.
    pub in_flight_max: usize,
    /// Most bytes a second that go out, of UDP and what is in it, on average; a quarter of a second's bytes may go at
    /// once. `None` is as many as the line takes.
    pub bandwidth_bytes_per_second_max: Option<u64>,
    /// First wait after the backend ended a connection, and longest wait while nobody answers.
    pub backoff_min_ms: u64,
    /// Longest wait after the backend ended many connections.
    pub backoff_max_ms: u64,
    /// How long the first attempt at a connection may take. The next ones take two, four and eight times as long, and
    /// so on from the start; once a connection stood, all take this long, or four times what that one took.
    pub connect_timeout_ms: u64,
    /// How long the backend may take for its greeting, and from one ack to the next.
    pub answer_timeout_ms: u64,
    /// A connection on which an answer is due and not a single packet comes for this long, or for eight round trips
    /// if those are longer, is given up for a new one.
    pub silence_max_ms: u64,
    /// A silent connection is given up after this long.
    pub idle_timeout_ms: u32,
    /// Where the jitter of the waits comes from; random when `None`.
    pub seed: Option<u64>,
}

impl DeliverOptions {
    /// With the usual bounds.
    #[must_use]
    pub const fn new(spool: SpoolHandle) -> Self {
        Self {
            spool,
            backend: None,
            in_flight_max: 16,
            bandwidth_bytes_per_second_max: None,
            backoff_min_ms: 500,
            backoff_max_ms: 60_000,
            connect_timeout_ms: 1_000,
            answer_timeout_ms: 60_000,
            silence_max_ms: 2_000,
            idle_timeout_ms: 30_000,
            seed: None,
        }
    }
}

/// When a delivery ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shutdown {
    /// Not yet.
    #[default]
    No,
    /// As soon as the spool is empty, but after this long in any case.
    WhenEmpty {
        /// Counted from when the delivery notices.
        within: Duration,
    },
    /// At once. What is in the spool stays there.
    Now,
}

/// What a delivery has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryTotals {
    /// Batches that the backend has durably.
    pub batches_acked: u64,
    /// Records in those.
    pub records_acked: u64,
    /// Bytes of those.
    pub bytes_acked: u64,
    /// Of the acked batches, those that the backend had before.
    pub batches_duplicate: u64,
    /// Batches that the backend will never take.
    pub batches_rejected: u64,
    /// Records in those.
    pub records_rejected: u64,
    /// Connections that came about.
    pub connections: u64,
    /// Attempts that failed, and connections that ended before the delivery did.
    pub failures: u64,
}

/// Why a delivery cannot begin.
#[derive(Debug, Error)]
pub enum DeliverError {
    /// Key and certificates do not fit. Remedy: enrol again.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The backend's address is not one.
    #[error(transparent)]
    Address(#[from] CodeError),
    /// Out of range.
    #[error("in_flight_max is {0}, not 1 to 32")]
    InFlight(usize),
    /// The system's random source failed.
    #[error("no random seed could be made")]
    Random,
}

/// Delivers until `shutdown` says otherwise; connects, and connects again, by itself. Runs on tokio.
///
/// # Errors
///
/// When it cannot begin. A backend that is down is an event, not an error.
pub async fn deliver(
    options: DeliverOptions,
    progress: impl Fn(DeliveryEvent) + Send + Sync,
    shutdown: watch::Receiver<Shutdown>,
) -> Result<DeliveryTotals, DeliverError> {
    let shared = Arc::clone(&options.spool.0);
    let backend = options.backend.clone();
    let backend = backend.unwrap_or_else(|| shared.credentials.identity.backend.clone());
    let chance = options.seed.map_or_else(random_seed, Ok)?;
    let mut renewer = Renewer::new(shared, backend, chance, &progress)?;
    let mut told_to_end = shutdown.clone();
    tokio::select! {
        () = renewer.catch_up() => {}
        _ended = told_to_end.wait_for(|wish| *wish == Shutdown::Now) => {}
    }
    tokio::select! {
        delivered = carry(options, &progress, shutdown) => delivered,
        never = renewer.run() => match never {},
    }
}

/// The delivery itself; a renewal goes on beside it.
async fn carry(
    options: DeliverOptions,
    progress: &(dyn Fn(DeliveryEvent) + Send + Sync),
    mut shutdown: watch::Receiver<Shutdown>,
) -> Result<DeliveryTotals, DeliverError> {
    let mut courier = Courier::new(options, progress)?;
    let mut until = None;
    loop {
        courier.act().await;
        courier.due.store(courier.session.awaits_answer(), Ordering::Relaxed);
        let wish = *shutdown.borrow_and_update();
        match wish {
            Shutdown::No => until = None,
            Shutdown::WhenEmpty { within } => {
                let until = *until.get_or_insert_with(|| Instant::now() + within);
                if courier.waiting() == 0 || Instant::now() >= until {
                    break;
                }
            }
            Shutdown::Now => break,
        }
        let timer = [courier.next_timeout(), until].into_iter().flatten().min();
        let alarm = async {
            match timer {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((attempt, event)) = courier.received.recv() => courier.handle(attempt, event),
            () = courier.shared.stored.notified() => {}
            () = alarm => {
                let now_ms = courier.now_ms();
                courier.session.handle_timeout(now_ms);
            }
            changed = shutdown.changed() => {
                // Without its other half nobody can end the delivery any more.
                if changed.is_err() {
                    break;
                }
            }
        }
    }
    courier.end().await;
    Ok(courier.totals)
}

/// A connection and the line of batches to be sent over it.
struct Link {
    connection: Connection,
    endpoint: Endpoint,
    keys: mpsc::Sender<Key>,
}

struct Courier<'a> {
    options: DeliverOptions,
    shared: Arc<Shared>,
    backend: String,
    config: ClientConfig,
    session: Session,
    started: Instant,
    attempt: u64,
    greeted: bool,
    /// The backend owes an answer.
    due: Arc<AtomicBool>,
    link: Option<Link>,
    pace: Option<Pace>,
    /// Of the present attempt; dropping it ends them.
    tasks: JoinSet<()>,
    events: mpsc::Sender<(u64, LinkEvent)>,
    received: mpsc::Receiver<(u64, LinkEvent)>,
    totals: DeliveryTotals,
    progress: &'a (dyn Fn(DeliveryEvent) + Send + Sync),
}

impl<'a> Courier<'a> {
    fn new(
        options: DeliverOptions,
        progress: &'a (dyn Fn(DeliveryEvent) + Send + Sync),
    ) -> Result<Self, DeliverError> {
        let shared = Arc::clone(&options.spool.0);
        if !(1..=32).contains(&options.in_flight_max) {
            return Err(DeliverError::InFlight(options.in_flight_max));
        }
        let identity: &Identity = &shared.credentials.identity;
        let backend = options.backend.clone().unwrap_or_else(|| identity.backend.clone());
        check_address(&backend)?;
        let mut config = tls::delivery_client(&shared.credentials)?;
        let transport = tls::transport(options.idle_timeout_ms, 0, WINDOW_BYTES);
        config.transport_config(Arc::new(transport));
        let seed = match options.seed {
            Some(seed) => seed,
            None => random_seed()?,
        };
        let settings = SessionSettings {
            in_flight_max: options.in_flight_max,
            backoff_min_ms: options.backoff_min_ms,
            backoff_max_ms: options.backoff_max_ms,
            connect_timeout_ms: options.connect_timeout_ms,
            answer_timeout_ms: options.answer_timeout_ms,
            seed,
        };
        // Every task of an attempt has at most one event under way, and there are few tasks.
        let (events, received) = mpsc::channel(64);
        let pace = options.bandwidth_bytes_per_second_max.map(Pace::new);
        Ok(Self {
            options,
            pace,
            backend,
            config,
            session: Session::new(settings, 0),
            started: Instant::now(),
            attempt: 0,
            greeted: false,
            due: Arc::default(),
            link: None,
            tasks: JoinSet::new(),
            events,
            received,
            totals: DeliveryTotals::default(),
            progress,
            shared,
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn next_timeout(&self) -> Option<Instant> {
        let at_ms = self.session.poll_timeout()?;
        Some(self.started + Duration::from_millis(at_ms))
    }

    fn waiting(&self) -> u64 {
        u64::try_from(self.shared.spool.index().len()).unwrap_or(u64::MAX)
    }

    fn id(&self, key: Key) -> BatchId {
        let sensor = self.shared.credentials.identity.sensor.clone();
        BatchId { sensor, boot_epoch: key.boot_epoch, sequence: key.sequence }
    }

    fn next_action(&mut self) -> Option<Action> {
        let now_ms = self.now_ms();
        self.session.poll_action(now_ms, &self.shared.spool.index())
    }

    /// Does everything that the session wants done now.
    async fn act(&mut self) {
        while let Some(action) = self.next_action() {
            match action {
                Action::Connect => self.connect(),
                Action::Hello { boot_epochs } => {
                    if let Some(link) = &self.link {
                        let connection = link.connection.clone();
                        self.tasks.spawn(link::greet(connection, boot_epochs, self.events()));
                    }
                }
                Action::Send(key) => {
                    self.shared.spool.index().set_in_flight(key);
                    // The line is as long as the session allows batches in flight; without a link its end
                    // is about to be handled, and the batch is sent over the next one.
                    let sent =
                        self.link.as_ref().is_some_and(|link| link.keys.try_send(key).is_ok());
                    if !sent {
                        tracing::debug!(?key, "no link to send on");
                    }
                }
                Action::Remove { key, duplicate } => {
                    self.remove(key, duplicate);
                    // A long line of removals must not keep other tasks from running.
                    tokio::task::yield_now().await;
                }
                Action::Reject { key, reason } => self.reject(key, reason),
                Action::Disconnect { reason } => {
                    let next = self.session.poll_timeout().unwrap_or(0);
                    self.disconnected(reason, next.saturating_sub(self.now_ms()));
                }
            }
        }
    }

    fn events(&self) -> Events {
        Events { attempt: self.attempt, sender: self.events.clone() }
    }

    fn connect(&mut self) {
        self.attempt += 1;
        self.greeted = false;
        self.tasks = JoinSet::new();
        let (backend, config) = (self.backend.clone(), self.config.clone());
        self.tasks.spawn(link::connect(backend, config, self.events()));
    }

    fn remove(&mut self, key: Key, duplicate: bool) {
        match self.shared.spool.acknowledged(key) {
            Ok(None) => {}
            Ok(Some(entry)) => {
                self.totals.batches_acked += 1;
                self.totals.records_acked += u64::from(entry.records);
                self.totals.bytes_acked += entry.bytes;
                self.totals.batches_duplicate += u64::from(duplicate);
                let batches_waiting = self.waiting();
                let (id, records) = (self.id(key), entry.records);
                (self.progress)(DeliveryEvent::Acked { id, records, duplicate, batches_waiting });
            }
            Err(error) => self.spool_trouble(key, error.to_string()),
        }
    }

    fn reject(&mut self, key: Key, reason: String) {
        match self.shared.spool.reject(key) {
            Ok(None) => {}
            Ok(Some(entry)) => {
                self.totals.batches_rejected += 1;
                self.totals.records_rejected += u64::from(entry.records);
                let (id, records) = (self.id(key), entry.records);
                (self.progress)(DeliveryEvent::Rejected { id, records, reason });
            }
            Err(error) => self.spool_trouble(key, error.to_string()),
        }
    }

    fn spool_trouble(&self, key: Key, reason: String) {
        (self.progress)(DeliveryEvent::Spool { id: self.id(key), reason });
    }

    fn handle(&mut self, attempt: u64, event: LinkEvent) {
        if attempt != self.attempt {
            return;
        }
        let now_ms = self.now_ms();
        match event {
            LinkEvent::Connected(connection, endpoint) => {
                self.totals.connections += 1;
                let (keys, line) = mpsc::channel(self.options.in_flight_max);
                self.tasks.spawn(link::watch(connection.clone(), self.events()));
                let due = Arc::clone(&self.due);
                let silence_max = Duration::from_millis(self.options.silence_max_ms);
                let listen = link::listen(connection.clone(), due, silence_max, self.events());
                self.tasks.spawn(listen);
                let (shared, pace) = (Arc::clone(&self.shared), self.pace.clone());
                let events = self.events();
                let writer = Writer { connection: connection.clone(), shared, pace, events };
                self.tasks.spawn(writer.run(line));
                self.link = Some(Link { connection, endpoint, keys });
                self.session.handle_connected(now_ms, &self.shared.spool.index());
            }
            LinkEvent::Progress => self.session.handle_progress(now_ms),
            LinkEvent::Failed(cause, reason) => {
                let next_try_ms = self.session.handle_disconnected(now_ms, cause);
                self.disconnected(reason, next_try_ms);
            }
            LinkEvent::Held(held) => {
                self.greeted = true;
                let (backend, batches_waiting) = (self.backend.clone(), self.waiting());
                (self.progress)(DeliveryEvent::Connected { backend, batches_waiting });
                if let Some(link) = &self.link {
                    let shared = Arc::clone(&self.shared);
                    self.tasks.spawn(link::tell(link.connection.clone(), shared));
                }
                self.session.handle_held(now_ms, &held);
            }
            LinkEvent::Answered(key, outcome) => self.session.handle_ack(now_ms, key, outcome),
            LinkEvent::Missing(key) => {
                self.session.handle_missing(key);
                // An evicted batch is not expected any more.
                if self.shared.spool.forget(key) {
                    self.spool_trouble(key, "somebody has removed its file".to_owned());
                }
            }
            LinkEvent::Unreadable(key, reason) => {
                self.session.handle_missing(key);
                let moved = self.shared.spool.quarantine(key);
                let moved =
                    moved.map_or_else(|error| error.to_string(), |_entry| "moved".to_owned());
                self.spool_trouble(
                    key,
                    format!("cannot be read: {reason}; to `quarantine`: {moved}"),
                );
            }
        }
    }

    fn disconnected(&mut self, reason: String, next_try_ms: u64) {
        // What is still under way of this attempt is of no interest any more.
        self.attempt += 1;
        self.tasks = JoinSet::new();
        if let Some(link) = self.link.take() {
            Close::Done.close(&link.connection);
        }
        self.shared.spool.index().clear_in_flight();
        self.totals.failures += 1;
        let (backend, batches_waiting) = (self.backend.clone(), self.waiting());
        (self.progress)(if self.greeted {
            DeliveryEvent::Disconnected { backend, reason, next_try_ms, batches_waiting }
        } else {
            DeliveryEvent::Unreachable { backend, reason, next_try_ms, batches_waiting }
        });
        self.greeted = false;
    }

    /// Closes the connection and lets the backend know.
    async fn end(&mut self) {
        self.tasks.shutdown().await;
        self.shared.spool.index().clear_in_flight();
        if let Some(link) = self.link.take() {
            Close::Done.close(&link.connection);
            if timeout(GOODBYE, link.endpoint.wait_idle()).await.is_err() {
                tracing::debug!("the backend did not notice the end of the connection in time");
            }
        }
    }
}

fn random_seed() -> Result<u64, DeliverError> {
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_unspecified| DeliverError::Random)?;
    Ok(u64::from_le_bytes(seed))
}
