//! A peer that talks to the backend as it likes, and what it shows and sends.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use bytes::Bytes;
use flow::Books;
use quinn::{Connection, ConnectionError, Endpoint};

use super::vault::{Backend, Vault, new_code};
use crate::spool::Key;
use crate::state::{Credentials, StateFolder};
use crate::test_records::realistic;
use crate::tls::BACKEND_NAME;
use crate::wire::{self, Outcome};
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
        key_epoch: None,
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
