//! Takes the delivery connections that are open; gives the one of a sensor, so that a second one, a renewal or a revocation
//! can change or end it. Never more entries than connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::Connection;
use tokio::sync::watch;

use crate::SensorId;
use crate::certificate::{Validity, now_unix_s};
use crate::wire::Close;

/// The clock is looked at again after this long: it may have been set.
const LOOK: Duration = Duration::from_hours(1);

/// The present connection of each sensor.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<HashMap<SensorId, Held>>);

#[derive(Debug)]
struct Held {
    connection: Connection,
    validity: watch::Sender<Validity>,
}

impl Connections {
    fn map(&self) -> MutexGuard<'_, HashMap<SensorId, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a connection; the one before it, if any, is closed: a sensor has one. Gives how long its certificate is
    /// valid, which a renewal prolongs.
    pub(super) fn enter(
        &self,
        sensor: &SensorId,
        connection: &Connection,
        validity: Validity,
    ) -> watch::Receiver<Validity> {
        let (validity, receiver) = watch::channel(validity);
        let held = Held { connection: connection.clone(), validity };
        if let Some(old) = self.map().insert(sensor.clone(), held) {
            let old = old.connection;
            tracing::info!(%sensor, remote = %old.remote_address(), "connection replaced");
            Close::Replaced.close(&old);
        }
        receiver
    }

    pub(super) fn leave(&self, sensor: &SensorId, connection: &Connection) {
        if let Entry::Occupied(held) = self.map().entry(sensor.clone())
            && held.get().connection.stable_id() == connection.stable_id()
        {
            held.remove();
        }
    }

    /// The sensor has another certificate: its connection may last as long as that one.
    pub(super) fn renewed(&self, sensor: &SensorId, validity: Validity) {
        if let Some(held) = self.map().get(sensor) {
            held.validity.send_replace(validity);
        }
    }

    /// Closes the connections of these sensors; gives how many there were.
    pub(super) fn close(&self, revoked: &[SensorId]) -> u64 {
        let mut map = self.map();
        let mut closed = 0;
        for sensor in revoked {
            if let Some(held) = map.remove(sensor) {
                let remote = held.connection.remote_address();
                tracing::warn!(%sensor, %remote, "sensor revoked: its connection is closed");
                // What has arrived is judged once more, and refused, before the session ends.
                Close::NotAdmitted.close(&held.connection);
                closed += 1;
            }
        }
        closed
    }
}

/// Resolves when the certificate is over, by this machine's clock.
pub(super) async fn over(mut validity: watch::Receiver<Validity>) {
    loop {
        let now = *validity.borrow_and_update();
        if now.is_over(now_unix_s()) {
            return;
        }
        let left = Duration::from_secs(now.left_s(now_unix_s()).saturating_add(1));
        tokio::select! {
            () = tokio::time::sleep(left.min(LOOK)) => {}
            changed = validity.changed() => {
                // Without its other half there is no renewal any more; the end stays the same.
                if changed.is_err() {
                    tokio::time::sleep(left.min(LOOK)).await;
                }
            }
        }
    }
}
