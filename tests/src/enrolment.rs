//! An identity for a sensor without a backend: a receiving end on loopback that admits one sensor and is gone again.
//! What the sensor seals afterwards stays in its spool.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use uplink::{
    Batch, CertificateAuthority, Commit, CommitError, EnrolmentCode, Intake, IntakeError, MemberId,
    Peer, RedeemError, SensorId, ServeOptions, serve,
};

/// Admits anyone under one name.
struct Porter {
    member: MemberId,
    sensor: SensorId,
}

impl Intake for Porter {
    async fn commit(&self, _: Peer, _: Batch, _: Bytes) -> Result<Commit, CommitError> {
        Ok(Commit::Stored)
    }

    async fn redeem(&self, _: [u8; 32], _: [u8; 32]) -> Result<(MemberId, SensorId), RedeemError> {
        Ok((self.member.clone(), self.sensor.clone()))
    }

    async fn admitted(&self, _: &Peer) -> Result<bool, IntakeError> {
        Ok(true)
    }

    async fn last_sequence(&self, _: &SensorId, _: u64) -> Result<Option<u64>, IntakeError> {
        Ok(None)
    }
}

/// Puts an identity into a sensor's state folder.
///
/// # Errors
///
/// When a socket, a file or the exchange fails.
pub fn enrol_alone(state: &Path) -> Result<()> {
    let runtime = Runtime::new().context("a runtime")?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let authority = Arc::new(CertificateAuthority::create(folder.path())?);
    let porter = Porter { member: "acme".parse()?, sensor: "acme-00000001".parse()? };
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServeOptions::new(any_port, Arc::clone(&authority));
    runtime.block_on(async {
        let (tell, ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let ready = |address| {
                let _test_is_over = tell.send(address);
            };
            let ended = async {
                let _either_way = stopped.await;
            };
            serve(options, Arc::new(porter), ready, ended).await
        });
        let address: SocketAddr = ready.await.context("the receiving end has an address")?;
        let code = EnrolmentCode::new(&address.to_string(), authority.pin())?.to_string();
        uplink::enroll(&code, state).await.context("enrolling")?;
        drop(stop);
        serving.await.context("the receiving end ends")??;
        Ok(())
    })
}
