//! What the receiving end of the link asks of whoever stores batches. Never says how they are stored.

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use thiserror::Error;

use crate::{Batch, HealthReport, MemberId, Peer, SensorId, Validity};

/// What became of a batch that is durable now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It was new, and is stored.
    Stored,
    /// It had been stored before; nothing was added.
    Duplicate,
}

/// Why a batch was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitError {
    /// Not now: the sensor keeps it and offers it again. Remedy: the text says what the store lacks.
    #[error("not stored now: {0}")]
    Retry(String),
    /// Never: the sensor sets it aside and counts it. Remedy: look at the batch in its `rejected` folder.
    #[error("refused: {0}")]
    Reject(String),
}

/// Why a one-time code gives no identity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RedeemError {
    /// No such code was ever given out. Remedy: ask for the code again.
    #[error("unknown code")]
    Unknown,
    /// Too old. Remedy: ask for a new code.
    #[error("expired code")]
    Expired,
    /// Used by another key. Remedy: ask for a new code, and find out who used this one.
    #[error("used code")]
    Used,
    /// The key that asks is that of a sensor that was revoked, or of another member. Remedy: a new key, which an
    /// enrolment into an empty folder makes.
    #[error("the key is of a sensor that was revoked, or of another member")]
    Key,
    /// The backend could not look it up. Remedy: try again later; the backend's log has the cause.
    #[error("the code could not be looked up: {0}")]
    Internal(String),
}

/// A certificate that was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certified {
    /// How long it is valid.
    pub validity: Validity,
    /// Whether it takes the place of an earlier one, without a code.
    pub is_renewal: bool,
}

/// The store could not answer. Remedy: the text names the cause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the store gave no answer: {0}")]
pub struct IntakeError(pub String);

/// The store behind [`crate::serve()`].
pub trait Intake: Send + Sync + 'static {
    /// Stores a batch; durable before it gives `Ok`, because the sensor deletes its copy after that.
    ///
    /// The caller has checked that the batch is whole, that the certificate's key signed it and that its
    /// header names the certificate's member and sensor. `bytes` are the batch as received.
    ///
    /// Order: batches of one sensor come in ascending order of (boot epoch, sequence), several before the
    /// first is done; gaps are legal (evictions), a sequence not above the highest stored one of its
    /// (sensor, boot epoch) is a [`Commit::Duplicate`]. When a batch gets [`CommitError::Retry`], every later
    /// batch of the same sensor and boot epoch that was already handed over must get it too, until
    /// [`Intake::last_sequence`] is asked again: otherwise the highest stored sequence would hide the batch
    /// that is missing.
    fn commit(
        &self,
        peer: Peer,
        batch: Batch,
        bytes: Bytes,
    ) -> impl Future<Output = Result<Commit, CommitError>> + Send;

    /// Exchanges a one-time code for names. `secret_hash` is [`crate::EnrolmentCode::secret_hash`].
    ///
    /// The same code with the same `public_key` may be redeemed again: a sensor repeats an enrolment whose
    /// answer was lost, with the key it made the first time. A code with the key of a sensor of the same member, which
    /// was not revoked, gives that sensor again: its certificate had expired.
    fn redeem(
        &self,
        secret_hash: [u8; 32],
        public_key: [u8; 32],
    ) -> impl Future<Output = Result<(MemberId, SensorId), RedeemError>> + Send;

    /// A certificate was issued to a sensor that has just redeemed a code or renewed. An intake that does not care does
    /// nothing.
    fn certified(
        &self,
        _sensor: &SensorId,
        _certified: Certified,
    ) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// An enrolment was refused, for one of the reasons of [`RedeemError`] that have to do with the code or the key. An
    /// intake that does not care does nothing.
    fn enrolment_refused(
        &self,
        _remote: SocketAddr,
        _secret_hash: [u8; 32],
        _why: &RedeemError,
    ) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Batches of a sensor were not handed over, because it is not admitted any more. An intake that does not count
    /// them does nothing.
    fn refused(&self, _peer: &Peer, _batches: u64) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// All sensors that may no longer deliver. Asked for each second: connections of these that are open are closed.
    fn revoked(&self) -> impl Future<Output = Result<Vec<SensorId>, IntakeError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// What a connected sensor tells of itself, every ten seconds or so, at most once a second. An intake that does not
    /// care does nothing.
    fn health(&self, _peer: &Peer, _report: HealthReport) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Whether this sensor may deliver; asked for each connection and before each group of batches, so that a
    /// revocation works at once.
    fn admitted(&self, peer: &Peer) -> impl Future<Output = Result<bool, IntakeError>> + Send;

    /// The highest stored sequence of a sensor's boot epoch; `None` when nothing of it is stored.
    ///
    /// Answers after everything of that sensor that was handed over before is stored or has failed: what an
    /// earlier connection has left under way must not change the answer afterwards.
    fn last_sequence(
        &self,
        sensor: &SensorId,
        boot_epoch: u64,
    ) -> impl Future<Output = Result<Option<u64>, IntakeError>> + Send;
}
