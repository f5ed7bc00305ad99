//! Takes one enrolment connection; gives a certificate for a one-time code. Never reads more than one bounded
//! message from a peer that nobody knows yet, and never says more about a code than its owner needs.

use quinn::Connection;
use tokio::time::timeout;

use super::Backend;
use crate::authority::{from_now, requested_key};
use crate::card::hex;
use crate::code::secret_hash;
use crate::intake::{Certified, Intake, RedeemError};
use crate::wire::{self, Close, ENROLMENT_BYTES_MAX, Issued, Refusal};
use crate::{MemberId, SensorId};

/// Serves one connection: one request, one answer.
pub(super) async fn run<I: Intake>(backend: &Backend<I>, connection: &Connection) {
    let remote = connection.remote_address();
    let close = match timeout(backend.step_timeout(), exchange(backend, connection)).await {
        Ok(close) => close,
        Err(_elapsed) => {
            backend.totals.enrolments_failed.add(1);
            tracing::info!(%remote, "enrolment took too long");
            Close::Protocol
        }
    };
    close.close(connection);
}

async fn exchange<I: Intake>(backend: &Backend<I>, connection: &Connection) -> Close {
    let Ok((mut answer_stream, mut stream)) = connection.accept_bi().await else {
        return Close::Done;
    };
    let remote = connection.remote_address();
    let answer = match stream.read_to_end(ENROLMENT_BYTES_MAX).await {
        Ok(bytes) => enrol(backend, connection, &bytes).await,
        Err(error) => Err((Refusal::BadRequest, error.to_string())),
    };
    match &answer {
        Ok(issued) => {
            backend.totals.enrolled.add(1);
            tracing::info!(%remote, sensor = %issued.sensor, "sensor enrolled");
        }
        Err((refusal, reason)) => {
            let counter = match refusal {
                Refusal::Code => &backend.totals.enrolments_refused,
                Refusal::TooManyTries => &backend.totals.enrolments_limited,
                Refusal::BadRequest | Refusal::Internal => &backend.totals.enrolments_failed,
            };
            counter.add(1);
            tracing::warn!(%remote, ?refusal, reason, "enrolment refused");
        }
    }
    // The log has the inner cause; a stranger gets only the kind of refusal.
    let answer = answer.map_err(|(refusal, reason)| match refusal {
        Refusal::Internal => (refusal, "the backend's log has the cause".to_owned()),
        Refusal::Code => (refusal, "this code is not accepted".to_owned()),
        Refusal::TooManyTries | Refusal::BadRequest => (refusal, reason),
    });
    let sent = answer_stream.write_all(&wire::enrol_answer(&answer)).await;
    if sent.is_ok() && answer_stream.finish().is_ok() {
        // Until the sensor has it all; it closes the connection then.
        let _reason = connection.closed().await;
    }
    Close::Done
}

async fn enrol<I: Intake>(
    backend: &Backend<I>,
    connection: &Connection,
    bytes: &[u8],
) -> Result<Issued, (Refusal, String)> {
    let source = connection.remote_address().ip();
    let now_ms = backend.elapsed_ms();
    if let Err(wait_ms) = backend.wrong_codes.handle_try(source, now_ms) {
        let reason =
            format!("too many codes that were not accepted; wait {} s", wait_ms / 1000 + 1);
        return Err((Refusal::TooManyTries, reason));
    }
    let redeemed = redeem(backend, connection, bytes).await;
    // Whatever is wrong with a code, it counts as a guess.
    if !matches!(redeemed, Err((Refusal::Code, _))) {
        backend.wrong_codes.handle_right(source);
    }
    let (public_key, member, sensor) = redeemed?;
    let authority = &backend.options.authority;
    let validity = from_now(backend.options.certificate_lifetime);
    let issued = authority
        .certify(&public_key, &member, &sensor, validity)
        .map_err(|error| (Refusal::Internal, error.to_string()))?;
    let certified = Certified { validity: issued.validity, is_renewal: false };
    backend.intake.certified(&sensor, certified).await;
    let authority_pem = authority.authority_pem().to_owned();
    Ok(Issued { member, sensor, certificate_pem: issued.pem, authority_pem })
}

/// Exchanges the code of a request for names, and gives the key that has asked; what is wrong with a code looks the
/// same from outside.
async fn redeem<I: Intake>(
    backend: &Backend<I>,
    connection: &Connection,
    bytes: &[u8],
) -> Result<([u8; 32], MemberId, SensorId), (Refusal, String)> {
    let request =
        wire::read_enrol(bytes).map_err(|error| (Refusal::BadRequest, error.to_string()))?;
    // Before the code is used up.
    let public_key = requested_key(request.request_der)
        .map_err(|error| (Refusal::BadRequest, error.to_string()))?;
    let secret_hash = secret_hash(&request.secret);
    match backend.intake.redeem(secret_hash, public_key).await {
        Ok((member, sensor)) => Ok((public_key, member, sensor)),
        Err(error @ RedeemError::Internal(_)) => Err((Refusal::Internal, error.to_string())),
        Err(error) => {
            let remote = connection.remote_address();
            backend.intake.enrolment_refused(remote, secret_hash, &error).await;
            // The beginning of the hash tells codes apart, and says nothing about them.
            let reason = format!("{error}, whose hash begins {}", hex(&secret_hash[..4]));
            Err((Refusal::Code, reason))
        }
    }
}
