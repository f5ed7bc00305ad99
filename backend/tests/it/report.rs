//! A report counts what is in lake and database.

use anyhow::Result;
use backend::report::{Asked, PeriodName, gather, render};
use detect::Kind;

use crate::lab::{Lab, NOON_MS, batch, connection, probe, v4};

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_report_are_those_of_the_records() -> Result<()> {
    let lab = Lab::new().await?;
    let running = lab.start().await?;
    running.commit(batch(1, 1, (0..30).map(connection).collect())).await?;
    running.commit(batch(1, 2, (0..40).map(probe).collect())).await?;
    // Number 3 never came.
    running.commit(batch(1, 4, vec![connection(900)])).await?;
    running.stop().await?;

    let database = lab.database().await?;
    let session = lab.folder.lake().await?.session(&lab.limits()).await?;
    let input = gather(&database, &session, "town-hall", Asked::default()).await?;
    assert_eq!(input.period.name, PeriodName::Weekly);
    assert_eq!(input.period.to_ms, NOON_MS + 9_000 + 5 + 1, "ends with the newest data");
    assert_eq!((input.sent.batches, input.sent.records, input.sent.bytes), (3, 71, Some(33)));
    assert_eq!(input.coverage.observed.len(), 2, "a missing batch is a break");
    assert_eq!(input.coverage.frames_seen, 400);
    assert_eq!(input.coverage.frames_missed, None, "no driver told, so nobody knows");
    assert_eq!((input.coverage.sensors, input.coverage.sensors_heard), (0, 1));
    assert_eq!(input.campaigns_before, None);

    let web = input.ports.first().expect("the web port was tried most");
    assert_eq!((web.port, web.protocol, web.attempts, web.answered), (443, 6, 31, 31));
    assert_eq!(web.sources, 31);
    let target = input.targets.first().expect("one host was tried");
    assert_eq!(target.address, v4([10, 0, 0, 80]));
    assert_eq!((target.attempts, target.sources, target.ports_answering), (71, 32, 1));
    let source = input.sources.first().expect("the scanner");
    assert_eq!(source.address, v4([203, 0, 113, 66]));
    assert_eq!(
        (source.attempts, source.targets, source.kinds.as_slice()),
        (40, 1, &[Kind::VerticalScan][..])
    );

    let html = render(&input)?;
    assert!(html.contains("Town Hall") && html.contains("203.0.113.66"));
    let nobody = gather(&database, &session, "nobody", Asked::default()).await;
    assert_eq!(nobody.expect_err("no such member").to_string(), "there is no member \"nobody\"");
    Ok(())
}
