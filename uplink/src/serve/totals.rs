//! Takes events of the receiving end; gives their counts. Never a gauge: each number only grows.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count, shared by all connections.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! totals {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// The counts while they grow.
        #[derive(Debug, Default)]
        pub(super) struct Totals {
            $(pub(super) $name: Counter),+
        }

        /// What a run of the receiving end has done.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ServeTotals {
            $($(#[$doc])* pub $name: u64),+
        }

        impl Totals {
            pub(super) fn snapshot(&self) -> ServeTotals {
                ServeTotals { $($name: self.$name.get()),+ }
            }
        }
    };
}

totals! {
    /// Connections whose handshake began.
    connections,
    /// Connections refused because there were too many, in all or from one place.
    connections_refused,
    /// Handshakes that failed: wrong authority, another protocol, too slow.
    handshakes_failed,
    /// Delivery connections without a certificate, closed.
    peers_without_certificate,
    /// Delivery connections and batches of sensors that are not admitted.
    peers_not_admitted,
    /// Batches now stored.
    batches_stored,
    /// Batches that had been stored before.
    batches_duplicate,
    /// Batches that were damaged, not signed by the certificate's key, of another sensor, or refused by the
    /// store.
    batches_rejected,
    /// Batches that could not be stored at that time.
    batches_retried,
    /// Streams that broke the protocol or stopped in the middle.
    streams_broken,
    /// Times that a sensor has told of itself.
    health_reports,
    /// Sensors enrolled.
    enrolled,
    /// Connections closed because their sensor was revoked.
    connections_revoked,
    /// Delivery connections with an expired certificate, closed.
    peers_expired,
    /// Certificates renewed.
    renewed,
    /// Renewals refused: too early, too late, not admitted.
    renewals_refused,
    /// Enrolments refused: unknown, expired or used code, or a key that has no right to it.
    enrolments_refused,
    /// Enrolments refused unread, after too many wrong codes from the same address or from all together.
    enrolments_limited,
    /// Enrolments that were not well formed, or failed inside.
    enrolments_failed,
}
