//! Takes the delivery connections that are open; gives the one of a sensor, so that a second one, a renewal or a
//! revocation can change or end it. Never more entries than connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// Held by the one connection of the sensor that hands batches over.
    turn: Arc<Turn>,
    validity: watch::Sender<Validity>,
}

pub(super) type Turn = tokio::sync::Mutex<()>;

impl Connections {
    fn map(&self) -> MutexGuard<'_, HashMap<SensorId, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a connection; the one before it, if any, is closed: a sensor has one. Gives what the new one must wait
    /// for, because a batch that the former one still hands over could be stored in front of one that was handed back;
    /// and how long its certificate is valid, which a renewal prolongs.
    pub(super) fn enter(
        &self,
        sensor: &SensorId,
        connection: &Connection,
        validity: Validity,
    ) -> (Arc<Turn>, watch::Receiver<Validity>) {
        let (validity, receiver) = watch::channel(validity);
        let connection = connection.clone();
        let turn = match self.map().entry(sensor.clone()) {
            Entry::Vacant(free) => {
                let turn = Arc::<Turn>::default();
                free.insert(Held { connection, turn: Arc::clone(&turn), validity });
                turn
            }
            Entry::Occupied(mut held) => {
                let held = held.get_mut();
                let old = std::mem::replace(&mut held.connection, connection);
                held.validity = validity;
                tracing::info!(%sensor, remote = %old.remote_address(), "connection replaced");
                Close::Replaced.close(&old);
                Arc::clone(&held.turn)
            }
        };
        (turn, receiver)
    }

    /// Forgets the sensor, unless another connection of it is open or still hands batches over.
    pub(super) fn leave(&self, sensor: &SensorId, connection: &Connection, turn: &Arc<Turn>) {
        let mut map = self.map();
        let is_over = |held: &Held| {
            let is_own = held.connection.stable_id() == connection.stable_id();
            is_own || held.connection.close_reason().is_some()
        };
        // The map's and this connection's own.
        if Arc::strong_count(turn) <= 2 && map.get(sensor).is_some_and(is_over) {
            map.remove(sensor);
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
        let map = self.map();
        let mut closed = 0;
        for sensor in revoked {
            if let Some(held) = map.get(sensor)
                && held.connection.close_reason().is_none()
            {
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
