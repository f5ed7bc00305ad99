//! A box that enrols anew while batches of its former identity wait: none of them disappears uncounted.

use std::sync::Arc;
use std::time::Duration;

use flow::Books;
use tokio::sync::watch;

use super::vault::{Backend, Vault, new_code};
use crate::test_records::realistic;
use crate::{
    DeliverOptions, EnrollError, Outbox, OutboxOptions, Shutdown, deliver, enroll,
    enroll_abandoning, open_header,
};

const RECORDS: usize = 30;
const NOW_MS: u64 = 1_795_000_000_000;

fn open(state_dir: &std::path::Path) -> Outbox {
    Outbox::open(OutboxOptions {
        state_dir: state_dir.to_path_buf(),
        spool_bytes_max: 1 << 30,
        object_sha256: [3; 32],
        sensor_version: "0.1.0".to_owned(),
        now_ms: NOW_MS,
    })
    .expect("the state folder is good")
}

fn seal(outbox: &mut Outbox, seed: u64) {
    let books = Books::default();
    outbox.seal(&realistic(seed, RECORDS), &books, NOW_MS).expect("the disk has room");
}

#[tokio::test]
async fn what_waits_under_an_earlier_identity_is_refused_or_told_to_the_backend() {
    let dir = tempfile::tempdir().expect("writable");
    let (ca, state) = (dir.path().join("ca"), dir.path().join("state"));
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&ca, &vault, None, |_| {});
    let code = |member| new_code(&ca, &vault, backend.address, member).to_string();
    let old = enroll(&code("acme"), &state).await.expect("the code is good").sensor;
    let mut outbox = open(&state);
    (0..3).for_each(|seed| seal(&mut outbox, seed));
    drop(outbox);

    // Its certificate has ended, say. The identity goes, the batches stay.
    std::fs::rename(state.join("identity"), dir.path().join("identity.old")).expect("there");
    let new_code = code("bolt");
    let refused = enroll(&new_code, &state).await.expect_err("three batches wait");
    let told = refused.to_string();
    assert!(matches!(refused, EnrollError::Waiting { batches: 3, records: 90, .. }), "{told}");
    assert!(told.contains(old.as_str()) && told.contains("--abandon-waiting"), "{told}");
    let enrolled = enroll_abandoning(&new_code, &state).await.expect("the code was not used");

    let mut outbox = open(&state);
    let totals = outbox.totals();
    assert_eq!((totals.batches_evicted, totals.records_evicted), (3, 90));
    assert_eq!((totals.batches_waiting, totals.recovery.batches_quarantined), (0, 0));
    // A start that seals nothing tells nothing, so the next one counts them again.
    drop(outbox);
    outbox = open(&state);
    assert_eq!(outbox.totals().records_evicted, 90);
    seal(&mut outbox, 7);
    assert_eq!(outbox.totals().records_evicted, 90);

    let (_sender, wish) = watch::channel(Shutdown::WhenEmpty { within: Duration::from_mins(2) });
    let delivered = deliver(DeliverOptions::new(outbox.spool()), |_event| {}, wish).await;
    assert_eq!(delivered.expect("the options are good").records_acked, 30);
    let stored = vault.contents().stored.values().next().cloned().expect("one batch is stored");
    let header = open_header(&stored).expect("whole");
    assert_eq!(header.sensor, enrolled.sensor);
    assert_eq!(header.books.records_evicted, 90, "the backend knows of the gap");
    drop(outbox);
    let totals = open(&state).totals();
    assert_eq!((totals.records_evicted, totals.recovery.batches_superseded), (0, 0), "told once");
    assert_eq!(std::fs::read_dir(state.join("superseded")).expect("there").count(), 3);
    backend.end();
}
