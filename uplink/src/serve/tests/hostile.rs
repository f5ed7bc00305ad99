//! Peers that mean ill, or whose line does: slow streams, long messages, crowds, addresses that change. Others are
//! served all the while.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::Endpoint;
use tokio::task::JoinSet;

use super::delivery::{Delivery, assert_all_stored, open_outbox, seal};
use super::stranger::{Stranger, closed_with, credentials, header, sealed};
use super::vault::{Backend, Vault, new_code};
use crate::spool::Key;
use crate::tls::{self, BACKEND_NAME};
use crate::wire::{self, ALPN_DELIVERY, Close, Outcome};
use crate::{CertificateAuthority, DeliveryEvent, Shutdown, enroll};

fn key(sequence: u64) -> Key {
    Key { boot_epoch: 1, sequence }
}

#[tokio::test]
async fn a_stream_that_stops_in_the_middle_ends_its_connection_and_holds_up_nobody() {
    let dir = tempfile::tempdir().expect("writable");
    let vault = Arc::new(Vault::default());
    let short = |options: &mut crate::ServeOptions| options.step_timeout_ms = 300;
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, short);
    let slow = credentials(dir.path(), "ca", &vault, &backend).await;
    let config = tls::delivery_client(&slow).expect("they fit");
    // Slow at every place where one can be: in the hello, in the prefix, in the batch, in what it tells of itself.
    for stop in 0..4 {
        let loris = Stranger::connect(config.clone(), backend.address).await.expect("it is known");
        if stop > 0 {
            loris.greet().await.expect("a hello is answered");
        }
        let message = match stop {
            0 => vec![4],
            1 => vec![6],
            2 => [wire::batch_prefix(key(1), 1 << 24), vec![0; 100]].concat(),
            _ => vec![16],
        };
        let mut stream = if stop == 3 {
            loris.connection.open_uni().await.expect("one is allowed")
        } else {
            loris.connection.open_bi().await.expect("some are allowed").0
        };
        stream.write_all(&message).await.expect("the window is larger");
        let closed = closed_with(&loris.connection.closed().await);
        assert_eq!(closed, Some(Close::Protocol as u64), "stop {stop}");
    }
    // Somebody else, while another one is slow.
    let loris = Stranger::connect(config, backend.address).await.expect("it is known");
    loris.greet().await.expect("a hello is answered");
    let (mut stream, _) = loris.connection.open_bi().await.expect("some are allowed");
    stream.write_all(&wire::batch_prefix(key(1), 1 << 24)).await.expect("the window is larger");
    let state = dir.path().join("state");
    let code = new_code(&dir.path().join("ca"), &vault, backend.address, "acme");
    enroll(&code.to_string(), &state).await.expect("the code is good");
    let mut outbox = open_outbox(&state, 1 << 30);
    let ids = seal(&mut outbox, 30);
    let within = super::delivery::LONG;
    Delivery::start(&outbox, |_| {}).end(Shutdown::WhenEmpty { within }).await;
    assert_all_stored(&vault, &ids);
    backend.end();
}

#[tokio::test]
async fn what_is_longer_than_it_may_be_is_not_read() {
    let dir = tempfile::tempdir().expect("writable");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let own = credentials(dir.path(), "ca", &vault, &backend).await;
    let connect = || async {
        let config = tls::delivery_client(&own).expect("they fit");
        Stranger::connect(config, backend.address).await.expect("it is known")
    };
    // A hello without end, a batch one byte longer than announced, one longer than any, a report without end.
    let error = connect().await.ask(&vec![4; 60_000]).await.expect_err("closed");
    assert_eq!(closed_with(&error), Some(Close::Protocol as u64), "{error:?}");
    for (announced, sent) in [(100, 101), ((16 << 20) + 1, 100), (16 << 20, (16 << 20) + 1)] {
        let stranger = connect().await;
        stranger.greet().await.expect("a hello is answered");
        let message = [wire::batch_prefix(key(1), announced), vec![0; sent]].concat();
        let error = stranger.ask(&message).await.expect_err("closed");
        assert_eq!(closed_with(&error), Some(Close::Protocol as u64), "{announced}: {error:?}");
    }
    let stranger = connect().await;
    stranger.greet().await.expect("a hello is answered");
    let mut stream = stranger.connection.open_uni().await.expect("one is allowed");
    stream.write_all(&[16; 4_000]).await.expect("the window is larger");
    let error = stranger.connection.closed().await;
    assert_eq!(closed_with(&error), Some(Close::Protocol as u64), "{error:?}");
    assert_eq!(vault.contents().commits, 0);
    backend.end();
}

/// Connections that are tried, from one address.
const CROWD: usize = 10_000;
const AT_ONCE: usize = 200;

#[tokio::test]
async fn ten_thousand_connections_from_one_place_keep_no_sensor_out() {
    let dir = tempfile::tempdir().expect("writable");
    let ca = dir.path().join("ca");
    let vault = Arc::new(Vault::default());
    let few = |options: &mut crate::ServeOptions| options.connections_max = 128;
    let backend = Backend::start(&ca, &vault, None, few);
    let address = backend.address;
    let state = dir.path().join("state");
    let code = new_code(&ca, &vault, address, "acme");
    enroll(&code.to_string(), &state).await.expect("the code is good");
    let mut outbox = open_outbox(&state, 1 << 30);
    let mut ids = seal(&mut outbox, 5);
    let mut delivery = Delivery::start(&outbox, |_| {});
    delivery.wait_for(|event| matches!(event, DeliveryEvent::Acked { .. })).await;

    // They finish the handshake, without a certificate, and stay as long as they may.
    let pin = CertificateAuthority::load(&ca).expect("made by the backend").pin();
    let config = tls::anonymous_client(pin, ALPN_DELIVERY).expect("nothing to go wrong");
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 0));
    let crowd = Endpoint::client(from).expect("all of 127/8 is loopback");
    let mut trying = JoinSet::new();
    for number in 0..CROWD {
        let connecting =
            crowd.connect_with(config.clone(), address, BACKEND_NAME).expect("a valid name");
        trying.spawn(async move { connecting.await.is_ok() });
        if trying.len() >= AT_ONCE {
            trying.join_next().await;
        }
        // The one that is there is served, and so is one that comes.
        if number % 2_500 == 1_250 {
            ids.extend(seal(&mut outbox, 5));
            delivery.wait_for(|event| matches!(event, DeliveryEvent::Acked { .. })).await;
            let within = super::delivery::LONG;
            let totals = delivery.end(Shutdown::WhenEmpty { within }).await;
            assert_eq!(totals.connections, 1, "{totals:?}");
            delivery = Delivery::start(&outbox, |_| {});
        }
    }
    while trying.join_next().await.is_some() {}
    delivery.end(Shutdown::WhenEmpty { within: super::delivery::LONG }).await;
    crowd.close(Close::Done.code(), b"");
    assert_all_stored(&vault, &ids);
    let totals = backend.end();
    let taken = totals.connections;
    assert!(taken + totals.connections_refused >= CROWD as u64, "{totals:?}");
    assert!(totals.peers_without_certificate > 0, "{totals:?}");
}

#[tokio::test]
async fn a_connection_outlives_a_change_of_the_sensors_address() {
    let dir = tempfile::tempdir().expect("writable");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let own = credentials(dir.path(), "ca", &vault, &backend).await;
    let config = tls::delivery_client(&own).expect("they fit");
    let sensor = Stranger::connect(config, backend.address).await.expect("it is known");
    sensor.greet().await.expect("a hello is answered");
    for (sequence, host) in [(1, 1), (2, 2), (3, 3)] {
        // As after a new lease: another address and another port, and nobody was asked.
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0)).expect("loopback");
        sensor.endpoint.rebind(socket).expect("a fresh socket");
        let batch = sealed(&header(&own, sequence), &own.key);
        assert_eq!(sensor.offer(key(sequence), &batch).await, Outcome::Stored);
    }
    assert!(sensor.connection.close_reason().is_none());
    drop(sensor);
    let totals = backend.end();
    // One for the enrolment.
    assert_eq!((totals.connections, totals.batches_stored), (2, 3));
}

#[tokio::test]
async fn a_sensor_tells_how_it_is_and_what_it_gave_up() {
    let dir = tempfile::tempdir().expect("writable");
    let vault = Arc::new(Vault::default());
    let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
    let state = dir.path().join("state");
    let code = new_code(&dir.path().join("ca"), &vault, backend.address, "acme");
    enroll(&code.to_string(), &state).await.expect("the code is good");
    let mut outbox = open_outbox(&state, 10_000);
    seal(&mut outbox, 20);
    let evicted = outbox.totals();
    drop(outbox);
    // Another start of the sensor does not make anybody forget it.
    let mut outbox = open_outbox(&state, 10_000);
    let waiting = outbox.totals().batches_waiting;
    let mut delivery = Delivery::start(&outbox, |_| {});
    for _ in 0..waiting {
        delivery.wait_for(|event| matches!(event, DeliveryEvent::Acked { .. })).await;
    }
    seal(&mut outbox, 1);
    delivery.wait_for(|event| matches!(event, DeliveryEvent::Acked { .. })).await;
    delivery.end(Shutdown::Now).await;
    assert!(backend.end().health_reports > 0);
    let contents = vault.contents();
    let (_, report) = contents.reports.first().expect("one at the start of the connection");
    let health = &report.health;
    assert!(evicted.batches_evicted > 0);
    assert_eq!(health.batches_evicted, Some(evicted.batches_evicted));
    assert_eq!(health.records_evicted, Some(evicted.records_evicted));
    assert_eq!(health.spool_bytes_max, Some(10_000));
    assert_eq!(health.sensor_version.as_deref(), Some("0.1.0"));
    assert_eq!(health.frames_seen, None, "nothing was sealed since the start");
    assert!(report.clock_offset_ms.is_some_and(|ahead| ahead.abs() < 60_000), "{report:?}");
}
