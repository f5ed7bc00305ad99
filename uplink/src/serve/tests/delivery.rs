//! Batches from an outbox to an intake: each exactly once, whatever happens to either end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flow::Books;
use tokio::sync::{mpsc, watch};

use super::vault::{Backend, Vault, new_code};
use crate::test_records::realistic;
use crate::{
    BatchId, DeliverOptions, DeliveryEvent, DeliveryTotals, Outbox, OutboxOptions, Shutdown,
    SpoolHandle, deliver, enroll, open, verify,
};

const RECORDS: usize = 50;
/// Long enough for any machine; what is waited for is an event, never the time.
pub(super) const LONG: Duration = Duration::from_mins(2);

/// A folder that is removed at the end, with room for a backend and a sensor.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("the temporary folder is writable")
}

async fn enrolled_outbox(dir: &Path, vault: &Vault, backend: &Backend) -> Outbox {
    let state = dir.join("state");
    let code = new_code(&dir.join("ca"), vault, backend.address, "acme");
    enroll(&code.to_string(), &state).await.expect("the code is good");
    open_outbox(&state, 1 << 30)
}

pub(super) fn open_outbox(state_dir: &Path, spool_bytes_max: u64) -> Outbox {
    Outbox::open(OutboxOptions {
        state_dir: state_dir.to_path_buf(),
        spool_bytes_max,
        object_sha256: [3; 32],
        sensor_version: "0.1.0".to_owned(),
        now_ms: 1_795_000_000_000,
    })
    .expect("the state folder is good")
}

pub(super) fn seal(outbox: &mut Outbox, batches: u64) -> Vec<BatchId> {
    (0..batches)
        .map(|number| {
            let records = realistic(number, RECORDS);
            let books = Books { records_out: number, ..Books::default() };
            outbox.seal(&records, &books, 1_795_000_000_000 + number).expect("the disk has room").id
        })
        .collect()
}

/// A delivery that runs until it is told to end, and its events.
pub(super) struct Delivery {
    shutdown: watch::Sender<Shutdown>,
    events: mpsc::UnboundedReceiver<DeliveryEvent>,
    task: tokio::task::JoinHandle<DeliveryTotals>,
}

impl Delivery {
    pub(super) fn start(outbox: &Outbox, adjust: impl FnOnce(&mut DeliverOptions)) -> Self {
        Self::start_on(outbox.spool(), adjust)
    }

    fn start_on(spool: SpoolHandle, adjust: impl FnOnce(&mut DeliverOptions)) -> Self {
        let mut options = DeliverOptions::new(spool);
        options.seed = Some(1);
        options.backoff_min_ms = 1;
        options.backoff_max_ms = 20;
        adjust(&mut options);
        let (shutdown, wish) = watch::channel(Shutdown::No);
        let (sender, events) = mpsc::unbounded_channel();
        let progress = move |event: DeliveryEvent| {
            // The test may have seen enough.
            let _gone = sender.send(event).is_err();
        };
        let task = tokio::spawn(async move {
            deliver(options, progress, wish).await.expect("the options are good")
        });
        Self { shutdown, events, task }
    }

    pub(super) async fn wait_for(
        &mut self,
        wanted: impl Fn(&DeliveryEvent) -> bool,
    ) -> DeliveryEvent {
        loop {
            let event = tokio::time::timeout(LONG, self.events.recv()).await;
            let event = event.expect("it happens in time").expect("the delivery runs");
            if wanted(&event) {
                return event;
            }
        }
    }

    pub(super) async fn end(self, wish: Shutdown) -> DeliveryTotals {
        self.shutdown.send(wish).expect("the delivery runs");
        tokio::time::timeout(LONG, self.task).await.expect("in time").expect("no panic")
    }
}

pub(super) fn assert_all_stored(vault: &Vault, ids: &[BatchId]) {
    let contents = vault.contents();
    let stored: Vec<BatchId> = contents
        .stored
        .keys()
        .map(|(sensor, boot_epoch, sequence)| BatchId {
            sensor: sensor.clone(),
            boot_epoch: *boot_epoch,
            sequence: *sequence,
        })
        .collect();
    assert_eq!(stored, ids, "every batch exactly once");
    assert_eq!(contents.records, ids.len() * RECORDS);
}

#[tokio::test]
async fn a_hundred_batches_are_stored_once_each() {
    let dir = folder();
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let mut outbox = enrolled_outbox(dir.path(), &vault, &backend).await;
    let mut ids = seal(&mut outbox, 60);
    let mut delivery = Delivery::start(&outbox, |_| {});
    delivery.wait_for(|event| matches!(event, DeliveryEvent::Acked { .. })).await;
    // Sealed while the delivery runs: it is told of them.
    ids.extend(seal(&mut outbox, 40));
    let totals = delivery.end(Shutdown::WhenEmpty { within: LONG }).await;
    assert_all_stored(&vault, &ids);
    assert_eq!((totals.batches_acked, totals.batches_rejected), (100, 0));
    assert_eq!(totals.records_acked, 100 * u64::try_from(RECORDS).expect("small"));
    assert_eq!(totals.connections, 1);
    assert_eq!((outbox.totals().batches_waiting, outbox.totals().spool_bytes), (0, 0));
    let served = backend.end();
    assert_eq!((served.batches_stored, served.enrolled), (100, 1));

    // Anybody can check the chain later, with the sensor's key.
    let mut previous = [0; 32];
    for bytes in vault.contents().stored.values() {
        let batch = open(bytes).expect("it was stored whole");
        assert_eq!(batch.header.previous_blake3, previous);
        previous = crate::batch_blake3(bytes).expect("whole");
        assert!(verify(bytes, &[0; 32]).is_err());
    }
}

#[tokio::test]
async fn a_killed_backend_comes_back_and_nothing_is_lost_or_doubled() {
    let dir = folder();
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let mut backend = Backend::start(&ca, &vault, None, |_| {});
    let mut outbox = enrolled_outbox(dir.path(), &vault, &backend).await;
    let mut delivery = Delivery::start(&outbox, |options| options.in_flight_max = 4);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.extend(seal(&mut outbox, 30));
        let acked = |event: &DeliveryEvent| matches!(event, DeliveryEvent::Acked { .. });
        delivery.wait_for(acked).await;
        let address = backend.address;
        backend.kill();
        ids.extend(seal(&mut outbox, 5));
        backend = Backend::start(&ca, &vault, Some(address), |_| {});
    }
    let totals = delivery.end(Shutdown::WhenEmpty { within: LONG }).await;
    assert_all_stored(&vault, &ids);
    assert_eq!(totals.batches_acked, 140);
    assert!(totals.connections > 1, "{totals:?}");
    backend.end();
}

#[tokio::test]
async fn a_backend_that_is_down_is_an_event_and_the_batches_wait() {
    let dir = folder();
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&ca, &vault, None, |_| {});
    let address = backend.address;
    let mut outbox = enrolled_outbox(dir.path(), &vault, &backend).await;
    backend.kill();
    let ids = seal(&mut outbox, 3);
    let mut delivery = Delivery::start(&outbox, |options| options.answer_timeout_ms = 100);
    let event = delivery.wait_for(|event| matches!(event, DeliveryEvent::Unreachable { .. })).await;
    let text = event.to_string();
    assert!(text.starts_with(&format!("backend {address} unreachable: ")), "{text}");
    assert!(text.ends_with(" s, 3 batches waiting"), "{text}");
    let backend = Backend::start(&ca, &vault, Some(address), |_| {});
    delivery.end(Shutdown::WhenEmpty { within: LONG }).await;
    assert_all_stored(&vault, &ids);
    backend.end();
}

#[tokio::test]
async fn a_sensor_that_starts_again_delivers_what_it_had_spooled() {
    let dir = folder();
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let mut outbox = enrolled_outbox(dir.path(), &vault, &backend).await;
    let mut ids = seal(&mut outbox, 10);
    drop(outbox);
    let mut outbox = open_outbox(&dir.path().join("state"), 1 << 30);
    assert_eq!(outbox.totals().recovery.batches_found, 10);
    ids.extend(seal(&mut outbox, 10));
    assert!(ids[10].boot_epoch > ids[0].boot_epoch && ids[10].sequence == 1);
    let delivery = Delivery::start(&outbox, |_| {});
    delivery.end(Shutdown::WhenEmpty { within: LONG }).await;
    assert_all_stored(&vault, &ids);
    backend.end();
}

#[tokio::test]
async fn a_spool_is_delivered_without_an_outbox() {
    let dir = folder();
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let mut outbox = enrolled_outbox(dir.path(), &vault, &backend).await;
    let ids = seal(&mut outbox, 10);
    drop(outbox);
    let state = dir.path().join("state");
    let epoch = std::fs::read(state.join("boot_epoch")).expect("the outbox made it");
    // As on a full disk: no new file can be made.
    std::fs::create_dir(state.join("boot_epoch.new")).expect("the folder is writable");
    let (spool, recovery) = SpoolHandle::open(&state).expect("nothing needs to be written");
    assert_eq!((recovery.batches_found, spool.waiting()), (10, (10, 10 * RECORDS as u64)));
    let delivery = Delivery::start_on(spool, |_| {});
    delivery.end(Shutdown::WhenEmpty { within: LONG }).await;
    assert_all_stored(&vault, &ids);
    assert_eq!(std::fs::read(state.join("boot_epoch")).expect("still there"), epoch);
    backend.end();
}

#[tokio::test]
async fn what_the_store_cannot_take_now_is_offered_again_and_what_it_refuses_is_set_aside() {
    let dir = folder();
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    vault.contents().retry_once = vec![3, 9];
    vault.contents().refuse = vec![7];
    let mut outbox = enrolled_outbox(dir.path(), &vault, &backend).await;
    let mut ids = seal(&mut outbox, 12);
    let mut delivery = Delivery::start(&outbox, |_| {});
    let refused = delivery.wait_for(|event| matches!(event, DeliveryEvent::Rejected { .. })).await;
    assert!(refused.to_string().ends_with("rejected by the backend: of no use"), "{refused}");
    let totals = delivery.end(Shutdown::WhenEmpty { within: LONG }).await;
    ids.remove(6);
    assert_all_stored(&vault, &ids);
    assert_eq!((totals.batches_acked, totals.batches_rejected), (11, 1));
    assert_eq!(totals.failures, 2);
    let aside = std::fs::read_dir(dir.path().join("state/rejected")).expect("there").count();
    assert_eq!(aside, 1);
    let served = backend.end();
    assert_eq!((served.batches_stored, served.batches_rejected), (11, 1));
    assert!(served.batches_retried >= 2);
}

#[tokio::test]
async fn a_full_spool_evicts_the_oldest_and_the_backend_gets_the_rest() {
    let dir = folder();
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    drop(enrolled_outbox(dir.path(), &vault, &backend).await);
    let mut outbox = open_outbox(&dir.path().join("state"), 10_000);
    let ids = seal(&mut outbox, 20);
    let totals = outbox.totals();
    assert!(totals.spool_bytes <= 10_000);
    assert!(totals.batches_evicted > 0);
    assert_eq!(totals.batches_sealed, totals.batches_evicted + totals.batches_waiting);
    assert_eq!(totals.records_sealed, totals.records_evicted + totals.records_waiting);
    let delivery = Delivery::start(&outbox, |_| {});
    delivery.end(Shutdown::WhenEmpty { within: LONG }).await;
    let evicted = usize::try_from(totals.batches_evicted).expect("small");
    assert_all_stored(&vault, &ids[evicted..]);
    backend.end();
}

#[tokio::test]
async fn a_backend_that_is_gone_is_noticed_by_its_silence() {
    let dir = folder();
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let mut outbox = enrolled_outbox(dir.path(), &vault, &backend).await;
    let mut delivery = Delivery::start(&outbox, |options| {
        options.silence_max_ms = 500;
        // Neither of these may be what ends the connection.
        options.idle_timeout_ms = 600_000;
        options.answer_timeout_ms = 600_000;
    });
    seal(&mut outbox, 1);
    delivery.wait_for(|event| matches!(event, DeliveryEvent::Acked { .. })).await;
    backend.kill();
    seal(&mut outbox, 1);
    let ended =
        delivery.wait_for(|event| matches!(event, DeliveryEvent::Disconnected { .. })).await;
    assert!(ended.to_string().contains("nothing was heard for"), "{ended}");
    assert_eq!(delivery.end(Shutdown::Now).await.batches_acked, 1);
    assert_eq!(outbox.totals().batches_waiting, 1);
}
