//! What the receiving end must not take: connections of strangers, and batches that are not what they say.

use std::sync::Arc;

use quinn::ConnectionError;

use super::stranger::{Stranger, closed_with, credentials, header, sealed};
use super::vault::{Backend, Vault};
use crate::SigningKey;
use crate::spool::Key;
use crate::state::Credentials;
use crate::tls;
use crate::wire::{self, ALPN_DELIVERY, Close, Outcome};

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
    // Of the revoked sensor one batch had arrived: it is rejected, not stored. The look for revocations may have closed
    // the connection before that.
    let (rejected, closed) = (totals.batches_rejected - 5, totals.connections_revoked);
    assert_eq!(vault.contents().refused, rejected);
    assert!(rejected <= 1 && closed <= 1 && rejected + closed >= 1, "{totals:?}");
    assert_eq!(vault.contents().stored.len(), 1);
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
