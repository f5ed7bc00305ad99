//! A virtual clock, a link that loses, delays, overtakes and repeats, and the two ends on it. One seed decides
//! everything.

use std::collections::{BTreeMap, BTreeSet};

use super::backend::{Answer, Backend, Message};
use super::disk::SimulatedDisk;
use super::sensor::Sensor;
use super::{Broken, Figures};
use crate::session::{Action, Cause};
use crate::spool::Key;
use crate::test_records::Random;

/// Faults end then, and everything has to be delivered.
const FAULTS_MS: u64 = 20_000;
const STEPS_MAX: u64 = 100_000;
/// What a simulated file takes.
const BLOCK_BYTES: u64 = 512;

/// What is under way.
#[derive(Debug)]
enum Event {
    Seal,
    /// The link carries nothing until then.
    Partition {
        until_ms: u64,
    },
    /// The connection is lost; either end may be told.
    Cut,
    SensorDies,
    /// Power is lost at one of the next operations of the sensor's disk.
    SensorDiesSoon {
        operations: u64,
    },
    SensorStarts,
    BackendDies,
    BackendStarts,
    SensorDisk {
        full: bool,
    },
    BackendDisk {
        full: bool,
    },
    /// The box slept.
    ClockJump {
        by_ms: u64,
    },
    /// Somebody set its clock.
    WallClock {
        to_ms: u64,
    },
    Collect,
    Commit,
    Connected(u64),
    ToBackend(u64, Message),
    ToSensor(u64, Answer),
    /// The sensor is told that its connection is gone.
    Lost(u64, Cause),
    /// The backend is.
    BackendLost(u64),
}

#[expect(clippy::struct_excessive_bools, reason = "each is a state of its own part of the world")]
pub(super) struct World {
    random: Random,
    now_ms: u64,
    /// Added to the sensor's clock of timers.
    slept_ms: u64,
    wall_ms: u64,
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
    sensor: Sensor,
    backend: Backend,
    backend_is_up: bool,
    broken: Option<Broken>,
    /// Each connection has a number; messages of former ones do not arrive.
    connection: u64,
    connected: bool,
    streams: u64,
    partition_until_ms: u64,
    collecting: bool,
    committing: bool,
    /// Longest time that a commit takes.
    commit_ms: u64,
    /// Handed to the link at least once: what is evicted after that may be stored all the same.
    sent: BTreeSet<Key>,
    figures: Figures,
}

impl World {
    pub(super) fn new(seed: u64, broken: Option<Broken>) -> Self {
        let mut random = Random(seed);
        let bad_sectors = (random.below(3) == 0).then(|| 10 + random.below(40));
        let failures = (random.below(3) == 0).then(|| 2 + random.below(10));
        let lies = broken == Some(Broken::DiskLies);
        let disk = SimulatedDisk::new(random.next(), bad_sectors, lies);
        // A third of the worlds has a spool that fills up.
        let batches = if random.below(3) == 0 { 3 + random.below(12) } else { 1_000 };
        let sensor = Sensor::new(disk, batches * BLOCK_BYTES * 2, seed);
        let mut world = Self {
            random,
            now_ms: 0,
            slept_ms: 0,
            wall_ms: 1_000_000,
            events: BTreeMap::new(),
            made: 0,
            sensor,
            backend: Backend::new(broken, failures),
            backend_is_up: true,
            broken,
            connection: 0,
            connected: false,
            streams: 0,
            partition_until_ms: 0,
            collecting: false,
            committing: false,
            commit_ms: 200,
            sent: BTreeSet::new(),
            figures: Figures::default(),
        };
        world.backend.forgetful = world.random.below(6) == 0;
        world.backend.queue_max = 1 + usize::try_from(world.random.below(4)).unwrap_or(0);
        world.commit_ms = if world.random.below(3) == 0 { 1_500 } else { 200 };
        world.at(0, Event::SensorStarts);
        for _ in 0..20 + world.random.below(30) {
            let at = world.random.below(FAULTS_MS);
            world.at(at, Event::Seal);
        }
        for _ in 0..world.random.below(14) {
            let at = world.random.below(FAULTS_MS);
            let fault = world.fault(at);
            world.at(at, fault);
        }
        world
    }

    fn fault(&mut self, at: u64) -> Event {
        let random = &mut self.random;
        match random.below(11) {
            0 => Event::Partition { until_ms: at + random.below(5_000) },
            1 | 2 => Event::Cut,
            3 => Event::SensorDies,
            4 | 5 => Event::SensorDiesSoon { operations: random.below(40) },
            6 => Event::BackendDies,
            7 => Event::SensorDisk { full: random.below(3) > 0 },
            8 => Event::BackendDisk { full: random.below(3) > 0 },
            9 => Event::ClockJump { by_ms: random.below(100_000) },
            _ => Event::WallClock { to_ms: random.below(40) * 500_000 },
        }
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.made += 1;
        self.events.insert((at_ms, self.made), event);
    }

    fn after(&mut self, least_ms: u64, most_ms: u64, event: Event) {
        let delay = least_ms + self.random.below(most_ms - least_ms);
        self.at(self.now_ms + delay, event);
    }

    fn timer_ms(&self) -> u64 {
        self.now_ms + self.slept_ms
    }

    /// Sends something over the link: after a while, sometimes a long one, sometimes twice. What is lost is sent again
    /// by QUIC, and so only late; in which order messages arrive is by chance.
    fn post(&mut self, make: impl Fn() -> Event) {
        let copies = if self.random.below(20) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = 1 + self.random.below(60);
            if self.random.below(10) == 0 {
                delay += self.random.below(900);
            }
            let from = self.now_ms.max(self.partition_until_ms);
            self.at(from + delay, make());
        }
    }

    /// The connection ends: nothing of it arrives any more. Either end may be told, or has to find out.
    fn cut(&mut self) {
        if self.connected {
            self.figures.cuts += 1;
        }
        let number = self.connection;
        self.connected = false;
        self.connection += 1;
        if self.random.below(2) == 0 {
            let cause = if self.random.below(2) == 0 { Cause::Unreachable } else { Cause::Refused };
            self.after(1, 300, Event::Lost(number, cause));
        }
        if self.random.below(2) == 0 {
            self.after(1, 2_000, Event::BackendLost(number));
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        let faults_are_over = self.now_ms >= FAULTS_MS;
        match event {
            Event::Seal => {
                self.sensor.pending += 1;
                self.sensor.seal();
            }
            Event::Partition { until_ms } => self.partition_until_ms = until_ms,
            Event::Cut => self.cut(),
            Event::SensorDies => self.sensor_dies(),
            Event::SensorDiesSoon { operations } => self.sensor.disk.die_in(operations),
            Event::SensorStarts => {
                self.sensor.start(self.timer_ms(), self.wall_ms)?;
                if self.sensor.spool.is_none() {
                    self.after(1, 200, Event::SensorStarts);
                }
                self.sensor.seal();
            }
            Event::BackendDies => {
                self.cut();
                self.figures.backend_restarts += 1;
                self.backend_is_up = false;
                self.backend.restart(&mut self.random);
                self.after(1, 1_500, Event::BackendStarts);
            }
            Event::BackendStarts => self.backend_is_up = true,
            Event::SensorDisk { full } => self.sensor.disk.set_full(full && !faults_are_over),
            Event::BackendDisk { full } => self.backend.disk_is_full = full && !faults_are_over,
            Event::ClockJump { by_ms } => self.slept_ms += by_ms,
            Event::WallClock { to_ms } => self.wall_ms = to_ms,
            Event::Collect => {
                self.collecting = false;
                if self.backend_is_up {
                    self.backend.collect(&mut self.random);
                }
            }
            Event::Commit => {
                self.committing = false;
                if self.backend_is_up {
                    self.backend.handle_committed(&mut self.random);
                }
            }
            Event::BackendLost(number) if self.backend_is_up => self.backend.handle_lost(number),
            Event::ToBackend(number, message)
                if number == self.connection && self.connected && self.backend_is_up =>
            {
                self.backend.handle_message(number, message);
            }
            Event::Connected(number)
                if number == self.connection && !self.connected && self.backend_is_up =>
            {
                self.connected = true;
                self.streams = 0;
                let now_ms = self.timer_ms();
                if let Some(spool) = &self.sensor.spool {
                    self.sensor.session.handle_connected(now_ms, &spool.index());
                }
            }
            Event::ToSensor(number, answer) if number == self.connection && self.connected => {
                self.answer(answer);
            }
            // The very connection, or the attempt that came after it, is the one that is gone.
            Event::Lost(number, cause) if number + 1 == self.connection && !self.connected => {
                self.disconnected(cause);
            }
            _ => {}
        }
        Ok(())
    }

    fn sensor_dies(&mut self) {
        if self.sensor.spool.take().is_some() {
            self.figures.sensor_restarts += 1;
            self.cut();
            self.sensor.pending = 0;
            self.sensor.disk.restart();
            self.after(1, 1_000, Event::SensorStarts);
        }
    }

    fn disconnected(&mut self, cause: Cause) {
        let now_ms = self.timer_ms();
        if let Some(spool) = &self.sensor.spool {
            spool.index().clear_in_flight();
            self.sensor.session.handle_disconnected(now_ms, cause);
        }
    }

    fn answer(&mut self, answer: Answer) {
        let now_ms = self.timer_ms();
        match answer {
            Answer::Held(held) => self.sensor.session.handle_held(now_ms, &held),
            Answer::Ack(key, outcome) => self.sensor.session.handle_ack(now_ms, key, outcome),
            Answer::Close => {
                self.cut();
                self.disconnected(Cause::Refused);
            }
        }
    }

    /// Does everything that the sensor wants done now.
    fn act(&mut self) -> Result<(), String> {
        loop {
            if self.sensor.disk.is_dead() {
                self.sensor_dies();
            }
            let now_ms = self.timer_ms();
            let Some(spool) = &self.sensor.spool else { return Ok(()) };
            let Some(action) = self.sensor.session.poll_action(now_ms, &spool.index()) else {
                return Ok(());
            };
            match action {
                Action::Connect => {
                    self.connected = false;
                    self.connection += 1;
                    let number = self.connection;
                    self.figures.connections += 1;
                    if self.random.below(4) == 0 {
                        // Looks like the end of the attempt before.
                        self.after(1, 100, Event::Lost(number - 1, Cause::Unreachable));
                    } else {
                        self.post(|| Event::Connected(number));
                    }
                }
                Action::Hello { boot_epochs } => {
                    let number = self.connection;
                    self.post(|| Event::ToBackend(number, Message::Hello(boot_epochs.clone())));
                }
                Action::Send(key) => self.send(key),
                Action::Remove { key, .. } => self.remove(key)?,
                Action::Reject { key, .. } => {
                    if !self.backend.refused.contains(&key) {
                        return Err(format!("{key:?} set aside, but not refused"));
                    }
                    if spool.reject(key).is_err() && !self.sensor.disk.is_dead() {
                        // It stays, and is offered again over the next connection.
                        self.figures.disk_errors += 1;
                    }
                }
                Action::Disconnect { .. } => {
                    spool.index().clear_in_flight();
                    self.cut();
                }
            }
        }
    }

    fn send(&mut self, key: Key) {
        let Some(spool) = &self.sensor.spool else { return };
        spool.index().set_in_flight(key);
        if spool.read(key).is_err() {
            // Evicted since, or power is lost.
            self.sensor.session.handle_missing(key);
            return;
        }
        if self.broken == Some(Broken::RemovesBeforeAck) {
            drop(spool.acknowledged(key));
        }
        self.sent.insert(key);
        let (number, stream) = (self.connection, self.streams);
        self.streams += 1;
        self.post(|| Event::ToBackend(number, Message::Batch(stream, key)));
    }

    fn remove(&mut self, key: Key) -> Result<(), String> {
        let Some(spool) = &self.sensor.spool else { return Ok(()) };
        // Refused and its answer lost: the hello covers it.
        let decided = self.backend.stored.contains(&key) || self.backend.refused.contains(&key);
        let removed = spool.acknowledged(key);
        if removed.is_ok_and(|entry| entry.is_some()) && !decided {
            return Err(format!("{key:?} is removed, but not stored"));
        }
        Ok(())
    }

    /// Runs until all is quiet and delivered.
    pub(super) fn run(mut self) -> Result<Figures, String> {
        let mut healed = false;
        for _ in 0..STEPS_MAX {
            self.figures.steps += 1;
            if !healed && self.now_ms >= FAULTS_MS {
                healed = true;
                self.sensor.disk.heal();
                self.backend.disk_is_full = false;
                self.backend.fails_one_in = None;
                self.sensor.seal();
            }
            self.act()?;
            self.move_backend();
            if let Some(fault) = self.backend.fault.take() {
                return Err(fault);
            }
            let next = self.events.first_key_value().map(|((at_ms, _), _)| *at_ms);
            let timer = self.sensor.spool.is_some().then(|| self.sensor.session.poll_timeout());
            let timer = timer.flatten().map(|at_ms| at_ms.saturating_sub(self.slept_ms));
            if healed && next.is_none() && self.is_delivered() {
                return self.judged();
            }
            match (next, timer) {
                (Some(at_ms), timer) if timer.is_none_or(|timer| at_ms <= timer) => {
                    let Some(((at_ms, _), event)) = self.events.pop_first() else { continue };
                    self.now_ms = self.now_ms.max(at_ms);
                    self.handle(event)?;
                }
                (_, Some(timer)) => {
                    self.now_ms = self.now_ms.max(timer);
                    let now_ms = self.timer_ms();
                    self.sensor.session.handle_timeout(now_ms);
                }
                (None, None) if !healed => self.now_ms = FAULTS_MS,
                _ => return Err(format!("at {} ms nothing goes on", self.now_ms)),
            }
        }
        let waiting = self.sensor.spool.as_ref().map(|spool| spool.index().len());
        Err(format!("at {} ms {waiting:?} batches still wait", self.now_ms))
    }

    /// Lets the store work, and its answers go back.
    fn move_backend(&mut self) {
        for (number, answer) in std::mem::take(&mut self.backend.answers) {
            self.post(|| Event::ToSensor(number, answer.clone()));
        }
        if !self.backend_is_up || !self.backend.is_busy() {
            return;
        }
        if self.backend.is_writing() {
            if !self.committing {
                self.committing = true;
                self.after(1, self.commit_ms, Event::Commit);
            }
        } else if !self.collecting {
            self.collecting = true;
            self.after(1, 60, Event::Collect);
        }
    }

    fn is_delivered(&self) -> bool {
        let waits = |spool: &crate::spool::Spool| spool.index().len() > 0;
        !self.backend.is_busy() && self.sensor.spool.as_ref().is_some_and(|spool| !waits(spool))
    }

    /// The set stored is the set sealed, but for what was refused or given up.
    fn judged(self) -> Result<Figures, String> {
        let Self { sensor, backend, sent, .. } = &self;
        let settled = |key: &Key| {
            [&backend.stored, &backend.refused, &sensor.evicted].iter().any(|set| set.contains(key))
        };
        if let Some(lost) = sensor.sealed.iter().find(|key| !settled(key)) {
            return Err(format!("{lost:?} is lost"));
        }
        if let Some(odd) = backend.stored.difference(&sensor.sealed).next() {
            return Err(format!("{odd:?} is stored, but was not sealed"));
        }
        if !backend.stored.is_disjoint(&backend.refused) {
            return Err("something is both stored and refused".to_owned());
        }
        // What was on its way when it was given up may have arrived; nothing else.
        let unsure = |key: &&Key| backend.stored.contains(key) && !sent.contains(key);
        if let Some(odd) = sensor.evicted.iter().find(unsure) {
            return Err(format!("{odd:?} is evicted and stored, but was never sent"));
        }
        let told = sensor.spool.as_ref().and_then(|spool| spool.evictions().batches);
        if told != Some(sensor.evicted.len() as u64) {
            return Err(format!("{} were evicted, counted are {told:?}", sensor.evicted.len()));
        }
        Ok(Figures {
            evicted_and_stored: backend.stored.intersection(&sensor.evicted).count() as u64,
            sealed: sensor.sealed.len() as u64,
            stored: backend.stored.len() as u64,
            refused: backend.refused.len() as u64,
            evicted: sensor.evicted.len() as u64,
            disk_operations: sensor.disk.operations(),
            ..self.figures
        })
    }
}
