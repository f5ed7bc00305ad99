//! What two of our own ends agree on, without a network between them.

use std::sync::Arc;

use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConnection, NamedGroup, ProtocolVersion, ServerConnection};

use super::{BACKEND_NAME, delivery_tls, server_tls};
use crate::state::{Credentials, Identity};
use crate::wire::ALPN_DELIVERY;
use crate::{CertificateAuthority, MemberId, SensorId, SigningKey};

fn ends() -> (ClientConnection, ServerConnection) {
    let dir = tempfile::tempdir().expect("writable");
    let authority = CertificateAuthority::create(dir.path()).expect("writable");
    let key = SigningKey::generate().expect("random");
    let pair = rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.pkcs8())).expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&pair).expect("a request");
    let member: MemberId = "acme".parse().expect("a name");
    let sensor: SensorId = "acme-1".parse().expect("a name");
    let issued = authority.issue(request.der(), &member, &sensor, 1).expect("a good request");
    assert_eq!(issued.public_key, key.public_key());
    let certificate = CertificateDer::from_pem_slice(issued.pem.as_bytes()).expect("just made");
    let credentials = Credentials {
        identity: Identity { member, sensor, backend: "127.0.0.1:1".to_owned() },
        key,
        certificate,
        authority: authority.authority().clone(),
    };
    let name = ServerName::try_from(BACKEND_NAME).expect("a name");
    let client = Arc::new(delivery_tls(&credentials).expect("they fit"));
    let (certificate, key) = authority.server().expect("it can sign");
    let server = server_tls(&certificate, &key, authority.authority()).expect("they fit");
    (
        ClientConnection::new(client, name).expect("the configuration is whole"),
        ServerConnection::new(Arc::new(server)).expect("the configuration is whole"),
    )
}

#[test]
fn the_key_exchange_is_hybrid_and_both_ends_prove_themselves() {
    let (mut client, mut server) = ends();
    while client.is_handshaking() || server.is_handshaking() {
        let mut up = Vec::new();
        client.write_tls(&mut up).expect("memory");
        let mut rest = up.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets().expect("a client of ours");
        }
        let mut down = Vec::new();
        server.write_tls(&mut down).expect("memory");
        let mut rest = down.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets().expect("a server of ours");
        }
    }
    let group = client.negotiated_key_exchange_group().map(SupportedKxGroup::name);
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(ALPN_DELIVERY));
    assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1));
}
