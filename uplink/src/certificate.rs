//! Takes a certificate's bytes; gives who it names and with which key. Never decides whether to believe it: the
//! TLS verifier has done that before, or the certificate is our own.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::code::sha256;
use crate::{IdError, Peer};

const SCHEME: &str = "spanwatch://";

/// Why a certificate names no sensor. Remedy: it was not issued by this kind of backend; enrol again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum CertificateError {
    #[error("not an X.509 certificate: {0}")]
    Parse(String),
    #[error("its alternative names hold no single {SCHEME}MEMBER/SENSOR")]
    Name,
    #[error("its name {uri:?} is not well formed: {source}")]
    Id { uri: String, source: IdError },
    #[error("its key is not an Ed25519 key")]
    Key,
}

/// A sensor's certificate, read.
#[derive(Clone, Debug)]
pub(crate) struct PeerCertificate {
    pub(crate) peer: Peer,
    pub(crate) validity: Validity,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second, since the Unix epoch.
    pub begins_unix_s: u64,
    /// Its last second, since the Unix epoch.
    pub ends_unix_s: u64,
}

impl Validity {
    /// Whether it is over.
    #[must_use]
    pub const fn is_over(&self, now_unix_s: u64) -> bool {
        now_unix_s > self.ends_unix_s
    }

    /// Its whole length, seconds.
    #[must_use]
    pub const fn life_s(&self) -> u64 {
        self.ends_unix_s.saturating_sub(self.begins_unix_s)
    }

    /// What is left of it, seconds; 0 when it is over.
    #[must_use]
    pub const fn left_s(&self, now_unix_s: u64) -> u64 {
        self.ends_unix_s.saturating_sub(now_unix_s)
    }

    /// When its sensor begins to ask for a new certificate: a third of the life is left then.
    #[must_use]
    pub const fn renewal_from_unix_s(&self) -> u64 {
        self.ends_unix_s.saturating_sub(self.life_s() / 3)
    }
}

/// Seconds since the Unix epoch, by this machine's clock; 0 when that is before.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time for people: UTC, to the second.
pub(crate) fn utc(unix_s: u64) -> String {
    i64::try_from(unix_s)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| format!("{unix_s} s"), |time| time.to_string())
}

/// The URI that names a sensor in its certificate.
pub(crate) fn uri(member: &crate::MemberId, sensor: &crate::SensorId) -> String {
    format!("{SCHEME}{member}/{sensor}")
}

/// Reads a sensor's certificate.
pub(crate) fn peer(der: &CertificateDer<'_>) -> Result<PeerCertificate, CertificateError> {
    let (_rest, certificate) = X509Certificate::from_der(der)
        .map_err(|error| CertificateError::Parse(error.to_string()))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| CertificateError::Parse(error.to_string()))?
        .ok_or(CertificateError::Name)?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err(CertificateError::Name);
    };
    let (member, sensor) = uri
        .strip_prefix(SCHEME)
        .and_then(|path| path.split_once('/'))
        .ok_or(CertificateError::Name)?;
    let id = |source| CertificateError::Id { uri: (*uri).to_owned(), source };
    let spki = certificate.public_key();
    if spki.algorithm.algorithm != x509_parser::oid_registry::OID_SIG_ED25519 {
        return Err(CertificateError::Key);
    }
    let public_key = <[u8; 32]>::try_from(spki.subject_public_key.data.as_ref())
        .map_err(|_length| CertificateError::Key)?;
    Ok(PeerCertificate {
        peer: Peer {
            member: member.parse().map_err(id)?,
            sensor: sensor
                .parse()
                .map_err(|source| CertificateError::Id { uri: (*uri).to_owned(), source })?,
            certificate_sha256: sha256(&[der]),
            public_key,
        },
        validity: Validity {
            begins_unix_s: unsigned(certificate.validity().not_before.timestamp()),
            ends_unix_s: unsigned(certificate.validity().not_after.timestamp()),
        },
    })
}

/// A time before 1970 is over, whichever it is.
fn unsigned(unix_s: i64) -> u64 {
    u64::try_from(unix_s).unwrap_or(0)
}

/// SHA-256 of the certificate's `SubjectPublicKeyInfo`: what an enrolment code pins.
pub(crate) fn spki_sha256(der: &CertificateDer<'_>) -> Result<[u8; 32], CertificateError> {
    let (_rest, certificate) = X509Certificate::from_der(der)
        .map_err(|error| CertificateError::Parse(error.to_string()))?;
    Ok(sha256(&[certificate.public_key().raw]))
}
