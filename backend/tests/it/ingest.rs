//! Acknowledged means durable, and nothing is stored twice, whatever fails in between.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use backend::ingest::Settings;
use backend::lake::{RECORD_COLUMNS, Received, records};
use backend::serve::serve;
use backend::status::Status;
use futures::future::join_all;
use uplink::{Commit, CommitError, Intake};

use crate::lab::{Lab, batch, connection, odd_records, sensor};

fn five(sequence: u32) -> Vec<flow::Record> {
    (0..5).map(|n| connection(sequence * 5 + n)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_and_is_a_duplicate_after_it() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    for sequence in 1..=3 {
        let stored = running.commit(batch(1, sequence.into(), five(sequence))).await?;
        assert_eq!(stored, Commit::Stored);
    }
    running.kill().await;
    assert_eq!(lab.rows().await?, (15, 15));

    let running = lab.start().await?;
    assert_eq!(running.ingest.last_sequence(&sensor(), 1).await?, Some(3));
    for sequence in 1..=5 {
        let expected = if sequence <= 3 { Commit::Duplicate } else { Commit::Stored };
        assert_eq!(running.commit(batch(1, sequence.into(), five(sequence))).await?, expected);
    }
    // Another boot epoch counts for itself, and a gap is legal: the sensor evicted what was between.
    assert_eq!(running.ingest.last_sequence(&sensor(), 2).await?, None);
    assert_eq!(running.commit(batch(2, 1, five(6))).await?, Commit::Stored);
    assert_eq!(running.commit(batch(2, 9, five(7))).await?, Commit::Stored);
    assert_eq!(running.commit(batch(2, 5, five(8))).await?, Commit::Duplicate);
    running.stop().await?;
    assert_eq!(lab.rows().await?, (35, 35));
    assert_eq!(lab.database().await?.batch_counts().await?, (7, 4, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_commit_and_acknowledgement_stores_once_and_keeps_the_books() -> Result<()>
{
    let lab = Lab::new().await?;
    // The commit of the lake, and then nothing: no copy in the database, no answer to the sensor.
    let received = Received { batch: batch(1, 1, five(1)), received_ms: 1, bytes: 11 };
    lab.folder.lake().await?.append(&[received]).await?;
    assert_eq!(lab.database().await?.batch_counts().await?.0, 0);

    let running = lab.start().await?;
    assert_eq!(lab.database().await?.batch_counts().await?.0, 1, "copied from the commit log");
    assert_eq!(running.commit(batch(1, 1, five(1))).await?, Commit::Duplicate);
    running.stop().await?;
    assert_eq!(lab.rows().await?, (5, 5));
    let states = lab.database().await?.batches_between("town-hall", 0, u64::MAX).await?;
    assert_eq!(states.len(), 1);
    assert_eq!((states[0].books.frames_seen, states[0].bytes), (100, 11));
    Ok(())
}

/// Copies a folder with what is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_older_than_the_database_is_refused_until_it_is_accepted() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    for sequence in 1..=4 {
        running.commit(batch(1, sequence.into(), five(sequence))).await?;
    }
    let (lake, older) = (lab.path().join("lake"), lab.path().join("older"));
    copy(&lake, &older)?;
    for sequence in 5..=6 {
        running.commit(batch(1, sequence.into(), five(sequence))).await?;
    }
    // A boot epoch that the old lake knows nothing of.
    running.commit(batch(2, 1, five(7))).await?;
    running.stop().await?;
    std::fs::remove_dir_all(&lake)?;
    std::fs::rename(&older, &lake)?;

    let told = |error: anyhow::Error| -> Result<()> {
        let text = error.to_string();
        anyhow::ensure!(text.contains("is at version 4"), "{text}");
        anyhow::ensure!(text.contains("up to version 7"), "{text}");
        anyhow::ensure!(text.contains("accept-lake"), "{text}");
        Ok(())
    };
    let never = std::future::pending();
    told(serve(&lab.folder, &mut Vec::new(), never).await.expect_err("the books are wrong"))?;
    told(Status::read(&lab.folder).await.expect_err("the books are wrong"))?;

    let accepted = lab.folder.accept_lake().await?.context("there is something to accept")?;
    assert_eq!((accepted.forgotten.batches, accepted.forgotten.records), (3, 15));
    assert_eq!((accepted.lake_version, accepted.database_version), (4, 7));
    assert_eq!(lab.folder.accept_lake().await?, None, "now they agree");
    let status = Status::read(&lab.folder).await?;
    assert_eq!((status.rows_stored, status.batches_stored), (20, 4));

    // The sensor goes on after what it has delivered, and the books are copied again.
    let running = lab.start().await?;
    assert_eq!(running.ingest.last_sequence(&sensor(), 1).await?, Some(4));
    assert_eq!(running.commit(batch(1, 7, five(8))).await?, Commit::Stored);
    running.stop().await?;
    let status = Status::read(&lab.folder).await?;
    assert_eq!((status.rows_stored, status.batches_stored), (25, 5));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_disk_refuses_nothing_is_acknowledged_and_nothing_overtakes() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    assert_eq!(running.commit(batch(1, 1, five(1))).await?, Commit::Stored);

    // A file where the next commit's log entry must go: the entry cannot get its name, as on a full disk. The
    // rows' file was written by then, and must not stay.
    let log = lab.path().join("lake/flows/_delta_log");
    let day = lab.path().join("lake/flows/day=2026-11-21");
    let files = || -> Result<usize> { Ok(std::fs::read_dir(&day)?.count()) };
    assert_eq!(files()?, 1);
    let hidden = lab.path().join("hidden");
    std::fs::rename(&log, &hidden)?;
    std::fs::write(&log, "in the way")?;
    let refused = running.commit(batch(1, 2, five(2))).await;
    assert!(matches!(refused, Err(CommitError::Retry(_))), "{refused:?}");
    std::fs::remove_file(&log)?;
    std::fs::rename(&hidden, &log)?;

    // The disk is well again, but number 3 must not hide that 2 is missing.
    let overtaking = running.commit(batch(1, 3, five(3))).await;
    assert!(matches!(overtaking, Err(CommitError::Retry(_))), "{overtaking:?}");
    // Other sessions go on.
    assert_eq!(running.commit(batch(2, 1, five(9))).await?, Commit::Stored);
    // A new session of the sensor asks first, and starts from the answer.
    assert_eq!(running.ingest.last_sequence(&sensor(), 1).await?, Some(1));
    for sequence in 2..=3 {
        assert_eq!(
            running.commit(batch(1, sequence.into(), five(sequence))).await?,
            Commit::Stored
        );
    }
    running.stop().await?;
    assert_eq!(lab.rows().await?, (20, 20));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_evidence_are_not_stored_and_leave_nothing_behind() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    assert_eq!(running.commit(batch(1, 1, five(1))).await?, Commit::Stored);

    // A file where the evidence must go: rows and evidence are written at the same time, and the rows get there.
    let evidence = lab.path().join("evidence");
    std::fs::rename(&evidence, lab.path().join("hidden"))?;
    std::fs::write(&evidence, "in the way")?;
    let refused = running.commit(batch(1, 2, five(2))).await;
    assert!(matches!(refused, Err(CommitError::Retry(_))), "{refused:?}");
    let day = lab.path().join("lake/flows/day=2026-11-21");
    assert_eq!(std::fs::read_dir(&day)?.count(), 1, "the file of rows was removed");
    assert_eq!(lab.rows().await?, (5, 5));

    std::fs::remove_file(&evidence)?;
    std::fs::rename(lab.path().join("hidden"), &evidence)?;
    assert_eq!(running.ingest.last_sequence(&sensor(), 1).await?, Some(1));
    assert_eq!(running.commit(batch(1, 2, five(2))).await?, Commit::Stored);
    running.stop().await?;
    assert_eq!(lab.rows().await?, (10, 10));
    assert_eq!(lab.folder.evidence().files()?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_worth_a_commit_waits_for_nobody() -> Result<()> {
    let lab = Lab::new().await?;
    let hour = Duration::from_hours(1);
    let settings = Settings { group_wait: hour, quiet: hour, group_records_max: 262_144 };
    let running = lab.start_with(settings).await?;
    // Were it to wait, this test would not end.
    let records = (0..65_536).map(connection).collect();
    assert_eq!(running.commit(batch(1, 1, records)).await?, Commit::Stored);
    running.stop().await?;
    assert_eq!(lab.rows().await?, (65_536, 65_536));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_folder_of_their_day_from_batches_of_one_day_and_of_several() -> Result<()>
{
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    let day_ms = 86_400_000;
    let days = |days: u64| {
        let on = move |day| flow::Record { start_ms: day * day_ms, ..connection(0) };
        (0..days).chain(0..days).map(on).collect::<Vec<_>>()
    };
    let both = [running.commit(batch(1, 1, days(3))), running.commit(batch(1, 2, days(1)))];
    for answer in join_all(both).await {
        assert_eq!(answer?, Commit::Stored);
    }
    running.stop().await?;
    assert_eq!(lab.rows().await?, (8, 8));
    assert_eq!(lab.folder.lake().await?.files(), 3, "one for each day");
    let right = "SELECT count(*) FROM flows WHERE day = CAST(start_time AS DATE)";
    assert_eq!(lab.number(right).await?, 8);
    assert_eq!(lab.number("SELECT count(*) FROM flows WHERE day = '1970-01-01'").await?, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_come_together_are_one_commit_and_twins_among_them_are_one() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    let mut waiting = Vec::new();
    for sequence in [1, 2, 2, 3, 1, 4] {
        waiting.push(running.commit(batch(1, sequence.into(), five(sequence))));
    }
    let answers: Result<Vec<Commit>, CommitError> = join_all(waiting).await.into_iter().collect();
    let duplicates = answers?.into_iter().filter(|answer| *answer == Commit::Duplicate).count();
    assert_eq!(duplicates, 2);
    running.stop().await?;
    assert_eq!(lab.rows().await?, (20, 20));
    assert_eq!(lab.folder.lake().await?.version(), 1, "one commit after the table's own");
    assert_eq!(lab.database().await?.batch_counts().await?, (4, 2, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_records_is_stored_for_its_books() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    assert_eq!(running.commit(batch(1, 1, Vec::new())).await?, Commit::Stored);
    assert_eq!(running.commit(batch(1, 1, Vec::new())).await?, Commit::Duplicate);
    running.stop().await?;
    assert_eq!(lab.rows().await?, (0, 0));
    assert_eq!(lab.database().await?.batch_counts().await?, (1, 1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_column_can_hold_is_refused_for_good_and_the_next_batch_is_not() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    let mut late = connection(1);
    late.end_ms = u64::MAX;
    let refused = running.commit(batch(1, 1, vec![connection(0), late])).await;
    let expected = CommitError::Reject(
        "record 1: end_ms 18446744073709551615 is above 253402300799999".to_owned(),
    );
    assert!(
        matches!(&refused, Err(CommitError::Reject(reason)) if reason.contains("end_ms")),
        "{refused:?}, expected about {expected:?}"
    );
    let day_ms = 86_400_000;
    let decades = (0..500).map(|day| flow::Record { start_ms: day * day_ms, ..connection(0) });
    let refused = running.commit(batch(1, 2, decades.collect())).await;
    assert!(matches!(&refused, Err(CommitError::Reject(reason)) if reason.contains("500 days")));
    assert_eq!(running.commit(batch(1, 3, five(3))).await?, Commit::Stored);
    running.stop().await?;
    assert_eq!(lab.database().await?.batch_counts().await?, (1, 0, 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_as_they_went_in() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    let sent = odd_records();
    assert_eq!(running.commit(batch(1, 1, sent.clone())).await?, Commit::Stored);
    running.stop().await?;
    let session = lab.folder.lake().await?.session(&lab.limits()).await?;
    let sql = format!("SELECT {RECORD_COLUMNS} FROM flows ORDER BY position");
    let mut found = Vec::new();
    for rows in session.sql(&sql).await?.collect().await? {
        found.extend(records(&rows)?);
    }
    assert_eq!(found, sent);
    let unknown = "SELECT count(*) FROM flows WHERE responder_port IS NULL \
        AND responder_ttl IS NULL AND responder_tcp_flags IS NULL AND NOT ports_known";
    assert_eq!(lab.number(unknown).await?, 1, "what is not known is NULL, not 0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_gets_checkpoints_and_a_table_behind_one_still_opens() -> Result<()> {
    let lab = Lab::new().await?;
    let mut lake = lab.folder.lake().await?;
    for sequence in 1..=101 {
        let received =
            Received { batch: batch(1, sequence, vec![connection(1)]), received_ms: 1, bytes: 1 };
        lake.append(&[received]).await?;
        if lake.checkpoint_due() {
            lake.checkpoint().await?;
        }
    }
    let log = lab.path().join("lake/flows/_delta_log");
    let names: Vec<String> = std::fs::read_dir(log)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    assert!(names.iter().any(|name| name.ends_with(".checkpoint.parquet")), "{names:?}");
    let lake = lab.folder.lake().await?;
    assert_eq!(lake.version(), 101);
    assert_eq!(lake.watermark(&sensor(), 1).await?.context("a watermark")?, 101);
    assert_eq!(lab.rows().await?, (101, 101));
    Ok(())
}
