//! Takes the identity of a running sensor; gets it another certificate for the same key before the present one ends,
//! over a connection that proves itself by the present one. Never changes the key, and never touches the present
//! certificate before the next one is whole and on the disk.

pub(crate) mod messages;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::{Instant, sleep};

use crate::DeliveryEvent;
use crate::certificate::{self, Validity, now_unix_s, utc};
use crate::exchange::{ExchangeError, exchange};
use crate::outbox::{Shared, SpoolHandle};
use crate::state::Credentials;
use crate::tls::{self, TlsError, chains_to};
use messages::{Answer, NoRenewal};
use schedule::Schedule;

/// The clock is looked at again after this long: it may have been set, or the machine have slept.
const LOOK: Duration = Duration::from_hours(1);
/// Clocks that differ by less are of no interest.
const CLOCKS_DIFFER_S: u64 = 300;
/// Shortest time between two events of the same failure.
const TOLD_AGAIN: Duration = Duration::from_hours(1);

/// Why there is no new certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// The next attempt may do better.
    Passing(String),
    /// Somebody has to do something.
    Lasting(String),
}

/// Renews one sensor's certificate, again and again.
pub(crate) struct Renewer<'a> {
    shared: Arc<Shared>,
    backend: String,
    config: quinn::ClientConfig,
    schedule: Schedule,
    told: Option<(Instant, String)>,
    progress: &'a (dyn Fn(DeliveryEvent) + Send + Sync),
}

impl<'a> Renewer<'a> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        backend: String,
        chance: u64,
        progress: &'a (dyn Fn(DeliveryEvent) + Send + Sync),
    ) -> Result<Self, TlsError> {
        let config = tls::renewal_client(&shared.credentials)?;
        let schedule = Schedule::new(shared.credentials.certificate.validity(), chance);
        Ok(Self { shared, backend, config, schedule, told: None, progress })
    }

    /// One attempt, if without one nothing can be delivered: a sensor that was off for longer than its certificate.
    pub(crate) async fn catch_up(&mut self) {
        if self.validity().is_over(now_unix_s()) {
            self.attempt().await;
        }
    }

    /// Renews whenever it is time; never ends.
    pub(crate) async fn run(mut self) -> std::convert::Infallible {
        loop {
            let wait_s = self.schedule.wait_s(now_unix_s());
            if wait_s == 0 {
                self.attempt().await;
            } else {
                sleep(Duration::from_secs(wait_s).min(LOOK)).await;
            }
        }
    }

    fn validity(&self) -> Validity {
        self.shared.credentials.certificate.validity()
    }

    async fn attempt(&mut self) {
        let failure = match self.renew().await {
            Ok(validity) => {
                // The spread of the first time has done its work: later ones follow each other as that one did.
                self.schedule = Schedule::new(validity, 0);
                self.told = None;
                let ends = utc(validity.ends_unix_s);
                (self.progress)(DeliveryEvent::CertificateRenewed { ends });
                return;
            }
            Err(failure) => failure,
        };
        let now_unix_s = now_unix_s();
        let reason = match failure {
            Failure::Passing(reason) => {
                self.schedule.handle_failure(now_unix_s);
                reason
            }
            Failure::Lasting(reason) => {
                self.schedule.handle_refusal(now_unix_s);
                reason
            }
        };
        let is_news = self.told.as_ref().is_none_or(|(at, told)| {
            *told != reason || Instant::now().saturating_duration_since(*at) >= TOLD_AGAIN
        });
        if is_news {
            self.told = Some((Instant::now(), reason.clone()));
            let validity = self.validity();
            let (ends, expired) = (utc(validity.ends_unix_s), validity.is_over(now_unix_s));
            (self.progress)(DeliveryEvent::CertificateNotRenewed { reason, ends, expired });
        }
    }

    async fn renew(&self) -> Result<Validity, Failure> {
        let asked = exchange(&self.backend, &self.config, &messages::renew(now_unix_s())).await;
        let bytes = asked.map_err(|error| match error {
            ExchangeError::NotTheBackend(_) => Failure::Lasting(error.to_string()),
            ExchangeError::Closed(_) | ExchangeError::Unreachable(_) => {
                Failure::Passing(error.to_string())
            }
        })?;
        let answer = messages::read_answer(&bytes)
            .map_err(|error| Failure::Lasting(format!("the answer cannot be used: {error}")))?;
        let Answer { clock_unix_s, result } = answer;
        let pem = result.map_err(|(status, reason)| {
            refusal(status, tell(status, &reason, now_unix_s(), clock_unix_s))
        })?;
        let accepted = accept(&self.shared.credentials, &pem);
        let (certificate, validity) = accepted.map_err(Failure::Lasting)?;
        // Another thread may hold the disk for long; the delivery goes on meanwhile.
        let shared = Arc::clone(&self.shared);
        let stored = tokio::task::spawn_blocking(move || shared.state.store_certificate(&pem));
        match stored.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Failure::Passing(error.to_string())),
            Err(error) => return Err(Failure::Passing(error.to_string())),
        }
        self.shared.credentials.certificate.replace(certificate, validity);
        Ok(validity)
    }
}

/// One attempt to renew, if it is time for it; what came of it is told as an event. Runs on tokio.
///
/// # Errors
///
/// When key and certificates do not fit. That there is no new certificate is an event, not an error.
pub async fn renew_if_due(
    spool: &SpoolHandle,
    progress: impl Fn(DeliveryEvent) + Send + Sync,
) -> Result<(), TlsError> {
    let shared = Arc::clone(&spool.0);
    let backend = shared.credentials.identity.backend.clone();
    let mut renewer = Renewer::new(shared, backend, 0, &progress)?;
    if renewer.schedule.wait_s(now_unix_s()) == 0 {
        renewer.attempt().await;
    }
    Ok(())
}

/// Checks a certificate that the backend has issued for an identity that is there.
pub(crate) fn accept(
    credentials: &Credentials,
    pem: &str,
) -> Result<(CertificateDer<'static>, Validity), String> {
    let certificate =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let read = certificate::peer(&certificate).map_err(|error| error.to_string())?;
    let (peer, validity) = (read.peer, read.validity);
    if peer.public_key != credentials.key.public_key() {
        return Err("the certificate is for another key".to_owned());
    }
    let own = &credentials.identity;
    if (&peer.member, &peer.sensor) != (&own.member, &own.sensor) {
        let (member, sensor) = (peer.member, peer.sensor);
        return Err(format!("the certificate is for sensor {sensor} of {member}"));
    }
    chains_to(&credentials.authority, &certificate, validity)
        .map_err(|error| format!("the certificate is not of this sensor's backend: {error}"))?;
    let held = credentials.certificate.validity();
    if validity.ends_unix_s < held.ends_unix_s {
        let (new, old) = (utc(validity.ends_unix_s), utc(held.ends_unix_s));
        return Err(format!("the certificate would end {new}, before the present one, {old}"));
    }
    Ok((certificate, validity))
}

fn refusal(status: NoRenewal, told: String) -> Failure {
    match status {
        NoRenewal::Internal => Failure::Passing(told),
        NoRenewal::NotDue | NoRenewal::NotAdmitted | NoRenewal::TooOld => Failure::Lasting(told),
    }
}

/// The backend's refusal, with what the clocks have to do with it and what to do about it.
pub(crate) fn tell(
    status: NoRenewal,
    reason: &str,
    own_unix_s: u64,
    backend_unix_s: u64,
) -> String {
    let clocks = clocks(own_unix_s, backend_unix_s);
    let remedy = match status {
        NoRenewal::TooOld => {
            "; ask the backend's operator for a code: `spanwatch-sensor enroll CODE` keeps this sensor's name, its \
             key and everything that waits"
        }
        NoRenewal::NotDue | NoRenewal::NotAdmitted | NoRenewal::Internal => "",
    };
    format!("{reason}{clocks}{remedy}")
}

/// A remark when the two clocks differ.
fn clocks(own_unix_s: u64, backend_unix_s: u64) -> String {
    if own_unix_s.abs_diff(backend_unix_s) < CLOCKS_DIFFER_S {
        return String::new();
    }
    let (own, backend) = (utc(own_unix_s), utc(backend_unix_s));
    format!("; this sensor's clock says {own}, the backend's {backend}: one of them is wrong")
}
