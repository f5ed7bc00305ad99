//! Takes what was stored, in the order in which it was; gives findings to the database. Never judges a record
//! that is not durable, and keeps no state of its own: after a restart it reads the last day again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::prelude::SessionContext;
use detect::{Detection, Finding, FindingId, KeyScope, Prefix, Settings};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use uplink::MemberId;

use crate::database::Database;
use crate::ingest::{Stored, now_ms};
use crate::lake::{self, Received};
use crate::trouble::Trouble;

/// How far back a restart reads, by the packets' time: longer than any detector's window.
const LOOKBACK_MS: i64 = 24 * 3_600_000;
/// How far the end of a record may lie after its reception. Sensors with a time service are off by seconds.
const CLOCK_AHEAD_MS_MAX: u64 = 10 * 60_000;
/// What could not be saved is tried again after so long, new batches or not.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
const MS_A_DAY: i64 = 86_400_000;
/// Records whose places in memory are asked for together; see [`Detection::prepare`].
const RECORDS_PREPARED: usize = 16;
/// So many times those are judged between two looks at other tasks.
const CHUNKS_A_TURN: usize = 256;
/// Records judged between two looks at what was found, within a group: each look judges what changed anew, and a
/// detector holds as many findings.
const RECORDS_A_POLL: usize = 16_384;

/// Key epochs of one sensor that are judged at a time: the current one, and the one whose last batches still come.
const KEY_EPOCHS_MAX: usize = 2;

/// The detectors of records among which equal addresses are the same host.
struct Judges {
    detection: Detection,
    /// Judges records from after their own reception: a clock is wrong, and beside such a record everything else
    /// of the same address would look long past.
    ahead: Detection,
    /// Records since they were last asked what they found.
    unpolled: usize,
}

impl Judges {
    fn new(settings: &Settings) -> Self {
        let new = || Detection::new(settings.clone());
        Self { detection: new(), ahead: new(), unpolled: 0 }
    }
}

/// One member's detectors, and what they found that the database does not have yet.
struct Watched {
    settings: Settings,
    /// A pseudonym is one host's only within one key epoch of one sensor, so each has detectors of its own; batches
    /// without pseudonyms share theirs, whatever sensor they are of.
    judges: BTreeMap<Option<KeyScope>, Judges>,
    unsaved: BTreeMap<FindingId, Finding>,
}

impl Watched {
    /// Takes records, in which pseudonyms are of one key, with the time at which each was received.
    async fn judge(
        &mut self,
        key_scope: Option<KeyScope>,
        records: &[flow::Record],
        received_ms: &[u64],
    ) {
        let mut judges =
            self.judges.remove(&key_scope).unwrap_or_else(|| Judges::new(&self.settings));
        let chunks =
            records.chunks(RECORDS_PREPARED).zip(received_ms.chunks(RECORDS_PREPARED)).enumerate();
        for (number, (records, received_ms)) in chunks {
            for record in records {
                judges.detection.prepare(record);
            }
            for (record, received_ms) in records.iter().zip(received_ms) {
                if record.end_ms > received_ms.saturating_add(CLOCK_AHEAD_MS_MAX) {
                    judges.ahead.handle_record(record);
                } else {
                    judges.detection.handle_record(record);
                }
            }
            judges.unpolled += records.len();
            if judges.unpolled >= RECORDS_A_POLL {
                self.poll(key_scope.as_ref(), &mut judges);
            }
            if number % CHUNKS_A_TURN == CHUNKS_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        self.judges.insert(key_scope.clone(), judges);
        self.forget_old(key_scope.as_ref());
    }

    /// A batch that comes later than that is judged by itself.
    fn forget_old(&mut self, key_scope: Option<&KeyScope>) {
        let Some(newest) = key_scope else { return };
        let is_same = |scope: &&Option<KeyScope>| {
            scope.as_ref().is_some_and(|scope| scope.sensor == newest.sensor)
        };
        let of_sensor: Vec<Option<KeyScope>> =
            self.judges.keys().filter(is_same).cloned().collect();
        let excess = of_sensor.len().saturating_sub(KEY_EPOCHS_MAX);
        // In the order of their numbers.
        for oldest in of_sensor.into_iter().take(excess) {
            if let Some(mut judges) = self.judges.remove(&oldest) {
                self.poll(oldest.as_ref(), &mut judges);
            }
        }
    }

    fn poll_all(&mut self) {
        let mut all = std::mem::take(&mut self.judges);
        for (key_scope, judges) in &mut all {
            self.poll(key_scope.as_ref(), judges);
        }
        self.judges = all;
    }

    fn poll(&mut self, key_scope: Option<&KeyScope>, judges: &mut Judges) {
        if std::mem::take(&mut judges.unpolled) == 0 {
            return;
        }
        for detection in [&mut judges.ahead, &mut judges.detection] {
            let found = detection.poll_findings().into_iter().map(|finding| match key_scope {
                Some(key_scope) => finding.within(key_scope.clone()),
                None => finding,
            });
            self.unsaved.extend(found.map(|finding| (finding.id, finding)));
        }
    }
}

/// All members' detectors.
pub struct Detector {
    database: Database,
    members: BTreeMap<MemberId, Watched>,
    saving: Trouble,
}

impl Detector {
    /// Detectors that know what the lake's last day says.
    ///
    /// # Errors
    ///
    /// When lake or database cannot be read.
    pub async fn rebuild(database: Database, session: &SessionContext) -> anyhow::Result<Self> {
        let mut detector = Self { database, members: BTreeMap::new(), saving: Trouble::default() };
        for (member, newest_ms) in newest(session).await? {
            let records = detector
                .replay(session, &member, newest_ms)
                .await
                .with_context(|| format!("detection of member {member} could not be rebuilt"))?;
            tracing::info!(%member, records, "detection rebuilt");
        }
        detector.save().await;
        Ok(detector)
    }

    /// Works until whoever stores is gone.
    pub async fn run(mut self, mut stored: mpsc::Receiver<Stored>) {
        loop {
            let next = if self.members.values().all(|watched| watched.unsaved.is_empty()) {
                Ok(stored.recv().await)
            } else {
                timeout(SAVE_AGAIN, stored.recv()).await
            };
            let Ok(next) = next else {
                self.save().await;
                continue;
            };
            let Some(stored) = next else { break };
            for Received { batch, received_ms, .. } in &stored.received {
                match self.watched(&batch.header.member).await {
                    Ok(watched) => {
                        let header = &batch.header;
                        let key_scope = header.key_epoch.map(|key_epoch| KeyScope {
                            sensor: header.sensor.to_string(),
                            key_epoch,
                        });
                        let received_ms = vec![*received_ms; batch.records.len()];
                        watched.judge(key_scope, &batch.records, &received_ms).await;
                    }
                    Err(error) => {
                        tracing::error!(%error, "judged after a restart only");
                    }
                }
            }
            self.save().await;
            stored.acknowledge();
        }
        self.save().await;
    }

    async fn watched(&mut self, member: &MemberId) -> anyhow::Result<&mut Watched> {
        if !self.members.contains_key(member) {
            let prefixes = self.database.member(member.as_str()).await?.own_prefixes;
            let settings = settings(&prefixes)?;
            let watched = Watched { settings, judges: BTreeMap::new(), unsaved: BTreeMap::new() };
            self.members.insert(member.clone(), watched);
        }
        self.members.get_mut(member).context("a member that was just added is there")
    }

    /// What cannot be saved now is kept for the next time.
    async fn save(&mut self) {
        let mut failed = None;
        for (member, watched) in &mut self.members {
            watched.poll_all();
            let findings: Vec<Finding> = watched.unsaved.values().cloned().collect();
            match self.database.upsert_findings(member.as_str(), &findings, now_ms()).await {
                Ok(()) => watched.unsaved.clear(),
                Err(error) => failed = Some((member, error)),
            }
        }
        if let Some((member, error)) = failed {
            if let Some(attempts) = self.saving.handle_failure(Instant::now()) {
                tracing::error!(%error, attempts, %member, "findings could not be saved yet");
            }
        } else if let Some(attempts) = self.saving.handle_success() {
            tracing::info!(attempts, "findings are saved again");
        }
    }

    async fn replay(
        &mut self,
        session: &SessionContext,
        member: &MemberId,
        newest_ms: i64,
    ) -> anyhow::Result<usize> {
        let from_ms = (newest_ms - LOOKBACK_MS).max(0);
        let columns = lake::RECORD_COLUMNS;
        let mut sql = String::new();
        // The partition is the day a record started; one day more than the window covers records that began
        // before it. Received before the window and ending in it: of a clock that is ahead, and long judged.
        // Member identifiers have no character that a quoted text could end with.
        write!(
            sql,
            "SELECT {columns}, received_time, sensor, key_epoch FROM flows WHERE member = '{member}' \
             AND day >= CAST({day} AS DATE) AND end_time >= to_timestamp_millis({from_ms}) \
             AND received_time >= to_timestamp_millis({from_ms}) \
             ORDER BY received_time, sensor, boot_epoch, sequence, position",
            day = (from_ms / MS_A_DAY - 1).max(0),
        )?;
        let watched = self.watched(member).await?;
        let mut stream = session.sql(&sql).await?.execute_stream().await?;
        let mut count = 0;
        while let Some(rows) = stream.next().await {
            let rows = rows?;
            let records = lake::records(&rows)?;
            let received = lake::received_ms(&rows)?;
            let scopes = lake::key_scopes(&rows)?;
            count += records.len();
            let mut at = 0;
            for run in scopes.chunk_by(|one, next| one == next) {
                let range = at..at + run.len();
                at = range.end;
                watched.judge(run[0].clone(), &records[range.clone()], &received[range]).await;
            }
        }
        Ok(count)
    }
}

fn settings(own_prefixes: &[String]) -> anyhow::Result<Settings> {
    let own_prefixes =
        own_prefixes.iter().map(|text| Prefix::from_str(text)).collect::<Result<_, _>>()?;
    Ok(Settings { own_prefixes, ..Settings::default() })
}

/// Each member with rows in the lake, and the end of its newest one; a sensor's clock cannot put that after the
/// reception, where a window that is counted back from it would miss everybody else's records.
async fn newest(session: &SessionContext) -> anyhow::Result<Vec<(MemberId, i64)>> {
    let sql = "SELECT member, max(least(end_time, received_time)) AS newest FROM flows \
               GROUP BY member ORDER BY member";
    let mut newest = Vec::new();
    for rows in session.sql(sql).await?.collect().await? {
        let members = cast(rows.column(0), &DataType::Utf8)?;
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let ends = cast(rows.column(1), &micros)?;
        let ends = ends.as_primitive::<TimestampMicrosecondType>();
        for (row, member) in members.as_string::<i32>().iter().enumerate() {
            let member = member.context("a row of the lake has no member")?;
            newest.push((MemberId::parse(member)?, ends.value(row) / 1000));
        }
    }
    Ok(newest)
}
