//! What a delivery tells whoever runs it. Never more often than batches are acked.

use std::fmt;

use crate::BatchId;

/// Something that happened on the link. Its text is one line for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryEvent {
    /// The backend answered, and said what it holds.
    Connected {
        /// Its address, `host:port`.
        backend: String,
        /// Batches in the spool.
        batches_waiting: u64,
    },
    /// No connection came about.
    Unreachable {
        /// Its address, `host:port`.
        backend: String,
        /// Why.
        reason: String,
        /// Wait before the next attempt.
        next_try_ms: u64,
        /// Batches in the spool.
        batches_waiting: u64,
    },
    /// A connection ended.
    Disconnected {
        /// Its address, `host:port`.
        backend: String,
        /// Why.
        reason: String,
        /// Wait before the next attempt.
        next_try_ms: u64,
        /// Batches in the spool.
        batches_waiting: u64,
    },
    /// The backend has a batch durably; it was removed from the spool.
    Acked {
        /// Which.
        id: BatchId,
        /// Its records.
        records: u64,
        /// Whether the backend had it before.
        duplicate: bool,
        /// Batches still in the spool.
        batches_waiting: u64,
    },
    /// The backend will never take a batch; it was moved to `rejected`.
    Rejected {
        /// Which.
        id: BatchId,
        /// Its records.
        records: u64,
        /// Why.
        reason: String,
    },
    /// A spool file could not be read, removed or moved.
    Spool {
        /// Which.
        id: BatchId,
        /// Why.
        reason: String,
    },
    /// The sensor has another certificate for its key; it is on the disk.
    CertificateRenewed {
        /// When it ends, as a text.
        ends: String,
    },
    /// It was time for another certificate, and there is none yet. Not for each attempt: again after an hour, or when
    /// the reason changes.
    CertificateNotRenewed {
        /// Why.
        reason: String,
        /// When the present one ends, as a text.
        ends: String,
        /// Whether that is over, so that nothing can be delivered.
        expired: bool,
    },
}

impl fmt::Display for DeliveryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { backend, batches_waiting } => {
                write!(f, "backend {backend} connected, {batches_waiting} batches waiting")
            }
            Self::Unreachable { backend, reason, next_try_ms, batches_waiting } => {
                write!(f, "backend {backend} unreachable: {reason}, ")?;
                waiting(f, *next_try_ms, *batches_waiting)
            }
            Self::Disconnected { backend, reason, next_try_ms, batches_waiting } => {
                write!(f, "backend {backend} disconnected: {reason}, ")?;
                waiting(f, *next_try_ms, *batches_waiting)
            }
            Self::Acked { id, records, duplicate, batches_waiting } => {
                let again = if *duplicate { " (the backend had it)" } else { "" };
                write!(f, "batch {id} acked{again}: {records} records, {batches_waiting} waiting")
            }
            Self::Rejected { id, records, reason } => {
                write!(f, "batch {id} with {records} records rejected by the backend: {reason}")
            }
            Self::Spool { id, reason } => write!(f, "batch {id}: {reason}"),
            Self::CertificateRenewed { ends } => {
                write!(f, "this sensor's certificate was renewed, it ends {ends}")
            }
            Self::CertificateNotRenewed { reason, ends, expired: false } => {
                write!(f, "this sensor's certificate ends {ends} and is not renewed: {reason}")
            }
            Self::CertificateNotRenewed { reason, ends, expired: true } => write!(
                f,
                "this sensor's certificate has expired ({ends}) and is not renewed: {reason}; nothing can be \
                 delivered until then, all records wait in the spool"
            ),
        }
    }
}

fn waiting(f: &mut fmt::Formatter<'_>, next_try_ms: u64, batches: u64) -> fmt::Result {
    let (seconds, tenths) = (next_try_ms / 1000, next_try_ms % 1000 / 100);
    write!(f, "next try in {seconds}.{tenths} s, {batches} batches waiting")
}
