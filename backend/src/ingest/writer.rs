//! The only writer of the lake: collects batches for a moment, commits them together, then answers.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use uplink::{Batch, Commit, CommitError, IntakeError, Judgement, Ledger, Session};

use super::{Request, Requests, now_ms};
use crate::database::Database;
use crate::evidence::Evidence;
use crate::lake::{self, Lake, LakeError, Received, Summary};
use crate::trouble::Trouble;

/// Days of event time in one batch, each of which is a file. A batch of a busy sensor has one or two.
const BATCH_DAYS_MAX: usize = 400;
/// Records that are worth a commit of their own: a group with so many takes what has come and waits for nobody else.
const GROUP_RECORDS_ENOUGH: usize = 65_536;
/// A copy of the commit log that could not be made is tried again after so long, new batches or not.
const CATCH_UP_AGAIN: Duration = Duration::from_secs(5);

/// When a group is committed.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A group is committed at the latest so long after its first batch came.
    pub group_wait: Duration,
    /// A group is committed when no batch came for so long: whoever sends is waiting for the answers.
    pub quiet: Duration,
    /// A group with this many records is committed at once.
    pub group_records_max: usize,
}

type Answer = oneshot::Sender<Result<Commit, CommitError>>;

/// What is durable, on its way through detection to whoever waits for the answer: once a batch is acknowledged,
/// the findings that it makes can be read.
#[derive(Debug)]
pub struct Stored {
    /// The batches, in the order in which they are in the lake.
    pub received: Vec<Received>,
    answers: Vec<(Answer, Commit)>,
}

impl Stored {
    /// Answers everybody who waits.
    pub fn acknowledge(self) {
        for (answer, commit) in self.answers {
            reply(answer, Ok(commit));
        }
    }
}

#[derive(Default)]
struct Group {
    batches: Vec<(Received, Answer)>,
    /// The same as they came, byte for byte.
    sealed: Vec<Bytes>,
    /// Batches that came twice within the group: answered with it.
    repeated: Vec<Answer>,
    records: usize,
}

/// Owns the lake's write side.
pub struct Writer {
    lake: Lake,
    database: Database,
    settings: Settings,
    evidence: Option<Evidence>,
    stored: mpsc::Sender<Stored>,
    ledger: Ledger,
    applied_version: u64,
    last_received_ms: u64,
    storing: Trouble,
    copying: Trouble,
}

impl Writer {
    /// A writer on a lake; what it has stored goes on to `stored`, for detection and acknowledgement. Brings the
    /// database's copy of the commit log up to date first.
    ///
    /// # Errors
    ///
    /// When lake or database cannot be read.
    pub async fn new(
        lake: Lake,
        database: Database,
        settings: Settings,
        stored: mpsc::Sender<Stored>,
    ) -> anyhow::Result<Self> {
        let applied_version = database.applied_version().await?;
        let mut writer = Self {
            lake,
            database,
            settings,
            evidence: None,
            stored,
            ledger: Ledger::default(),
            applied_version,
            last_received_ms: 0,
            storing: Trouble::default(),
            copying: Trouble::default(),
        };
        writer.catch_up().await?;
        Ok(writer)
    }

    /// From now on every batch is kept there as it came, before it is stored.
    #[must_use]
    pub fn keeping(mut self, evidence: Evidence) -> Self {
        self.evidence = Some(evidence);
        self
    }

    /// Works until every [`super::Ingest`] is gone and the queue is empty.
    pub async fn run(mut self, Requests(mut requests): Requests) {
        loop {
            let next = if self.applied_version == self.lake.version() {
                Ok(requests.recv().await)
            } else {
                timeout(CATCH_UP_AGAIN, requests.recv()).await
            };
            let Ok(next) = next else {
                self.try_to_catch_up().await;
                continue;
            };
            let Some(first) = next else { break };
            let group = self.collect(first, &mut requests).await;
            if !group.batches.is_empty() {
                self.commit(group).await;
            }
        }
        self.try_to_catch_up().await;
        tracing::info!(version = self.lake.version(), "all batches that were taken are stored");
    }

    async fn collect(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) -> Group {
        let deadline = Instant::now() + self.settings.group_wait;
        let mut group = Group::default();
        self.handle(first, &mut group).await;
        while !group.batches.is_empty() && group.records < self.settings.group_records_max {
            let next = if group.records >= GROUP_RECORDS_ENOUGH {
                requests.try_recv().ok()
            } else {
                let next = timeout(self.settings.quiet, requests.recv());
                timeout_at(deadline, next).await.ok().and_then(Result::ok).flatten()
            };
            let Some(request) = next else { break };
            self.handle(request, &mut group).await;
        }
        group
    }

    async fn handle(&mut self, request: Request, group: &mut Group) {
        match request {
            Request::Commit { batch, bytes, answer } => {
                self.handle_batch(*batch, bytes, answer, group).await;
            }
            Request::LastSequence { sensor, boot_epoch, answer } => {
                let session = (sensor, boot_epoch);
                self.ledger.handle_start(&session);
                let held = self.watermark(&session).await.map_err(|error| {
                    tracing::error!(%error, sensor = %session.0, "the lake gave no watermark");
                    IntakeError("the store gave no answer".to_owned())
                });
                // Whoever asked may be gone; then nobody needs the answer.
                drop(answer.send(held));
            }
        }
    }

    async fn handle_batch(
        &mut self,
        batch: Batch,
        bytes: Bytes,
        answer: Answer,
        group: &mut Group,
    ) {
        let header = &batch.header;
        let session = (header.sensor.clone(), header.boot_epoch);
        if self.ledger.is_halted(&session) {
            return reply(answer, Err(retry("an earlier batch of this session is not stored")));
        }
        if let Err(reason) = check(&batch) {
            tracing::warn!(sensor = %session.0, sequence = header.sequence, reason, "batch refused");
            if let Err(error) = self.database.count_rejected(1).await {
                tracing::error!(%error, "a refused batch could not be counted");
            }
            return reply(answer, Err(CommitError::Reject(reason)));
        }
        let mut judgement = self.ledger.judge(&session, header.sequence);
        if judgement == Judgement::Unknown {
            if let Err(error) = self.watermark(&session).await {
                tracing::error!(%error, sensor = %session.0, "the lake gave no watermark");
                self.ledger.handle_returned(session);
                return reply(answer, Err(retry("the store gave no answer")));
            }
            judgement = self.ledger.judge(&session, header.sequence);
        }
        match judgement {
            Judgement::New => {}
            Judgement::Stored => {
                self.count_duplicates(1).await;
                return reply(answer, Ok(Commit::Duplicate));
            }
            Judgement::Repeated => {
                group.repeated.push(answer);
                return;
            }
            Judgement::Halted => {
                return reply(answer, Err(retry("an earlier batch of this session is not stored")));
            }
            // Only of more sessions than a ledger remembers, all asked for within one group.
            Judgement::Unknown => {
                self.ledger.handle_returned(session);
                return reply(answer, Err(retry("the store gave no answer")));
            }
        }
        group.records += batch.records.len();
        // Never backwards, so that the order in the lake is the order of arrival.
        self.last_received_ms = now_ms().max(self.last_received_ms);
        let length = bytes.len() as u64;
        let received = Received { batch, received_ms: self.last_received_ms, bytes: length };
        group.sealed.push(bytes);
        group.batches.push((received, answer));
    }

    async fn watermark(&mut self, session: &Session) -> Result<Option<u64>, LakeError> {
        if let Some(held) = self.ledger.held(session) {
            return Ok(held);
        }
        let held = self.lake.watermark(&session.0, session.1).await?;
        self.ledger.learn(session.clone(), held);
        Ok(held)
    }

    async fn count_duplicates(&self, more: u64) {
        tracing::debug!(more, "batches that were stored before");
        if let Err(error) = self.database.count_duplicates(more).await {
            tracing::error!(%error, "duplicates could not be counted");
        }
    }

    async fn commit(&mut self, group: Group) {
        self.try_to_catch_up().await;
        let Group { batches, sealed, repeated, records } = group;
        let (received, answers): (Vec<Received>, Vec<Answer>) = batches.into_iter().unzip();
        let started = Instant::now();
        match self.append(&received, sealed).await {
            Err(error) => {
                if let Some(attempts) = self.storing.handle_failure(Instant::now()) {
                    tracing::error!(
                        %error,
                        attempts,
                        batches = received.len(),
                        "batches could not be stored; their sensors keep them and try again"
                    );
                }
                self.ledger.handle_failed();
                for answer in answers.into_iter().chain(repeated) {
                    reply(answer, Err(retry("the backend could not store it")));
                }
            }
            Ok(version) => {
                if let Some(attempts) = self.storing.handle_success() {
                    tracing::info!(attempts, "batches can be stored again");
                }
                let elapsed_ms = started.elapsed().as_millis();
                tracing::info!(version, batches = received.len(), records, elapsed_ms, "stored");
                self.ledger.handle_stored();
                self.copy_summaries(version, &received).await;
                if !repeated.is_empty() {
                    self.count_duplicates(repeated.len() as u64).await;
                }
                let new = answers.into_iter().map(|answer| (answer, Commit::Stored));
                let old = repeated.into_iter().map(|answer| (answer, Commit::Duplicate));
                self.after_commit(Stored { received, answers: new.chain(old).collect() }).await;
            }
        }
    }

    /// Keeps the evidence and writes the rows, one beside the other, then commits: what is acknowledged has both, and
    /// what has no rows is sent again.
    async fn append(&mut self, received: &[Received], sealed: Vec<Bytes>) -> anyhow::Result<u64> {
        let received_ms = received.first().map_or(0, |first| first.received_ms);
        let keeping = self.evidence.clone().map(|evidence| {
            tokio::task::spawn_blocking(move || evidence.keep(&sealed, received_ms))
        });
        let written = self.lake.write(received).await;
        let kept: anyhow::Result<Option<PathBuf>> = match keeping {
            None => Ok(None),
            Some(keeping) => match keeping.await {
                Ok(kept) => kept.map(Some).map_err(Into::into),
                Err(ended) => Err(ended.into()),
            },
        };
        let (kept, error) = match (kept, written) {
            (Ok(kept), Ok(written)) => match self.lake.commit(received, written).await {
                Ok(version) => return Ok(version),
                Err(error) => (kept, error.into()),
            },
            (Ok(kept), Err(error)) => (kept, error.into()),
            (Err(error), written) => {
                if let Ok(written) = written {
                    self.lake.discard(written).await;
                }
                (None, error)
            }
        };
        if let Some(file) = kept
            && let Err(error) = std::fs::remove_file(&file)
        {
            // The batches come again, and with them an equal copy.
            tracing::warn!(%error, file = %file.display(), "evidence without rows stays behind");
        }
        Err(error)
    }

    /// The rows are durable whatever happens here, and the commit log has the summaries: a failure is mended by
    /// [`Writer::catch_up`] soon, before the next commit, or at the next start.
    async fn copy_summaries(&mut self, version: u64, received: &[Received]) {
        if self.applied_version + 1 != version {
            return;
        }
        let summaries: Vec<Summary> = received.iter().map(Summary::new).collect();
        match self.database.apply(version, &summaries).await {
            Ok(()) => self.applied_version = version,
            Err(error) => {
                if let Some(attempts) = self.copying.handle_failure(Instant::now()) {
                    tracing::error!(%error, attempts, version, "batch summaries could not be copied");
                }
            }
        }
    }

    async fn after_commit(&mut self, stored: Stored) {
        if let Err(mpsc::error::SendError(stored)) = self.stored.send(stored).await {
            tracing::error!(
                "detection has stopped; what was stored is judged after the next start"
            );
            stored.acknowledge();
        }
        if self.lake.checkpoint_due()
            && let Err(error) = self.lake.checkpoint().await
        {
            tracing::error!(%error, "no checkpoint; the next start replays more of the log");
        }
    }

    async fn try_to_catch_up(&mut self) {
        match self.catch_up().await {
            Ok(()) => {
                if let Some(attempts) = self.copying.handle_success() {
                    tracing::info!(attempts, "the database's copy of the commit log is complete");
                }
            }
            Err(error) => {
                if let Some(attempts) = self.copying.handle_failure(Instant::now()) {
                    tracing::error!(%error, attempts, "the database's copy of the commit log is behind");
                }
            }
        }
    }

    /// Copies what the commit log has and the database has not.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        if self.applied_version == self.lake.version() {
            return Ok(());
        }
        match self.lake.summaries_since(self.applied_version).await {
            Ok(commits) => {
                for (version, summaries) in commits {
                    self.database.apply(version, &summaries).await?;
                    self.applied_version = version;
                }
            }
            Err(error @ LakeError::Log { .. }) => {
                tracing::warn!(%error, "coverage before this version is not known");
                self.database.apply(self.lake.version(), &[]).await?;
                self.applied_version = self.lake.version();
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn check(batch: &Batch) -> Result<(), String> {
    lake::check(batch).map_err(|error| error.to_string())?;
    let days = lake::days(batch);
    if days > BATCH_DAYS_MAX {
        return Err(format!("the records span {days} days, more than {BATCH_DAYS_MAX}"));
    }
    Ok(())
}

fn retry(reason: &str) -> CommitError {
    CommitError::Retry(reason.to_owned())
}

/// Whoever asked may have gone with its connection; the batch is stored or not all the same, and it asks again.
fn reply(answer: Answer, result: Result<Commit, CommitError>) {
    drop(answer.send(result));
}
