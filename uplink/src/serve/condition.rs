//! Takes what a connected sensor tells of itself; gives it to the intake, with what only this end knows: how far the
//! clocks are apart. Never more often than once a second, whatever the sensor sends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::Connection;
use tokio::time::{sleep, timeout};

use super::Backend;
use crate::health::{self, HEALTH_BYTES_MAX};
use crate::intake::Intake;
use crate::wire::Close;
use crate::{HealthReport, Peer};

const PERIOD_MIN: Duration = Duration::from_secs(1);

/// Reads one message after another until the connection ends.
pub(super) async fn listen<I: Intake>(
    backend: &Backend<I>,
    connection: &Connection,
    peer: &Peer,
) -> Close {
    loop {
        let Ok(mut stream) = connection.accept_uni().await else {
            // The session ends by itself, and knows better why; what has arrived may still be committed.
            return std::future::pending().await;
        };
        let read = timeout(backend.step_timeout(), stream.read_to_end(HEALTH_BYTES_MAX)).await;
        let problem = match read {
            Ok(Ok(bytes)) => match health::read(&bytes) {
                Ok(health) => {
                    backend.totals.health_reports.add(1);
                    backend.intake.health(peer, report(health, connection)).await;
                    // Until then the sensor has no stream for the next one.
                    sleep(PERIOD_MIN).await;
                    continue;
                }
                Err(error) => error.to_string(),
            },
            Ok(Err(_lost)) if connection.close_reason().is_some() => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "the sensor paused within a message".to_owned(),
        };
        backend.totals.streams_broken.add(1);
        tracing::info!(sensor = %peer.sensor, problem, "what the sensor tells of itself was not received");
        return Close::Protocol;
    }
}

fn report(health: crate::Health, connection: &Connection) -> HealthReport {
    let round_trip_us = u64::try_from(connection.rtt().as_micros()).ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let now_ms = now.and_then(|now| u64::try_from(now.as_millis()).ok());
    let clock_offset_ms = health
        .clock_ms
        .zip(now_ms)
        .map(|(theirs, ours)| health::clock_offset_ms(theirs, ours, round_trip_us.unwrap_or(0)));
    HealthReport { health, clock_offset_ms, round_trip_us }
}
