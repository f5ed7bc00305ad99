//! A crash neither loses a finding nor makes it two.

use anyhow::Result;
use backend::database::StoredFinding;
use backend::lake::Received;
use detect::Kind;
use flow::{Pseudonyms, Record};

use crate::lab::{Lab, NOON_MS, batch, connection, probe, sensor};

async fn scans(lab: &Lab) -> Result<Vec<StoredFinding>> {
    let found = lab.database().await?.findings_between(Some("town-hall"), 0, u64::MAX).await?;
    Ok(found.into_iter().filter(|stored| stored.finding.kind == Kind::VerticalScan).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finding_can_be_read_once_its_batch_is_acknowledged() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    running.commit(batch(1, 1, (0..40).map(connection).collect())).await?;
    assert!(scans(&lab).await?.is_empty());
    running.commit(batch(1, 2, (0..40).map(probe).collect())).await?;
    let found = scans(&lab).await?;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].finding.records, 40);
    running.kill().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_change_nothing_about_what_is_found() -> Result<()> {
    let whole = Lab::new().await?;
    let running = whole.start().await?;
    running.commit(batch(1, 1, (0..80).map(probe).collect())).await?;
    running.stop().await?;
    let expected = scans(&whole).await?;
    assert_eq!(expected.len(), 1);

    // The same scan, five probes a batch, with a kill after each: no single run sees enough of it.
    let lab = Lab::new().await?;
    for sequence in 0..16_u16 {
        let running = lab.start().await?;
        let probes = (sequence * 5..sequence * 5 + 5).map(probe).collect();
        running.commit(batch(1, u64::from(sequence) + 1, probes)).await?;
        running.kill().await;
    }
    let found = scans(&lab).await?;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].finding, expected[0].finding);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_but_never_judged_is_judged_after_the_restart() -> Result<()> {
    let lab = Lab::new().await?;
    let received =
        Received { batch: batch(1, 1, (0..40).map(probe).collect()), received_ms: 1, bytes: 1 };
    lab.folder.lake().await?.append(&[received]).await?;
    lab.start().await?.stop().await?;
    let found = scans(&lab).await?;
    assert_eq!(found.len(), 1);
    // And once more: nothing new.
    lab.start().await?.stop().await?;
    assert_eq!(scans(&lab).await?, found);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_hides_nothing_that_others_see() -> Result<()> {
    let years_ahead = NOON_MS + 30 * 365 * 86_400_000;
    let ahead = |n| Record { start_ms: years_ahead, end_ms: years_ahead, ..probe(n) };
    let lab = Lab::new().await?;
    let halves =
        [[(0..8).map(probe).collect(), vec![ahead(100)]].concat(), (8..16).map(probe).collect()];
    // Stored at the packets' own time, so that this machine's clock does not matter; never judged while it ran.
    for (sequence, records) in (1..).zip(halves) {
        let batch = batch(1, sequence, records);
        let received = Received { batch, received_ms: NOON_MS + 1_000, bytes: 1 };
        lab.folder.lake().await?.append(&[received]).await?;
    }
    lab.start().await?.stop().await?;
    let found = scans(&lab).await?;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].finding.records, 16);
    assert!(found[0].finding.last_ms < NOON_MS + 60_000);

    // Nor does it move the end of the report's period.
    assert_eq!(lab.database().await?.newest_ms("town-hall").await?, Some(probe(15).end_ms));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_in_1970_hides_nothing_that_others_see() -> Result<()> {
    let behind = |n| Record { start_ms: 5, end_ms: 9, ..probe(n) };
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    running.commit(batch(1, 1, [vec![behind(100)], (0..8).map(probe).collect()].concat())).await?;
    running.kill().await;
    let running = lab.start().await?;
    running
        .commit(batch(
            1,
            2,
            (8..16).chain([101]).map(|n| if n == 101 { behind(n) } else { probe(n) }).collect(),
        ))
        .await?;
    running.stop().await?;
    assert!(scans(&lab).await?.iter().any(|stored| stored.finding.records >= 16));
    Ok(())
}

/// The same probes at a pseudonym, in two batches of these key epochs.
async fn probed(lab: &Lab, key_epochs: [u32; 2]) -> Result<()> {
    let at_pseudonym = |n| {
        let pseudonyms = Pseudonyms { responder: true, ..Pseudonyms::default() };
        Record { pseudonyms, ..probe(n) }
    };
    let halves = [(0..8).map(at_pseudonym).collect(), (8..16).map(at_pseudonym).collect()];
    let running = lab.start().await?;
    for ((sequence, records), key_epoch) in (1..).zip(halves).zip(key_epochs) {
        let mut batch = batch(1, sequence, records);
        batch.header.key_epoch = Some(key_epoch);
        running.commit(batch).await?;
    }
    running.kill().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pseudonym_is_another_host_in_another_key_epoch_also_after_a_restart() -> Result<()> {
    let one = Lab::new().await?;
    probed(&one, [7, 7]).await?;
    let found = scans(&one).await?;
    assert_eq!(found.len(), 1, "{found:?}");
    let key_scope = found[0].finding.key_scope.clone();
    assert_eq!(
        key_scope.map(|scope| (scope.sensor, scope.key_epoch)),
        Some((sensor().to_string(), 7))
    );
    one.start().await?.stop().await?;
    assert_eq!(scans(&one).await?, found);

    let two = Lab::new().await?;
    probed(&two, [7, 8]).await?;
    two.start().await?.stop().await?;
    assert!(scans(&two).await?.is_empty());
    Ok(())
}
