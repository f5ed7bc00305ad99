//! What two of our own ends agree on, without a network between them.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConnection, Error, NamedGroup, PeerIncompatible, ProtocolVersion, ServerConnection,
};

use super::{BACKEND_NAME, known_tls, roots, server_tls};
use crate::authority::{from_now, requested_key};
use crate::state::{Credentials, CurrentCertificate, Identity};
use crate::wire::{ALPN_DELIVERY, ALPN_ENROLMENT};
use crate::{CertificateAuthority, MemberId, SensorId, SigningKey};

const DAY: Duration = Duration::from_hours(24);

/// A sensor's credentials and a backend's configuration, of one authority.
fn made() -> (Credentials, rustls::ServerConfig) {
    let dir = tempfile::tempdir().expect("writable");
    let authority = CertificateAuthority::create(dir.path()).expect("writable");
    let key = SigningKey::generate().expect("random");
    let pair = rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.pkcs8())).expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&pair).expect("a request");
    let member: MemberId = "acme".parse().expect("a name");
    let sensor: SensorId = "acme-1".parse().expect("a name");
    let public_key = requested_key(request.der()).expect("a good request");
    assert_eq!(public_key, key.public_key());
    let validity = from_now(DAY);
    let issued = authority.certify(&public_key, &member, &sensor, validity).expect("it can sign");
    let certificate = CertificateDer::from_pem_slice(issued.pem.as_bytes()).expect("just made");
    let certificate = CurrentCertificate::new(certificate).expect("it names a sensor");
    assert_eq!(certificate.validity(), issued.validity);
    let credentials = Credentials {
        identity: Identity { member, sensor, backend: "127.0.0.1:1".to_owned() },
        key,
        certificate: Arc::new(certificate),
        authority: authority.authority().clone(),
    };
    let (certificate, key) = authority.server().expect("it can sign");
    let server = server_tls(&certificate, &key, authority.authority()).expect("they fit");
    (credentials, server)
}

/// What the two ends have come to: the first error, if there was one.
fn shake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
    while client.is_handshaking() || server.is_handshaking() {
        let mut up = Vec::new();
        client.write_tls(&mut up).expect("memory");
        let mut rest = up.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets()?;
        }
        let mut down = Vec::new();
        server.write_tls(&mut down).expect("memory");
        let mut rest = down.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets()?;
        }
        assert!(!up.is_empty() || !down.is_empty(), "nobody has anything to say");
    }
    Ok(())
}

fn server_end(config: rustls::ServerConfig) -> ServerConnection {
    ServerConnection::new(Arc::new(config)).expect("the configuration is whole")
}

fn client_end(config: rustls::ClientConfig) -> ClientConnection {
    let name = ServerName::try_from(BACKEND_NAME).expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("the configuration is whole")
}

#[test]
fn the_key_exchange_is_hybrid_and_both_ends_prove_themselves() {
    let (credentials, server) = made();
    let mut client = client_end(known_tls(&credentials, ALPN_DELIVERY).expect("they fit"));
    let mut server = server_end(server);
    shake(&mut client, &mut server).expect("both are ours");
    for group in [client.negotiated_key_exchange_group(), server.negotiated_key_exchange_group()] {
        assert_eq!(group.map(SupportedKxGroup::name), Some(NamedGroup::X25519MLKEM768));
    }
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(ALPN_DELIVERY));
    assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1));
}

/// A client of any make, with these groups and versions.
fn other_client(
    credentials: &Credentials,
    groups: Vec<&'static dyn SupportedKxGroup>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConnection {
    let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("the provider has suites for each")
        .with_root_certificates(roots(&credentials.authority).expect("a certificate"))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_ENROLMENT.to_vec()];
    client_end(config)
}

#[test]
fn a_client_of_tls_1_2_is_refused() {
    let (credentials, server) = made();
    let groups = vec![aws_lc_rs::kx_group::X25519];
    let mut client = other_client(&credentials, groups.clone(), &[&rustls::version::TLS12]);
    let mut server = server_end(server);
    let error = shake(&mut client, &mut server).expect_err("there is no TLS 1.2 here");
    let wanted = Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled);
    assert_eq!(error, wanted);
    // The same client with TLS 1.3 is let in, so that was the reason.
    let (credentials, server) = made();
    let mut client = other_client(&credentials, groups, &[&rustls::version::TLS13]);
    shake(&mut client, &mut server_end(server)).expect("the plain group is allowed");
}

#[test]
fn other_groups_are_refused() {
    let (credentials, server) = made();
    let groups = vec![aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1];
    let mut client = other_client(&credentials, groups, &[&rustls::version::TLS13]);
    let error = shake(&mut client, &mut server_end(server)).expect_err("no group in common");
    assert_eq!(error, Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon));
}

#[test]
fn a_certificate_of_a_sensor_makes_no_backend() {
    // Another sensor of the same authority poses as the backend: right authority, other key.
    let (credentials, _server) = made();
    let key = PrivatePkcs8KeyDer::from(credentials.key.pkcs8().to_vec());
    let server = server_tls(&credentials.certificate.der(), &key, &credentials.authority)
        .expect("they fit each other");
    let mut client = client_end(known_tls(&credentials, ALPN_DELIVERY).expect("they fit"));
    let error = shake(&mut client, &mut server_end(server)).expect_err("it is no backend");
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
}
