//! Takes a one-time code and a state folder; gives the folder an identity. Never sends the code to anybody but the
//! holder of the key that it pins, and never lets the sensor's own key leave the box.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quinn::{ConnectionError, Endpoint};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use tokio::time::timeout;

use crate::code::{CodeError, EnrolmentCode};
use crate::reader::DecodeError;
use crate::spool::{self, SpoolError};
use crate::state::{Identity, StateError, StateFolder};
use crate::tls::{self, BACKEND_NAME, TlsError};
use crate::wire::{self, Close, ENROLMENT_BYTES_MAX, Issued, Refusal};
use crate::{MemberId, SensorId, SigningKey, certificate};

/// For the connection, and again for the answer.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_TIMEOUT_MS: u32 = 15_000;
const GOODBYE: Duration = Duration::from_secs(1);
/// What the backend may send before it is read; more than the longest answer.
const WINDOW_BYTES: u32 = 64 << 10;

/// Who the sensor is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Whose network.
    pub member: MemberId,
    /// The name that the backend gave it.
    pub sensor: SensorId,
    /// Where the backend is.
    pub backend: String,
}

/// Why the sensor has no identity yet.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// The code was mistyped or cut. Remedy: copy it again, as a whole.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The state folder. Remedy: see [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
    /// The folder has an identity. Remedy: use it, or another state folder.
    #[error("this sensor is already enrolled, as {sensor} of {member}")]
    AlreadyEnrolled {
        /// Whose network.
        member: MemberId,
        /// Its name.
        sensor: SensorId,
    },
    /// Batches of an earlier identity wait; a new one cannot deliver them. Remedy: deliver them with the identity that
    /// has sealed them, or [`enroll_abandoning`].
    #[error(
        "{records} records (batches: {batches}) wait in {} that {sensors} has sealed; a new identity cannot deliver \
         them. Deliver them first, with that identity in place, or give them up: `enroll --abandon-waiting` keeps \
         them apart, and the backend is told that they are missing",
        folder.display()
    )]
    Waiting {
        /// The spool.
        folder: PathBuf,
        /// Batches that wait.
        batches: u64,
        /// Records in them.
        records: u64,
        /// Who has sealed them.
        sensors: String,
    },
    /// The spool cannot be looked at. Remedy: see [`SpoolError`].
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// No connection. Remedy: check network, address and firewall (UDP), then use the same code again.
    #[error(
        "the backend {address} cannot be reached: {reason}; is it running, and does UDP get there?"
    )]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What happened.
        reason: String,
    },
    /// Somebody else answers at that address. Remedy: do not go on; tell the backend's operator.
    #[error("{address} does not have the key that the code names: it is not this code's backend")]
    WrongBackend {
        /// Where it answers.
        address: String,
    },
    /// The backend never gave out that code. Remedy: ask for a code again.
    #[error("the backend does not know this code; ask its operator for a new one")]
    UnknownCode,
    /// The code is too old. Remedy: ask for a new one.
    #[error("this code has expired; ask the backend's operator for a new one")]
    ExpiredCode,
    /// The code was used. Remedy: if not by you, tell the backend's operator; ask for a new one.
    #[error(
        "this code was already used by another sensor; if not by you, tell the backend's operator"
    )]
    UsedCode,
    /// Too many wrong codes came from this address. Remedy: wait.
    #[error("the backend refuses codes from here: {0}")]
    TooManyTries(String),
    /// The backend cannot do it. Remedy: its log has the cause; use the same code again.
    #[error("the backend could not enrol this sensor: {0}")]
    Backend(String),
    /// The answer makes no sense. Remedy: sensor and backend are of different versions, perhaps.
    #[error("the backend's answer cannot be used: {0}")]
    Answer(String),
    /// The key or the request could not be made.
    #[error("cannot make the certificate request: {0}")]
    Request(String),
    /// The TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl From<DecodeError> for EnrollError {
    fn from(error: DecodeError) -> Self {
        Self::Answer(error.to_string())
    }
}

/// Exchanges a one-time code for an identity, which is stored in `state_dir` as a whole or not at all.
///
/// Runs on tokio. May be repeated with the same code when the answer was lost: the key stays the same.
///
/// # Errors
///
/// Each cause is told apart; see [`EnrollError`]. One is that batches wait which another identity has sealed.
pub async fn enroll(code: &str, state_dir: &Path) -> Result<Enrolled, EnrollError> {
    exchange(code, state_dir, false).await
}

/// As [`enroll`], but gives up what waits under an earlier identity: the next [`crate::Outbox`] keeps those batches
/// apart, and its books tell the backend how many records were given up.
///
/// # Errors
///
/// See [`EnrollError`].
pub async fn enroll_abandoning(code: &str, state_dir: &Path) -> Result<Enrolled, EnrollError> {
    exchange(code, state_dir, true).await
}

async fn exchange(code: &str, state_dir: &Path, abandon: bool) -> Result<Enrolled, EnrollError> {
    let code: EnrolmentCode = code.parse()?;
    let state = StateFolder::open(state_dir)?;
    if state.enrolled() {
        let Identity { member, sensor, .. } = state.credentials()?.identity;
        return Err(EnrollError::AlreadyEnrolled { member, sensor });
    }
    if !abandon {
        refuse_waiting(&state)?;
    }
    let key = state.enrolling_key()?;
    let request = wire::enrol(code.secret(), &request(&key)?);
    let issued = ask(&code, &request).await?;
    check(&issued, &key)?;
    let Issued { member, sensor, certificate_pem, authority_pem } = issued;
    let backend = code.address().to_owned();
    let identity = Identity { member, sensor, backend };
    state.store_identity(&identity, &key, &certificate_pem, &authority_pem)?;
    let Identity { member, sensor, backend } = identity;
    Ok(Enrolled { member, sensor, backend })
}

/// There is no identity here, so whatever waits was sealed under another one than the one to come.
fn refuse_waiting(state: &StateFolder) -> Result<(), EnrollError> {
    let waiting = spool::waiting(state.path())?;
    if waiting.batches == 0 {
        return Ok(());
    }
    Err(EnrollError::Waiting {
        folder: state.path().join("spool"),
        batches: waiting.batches,
        records: waiting.records,
        sensors: waiting.names(),
    })
}

fn request(key: &SigningKey) -> Result<Vec<u8>, EnrollError> {
    let failed = |error: rcgen::Error| EnrollError::Request(error.to_string());
    let pair = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.pkcs8())).map_err(failed)?;
    let request = CertificateParams::default().serialize_request(&pair).map_err(failed)?;
    Ok(request.der().to_vec())
}

/// Sends the request to the backend that the code names; tries each of its addresses.
async fn ask(code: &EnrolmentCode, request: &[u8]) -> Result<Issued, EnrollError> {
    let unreachable =
        |reason: String| EnrollError::Unreachable { address: code.address().to_owned(), reason };
    let addresses = tokio::net::lookup_host(code.address())
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let mut last = unreachable("the name has no address".to_owned());
    for address in addresses {
        match ask_at(code, address, request).await {
            Err(error @ EnrollError::Unreachable { .. }) => last = error,
            answer => return answer,
        }
    }
    Err(last)
}

async fn ask_at(
    code: &EnrolmentCode,
    address: SocketAddr,
    request: &[u8],
) -> Result<Issued, EnrollError> {
    let unreachable =
        |reason: String| EnrollError::Unreachable { address: code.address().to_owned(), reason };
    let mut config = tls::enrolment_client(code.pin())?;
    config.transport_config(tls::transport(IDLE_TIMEOUT_MS, 0, WINDOW_BYTES).into());
    let endpoint =
        Endpoint::client(any_address(address)).map_err(|e| unreachable(e.to_string()))?;
    let connecting = endpoint
        .connect_with(config, address, BACKEND_NAME)
        .map_err(|error| unreachable(error.to_string()))?;
    let connection = match timeout(STEP_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if refused_certificate(&error) => {
            say_goodbye(&endpoint).await;
            return Err(EnrollError::WrongBackend { address: code.address().to_owned() });
        }
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_elapsed) => {
            return Err(unreachable(format!("no answer within {} s", STEP_TIMEOUT.as_secs())));
        }
    };
    let exchange = async {
        let (mut stream, mut answer) = connection.open_bi().await.map_err(|e| e.to_string())?;
        stream.write_all(request).await.map_err(|error| error.to_string())?;
        stream.finish().map_err(|error| error.to_string())?;
        answer.read_to_end(ENROLMENT_BYTES_MAX).await.map_err(|error| error.to_string())
    };
    let bytes = match timeout(STEP_TIMEOUT, exchange).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(reason)) => return Err(unreachable(reason)),
        Err(_elapsed) => {
            return Err(unreachable(format!("no answer within {} s", STEP_TIMEOUT.as_secs())));
        }
    };
    Close::Done.close(&connection);
    say_goodbye(&endpoint).await;
    wire::read_enrol_answer(&bytes)?.map_err(|(status, reason)| refusal(status, reason))
}

/// Lets the other side know that this one has ended; bounded, because it may be gone.
async fn say_goodbye(endpoint: &Endpoint) {
    if timeout(GOODBYE, endpoint.wait_idle()).await.is_err() {
        tracing::debug!("the backend did not notice the end of the connection in time");
    }
}

/// The wildcard address of the same family.
pub(crate) fn any_address(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Whether this side ended the handshake because of the other side's certificate (TLS alerts 42 to 51, RFC 8446
/// §6.2, as QUIC crypto errors, RFC 9001 §4.8).
pub(crate) fn refused_certificate(error: &ConnectionError) -> bool {
    let ConnectionError::TransportError(error) = error else { return false };
    (0x100 + 42..=0x100 + 51).contains(&u64::from(error.code))
}

fn refusal(status: u8, reason: String) -> EnrollError {
    const UNKNOWN: u8 = Refusal::Unknown as u8;
    const EXPIRED: u8 = Refusal::Expired as u8;
    const USED: u8 = Refusal::Used as u8;
    const TOO_MANY: u8 = Refusal::TooManyTries as u8;
    match status {
        UNKNOWN => EnrollError::UnknownCode,
        EXPIRED => EnrollError::ExpiredCode,
        USED => EnrollError::UsedCode,
        TOO_MANY => EnrollError::TooManyTries(reason),
        _ => EnrollError::Backend(reason),
    }
}

/// Whether what was issued is for this key and names what the answer says.
fn check(issued: &Issued, key: &SigningKey) -> Result<(), EnrollError> {
    let wrong = |error: &dyn std::fmt::Display| EnrollError::Answer(error.to_string());
    CertificateDer::from_pem_slice(issued.authority_pem.as_bytes()).map_err(|e| wrong(&e))?;
    let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes())
        .map_err(|error| wrong(&error))?;
    let peer = certificate::peer(&der).map_err(|error| wrong(&error))?.peer;
    if peer.public_key != key.public_key() {
        return Err(wrong(&"the certificate is for another key"));
    }
    if (&peer.member, &peer.sensor) != (&issued.member, &issued.sensor) {
        return Err(wrong(&"the certificate names another sensor"));
    }
    Ok(())
}
