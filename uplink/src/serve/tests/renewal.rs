//! Certificates that end: what renews itself, what a code brings back, and what is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flow::Books;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::{mpsc, watch};

use super::stranger::{Stranger, closed_with, header, sealed};
use super::vault::{Backend, Vault, new_code};
use crate::certificate::now_unix_s;
use crate::renew::messages::{self, NoRenewal};
use crate::spool::Key;
use crate::state::{Credentials, StateFolder};
use crate::test_records::realistic;
use crate::wire::{self, Close};
use crate::{
    CertificateAuthority, DeliverOptions, DeliveryEvent, DeliveryTotals, EnrollError, Outbox,
    OutboxOptions, Shutdown, Validity, deliver, enroll, identity_card, tls, verify,
};

const DAY_S: u64 = 86_400;
/// Long enough for any machine; what is waited for is an event, never the time.
const LONG: Duration = Duration::from_mins(2);

/// A backend and a sensor's state folder with an identity from it.
struct Site {
    dir: tempfile::TempDir,
    vault: Arc<Vault>,
    backend: Backend,
}

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("writable");
        let vault = Arc::new(Vault::default());
        let backend = Backend::start(&dir.path().join("ca"), &vault, None, |_| {});
        let site = Self { dir, vault, backend };
        enroll(&site.code(), &site.state()).await.expect("the code is good");
        site
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn code(&self) -> String {
        let ca = self.dir.path().join("ca");
        new_code(&ca, &self.vault, self.backend.address, "acme").to_string()
    }

    fn credentials(&self) -> Credentials {
        StateFolder::open(&self.state()).expect("free").credentials().expect("whole")
    }

    /// Gives the sensor a certificate that began and ends so many seconds from now.
    fn set_validity(&self, begins_s: i64, ends_s: i64) -> Validity {
        let at = |s: i64| now_unix_s().saturating_add_signed(s);
        let validity = Validity { begins_unix_s: at(begins_s), ends_unix_s: at(ends_s) };
        let own = self.credentials();
        let authority = CertificateAuthority::load(&self.dir.path().join("ca")).expect("there");
        let (member, sensor) = (&own.identity.member, &own.identity.sensor);
        let issued = authority
            .certify(&own.key.public_key(), member, sensor, validity)
            .expect("it can sign");
        std::fs::write(certificate_path(&self.state()), issued.pem).expect("own file");
        validity
    }

    fn outbox(&self, batches: u64) -> Outbox {
        let mut outbox = Outbox::open(OutboxOptions {
            state_dir: self.state(),
            spool_bytes_max: 1 << 30,
            object_sha256: [3; 32],
            sensor_version: "0.1.0".to_owned(),
            now_ms: 1_795_000_000_000,
        })
        .expect("the state folder is good");
        for number in 0..batches {
            outbox.seal(&realistic(number, 10), &Books::default(), 1).expect("room");
        }
        outbox
    }
}

fn certificate_path(state: &Path) -> PathBuf {
    state.join("identity/sensor.pem")
}

/// A delivery that ends when the spool is empty, or when an event says so; with what it told.
async fn deliver_until(
    outbox: &Outbox,
    enough: impl Fn(&DeliveryEvent) -> bool + Send + 'static,
) -> (DeliveryTotals, Vec<DeliveryEvent>) {
    let mut options = DeliverOptions::new(outbox.spool());
    options.seed = Some(0);
    options.backoff_min_ms = 1;
    options.backoff_max_ms = 20;
    let (shutdown, wish) = watch::channel(Shutdown::No);
    let (sender, mut events) = mpsc::unbounded_channel();
    let delivering = tokio::spawn(async move {
        // The test may have seen enough.
        deliver(options, move |event| drop(sender.send(event)), wish).await
    });
    let mut told = Vec::new();
    while let Some(event) = tokio::time::timeout(LONG, events.recv()).await.expect("in time") {
        let is_enough = enough(&event);
        told.push(event);
        if is_enough {
            shutdown.send(Shutdown::Now).expect("the delivery runs");
        }
    }
    (delivering.await.expect("no panic").expect("it could begin"), told)
}

fn is_renewed(event: &DeliveryEvent) -> bool {
    matches!(event, DeliveryEvent::CertificateRenewed { .. })
}

fn is_last_ack(event: &DeliveryEvent) -> bool {
    matches!(event, DeliveryEvent::Acked { batches_waiting: 0, .. })
}

#[tokio::test]
async fn a_sensor_renews_by_itself_for_the_same_key() {
    let site = Site::new().await;
    let old = site.set_validity(-21 * DAY_S.cast_signed(), 7 * DAY_S.cast_signed());
    let before = site.credentials();
    let outbox = site.outbox(3);
    let (_totals, told) = deliver_until(&outbox, is_renewed).await;
    assert!(told.last().is_some_and(is_renewed), "{told:?}");
    assert!(outbox.spool().certificate().ends_unix_s > old.ends_unix_s + 20 * DAY_S);
    drop(outbox);
    let after = site.credentials();
    assert_eq!(after.key.public_key(), before.key.public_key());
    assert_eq!(after.identity, before.identity);
    let validity = after.certificate.validity();
    assert!(validity.left_s(now_unix_s()).abs_diff(30 * DAY_S) < DAY_S / 2, "{validity:?}");
    let certified = site.vault.contents().certified.last().copied().expect("the intake was told");
    assert_eq!((certified.validity, certified.is_renewal), (validity, true));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(certificate_path(&site.state())).expect("there").permissions(),
    );
    assert_eq!(mode & 0o7777, 0o600);
    // The next delivery shows it, and does not renew again.
    let outbox = site.outbox(2);
    let (totals, told) = deliver_until(&outbox, is_last_ack).await;
    assert!(!told.iter().any(is_renewed) && totals.failures == 0, "{told:?}");
    for batch in site.vault.contents().stored.values() {
        verify(batch, &before.key.public_key()).expect("one key has signed them all");
    }
    assert_eq!(site.vault.contents().stored.len(), 5);
    assert_eq!(site.backend.end().renewed, 1);
}

#[tokio::test]
async fn a_sensor_that_was_off_too_long_renews_within_the_grace_and_loses_nothing() {
    let site = Site::new().await;
    site.set_validity(-60 * DAY_S.cast_signed(), -30 * DAY_S.cast_signed());
    assert_eq!(identity_card(&site.state()).expect("whole").state, "expired");
    let outbox = site.outbox(4);
    let (totals, told) = deliver_until(&outbox, is_last_ack).await;
    assert!(is_renewed(&told[0]), "before anything else: {told:?}");
    assert_eq!((totals.batches_acked, totals.failures), (4, 0), "{told:?}");
    let card = identity_card(&site.state()).expect("whole, and not locked");
    assert_eq!((card.state, card.is_valid()), ("valid", true));
    let totals = site.backend.end();
    assert_eq!((totals.renewed, totals.peers_expired), (1, 0));
}

#[tokio::test]
async fn beyond_the_grace_the_remedy_is_named_and_a_code_keeps_the_spool() {
    let site = Site::new().await;
    let name = site.credentials().identity.sensor;
    site.set_validity(-400 * DAY_S.cast_signed(), -100 * DAY_S.cast_signed());
    let outbox = site.outbox(4);
    let told_remedy = |event: &DeliveryEvent| {
        matches!(event, DeliveryEvent::CertificateNotRenewed { expired: true, reason, .. }
            if reason.contains("longer ago than the 90 days of grace")
                && reason.contains("`spanwatch-sensor enroll CODE` keeps this sensor's name"))
    };
    let (totals, told) = deliver_until(&outbox, told_remedy).await;
    assert_eq!(totals.batches_acked, 0, "{told:?}");
    assert!(told[0].to_string().contains("all records wait in the spool"), "{}", told[0]);
    drop(outbox);

    let enrolled = enroll(&site.code(), &site.state()).await.expect("a code for the same key");
    assert_eq!(enrolled.sensor, name);
    let again = enroll(&site.code(), &site.state()).await;
    assert!(matches!(again, Err(EnrollError::AlreadyEnrolled { .. })), "{again:?}");
    let outbox = site.outbox(1);
    assert_eq!(outbox.totals().recovery.batches_superseded, 0);
    let (totals, _told) = deliver_until(&outbox, is_last_ack).await;
    assert_eq!((totals.batches_acked, totals.failures), (5, 0));
    assert_eq!(site.backend.end().renewals_refused, 1);
}

/// Asks for a renewal as nobody's sensor would; gives the backend's answer.
async fn ask(site: &Site) -> Result<String, (NoRenewal, String)> {
    let config = tls::renewal_client(&site.credentials()).expect("they fit");
    let stranger = Stranger::connect(config, site.backend.address).await.expect("it is known");
    let answer = stranger.ask(&messages::renew(now_unix_s())).await.expect("an answer");
    let answer = messages::read_answer(&answer).expect("a whole one");
    assert!(answer.clock_unix_s.abs_diff(now_unix_s()) < 600);
    answer.result
}

#[tokio::test]
async fn too_early_too_late_and_revoked_get_no_certificate() {
    let site = Site::new().await;
    let status = |answer: Result<String, (NoRenewal, String)>| answer.map_err(|(status, _)| status);
    assert_eq!(status(ask(&site).await), Err(NoRenewal::NotDue));
    site.set_validity(-300 * DAY_S.cast_signed(), -91 * DAY_S.cast_signed());
    assert_eq!(status(ask(&site).await), Err(NoRenewal::TooOld));
    site.set_validity(-120 * DAY_S.cast_signed(), -89 * DAY_S.cast_signed());
    let pem = ask(&site).await.expect("within the grace");
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let issued = crate::certificate::peer(&der).expect("of a sensor").peer;
    let own = site.credentials();
    let sensor = own.identity.sensor;
    assert_eq!((issued.public_key, &issued.sensor), (own.key.public_key(), &sensor));
    site.vault.contents().revoked.push(sensor);
    assert_eq!(status(ask(&site).await), Err(NoRenewal::NotAdmitted));
    // An attempt at something else on that kind of connection.
    let config = tls::renewal_client(&site.credentials()).expect("they fit");
    let stranger = Stranger::connect(config, site.backend.address).await.expect("it is known");
    let error = stranger.ask(&wire::hello(&[1])).await.expect_err("closed");
    assert_eq!(closed_with(&error), Some(Close::Protocol as u64), "{error:?}");
    let totals = site.backend.end();
    assert_eq!((totals.renewed, totals.renewals_refused), (1, 3));
}

#[tokio::test]
async fn an_expired_certificate_delivers_nothing() {
    let site = Site::new().await;
    site.set_validity(-60 * DAY_S.cast_signed(), -1);
    let own = site.credentials();
    let config = tls::delivery_client(&own).expect("they fit");
    let stranger = Stranger::connect(config, site.backend.address).await.expect("so it is told");
    let error = stranger.greet().await.expect_err("closed");
    assert_eq!(closed_with(&error), Some(Close::Expired as u64), "{error:?}");
    // Nor one from the future, which nobody has issued by this clock.
    site.set_validity(DAY_S.cast_signed(), 30 * DAY_S.cast_signed());
    let config = tls::delivery_client(&site.credentials()).expect("they fit");
    let error = match Stranger::connect(config, site.backend.address).await {
        Err(error) => error,
        Ok(stranger) => stranger.greet().await.expect_err("the backend does not believe it"),
    };
    assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error:?}");
    assert_eq!(identity_card(&site.state()).expect("whole").state, "not valid yet");
    let totals = site.backend.end();
    assert_eq!((totals.peers_expired, totals.handshakes_failed), (1, 1));
    assert!(site.vault.contents().stored.is_empty());
}

#[tokio::test]
async fn an_open_connection_lasts_as_long_as_the_certificate_and_a_renewal_prolongs_it() {
    let site = Site::new().await;
    // Not renewed: closed at the end.
    site.set_validity(-DAY_S.cast_signed(), 1);
    let own = site.credentials();
    let connect = || async {
        let config = tls::delivery_client(&own).expect("they fit");
        Stranger::connect(config, site.backend.address).await
    };
    let stranger = connect().await.expect("still valid, or told that it is not");
    let closed = tokio::time::timeout(LONG, stranger.connection.closed()).await.expect("in time");
    assert_eq!(closed_with(&closed), Some(Close::Expired as u64), "{closed:?}");
    // Renewed: it goes on after the end of the certificate that it began with.
    let ends = site.set_validity(-DAY_S.cast_signed(), 3).ends_unix_s;
    let own = site.credentials();
    let config = tls::delivery_client(&own).expect("they fit");
    let stranger = Stranger::connect(config, site.backend.address).await.expect("still valid");
    stranger.greet().await.expect("a hello is answered");
    ask(&site).await.expect("it is due");
    let mut sequence = 0;
    while now_unix_s() <= ends + 1 {
        sequence += 1;
        let key = Key { boot_epoch: 1, sequence };
        let batch = sealed(&header(&own, sequence), &own.key);
        assert_eq!(stranger.offer(key, &batch).await, wire::Outcome::Stored);
    }
    assert!(stranger.connection.close_reason().is_none());
    assert_eq!(site.backend.end().peers_expired, 0);
}

#[tokio::test]
async fn a_revocation_closes_a_connection_on_which_nothing_happens() {
    let site = Site::new().await;
    let own = site.credentials();
    let config = tls::delivery_client(&own).expect("they fit");
    let stranger = Stranger::connect(config, site.backend.address).await.expect("it is known");
    stranger.greet().await.expect("a hello is answered");
    site.vault.contents().revoked.push(own.identity.sensor.clone());
    let closed = tokio::time::timeout(LONG, stranger.connection.closed()).await.expect("in time");
    assert_eq!(closed_with(&closed), Some(Close::NotAdmitted as u64), "{closed:?}");
    assert_eq!(site.backend.end().connections_revoked, 1);
}

#[tokio::test]
async fn a_sensor_whose_clock_is_wrong_is_told_so() {
    let site = Site::new().await;
    let config = tls::renewal_client(&site.credentials()).expect("they fit");
    let stranger = Stranger::connect(config, site.backend.address).await.expect("it is known");
    // Three years ahead: by its own clock the certificate has expired.
    let ahead = now_unix_s() + 3 * 365 * DAY_S;
    let answer = stranger.ask(&messages::renew(ahead)).await.expect("an answer");
    let answer = messages::read_answer(&answer).expect("a whole one");
    let (status, reason) = answer.result.expect_err("it is too early by the backend's clock");
    assert_eq!(status, NoRenewal::NotDue);
    let told = crate::renew::tell(status, &reason, ahead, answer.clock_unix_s);
    assert!(told.contains("it is too early: the certificate ends 20"), "{told}");
    assert!(told.contains("; this sensor's clock says 20"), "{told}");
    assert!(told.ends_with(": one of them is wrong"), "{told}");
    site.backend.end();
}
