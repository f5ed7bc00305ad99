//! Takes one connection of a sensor that asks for another certificate; gives one for the same key. Never takes a name
//! or a key from anything but the certificate of the connection, and never asks a revoked sensor anything.

use quinn::Connection;
use tokio::time::timeout;

use super::Backend;
use crate::authority::from_now;
use crate::certificate::{PeerCertificate, now_unix_s, utc};
use crate::intake::{Certified, Intake};
use crate::renew::messages::{self, Answer, NoRenewal, RENEW_BYTES};
use crate::wire::Close;

/// Clocks that differ by more are told in the log.
const CLOCKS_DIFFER_S: u64 = 300;

/// Serves one connection: one request, one answer. The certificate is one of this backend's authority, which may be
/// over.
pub(super) async fn run<I: Intake>(
    backend: &Backend<I>,
    connection: &Connection,
    certificate: &PeerCertificate,
) {
    let close =
        match timeout(backend.step_timeout(), exchange(backend, connection, certificate)).await {
            Ok(close) => close,
            Err(_elapsed) => {
                let (remote, sensor) = (connection.remote_address(), &certificate.peer.sensor);
                tracing::info!(%remote, %sensor, "renewal took too long");
                Close::Protocol
            }
        };
    close.close(connection);
}

async fn exchange<I: Intake>(
    backend: &Backend<I>,
    connection: &Connection,
    certificate: &PeerCertificate,
) -> Close {
    let (remote, sensor) = (connection.remote_address(), &certificate.peer.sensor);
    let Ok((mut answer_stream, mut stream)) = connection.accept_bi().await else {
        return Close::Done;
    };
    let Ok(bytes) = stream.read_to_end(RENEW_BYTES).await else { return Close::Protocol };
    let clock_unix_s = match messages::read_renew(&bytes) {
        Ok(clock_unix_s) => clock_unix_s,
        Err(error) => {
            tracing::warn!(%remote, %sensor, %error, "not a renewal");
            return Close::Protocol;
        }
    };
    let now_unix_s = now_unix_s();
    if clock_unix_s.abs_diff(now_unix_s) > CLOCKS_DIFFER_S {
        let (its_clock, own_clock) = (utc(clock_unix_s), utc(now_unix_s));
        tracing::warn!(%remote, %sensor, its_clock, own_clock, "a sensor's clock differs");
    }
    let result = renew(backend, certificate, now_unix_s).await;
    match &result {
        Ok(_) => {
            backend.totals.renewed.add(1);
            tracing::info!(%remote, %sensor, "certificate renewed");
        }
        Err((status, reason)) => {
            backend.totals.renewals_refused.add(1);
            tracing::warn!(%remote, %sensor, ?status, reason, "renewal refused");
        }
    }
    let answer = messages::answer(&Answer { clock_unix_s: now_unix_s, result });
    let sent = answer_stream.write_all(&answer).await;
    if sent.is_ok() && answer_stream.finish().is_ok() {
        // Until the sensor has it all; it closes the connection then.
        let _reason = connection.closed().await;
    }
    Close::Done
}

async fn renew<I: Intake>(
    backend: &Backend<I>,
    certificate: &PeerCertificate,
    now_unix_s: u64,
) -> Result<String, (NoRenewal, String)> {
    let PeerCertificate { peer, validity } = certificate;
    let internal = || (NoRenewal::Internal, "the backend's log has the cause".to_owned());
    match backend.intake.admitted(peer).await {
        Ok(true) => {}
        Ok(false) => {
            backend.totals.peers_not_admitted.add(1);
            return Err((NoRenewal::NotAdmitted, Close::NotAdmitted.reason().to_owned()));
        }
        Err(error) => {
            tracing::error!(sensor = %peer.sensor, %error, "cannot tell whether it is admitted");
            return Err(internal());
        }
    }
    let ends = utc(validity.ends_unix_s);
    if validity.left_s(now_unix_s) > validity.life_s() / 2 {
        let reason = format!("it is too early: the certificate ends {ends}");
        return Err((NoRenewal::NotDue, reason));
    }
    let grace_s = backend.options.renewal_grace.as_secs();
    if now_unix_s > validity.ends_unix_s.saturating_add(grace_s) {
        let days = grace_s / 86_400;
        let reason = format!("it ended {ends}, longer ago than the {days} days of grace");
        return Err((NoRenewal::TooOld, reason));
    }
    let lifetime = from_now(backend.options.certificate_lifetime);
    let issued = backend
        .options
        .authority
        .certify(&peer.public_key, &peer.member, &peer.sensor, lifetime)
        .map_err(|error| {
            tracing::error!(sensor = %peer.sensor, %error, "no certificate could be made");
            internal()
        })?;
    let certified = Certified { validity: issued.validity, is_renewal: true };
    backend.intake.certified(&peer.sensor, certified).await;
    backend.connections.renewed(&peer.sensor, issued.validity);
    Ok(issued.pem)
}
