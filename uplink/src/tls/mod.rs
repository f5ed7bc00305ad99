//! Takes keys and certificates; gives TLS and QUIC configurations. Never TLS below 1.3, never a session
//! resumption (it would carry an identity past its expiry), never early data (it could be replayed).

mod sensors;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, TransportErrorCode};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;

use crate::certificate::{now_unix_s, spki_sha256, utc};
use crate::state::{Credentials, CurrentCertificate};
use crate::wire::{ALPN_DELIVERY, ALPN_ENROLMENT, ALPN_RENEWAL};
pub(crate) use sensors::{Sensors, chains_to};

/// The name in every backend's certificate. Sensors trust the backend's own authority and nothing else, so the
/// address, which may change, needs no certificate.
pub(crate) const BACKEND_NAME: &str = "backend.spanwatch.internal";

/// Why no TLS configuration can be made. Remedy: the key and certificate files are damaged or do not fit.
#[derive(Debug, Error)]
#[error("the TLS configuration cannot be made: {0}")]
pub struct TlsError(String);

impl TlsError {
    fn from_display<E: std::fmt::Display>(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Key exchange: X25519 with ML-KEM-768 first, so that traffic recorded today stays secret from a quantum
/// computer; plain X25519 for a peer without it.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(TlsError::from_display)?;
    Ok(roots)
}

/// The receiving end, for QUIC.
pub(crate) fn server(
    certificate: &CertificateDer<'static>,
    key: &PrivatePkcs8KeyDer<'static>,
    authority: &CertificateDer<'static>,
) -> Result<QuicServerConfig, TlsError> {
    QuicServerConfig::try_from(server_tls(certificate, key, authority)?)
        .map_err(TlsError::from_display)
}

/// The receiving end: shows the backend's certificate; checks a sensor's, when it shows one. That delivery has
/// one is checked where a delivery connection begins, because enrolment has none yet.
fn server_tls(
    certificate: &CertificateDer<'static>,
    key: &PrivatePkcs8KeyDer<'static>,
    authority: &CertificateDer<'static>,
) -> Result<rustls::ServerConfig, TlsError> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::from_display)?
        .with_client_cert_verifier(Arc::new(Sensors::new(authority)?))
        .with_single_cert(vec![certificate.clone()], key.clone_key().into())
        .map_err(TlsError::from_display)?;
    config.alpn_protocols =
        vec![ALPN_DELIVERY.to_vec(), ALPN_ENROLMENT.to_vec(), ALPN_RENEWAL.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The sensor's end for delivery: trusts its backend's authority only, shows its own certificate.
pub(crate) fn delivery_client(credentials: &Credentials) -> Result<quinn::ClientConfig, TlsError> {
    client(known_tls(credentials, ALPN_DELIVERY)?)
}

/// As [`delivery_client`], to ask for a new certificate.
pub(crate) fn renewal_client(credentials: &Credentials) -> Result<quinn::ClientConfig, TlsError> {
    client(known_tls(credentials, ALPN_RENEWAL)?)
}

fn known_tls(credentials: &Credentials, protocol: &[u8]) -> Result<rustls::ClientConfig, TlsError> {
    let provider = provider();
    let key = PrivatePkcs8KeyDer::from(credentials.key.pkcs8().to_vec());
    let key = provider.key_provider.load_private_key(key.into()).map_err(TlsError::from_display)?;
    let own = OwnCertificate { current: Arc::clone(&credentials.certificate), key };
    let mut config = client_builder()?
        .with_root_certificates(roots(&credentials.authority)?)
        .with_client_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Shows the newest certificate: a connection that begins after a renewal needs no new configuration.
#[derive(Debug)]
struct OwnCertificate {
    current: Arc<CurrentCertificate>,
    key: Arc<dyn rustls::sign::SigningKey>,
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let chain = vec![self.current.der()];
        Some(Arc::new(CertifiedKey::new(chain, Arc::clone(&self.key))))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The sensor's end for enrolment: trusts the pinned key only, shows nothing.
pub(crate) fn enrolment_client(pin: [u8; 32]) -> Result<quinn::ClientConfig, TlsError> {
    anonymous_client(pin, ALPN_ENROLMENT)
}

/// Trusts the pinned key only, shows nothing.
pub(crate) fn anonymous_client(
    pin: [u8; 32],
    protocol: &[u8],
) -> Result<quinn::ClientConfig, TlsError> {
    let verifier = PinVerifier { pin, provider: provider() };
    let mut config = client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    client(config)
}

fn client_builder()
-> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, TlsError> {
    rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::from_display)
}

fn client(mut config: rustls::ClientConfig) -> Result<quinn::ClientConfig, TlsError> {
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    let crypto = QuicClientConfig::try_from(config).map_err(TlsError::from_display)?;
    Ok(quinn::ClientConfig::new(Arc::new(crypto)))
}

/// Believes one key, named by the enrolment code; the certificate around it does not matter.
#[derive(Debug)]
struct PinVerifier {
    pin: [u8; 32],
    provider: CryptoProvider,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match spki_sha256(end_entity) {
            Ok(hash) if hash == self.pin => Ok(ServerCertVerified::assertion()),
            Ok(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS alerts (RFC 8446 §6.2), which QUIC carries as error codes from 0x100 on (RFC 9001 §4.8).
const ALERTS_OF_CERTIFICATES: std::ops::RangeInclusive<u8> = 42..=51;
const ALERT_EXPIRED: u8 = 45;
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;

/// The alert behind a QUIC error, if it is one.
fn alert(code: TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

/// Why this side ended the handshake: because of the other side's certificate.
pub(crate) fn refused_certificate(error: &ConnectionError) -> bool {
    let ConnectionError::TransportError(error) = error else { return false };
    alert(error.code).is_some_and(|alert| ALERTS_OF_CERTIFICATES.contains(&alert))
}

/// What a person can do about a handshake that failed; `None` when the error says it all.
pub(crate) fn explain(error: &ConnectionError) -> Option<String> {
    match error {
        ConnectionError::TransportError(own) if alert(own.code) == Some(ALERT_EXPIRED) => {
            Some(format!(
                "by this sensor's clock ({}) the backend's certificate is not valid: is the clock right? ({own})",
                utc(now_unix_s())
            ))
        }
        error if refused_certificate(error) => {
            Some(format!("it does not have the key that this sensor was enrolled with: {error}"))
        }
        ConnectionError::ConnectionClosed(closed)
            if alert(closed.error_code) == Some(ALERT_NO_APPLICATION_PROTOCOL) =>
        {
            Some("the backend is of another version and does not know this request".to_owned())
        }
        _ => None,
    }
}

/// QUIC's own bounds and timers, the same on both sides.
pub(crate) fn transport(
    idle_timeout_ms: u32,
    streams_max: u32,
    window_bytes: u32,
) -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(quinn::VarInt::from_u32(idle_timeout_ms).into()))
        .keep_alive_interval(Some(Duration::from_millis(u64::from(idle_timeout_ms / 3).max(1))))
        .max_concurrent_bidi_streams(quinn::VarInt::from_u32(streams_max))
        .max_concurrent_uni_streams(quinn::VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(quinn::VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(quinn::VarInt::from_u32(window_bytes));
    transport
}

/// Unread bytes of one stream that a peer may have on the way: 100 Mbit/s at 300 ms.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
