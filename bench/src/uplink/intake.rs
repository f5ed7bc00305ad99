//! The plain receiving end: appends each batch to one file and syncs it, and nothing more; shows what the link alone
//! costs. In: a folder and an address. Out: `listening on ADDRESS` and a code, on standard output.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args;
use tokio::sync::{mpsc, oneshot};
use uplink::{
    Batch, CertificateAuthority, Commit, CommitError, EnrolmentCode, Intake, IntakeError,
    Judgement, Ledger, MemberId, Peer, RedeemError, SensorId, ServeOptions, serve,
};

/// Batches that wait for the disk.
const QUEUE: usize = 64;

#[derive(Args)]
pub(crate) struct Options {
    dir: PathBuf,
    listen: SocketAddr,
}

struct Task {
    bytes: Bytes,
    done: oneshot::Sender<bool>,
}

struct FileIntake {
    ledger: Mutex<Ledger>,
    tasks: mpsc::Sender<Task>,
}

impl FileIntake {
    fn ledger<T>(&self, of: impl FnOnce(&mut Ledger) -> T) -> T {
        of(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Intake for FileIntake {
    async fn commit(&self, _: Peer, batch: Batch, bytes: Bytes) -> Result<Commit, CommitError> {
        let session = (batch.header.sensor.clone(), batch.header.boot_epoch);
        let judged = self.ledger(|ledger| {
            if ledger.held(&session).is_none() {
                ledger.learn(session.clone(), None);
            }
            ledger.judge(&session, batch.header.sequence)
        });
        if judged != Judgement::New {
            return Ok(Commit::Duplicate);
        }
        let failed = || CommitError::Retry("the disk failed".to_owned());
        let (done, told) = oneshot::channel();
        self.tasks.send(Task { bytes, done }).await.map_err(|_ended| failed())?;
        match told.await {
            Ok(true) => Ok(Commit::Stored),
            _ => Err(failed()),
        }
    }

    async fn redeem(&self, _: [u8; 32], _: [u8; 32]) -> Result<(MemberId, SensorId), RedeemError> {
        let internal = |error: uplink::IdError| RedeemError::Internal(error.to_string());
        Ok(("bench".parse().map_err(internal)?, "bench-1".parse().map_err(internal)?))
    }

    async fn admitted(&self, _: &Peer) -> Result<bool, IntakeError> {
        Ok(true)
    }

    async fn last_sequence(
        &self,
        sensor: &SensorId,
        epoch: u64,
    ) -> Result<Option<u64>, IntakeError> {
        Ok(self.ledger(|ledger| ledger.held(&(sensor.clone(), epoch)).flatten()))
    }
}

/// Writes what has come, syncs once, answers all.
fn write_all(mut file: File, mut tasks: mpsc::Receiver<Task>) {
    while let Some(first) = tasks.blocking_recv() {
        let mut group = vec![first];
        while let Ok(next) = tasks.try_recv() {
            group.push(next);
        }
        let written = group.iter().try_for_each(|task| file.write_all(&task.bytes));
        let durable = written.and_then(|()| file.sync_data()).is_ok();
        for task in group {
            // Whoever sent it may be gone.
            let _gone = task.done.send(durable).is_err();
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let authority_folder = options.dir.join("ca");
    let authority = if authority_folder.is_dir() {
        CertificateAuthority::load(&authority_folder)?
    } else {
        CertificateAuthority::create(&authority_folder)?
    };
    let file = File::options().create(true).append(true).open(options.dir.join("batches"))?;
    let (sender, tasks) = mpsc::channel(QUEUE);
    let writer = std::thread::spawn(move || write_all(file, tasks));
    let intake = FileIntake { ledger: Mutex::default(), tasks: sender };
    let pin = authority.pin();
    let ready = move |address: SocketAddr| {
        if let Ok(code) = EnrolmentCode::new(&address.to_string(), pin) {
            let mut out = std::io::stdout().lock();
            // Whoever started this reads it, or ends this.
            let _closed = writeln!(out, "code {code}\nlistening on {address}").is_err();
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let serve_options = ServeOptions::new(options.listen, Arc::new(authority));
    let ended = async {
        let _unavailable = tokio::signal::ctrl_c().await.is_err();
    };
    runtime.block_on(serve(serve_options, Arc::new(intake), ready, ended))?;
    drop(runtime);
    writer.join().ok().context("the writer of the file failed")
}
