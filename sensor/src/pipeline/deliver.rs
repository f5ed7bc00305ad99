//! Takes a state folder; gives the batches in its spool to the backend, and says what still waits.
//! Captures nothing and seals nothing, and so needs no room on the disk.

use std::io;
use std::time::Duration;

use uplink::{DeliveryEvent, OutboxError, Recovery, SpoolHandle, renew_if_due};

use super::PipelineError;
use super::delivery::{Delivery, Patience};
use super::kernel::stop_on_signals;
use crate::config::Config;

/// Without a limit of time, this long without an acknowledgement is the end: two attempts to connect
/// fit into it.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// No outbox was opened, so every batch is of an earlier start; no start has this number.
const NO_BOOT_EPOCH: u64 = 0;

/// What a delivery of a spool has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Records that the backend has now.
    pub records_acked: u64,
    /// Records that it refused for good; they are kept apart on the disk.
    pub records_rejected: u64,
    /// Records that still wait.
    pub records_waiting: u64,
    /// Batches that still wait.
    pub batches_waiting: u64,
    /// Spool files that were found damaged, and moved aside.
    pub batches_quarantined: u64,
    /// Batches of an earlier identity, which this one cannot deliver; no batch has told of them yet.
    pub batches_superseded: u64,
    /// Why the delivery ended early, when it did.
    pub fault: Option<String>,
}

impl Delivered {
    /// Whether nothing waits and nothing went wrong.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.batches_waiting == 0
            && self.records_rejected == 0
            && self.batches_quarantined == 0
            && self.batches_superseded == 0
            && self.fault.is_none()
    }
}

/// A box that only ever delivers renews its certificate here; a running sensor does it beside its delivery.
fn renew(spool: &SpoolHandle) -> Result<(), PipelineError> {
    let starting = |source| PipelineError::Start { what: "the renewal", source };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(starting)?;
    let told = |event: DeliveryEvent| {
        if matches!(event, DeliveryEvent::CertificateRenewed { .. }) {
            tracing::info!("{event}");
        } else {
            tracing::warn!("{event}");
        }
    };
    runtime.block_on(renew_if_due(spool, told)).map_err(|error| starting(io::Error::other(error)))
}

/// Delivers what waits in the spool of `config.uplink.state_dir`, until it is empty, or `within` has
/// passed, or SIGINT or SIGTERM comes. Without `within` it goes on as long as the backend
/// acknowledges something every minute.
///
/// # Errors
/// When the state folder cannot be used: in use by a running sensor, not enrolled, damaged.
pub fn deliver(config: &Config, within: Option<Duration>) -> Result<Delivered, PipelineError> {
    let folder = &config.uplink.state_dir;
    let unusable = |source: OutboxError| PipelineError::Uplink { folder: folder.clone(), source };
    let (spool, recovery) = SpoolHandle::open(folder).map_err(unusable)?;
    spool.set_sent_bytes_max(config.uplink.sent_bytes_max.get());
    let Recovery { batches_quarantined, batches_superseded, .. } = recovery;
    renew(&spool)?;
    let (batches, records) = spool.waiting();
    if batches == 0 {
        return Ok(Delivered { batches_quarantined, batches_superseded, ..Delivered::default() });
    }
    let backend = spool.identity().backend.clone();
    tracing::info!("delivering {records} records (batches: {batches}) to {backend}");
    let (stop, signals) = stop_on_signals()
        .map_err(|source| PipelineError::Start { what: "the signal handler", source })?;
    let patience = within.map_or(Patience::SinceAck(SILENCE_MAX), Patience::Total);
    let ended = Delivery::start(spool, NO_BOOT_EPOCH, &config.uplink)
        .map(|delivery| delivery.finish(patience, Some(&stop)))
        .map_err(|source| PipelineError::Start { what: "the delivery", source });
    signals.close();
    let ended = ended?;
    Ok(Delivered {
        records_acked: ended.records_acked + ended.records_acked_earlier,
        records_rejected: ended.records_rejected,
        records_waiting: ended.records_waiting,
        batches_waiting: ended.batches_waiting,
        batches_quarantined,
        batches_superseded,
        fault: ended.fault,
    })
}
