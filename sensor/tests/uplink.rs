//! The sensor against a real receiving end of the link on the loopback interface, with a store in
//! memory: what is sealed arrives, and what cannot be delivered waits for the next start.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sensor::{Balance, Config, Options, Outcome, OutputKind, SentOptions};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uplink::{
    Batch, CertificateAuthority, Commit, CommitError, EnrolmentCode, Intake, IntakeError, MemberId,
    Peer, RedeemError, SensorId, ServeOptions, serve,
};

/// Keeps what arrives; gives every code the sensor that it was told, and `acme-00000001` before that.
#[derive(Default)]
struct Store(Mutex<Vec<Batch>>, Mutex<String>);

impl Store {
    fn batches(&self) -> Vec<Batch> {
        self.0.lock().expect("nobody panics while holding it").clone()
    }
}

impl Intake for Store {
    async fn commit(&self, _: Peer, batch: Batch, _: Bytes) -> Result<Commit, CommitError> {
        self.0.lock().expect("nobody panics while holding it").push(batch);
        Ok(Commit::Stored)
    }

    async fn redeem(&self, _: [u8; 32], _: [u8; 32]) -> Result<(MemberId, SensorId), RedeemError> {
        let member = "acme".parse().expect("a valid name");
        let told = self.1.lock().expect("nobody panics while holding it");
        let sensor = if told.is_empty() { "acme-00000001" } else { told.as_str() };
        let sensor = sensor.parse().expect("a valid name");
        Ok((member, sensor))
    }

    async fn admitted(&self, _: &Peer) -> Result<bool, IntakeError> {
        Ok(true)
    }

    async fn last_sequence(&self, _: &SensorId, epoch: u64) -> Result<Option<u64>, IntakeError> {
        let batches = self.batches();
        let of_epoch = batches.iter().filter(|batch| batch.header.boot_epoch == epoch);
        Ok(of_epoch.map(|batch| batch.header.sequence).max())
    }
}

/// A receiving end that can be stopped and started again at the same address.
struct Backend {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Backend {
    fn start(
        runtime: &Runtime,
        listen: SocketAddr,
        authority: &Arc<CertificateAuthority>,
        store: &Arc<Store>,
    ) -> Self {
        let (tell, ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ServeOptions::new(listen, Arc::clone(authority));
        let store = Arc::clone(store);
        let running = runtime.spawn(async move {
            let ready = |address| {
                let _test_is_over = tell.send(address);
            };
            let ended = async {
                let _either_way = stopped.await;
            };
            serve(options, store, ready, ended).await.expect("the receiving end starts");
        });
        let address = runtime.block_on(ready).expect("the receiving end tells its address");
        Self { address, stop, running }
    }

    fn stop(self, runtime: &Runtime) {
        let _already_gone = self.stop.send(());
        runtime.block_on(self.running).expect("the receiving end stops");
    }
}

/// A capture of one UDP packet from each of `flows` ports.
fn capture(folder: &Path, flows: u16) -> PathBuf {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for port in 0..flows {
        for word in [1_700_000_000_u32, 0, 42, 42] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([0; 12]);
        bytes.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        bytes.extend([10, 0, 0, 1, 192, 0, 2, 1]);
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 53, 0, 8, 0, 0]);
    }
    let file = folder.join(format!("{flows}.pcap"));
    fs::write(&file, bytes).expect("the folder takes a file");
    file
}

fn replay(state_dir: &Path, grace_ms: &str, file: PathBuf) -> Outcome {
    let mut config = Config::default();
    config.output.kinds = vec![OutputKind::Uplink];
    state_dir.clone_into(&mut config.uplink.state_dir);
    config.uplink.batch_records_max = "100".parse().expect("within the range");
    config.uplink.shutdown_grace_ms = grace_ms.parse().expect("within the range");
    let summary_file = file.with_extension("summary");
    let options = Options { summary_file: Some(summary_file.clone()), ..Options::default() };
    let outcome = sensor::replay(&config, &options, &[file]).expect("a replay can begin");
    // Wherever the backend is, every record is somewhere.
    let balance = Balance::read(&summary_file).expect("the summary was written");
    assert!(balance.balanced, "{}", balance.to_text(jiff::Timestamp::now()));
    let names: Vec<_> = balance.equations.iter().map(|equation| equation.name).collect();
    assert_eq!(names, ["frames", "not IP", "malformed", "packets", "records", "batches", "uplink"]);
    assert!(balance.equations.iter().all(|one| one.holds == Some(true)), "{balance:?}");
    outcome
}

#[test]
fn what_is_sealed_arrives_or_waits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("state");
    let runtime = Runtime::new().expect("a runtime");
    let authority = CertificateAuthority::create(&folder.path().join("ca"))
        .map(Arc::new)
        .expect("an authority can be made");
    let store = Arc::new(Store::default());
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let backend = Backend::start(&runtime, any_port, &authority, &store);
    let address = backend.address;
    let code = EnrolmentCode::new(&address.to_string(), authority.pin())
        .expect("a code can be made")
        .to_string();
    runtime.block_on(uplink::enroll(&code, &state)).expect("the sensor can enrol");

    let outcome = replay(&state, "60000", capture(folder.path(), 950));
    assert_eq!(outcome.faults, Vec::<String>::new());
    let summary = &outcome.summary;
    assert_eq!((summary.records_out, summary.records_sealed), (950, 950));
    assert_eq!((summary.records_acked, summary.records_waiting), (950, 0));
    let batches = store.batches();
    assert_eq!(batches.iter().map(|batch| batch.records.len()).sum::<usize>(), 950);
    let last = batches.last().expect("ten batches arrived");
    assert_eq!(last.header.sequence, 10);
    assert_eq!(last.header.books.records_sealed, 950);
    assert_eq!(last.header.books.frames_seen, 950);
    assert!(last.header.books.balanced());

    // The backend is gone: nothing is lost, and nothing is an error.
    backend.stop(&runtime);
    let outcome = replay(&state, "0", capture(folder.path(), 150));
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert_eq!((outcome.summary.records_sealed, outcome.summary.records_acked), (150, 0));
    assert_eq!((outcome.summary.records_waiting, outcome.summary.records_lost), (150, 0));

    // Every byte that has left, and that waits, can be read by who owns the box.
    let options = SentOptions { json: true, records: true, ..SentOptions::default() };
    let mut shown = Vec::new();
    assert_eq!(sensor::sent(&state, &options, &mut shown).expect("the folder is there"), 0);
    let lines: Vec<serde_json::Value> = shown
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    let (batches, records): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| line.get("whereabouts").is_some());
    let where_ = |name: &str| batches.iter().filter(|batch| batch["whereabouts"] == name).count();
    assert_eq!((where_("sent"), where_("waiting"), records.len()), (10, 2, 950 + 150));
    assert_eq!(records[0]["responder_port"], 53);
    let mut table = Vec::new();
    let options = SentOptions::default();
    assert_eq!(sensor::sent(&state, &options, &mut table).expect("the folder is there"), 0);
    let table = String::from_utf8(table).expect("text");
    assert!(table.contains("10 batches were sent: 950 records"), "{table}");
    assert!(table.contains("2 batches wait: 150 records"), "{table}");

    // A delivery without a capture says that they still wait.
    let mut config = Config::default();
    state.clone_into(&mut config.uplink.state_dir);
    let delivered = sensor::deliver(&config, Some(Duration::ZERO)).expect("the folder is free");
    assert_eq!((delivered.records_waiting, delivered.batches_waiting), (150, 2));
    assert!(!delivered.is_complete());

    // It is back: they go out without a capture, and once only.
    let backend = Backend::start(&runtime, address, &authority, &store);
    let delivered = sensor::deliver(&config, None).expect("the folder is free");
    assert_eq!((delivered.records_acked, delivered.records_waiting), (150, 0));
    assert!(delivered.is_complete(), "{delivered:?}");
    let again = sensor::deliver(&config, None).expect("the folder is free");
    assert_eq!(again, sensor::Delivered::default());
    backend.stop(&runtime);
    let outcome = replay(&state, "0", capture(folder.path(), 150));
    assert_eq!(outcome.summary.records_waiting, 150);

    // The next start delivers what waits before its own.
    let backend = Backend::start(&runtime, address, &authority, &store);
    let outcome = replay(&state, "60000", capture(folder.path(), 1));
    assert_eq!((outcome.summary.records_acked, outcome.summary.records_acked_earlier), (1, 150));
    assert_eq!(outcome.summary.records_waiting, 0);
    backend.stop(&runtime);
    let arrived: usize = store.batches().iter().map(|batch| batch.records.len()).sum();
    assert_eq!(arrived, 950 + 150 + 150 + 1);
}

#[test]
fn what_an_earlier_identity_left_is_told_as_lost_and_the_books_close() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("state");
    let runtime = Runtime::new().expect("a runtime");
    let authority = CertificateAuthority::create(&folder.path().join("ca"))
        .map(Arc::new)
        .expect("an authority can be made");
    let store = Arc::new(Store::default());
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let backend = Backend::start(&runtime, any_port, &authority, &store);
    let address = backend.address;
    let enroll = |sensor: &str| {
        *store.1.lock().expect("nobody panics while holding it") = sensor.to_owned();
        let code = EnrolmentCode::new(&address.to_string(), authority.pin());
        let code = code.expect("a code can be made").to_string();
        runtime.block_on(uplink::enroll_abandoning(&code, &state)).expect("the sensor can enrol")
    };
    enroll("acme-00000001");
    backend.stop(&runtime);
    let outcome = replay(&state, "0", capture(folder.path(), 150));
    assert_eq!(outcome.faults, Vec::<String>::new(), "what only waits is not lost");
    fs::rename(state.join("identity"), folder.path().join("identity")).expect("it is there");
    let backend = Backend::start(&runtime, address, &authority, &store);
    enroll("acme-00000002");

    let outcome = replay(&state, "60000", capture(folder.path(), 10));
    let summary = &outcome.summary;
    assert_eq!((summary.records_evicted, summary.records_waiting), (150, 0));
    assert!(summary.records_delivered_add_up(), "{summary:?}");
    assert_eq!(outcome.faults.len(), 1, "{:?}", outcome.faults);
    assert!(outcome.faults[0].starts_with("150 records were given up"), "{:?}", outcome.faults);
    let batches = store.batches();
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].header.books.records_evicted, 150, "the backend knows of the gap");
    let outcome = replay(&state, "60000", capture(folder.path(), 1));
    assert_eq!(outcome.faults, Vec::<String>::new(), "told once");
    backend.stop(&runtime);
}
