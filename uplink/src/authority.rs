//! Takes a folder; gives the backend's own certificate authority: it names the backend to sensors and sensors to
//! the backend. Never takes anything from a request but the public key that signed it.
//!
//! ```text
//! DIR/authority.key  DIR/authority.pem    signs certificates; ten years
//! DIR/server.key                          the backend's key: what enrolment codes pin
//! ```
//!
//! The backend's own certificate is made anew at each start, for the same key.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::hmac;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::certificate::{Validity, now_unix_s, uri};
use crate::code::sha256;
use crate::private::{self, FileError};
use crate::state::read_certificate;
use crate::tls::BACKEND_NAME;
use crate::{MemberId, SensorId};

const AUTHORITY_LIFETIME: Duration = Duration::from_hours(24 * 3652);
/// Also the longest that one run of the backend can last.
const SERVER_LIFETIME: Duration = Duration::from_hours(24 * 825);
/// Clocks of sensors may be this much behind; less when the lifetime is shorter.
const BACKDATED: Duration = Duration::from_hours(24);

/// Why the authority cannot be made, read or used.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A file is missing, damaged or not private. Remedy: see [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
    /// There is an authority already. Remedy: load it; a second one would not be believed by any sensor.
    #[error("{} exists: an authority is never replaced", .0.display())]
    Exists(std::path::PathBuf),
    /// A certificate could not be made.
    #[error("cannot make {what}: {reason}")]
    Make {
        /// Which certificate or key.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The request is not one, is not signed by its own key, or has another kind of key.
    #[error("the certificate request cannot be used: {0}")]
    Request(String),
}

fn make<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> AuthorityError {
    move |error| AuthorityError::Make { what, reason: error.to_string() }
}

/// A certificate for a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate, PEM.
    pub pem: String,
    /// The key it is for.
    pub public_key: [u8; 32],
    /// How long it is valid.
    pub validity: Validity,
}

/// The backend's certificate authority, with the backend's own key.
#[derive(Debug)]
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
    authority_pem: String,
    server_key: KeyPair,
}

impl CertificateAuthority {
    /// Makes keys and authority certificate in a folder, which is made where there is none.
    ///
    /// # Errors
    ///
    /// When there is one already, or the folder cannot be written.
    pub fn create(dir: &Path) -> Result<Self, AuthorityError> {
        private::make_folder(dir)?;
        let path = dir.join("authority.pem");
        if path.exists() {
            return Err(AuthorityError::Exists(path));
        }
        let authority_key = new_key()?;
        let mut params = params("Spanwatch backend authority", from_now(AUTHORITY_LIFETIME));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate =
            params.self_signed(&authority_key).map_err(make("the authority certificate"))?;
        // The certificate comes last: a folder with it is complete.
        let server_key = new_key()?;
        for (name, key) in [("authority.key", &authority_key), ("server.key", &server_key)] {
            let pem = Zeroizing::new(key.serialize_pem());
            private::replace(&dir.join(name), pem.as_bytes())?;
        }
        private::replace(&path, certificate.pem().as_bytes())?;
        Self::load(dir)
    }

    /// Reads what [`CertificateAuthority::create`] made.
    ///
    /// # Errors
    ///
    /// When a file is missing, damaged, or not private.
    pub fn load(dir: &Path) -> Result<Self, AuthorityError> {
        private::check_folder(dir)?;
        let certificate_path = dir.join("authority.pem");
        let authority = read_certificate(&certificate_path)?;
        let authority_pem = private::read_text(&certificate_path)?.to_string();
        let issuer = Issuer::from_ca_cert_der(&authority, read_key(&dir.join("authority.key"))?)
            .map_err(FileError::content(&certificate_path))?;
        let certified = crate::certificate::spki_sha256(&authority)
            .map_err(FileError::content(&certificate_path))?;
        if certified != sha256(&[&issuer.key().subject_public_key_info()]) {
            return Err(FileError::content(&certificate_path)("not for the key beside it").into());
        }
        let server_key = read_key(&dir.join("server.key"))?;
        Ok(Self { issuer, authority, authority_pem, server_key })
    }

    /// SHA-256 of the backend's public key, for [`crate::EnrolmentCode::new`].
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        sha256(&[&self.server_key.subject_public_key_info()])
    }

    /// Issues a certificate for a key whose holder has proved that it has it.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn certify(
        &self,
        public_key: &[u8; 32],
        member: &MemberId,
        sensor: &SensorId,
        validity: Validity,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let mut params = params(sensor.as_str(), validity);
        let name = uri(member, sensor).as_str().try_into().map_err(make("a sensor's name"))?;
        params.subject_alt_names = vec![SanType::URI(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = SubjectPublicKeyInfo::from_der(&[ED25519_SPKI_PREFIX, public_key].concat())
            .map_err(make("a sensor's key"))?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(make("a sensor's certificate"))?;
        Ok(IssuedCertificate { pem: certificate.pem(), public_key: *public_key, validity })
    }

    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    pub(crate) fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// The backend's key and a fresh certificate for it.
    pub(crate) fn server(
        &self,
    ) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), AuthorityError> {
        let mut params = params("Spanwatch backend", from_now(SERVER_LIFETIME));
        let name = BACKEND_NAME.try_into().map_err(make("the backend's name"))?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&self.server_key, &self.issuer)
            .map_err(make("the backend's certificate"))?;
        Ok((certificate.into(), PrivatePkcs8KeyDer::from(self.server_key.serialize_der())))
    }

    /// A key for stateless resets that is the same after a restart, so that sensors believe those.
    pub(crate) fn reset_key(&self) -> hmac::Key {
        let secret = Zeroizing::new(self.server_key.serialize_der());
        let seed = Zeroizing::new(sha256(&[b"spanwatch stateless reset v1\0", &secret]));
        hmac::Key::new(hmac::HMAC_SHA256, seed.as_slice())
    }
}

/// DER of an Ed25519 `SubjectPublicKeyInfo` before the key itself (RFC 8410 §4).
const ED25519_SPKI_PREFIX: &[u8] =
    &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The key of a request that this key has signed.
pub(crate) fn requested_key(request_der: &[u8]) -> Result<[u8; 32], AuthorityError> {
    let der = CertificateSigningRequestDer::from(request_der);
    let request = CertificateSigningRequestParams::from_der(&der)
        .map_err(|error| AuthorityError::Request(error.to_string()))?;
    if request.public_key.algorithm() != &rcgen::PKCS_ED25519 {
        return Err(AuthorityError::Request("its key is not an Ed25519 key".to_owned()));
    }
    <[u8; 32]>::try_from(request.public_key.der_bytes())
        .map_err(|error| AuthorityError::Request(format!("its key: {error}")))
}

fn new_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(make("a key"))
}

fn read_key(path: &Path) -> Result<KeyPair, FileError> {
    let pem = private::read_text(path)?;
    KeyPair::from_pem(&pem).map_err(FileError::content(path))
}

/// A validity of this length, which began a little ago.
pub(crate) fn from_now(lifetime: Duration) -> Validity {
    let now_unix_s = now_unix_s();
    Validity {
        begins_unix_s: now_unix_s.saturating_sub(lifetime.min(BACKDATED).as_secs()),
        ends_unix_s: now_unix_s.saturating_add(lifetime.as_secs()),
    }
}

fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = epoch + Duration::from_secs(validity.begins_unix_s);
    params.not_after = epoch + Duration::from_secs(validity.ends_unix_s);
    params
}
