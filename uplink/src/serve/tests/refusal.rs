//! What the receiving end must not take: connections of strangers, and batches that are not what they say.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flow::Books;
use quinn::{Connection, ConnectionError, Endpoint};

use super::vault::{Backend, Vault, new_code};
use crate::spool::Key;
use crate::state::{Credentials, StateFolder};
use crate::test_records::realistic;
use crate::tls::{self, BACKEND_NAME};
use crate::wire::{self, ALPN_DELIVERY, Close, Outcome};
use crate::{BatchHeader, SigningKey, enroll, seal, time_range};

/// A sensor that talks to the backend without the delivery's manners.
pub(super) struct Stranger {
    pub(super) endpoint: Endpoint,
    pub(super) connection: Connection,
}

impl Stranger {
    pub(super) async fn connect(
        config: quinn::ClientConfig,
        address: SocketAddr,
    ) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let connecting =
            endpoint.connect_with(config, address, BACKEND_NAME).expect("the name is valid");
        let connection = connecting.await?;
        Ok(Self { endpoint, connection })
    }

    pub(super) async fn ask(&self, message: &[u8]) -> Result<Vec<u8>, ConnectionError> {
        let (mut stream, mut answer) = self.connection.open_bi().await?;
        if stream.write_all(message).await.is_err() || stream.finish().is_err() {
            return Err(self.connection.closed().await);
        }
        match answer.read_to_end(4096).await {
            Ok(bytes) => Ok(bytes),
            Err(_lost) => Err(self.connection.closed().await),
        }
    }

    pub(super) async fn greet(&self) -> Result<Vec<u8>, ConnectionError> {
        self.ask(&wire::hello(&[1])).await
    }

    pub(super) async fn offer(&self, key: Key, batch: &[u8]) -> Outcome {
        let message = [wire::batch_prefix(key, batch.len()), batch.to_vec()].concat();
        let answer = self.ask(&message).await.expect("the connection stays");
        let (acked, outcome) = wire::read_ack(&answer).expect("an ack");
        assert_eq!(acked, key);
        outcome
    }
}

pub(super) async fn credentials(
    dir: &Path,
    ca: &str,
    vault: &Vault,
    backend: &Backend,
) -> Credentials {
    let state = dir.join(format!("state-of-{ca}"));
    let code = new_code(&dir.join(ca), vault, backend.address, "acme").to_string();
    enroll(&code, &state).await.expect("the code is good");
    StateFolder::open(&state).expect("free").credentials().expect("just stored")
}

pub(super) fn header(credentials: &Credentials, sequence: u64) -> BatchHeader {
    let records = realistic(sequence, 10);
    let (start_ms, end_ms) = time_range(&records, 0);
    BatchHeader {
        member: credentials.identity.member.clone(),
        sensor: credentials.identity.sensor.clone(),
        boot_epoch: 1,
        sequence,
        start_ms,
        end_ms,
        sealed_ms: 0,
        records: 10,
        books: Books::default(),
        object_sha256: [0; 32],
        previous_blake3: [0; 32],
        sensor_version: String::new(),
    }
}

pub(super) fn sealed(header: &BatchHeader, key: &SigningKey) -> Bytes {
    seal(header, &realistic(header.sequence, 10), key).expect("the header is right")
}

pub(super) fn closed_with(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

#[tokio::test]
async fn a_batch_that_is_not_what_it_says_is_refused_and_not_stored() {
    let dir = tempfile::tempdir().expect("writable");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let own = credentials(dir.path(), "ca", &vault, &backend).await;
    let config = tls::delivery_client(&own).expect("own key and certificate fit");
    let stranger = Stranger::connect(config, backend.address).await.expect("it is known");
    stranger.greet().await.expect("a hello is answered");
    let at = |sequence| Key { boot_epoch: 1, sequence };
    let refused = |outcome: Outcome| match outcome {
        Outcome::Rejected(reason) => reason,
        other => format!("not refused, but {other}"),
    };

    let mut other_member = header(&own, 1);
    other_member.member = "rival".parse().expect("a name");
    let reason = refused(stranger.offer(at(1), &sealed(&other_member, &own.key)).await);
    assert!(reason.starts_with("the batch is of rival/acme-"), "{reason}");
    let mut other_sensor = header(&own, 1);
    other_sensor.sensor = "rival-1".parse().expect("a name");
    let reason = refused(stranger.offer(at(1), &sealed(&other_sensor, &own.key)).await);
    assert!(reason.starts_with("the batch is of acme/rival-1"), "{reason}");
    let other_key = SigningKey::generate().expect("random");
    let reason = refused(stranger.offer(at(1), &sealed(&header(&own, 1), &other_key)).await);
    assert!(reason.starts_with("batch: the signature is not by the key"), "{reason}");
    let mut changed = sealed(&header(&own, 1), &own.key).to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let reason = refused(stranger.offer(at(1), &changed).await);
    assert!(reason.contains("does not match"), "{reason}");
    let reason = refused(stranger.offer(at(2), &sealed(&header(&own, 1), &own.key)).await);
    assert_eq!(reason, "announced as 1/2, it is 1/1");
    assert_eq!(vault.contents().commits, 0, "none of these reaches the store");

    let good = sealed(&header(&own, 1), &own.key);
    assert_eq!(stranger.offer(at(1), &good).await, Outcome::Stored);
    assert_eq!(stranger.offer(at(1), &good).await, Outcome::Duplicate);
    // A revocation works on an open connection.
    vault.contents().revoked.push(own.identity.sensor.clone());
    let message = [wire::batch_prefix(at(2), 0), Vec::new()].concat();
    let error = stranger.ask(&message).await.expect_err("closed");
    assert_eq!(closed_with(&error), Some(Close::NotAdmitted as u64), "{error:?}");
    let config = tls::delivery_client(&own).expect("own key and certificate fit");
    let again = Stranger::connect(config, backend.address).await.expect("TLS knows no revocation");
    let error = again.greet().await.expect_err("closed");
    assert_eq!(closed_with(&error), Some(Close::NotAdmitted as u64), "{error:?}");
    let totals = backend.end();
    assert_eq!((totals.batches_rejected, totals.peers_not_admitted), (5, 2));
}

#[tokio::test]
async fn delivery_without_a_certificate_is_refused() {
    let dir = tempfile::tempdir().expect("writable");
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&ca, &vault, None, |_| {});
    let pin = crate::CertificateAuthority::load(&ca).expect("made by the backend").pin();
    let config = tls::anonymous_client(pin, ALPN_DELIVERY).expect("nothing to go wrong");
    let stranger = Stranger::connect(config, backend.address).await.expect("TLS allows it");
    let error = stranger.greet().await.expect_err("closed");
    assert_eq!(closed_with(&error), Some(Close::NoCertificate as u64), "{error:?}");
    assert_eq!(backend.end().peers_without_certificate, 1);
}

#[tokio::test]
async fn neither_end_believes_another_authority() {
    let dir = tempfile::tempdir().expect("writable");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let other = Backend::start(&dir.path().join("other"), &vault, None, |_| {});
    let own = credentials(dir.path(), "ca", &vault, &backend).await;
    let foreign = credentials(dir.path(), "other", &vault, &other).await;

    // The sensor meets a backend of another authority.
    let config = tls::delivery_client(&own).expect("they fit");
    let met = Stranger::connect(config, other.address).await;
    let error = met.err().expect("the sensor does not believe it").to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");

    // A sensor with a certificate of another authority, which does believe this backend.
    let authority = own.authority.clone();
    let forged = Credentials { authority, ..foreign };
    let config = tls::delivery_client(&forged).expect("they fit");
    let error = match Stranger::connect(config, backend.address).await {
        Err(error) => error,
        Ok(stranger) => stranger.greet().await.expect_err("the backend does not believe it"),
    };
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{error:?}");
    assert_eq!(backend.end().handshakes_failed, 1);
    other.end();
}

#[tokio::test]
async fn a_message_that_is_none_ends_the_connection() {
    let dir = tempfile::tempdir().expect("writable");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let own = credentials(dir.path(), "ca", &vault, &backend).await;
    let connect = || async {
        let config = tls::delivery_client(&own).expect("they fit");
        Stranger::connect(config, backend.address).await.expect("it is known")
    };
    let error = connect().await.ask(b"GET / HTTP/1.0\r\n\r\n").await.expect_err("closed");
    assert_eq!(closed_with(&error), Some(Close::Protocol as u64), "{error:?}");
    let error = connect().await.ask(&[4; 4000]).await.expect_err("closed");
    assert_eq!(closed_with(&error), Some(Close::Protocol as u64), "{error:?}");
    let key = Key { boot_epoch: 1, sequence: 1 };
    for announced in [3, 5, usize::MAX] {
        let stranger = connect().await;
        stranger.greet().await.expect("a hello is answered");
        let message = [wire::batch_prefix(key, announced), vec![0; 4]].concat();
        let error = stranger.ask(&message).await.expect_err("closed");
        assert_eq!(closed_with(&error), Some(Close::Protocol as u64), "{error:?}");
    }
    assert_eq!(backend.end().streams_broken, 3);
}
