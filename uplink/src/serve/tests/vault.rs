//! An intake in memory that keeps its promises, and a backend process around it that can be killed.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    Batch, CertificateAuthority, Certified, Commit, CommitError, EnrolmentCode, HealthReport,
    Intake, IntakeError, MemberId, Peer, RedeemError, SensorId, ServeOptions, ServeTotals, serve,
};

#[derive(Debug)]
pub(super) struct Code {
    member: MemberId,
    expired: bool,
    /// Key and name of the sensor that has used it.
    pub(super) used: Option<([u8; 32], SensorId)>,
}

#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By the hash of the secret.
    pub(super) codes: HashMap<[u8; 32], Code>,
    pub(super) revoked: Vec<SensorId>,
    pub(super) stored: BTreeMap<(SensorId, u64, u64), Bytes>,
    pub(super) records: usize,
    pub(super) commits: usize,
    /// Batches that were not handed over, because their sensor was revoked.
    pub(super) refused: u64,
    /// Certificates that were issued.
    pub(super) certified: Vec<Certified>,
    /// Why enrolments were refused.
    pub(super) enrolments_refused: Vec<RedeemError>,
    /// Sequences that the store cannot take the first time they are handed over.
    pub(super) retry_once: Vec<u64>,
    /// Sequences that it never takes.
    pub(super) refuse: Vec<u64>,
    /// What sensors have told of themselves.
    pub(super) reports: Vec<(SensorId, HealthReport)>,
    /// Set by a Retry, cleared by a new greeting: nothing later may be stored in between.
    broken: bool,
}

/// Stored means in this map; it outlives the backend "processes" that fill it.
#[derive(Debug, Default)]
pub(super) struct Vault(Mutex<Contents>);

impl Vault {
    pub(super) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    pub(super) fn add_code(&self, code: &EnrolmentCode, member: &str, expired: bool) {
        let member = member.parse().expect("a valid name");
        let new = Code { member, expired, used: None };
        self.contents().codes.insert(code.secret_hash(), new);
    }
}

impl Intake for Vault {
    async fn commit(&self, peer: Peer, batch: Batch, bytes: Bytes) -> Result<Commit, CommitError> {
        // As a real store would: other work comes in between.
        tokio::task::yield_now().await;
        let header = batch.header;
        let mut contents = self.contents();
        contents.commits += 1;
        assert_eq!((&header.member, &header.sensor), (&peer.member, &peer.sensor));
        let position = contents.retry_once.iter().position(|s| *s == header.sequence);
        if let Some(position) = position.filter(|_| !contents.broken) {
            contents.retry_once.remove(position);
            contents.broken = true;
        }
        if contents.broken {
            return Err(CommitError::Retry("the disk is busy".to_owned()));
        }
        if contents.refuse.contains(&header.sequence) {
            return Err(CommitError::Reject("of no use".to_owned()));
        }
        let last = last(&contents, &header.sensor, header.boot_epoch);
        if last.is_some_and(|last| header.sequence <= last) {
            return Ok(Commit::Duplicate);
        }
        contents.records += batch.records.len();
        contents.stored.insert((header.sensor, header.boot_epoch, header.sequence), bytes);
        Ok(Commit::Stored)
    }

    async fn redeem(
        &self,
        secret_hash: [u8; 32],
        public_key: [u8; 32],
    ) -> Result<(MemberId, SensorId), RedeemError> {
        let mut contents = self.contents();
        let code = contents.codes.get_mut(&secret_hash).ok_or(RedeemError::Unknown)?;
        let Code { member, expired, used } = code;
        if *expired {
            return Err(RedeemError::Expired);
        }
        let sensor = SensorId::parse(&format!("{member}-{:02x}", public_key[0])).expect("valid");
        match used {
            Some((key, sensor)) if *key == public_key => Ok((member.clone(), sensor.clone())),
            Some(_) => Err(RedeemError::Used),
            None => {
                *used = Some((public_key, sensor.clone()));
                Ok((member.clone(), sensor))
            }
        }
    }

    async fn health(&self, peer: &Peer, report: HealthReport) {
        self.contents().reports.push((peer.sensor.clone(), report));
    }

    async fn admitted(&self, peer: &Peer) -> Result<bool, IntakeError> {
        Ok(!self.contents().revoked.contains(&peer.sensor))
    }

    async fn certified(&self, _sensor: &SensorId, certified: Certified) {
        self.contents().certified.push(certified);
    }

    async fn enrolment_refused(&self, _remote: SocketAddr, _hash: [u8; 32], why: &RedeemError) {
        self.contents().enrolments_refused.push(why.clone());
    }

    async fn refused(&self, _peer: &Peer, batches: u64) {
        self.contents().refused += batches;
    }

    async fn revoked(&self) -> Result<Vec<SensorId>, IntakeError> {
        Ok(self.contents().revoked.clone())
    }

    async fn last_sequence(
        &self,
        sensor: &SensorId,
        boot_epoch: u64,
    ) -> Result<Option<u64>, IntakeError> {
        let mut contents = self.contents();
        contents.broken = false;
        Ok(last(&contents, sensor, boot_epoch))
    }
}

fn last(contents: &Contents, sensor: &SensorId, boot_epoch: u64) -> Option<u64> {
    let epoch = (sensor.clone(), boot_epoch, 0)..=(sensor.clone(), boot_epoch, u64::MAX);
    contents.stored.range(epoch).next_back().map(|((_, _, sequence), _)| *sequence)
}

/// A backend with a runtime and a thread of its own, so that it can be killed: nothing of it runs afterwards,
/// and nothing is said to its peers.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    stop: oneshot::Sender<bool>,
    thread: JoinHandle<Option<ServeTotals>>,
}

impl Backend {
    /// Starts on a free port, or on that of a former one.
    pub(super) fn start(
        dir: &Path,
        vault: &Arc<Vault>,
        listen: Option<SocketAddr>,
        adjust: impl FnOnce(&mut ServeOptions),
    ) -> Self {
        let authority = CertificateAuthority::load(dir)
            .or_else(|_missing| CertificateAuthority::create(dir))
            .expect("the folder is writable");
        let listen = listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let mut options = ServeOptions::new(listen, Arc::new(authority));
        adjust(&mut options);
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = std::sync::mpsc::channel();
        let vault = Arc::clone(vault);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime needs only memory and a few descriptors");
            runtime.block_on(async {
                let (end, ended) = oneshot::channel();
                let ready = move |address| ready.send(address).expect("the test waits for it");
                let shutdown = async {
                    if ended.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                let mut serving = std::pin::pin!(serve(options, vault, ready, shutdown));
                tokio::select! {
                    totals = &mut serving => Some(totals.expect("it could start")),
                    kill = stopped => {
                        if kill.unwrap_or(true) {
                            return None;
                        }
                        end.send(()).expect("serve waits for it");
                        Some(serving.await.expect("it could start"))
                    }
                }
            })
        });
        let address = address.recv().expect("the backend starts");
        Self { address, stop, thread }
    }

    pub(super) fn kill(self) {
        self.stop(true);
    }

    pub(super) fn end(self) -> ServeTotals {
        self.stop(false).expect("it was not killed")
    }

    fn stop(self, kill: bool) -> Option<ServeTotals> {
        self.stop.send(kill).expect("the backend runs");
        self.thread.join().expect("the backend did not panic")
    }
}

/// A code for this backend, known to its vault.
pub(super) fn new_code(
    dir: &Path,
    vault: &Vault,
    address: SocketAddr,
    member: &str,
) -> EnrolmentCode {
    let authority = CertificateAuthority::load(dir).expect("the backend has made it");
    let code = EnrolmentCode::new(&address.to_string(), authority.pin()).expect("valid");
    vault.add_code(&code, member, false);
    code
}
