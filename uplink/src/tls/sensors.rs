//! Takes the certificate that a sensor shows; says whether the backend's own authority has issued it, at whatever time.
//! Never lets an expired one deliver: that is decided where a connection begins, because a sensor that was off for too
//! long must still be told so, and may renew for a while.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::{TlsError, provider, roots};
use crate::certificate::{self, Validity};

/// Verifies certificates of sensors, which may have expired; never one from the future.
#[derive(Debug)]
pub(crate) struct Sensors(Arc<dyn ClientCertVerifier>);

impl Sensors {
    pub(crate) fn new(authority: &CertificateDer<'static>) -> Result<Self, TlsError> {
        let roots = roots(authority)?.into();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(provider()))
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::from_display)?;
        Ok(Self(verifier))
    }
}

impl ClientCertVerifier for Sensors {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        use CertificateError::{BadEncoding, Expired, ExpiredContext};
        match self.0.verify_client_cert(end_entity, intermediates, now) {
            Err(rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. })) => {
                // All else about it, at the last moment of its life.
                let Validity { ends_unix_s, .. } =
                    certificate::peer(end_entity).map_err(|_no_sensor| BadEncoding)?.validity;
                let end = UnixTime::since_unix_epoch(Duration::from_secs(ends_unix_s));
                self.0.verify_client_cert(end_entity, intermediates, end)
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Whether this authority has issued a sensor's certificate; when it is valid does not matter.
pub(crate) fn chains_to(
    authority: &CertificateDer<'static>,
    certificate: &CertificateDer<'_>,
    validity: Validity,
) -> Result<(), TlsError> {
    let end = UnixTime::since_unix_epoch(Duration::from_secs(validity.ends_unix_s));
    Sensors::new(authority)?
        .verify_client_cert(certificate, &[], end)
        .map(drop)
        .map_err(TlsError::from_display)
}
