//! Takes a one-time code and a state folder; gives the folder an identity. Never sends the code to anybody but the
//! holder of the key that it pins, and never lets the sensor's own key leave the box.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use crate::certificate::{now_unix_s, utc};
use crate::code::{CodeError, EnrolmentCode};
use crate::exchange::{ExchangeError, exchange};
use crate::reader::DecodeError;
use crate::spool::{self, SpoolError};
use crate::state::{Identity, StateError, StateFolder};
use crate::tls::{self, TlsError};
use crate::wire::{self, Issued, Refusal};
use crate::{MemberId, SensorId, SigningKey, certificate, renew};

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
    /// The folder has an identity that is valid. Remedy: use it, or another state folder.
    #[error(
        "this sensor is already enrolled, as {sensor} of {member}, with a certificate that ends {}",
        utc(*.ends_unix_s)
    )]
    AlreadyEnrolled {
        /// Whose network.
        member: MemberId,
        /// Its name.
        sensor: SensorId,
        /// When its certificate ends.
        ends_unix_s: u64,
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
    /// The backend does not take this code, and tells nobody why; its log does. Remedy: ask its operator, who can give
    /// a new one.
    #[error(
        "the backend does not accept this code: it is unknown, has expired, was used by another sensor, or is not for \
         this one; ask the backend's operator, whose log has the cause"
    )]
    CodeRefused,
    /// Too many wrong codes came. Remedy: wait.
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
/// A folder whose certificate has expired keeps its key, its name and its spool, and gets a new certificate.
///
/// Runs on tokio. May be repeated with the same code when the answer was lost: the key stays the same.
///
/// # Errors
///
/// Each cause is told apart; see [`EnrollError`]. One is that batches wait which another identity has sealed.
pub async fn enroll(code: &str, state_dir: &Path) -> Result<Enrolled, EnrollError> {
    obtain(code, state_dir, false).await
}

/// As [`enroll`], but gives up what waits under an earlier identity: the next [`crate::Outbox`] keeps those batches
/// apart, and its books tell the backend how many records were given up.
///
/// # Errors
///
/// See [`EnrollError`].
pub async fn enroll_abandoning(code: &str, state_dir: &Path) -> Result<Enrolled, EnrollError> {
    obtain(code, state_dir, true).await
}

async fn obtain(code: &str, state_dir: &Path, abandon: bool) -> Result<Enrolled, EnrollError> {
    let code: EnrolmentCode = code.parse()?;
    let state = StateFolder::open(state_dir)?;
    if state.enrolled() {
        return obtain_again(&code, &state).await;
    }
    if !abandon {
        refuse_waiting(&state)?;
    }
    let key = state.enrolling_key()?;
    let message = wire::enrol(code.secret(), &request(&key)?);
    let issued = ask(&code, &message).await?;
    check(&issued, &key)?;
    let Issued { member, sensor, certificate_pem, authority_pem } = issued;
    let backend = code.address().to_owned();
    let identity = Identity { member, sensor, backend };
    state.store_identity(&identity, &key, &certificate_pem, &authority_pem)?;
    let Identity { member, sensor, backend } = identity;
    Ok(Enrolled { member, sensor, backend })
}

/// An identity whose certificate has expired gets another one for its own key: it stays the same sensor, and what
/// waits in its spool stays deliverable.
async fn obtain_again(code: &EnrolmentCode, state: &StateFolder) -> Result<Enrolled, EnrollError> {
    let credentials = state.credentials()?;
    let validity = credentials.certificate.validity();
    let Identity { member, sensor, .. } = &credentials.identity;
    if !validity.is_over(now_unix_s()) {
        let (member, sensor) = (member.clone(), sensor.clone());
        let ends_unix_s = validity.ends_unix_s;
        return Err(EnrollError::AlreadyEnrolled { member, sensor, ends_unix_s });
    }
    let message = wire::enrol(code.secret(), &request(&credentials.key)?);
    let issued = ask(code, &message).await?;
    renew::accept(&credentials, &issued.certificate_pem).map_err(EnrollError::Answer)?;
    let identity = credentials.identity;
    // Each of the two files is right beside the old one of the other.
    state.store_certificate(&issued.certificate_pem)?;
    let backend = code.address().to_owned();
    if backend != identity.backend {
        state.store_names(&Identity { backend: backend.clone(), ..identity.clone() })?;
    }
    Ok(Enrolled { member: identity.member, sensor: identity.sensor, backend })
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

/// Sends the request to the backend that the code names.
async fn ask(code: &EnrolmentCode, request: &[u8]) -> Result<Issued, EnrollError> {
    let config = tls::enrolment_client(code.pin())?;
    let address = code.address().to_owned();
    let bytes = exchange(&address, &config, request).await.map_err(|error| match error {
        ExchangeError::NotTheBackend(_) => EnrollError::WrongBackend { address },
        ExchangeError::Closed(reason) | ExchangeError::Unreachable(reason) => {
            EnrollError::Unreachable { address, reason }
        }
    })?;
    wire::read_enrol_answer(&bytes)?.map_err(|(status, reason)| refusal(status, reason))
}

fn refusal(status: u8, reason: String) -> EnrollError {
    const CODE: u8 = Refusal::Code as u8;
    const TOO_MANY: u8 = Refusal::TooManyTries as u8;
    match status {
        CODE => EnrollError::CodeRefused,
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
