//! Takes the spool; runs the delivery to the backend in a thread of its own, logs what it says
//! without repeating itself, and counts what was acknowledged.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use tokio::sync::watch;
use uplink::{DeliverError, DeliverOptions, DeliveryEvent, Shutdown, SpoolHandle, deliver};

use super::news::News;
use crate::config::{Bounded, UplinkConfig};

/// After this long it is told that, and for what, the end of the sensor waits.
const NOTICE_AFTER: Duration = Duration::from_secs(1);

/// What the backend has answered so far, for this start of the sensor and for earlier ones.
#[derive(Debug, Default)]
struct Answers {
    boot_epoch: u64,
    records_acked: AtomicU64,
    records_acked_earlier: AtomicU64,
    records_rejected: AtomicU64,
    news: Mutex<News>,
    /// Whether there is a connection; unknown before the first attempt ended.
    connected: Mutex<Option<bool>>,
    /// Why nothing is acknowledged; `None` while something is, and before the first attempt ended.
    trouble: Mutex<Option<String>>,
}

impl Answers {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble.is_none());
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// How long to wait for the backend when the sensor ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// This long in all.
    Total(Duration),
    /// As long as the backend acknowledges something within this time.
    SinceAck(Duration),
}

/// A running delivery.
pub(super) struct Delivery {
    thread: JoinHandle<Result<(), DeliverError>>,
    shutdown: watch::Sender<Shutdown>,
    spool: SpoolHandle,
    answers: Arc<Answers>,
    acked: Receiver<()>,
}

impl Delivery {
    /// Starts delivering.
    pub(super) fn start(
        spool: SpoolHandle,
        boot_epoch: u64,
        config: &UplinkConfig,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shutdown, wishes) = watch::channel(Shutdown::No);
        let (tell, acked) = bounded(1);
        let answers = Arc::new(Answers { boot_epoch, ..Answers::default() });
        let counted = Arc::clone(&answers);
        let bandwidth = config.bandwidth_bytes_per_second_max;
        let options = DeliverOptions {
            bandwidth_bytes_per_second_max: bandwidth.map(Bounded::get),
            ..DeliverOptions::new(spool.clone())
        };
        let thread = thread::Builder::new().name("delivery".to_owned()).spawn(move || {
            let progress = |event: DeliveryEvent| handle_event(&counted, &tell, &event);
            runtime.block_on(deliver(options, progress, wishes)).map(|_totals| ())
        })?;
        Ok(Self { thread, shutdown, spool, answers, acked })
    }

    /// Records sealed since this start that the backend has.
    pub(super) fn records_acked(&self) -> u64 {
        self.answers.records_acked.load(Ordering::Relaxed)
    }

    /// Records of earlier starts that the backend took since this one.
    pub(super) fn records_acked_earlier(&self) -> u64 {
        self.answers.records_acked_earlier.load(Ordering::Relaxed)
    }

    /// Records that the backend refused for good.
    pub(super) fn records_rejected(&self) -> u64 {
        self.answers.records_rejected.load(Ordering::Relaxed)
    }

    /// Whether there is a connection; unknown before the first attempt ended.
    pub(super) fn connected(&self) -> Option<bool> {
        *self.answers.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When this sensor's certificate ends, seconds since the Unix epoch.
    pub(super) fn certificate_ends_unix_s(&self) -> u64 {
        self.spool.certificate().ends_unix_s
    }

    /// Waits until the backend has acknowledged something; says whether it did in time.
    pub(super) fn wait_for_ack(&self, within: Duration) -> bool {
        self.acked.recv_timeout(within).is_ok()
    }

    /// Waits until everything is acknowledged, or patience ends, or `hurry` says so; then stops.
    pub(super) fn finish(self, patience: Patience, hurry: Option<&Receiver<()>>) -> Ended {
        let never = never();
        let hurry = hurry.unwrap_or(&never);
        let backend = self.spool.identity().backend.clone();
        let start = Instant::now();
        let mut last_ack = start;
        let mut notice = Some(start + NOTICE_AFTER);
        while self.spool.waiting().0 > 0 && !self.thread.is_finished() {
            let until = match patience {
                Patience::Total(total) => start + total,
                Patience::SinceAck(silence) => last_ack + silence,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if notice.is_some_and(|at| Instant::now() >= at) {
                notice = None;
                let (batches, records) = self.spool.waiting();
                tracing::info!(
                    "waiting for {backend} to acknowledge {records} records (batches: {batches})"
                );
            }
            let left = notice.map_or(left, |at| left.min(at - Instant::now().min(at)));
            select! {
                recv(self.acked) -> told => match told {
                    Ok(()) => last_ack = Instant::now(),
                    Err(_ended) => break,
                },
                recv(hurry) -> _ => break,
                default(left) => {}
            }
        }
        let (batches_waiting, records_waiting) = self.spool.waiting();
        if batches_waiting > 0 {
            let trouble = self.answers.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            let why = trouble.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
            tracing::warn!(
                "{records_waiting} records (batches: {batches_waiting}) are not acknowledged by \
                 {backend}{why}; they stay in the spool and go out at the next start, or by `deliver`"
            );
        }
        let _no_receiver_left = self.shutdown.send(Shutdown::Now);
        let fault = match self.thread.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_panic) => Some("the delivery stopped by a fault of its own".to_owned()),
        };
        Ended {
            records_acked: self.answers.records_acked.load(Ordering::Relaxed),
            records_acked_earlier: self.answers.records_acked_earlier.load(Ordering::Relaxed),
            records_rejected: self.answers.records_rejected.load(Ordering::Relaxed),
            batches_waiting,
            records_waiting,
            fault,
        }
    }
}

/// What a delivery has come to.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) records_acked: u64,
    pub(super) records_acked_earlier: u64,
    pub(super) records_rejected: u64,
    pub(super) batches_waiting: u64,
    pub(super) records_waiting: u64,
    pub(super) fault: Option<String>,
}

fn handle_event(answers: &Answers, tell: &Sender<()>, event: &DeliveryEvent) {
    match event {
        DeliveryEvent::Acked { id, records, .. } => {
            let records = u64::from(*records);
            if id.boot_epoch == answers.boot_epoch {
                answers.records_acked.fetch_add(records, Ordering::Relaxed);
            } else {
                answers.records_acked_earlier.fetch_add(records, Ordering::Relaxed);
            }
            // One message that something happened is enough.
            let _full = tell.try_send(());
            answers.set_trouble(None);
            if answers.news().handle_answer() {
                tracing::info!("the backend stores batches again; {event}");
            } else {
                tracing::debug!("{event}");
            }
        }
        DeliveryEvent::Connected { batches_waiting, .. } => {
            if answers.news().handle_connected(*batches_waiting) {
                answers.set_trouble(None);
                tracing::info!("{event}");
            } else {
                tracing::debug!("{event}");
            }
        }
        DeliveryEvent::Unreachable { reason, .. } | DeliveryEvent::Disconnected { reason, .. } => {
            answers.set_trouble(Some(reason.clone()));
            if answers.news().handle_failure(Instant::now()) {
                tracing::warn!("{event}; records are kept in the spool meanwhile");
            } else {
                tracing::debug!("{event}");
            }
        }
        DeliveryEvent::Rejected { records, .. } => {
            answers.news().handle_answer();
            answers.records_rejected.fetch_add(u64::from(*records), Ordering::Relaxed);
            let _full = tell.try_send(());
            tracing::error!("{event}");
        }
        DeliveryEvent::CertificateRenewed { .. } => tracing::info!("{event}"),
        DeliveryEvent::CertificateNotRenewed { expired, .. } => {
            if *expired {
                answers.set_trouble(Some(event.to_string()));
                tracing::error!("{event}");
            } else {
                tracing::warn!("{event}");
            }
        }
        DeliveryEvent::Spool { .. } => tracing::error!("{event}"),
    }
}
