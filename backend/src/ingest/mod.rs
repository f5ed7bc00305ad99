//! Takes batches from the link; answers each when it is durable. The order in which they are handed over is the
//! order in which they are stored.
//!
//! [`Ingest`] is the side that the link sees; one [`Writer`] behind a bounded queue is the only one that writes
//! the lake. Never answers `Stored` before the commit, and never lets a later batch of a session overtake one
//! that could not be stored: the sensor asks for the highest stored sequence, so a hole below it would be a
//! loss.

mod clock;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use uplink::{
    Batch, Certified, Commit, CommitError, HealthReport, Intake, IntakeError, MemberId, Peer,
    RedeemError, SensorId,
};

use crate::database::{Database, Event, Note, told};
use crate::trouble::Trouble;

pub use clock::now_ms;
pub use writer::{Settings, Stored, Writer};

/// Batches that wait for the writer: with 65,536 records each at most, this bounds the memory.
const QUEUE_BATCHES_MAX: usize = 16;

/// What the link asks of the writer, in order.
#[derive(Debug)]
pub(crate) enum Request {
    Commit {
        batch: Box<Batch>,
        bytes: Bytes,
        answer: oneshot::Sender<Result<Commit, CommitError>>,
    },
    LastSequence {
        sensor: SensorId,
        boot_epoch: u64,
        answer: oneshot::Sender<Result<Option<u64>, IntakeError>>,
    },
}

/// The writer's queue, read by [`Writer::run`].
#[derive(Debug)]
pub struct Requests(pub(crate) mpsc::Receiver<Request>);

/// The link's side of the store.
#[derive(Clone, Debug)]
pub struct Ingest {
    requests: mpsc::Sender<Request>,
    database: Database,
    /// Of asking who was revoked.
    asking: Arc<Mutex<Trouble>>,
}

impl Ingest {
    /// An ingest and the queue that a [`Writer`] must read.
    #[must_use]
    pub fn new(database: Database) -> (Self, Requests) {
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
        (Self { requests: sender, database, asking: Arc::default() }, Requests(receiver))
    }

    async fn note(&self, note: &Note<'_>) {
        if let Err(error) = self.database.note(now_ms(), note).await {
            tracing::error!(%error, ?note, "not in the audit");
        }
    }
}

/// What a sensor is told when the store cannot answer; the log has the cause.
const STOPPING: &str = "the backend is stopping";

impl Intake for Ingest {
    async fn commit(&self, peer: Peer, batch: Batch, bytes: Bytes) -> Result<Commit, CommitError> {
        // The link has checked this; a mistake there would put one member's rows under another's name.
        if batch.header.member != peer.member || batch.header.sensor != peer.sensor {
            return Err(CommitError::Reject("the batch names another sensor".to_owned()));
        }
        let (answer, answered) = oneshot::channel();
        let stopping = || CommitError::Retry(STOPPING.to_owned());
        let request = Request::Commit { batch: Box::new(batch), bytes, answer };
        self.requests.send(request).await.map_err(|_closed| stopping())?;
        answered.await.map_err(|_dropped| stopping())?
    }

    async fn redeem(
        &self,
        secret_hash: [u8; 32],
        public_key: [u8; 32],
    ) -> Result<(MemberId, SensorId), RedeemError> {
        let redeemed = self.database.redeem(secret_hash, public_key, now_ms()).await?;
        tracing::info!(member = %redeemed.member, sensor = %redeemed.sensor, "sensor enrolled");
        Ok((redeemed.member, redeemed.sensor))
    }

    async fn certified(&self, sensor: &SensorId, certified: Certified) {
        if let Err(error) = self.database.note_certificate(sensor, certified, now_ms()).await {
            tracing::error!(%error, %sensor, "the end of its certificate could not be noted");
        }
    }

    async fn enrolment_refused(
        &self,
        remote: SocketAddr,
        secret_hash: [u8; 32],
        why: &RedeemError,
    ) {
        let note = Note {
            event: Event::EnrolmentRefused,
            member: None,
            sensor: None,
            remote: Some(remote.to_string()),
            detail: format!("{why}; {}", told(&secret_hash)),
        };
        self.note(&note).await;
    }

    async fn refused(&self, peer: &Peer, batches: u64) {
        let note = Note {
            event: Event::BatchesRefused,
            member: Some(peer.member.as_str()),
            sensor: Some(peer.sensor.as_str()),
            remote: None,
            detail: format!("{batches} batches of a sensor that is not admitted"),
        };
        self.note(&note).await;
        if let Err(error) = self.database.count_rejected(batches).await {
            tracing::error!(%error, batches, "refused batches could not be counted");
        }
    }

    async fn revoked(&self) -> Result<Vec<SensorId>, IntakeError> {
        let revoked = self.database.revoked().await;
        let mut asking = self.asking.lock().await;
        match revoked {
            Ok(revoked) => {
                if let Some(attempts) = asking.handle_success() {
                    tracing::info!(attempts, "it is known again who was revoked");
                }
                Ok(revoked)
            }
            Err(error) => {
                if let Some(attempts) = asking.handle_failure(Instant::now()) {
                    tracing::error!(%error, attempts, "it is not known who was revoked");
                }
                Err(IntakeError("the database gave no answer".to_owned()))
            }
        }
    }

    async fn health(&self, peer: &Peer, report: HealthReport) {
        if let Err(error) = self.database.note_health(&peer.sensor, &report, now_ms()).await {
            tracing::error!(%error, sensor = %peer.sensor, "what it tells of itself could not be noted");
        }
    }

    async fn admitted(&self, peer: &Peer) -> Result<bool, IntakeError> {
        let found = self.database.admitted(&peer.member, &peer.sensor, peer.public_key).await;
        found.map_err(|error| {
            tracing::error!(%error, sensor = %peer.sensor, "admission could not be looked up");
            IntakeError("the database gave no answer".to_owned())
        })
    }

    async fn last_sequence(
        &self,
        sensor: &SensorId,
        boot_epoch: u64,
    ) -> Result<Option<u64>, IntakeError> {
        let (answer, answered) = oneshot::channel();
        let stopping = || IntakeError(STOPPING.to_owned());
        let request = Request::LastSequence { sensor: sensor.clone(), boot_epoch, answer };
        self.requests.send(request).await.map_err(|_closed| stopping())?;
        answered.await.map_err(|_dropped| stopping())?
    }
}
