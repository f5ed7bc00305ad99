//! The session against a simulated link and backend, on a virtual clock, from a seed. `SPANWATCH_SEED=n` runs one
//! seed only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Action, Session, SessionSettings};
use crate::spool::{Key, Size, SpoolIndex};
use crate::test_records::Random;
use crate::wire::Outcome;

const SMALL: Size = Size { bytes: 1, disk_bytes: 1 };

/// What is under way in the simulated world.
#[derive(Debug)]
enum Event {
    Seal,
    Connected,
    ToBackend(Message),
    Process,
    Held(Vec<u64>),
    Ack(Key, Outcome),
    Lost,
    CutLink,
    RestartBackend,
    RestartSensor,
    Evict,
}

#[derive(Debug)]
enum Message {
    Hello(Vec<u64>),
    Batch(Key),
}

/// The backend's disk and the present connection as it sees it.
#[derive(Debug, Default)]
struct Backend {
    stored: BTreeSet<Key>,
    refused: BTreeSet<Key>,
    /// Handed over and not yet durable, with the connection it came over; a new connection does not empty it.
    queue: VecDeque<(u64, Message)>,
    /// After a Retry: nothing more is taken before the next hello.
    broken: bool,
}

impl Backend {
    fn last(&self, boot_epoch: u64) -> u64 {
        let epoch = Key { boot_epoch, sequence: 0 }..=Key { boot_epoch, sequence: u64::MAX };
        self.stored.range(epoch).next_back().map_or(0, |key| key.sequence)
    }

    fn commit(&mut self, key: Key, random: &mut Random) -> Outcome {
        self.broken |= random.below(40) == 0;
        if self.broken {
            return Outcome::Retry("not now".to_owned());
        }
        if (key.boot_epoch + key.sequence).is_multiple_of(17) {
            self.refused.insert(key);
            return Outcome::Rejected("of no use".to_owned());
        }
        if key.sequence <= self.last(key.boot_epoch) {
            return Outcome::Duplicate;
        }
        assert!(self.stored.insert(key), "{key:?} stored twice");
        Outcome::Stored
    }
}

struct World {
    random: Random,
    now_ms: u64,
    /// By time and order of making.
    events: BTreeMap<(u64, u64), (u64, Event)>,
    made: u64,
    session: Session,
    spool: SpoolIndex,
    /// Marks events of former connections, which must not arrive.
    connection: u64,
    connected: bool,
    /// When the last message to the backend arrives: they stay in order.
    line_busy_until_ms: u64,
    backend: Backend,
    boot_epoch: u64,
    sequence: u64,
    sealed: BTreeSet<Key>,
    acked: BTreeSet<Key>,
    set_aside: BTreeSet<Key>,
    evicted: BTreeSet<Key>,
    evictions: bool,
}

fn session(seed: u64, now_ms: u64) -> Session {
    let settings = SessionSettings {
        in_flight_max: 5,
        backoff_min_ms: 10,
        backoff_max_ms: 2_000,
        connect_timeout_ms: 1_000,
        answer_timeout_ms: 1_000,
        seed,
    };
    Session::new(settings, now_ms)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            now_ms: 0,
            events: BTreeMap::new(),
            made: 0,
            session: session(seed, 0),
            spool: SpoolIndex::default(),
            connection: 0,
            connected: false,
            line_busy_until_ms: 0,
            backend: Backend::default(),
            boot_epoch: 1,
            sequence: 0,
            sealed: BTreeSet::new(),
            acked: BTreeSet::new(),
            set_aside: BTreeSet::new(),
            evicted: BTreeSet::new(),
            evictions: seed.is_multiple_of(3),
        };
        for _ in 0..80 {
            let at = world.random.below(20_000);
            world.at(at, Event::Seal);
        }
        for _ in 0..15 {
            let at = world.random.below(20_000);
            let event = match world.random.below(5) {
                0 | 1 => Event::CutLink,
                2 => Event::RestartBackend,
                3 => Event::RestartSensor,
                _ => Event::Evict,
            };
            world.at(at, event);
        }
        world
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.made += 1;
        self.events.insert((at_ms, self.made), (self.connection, event));
    }

    fn after(&mut self, least_ms: u64, most_ms: u64, event: Event) {
        let delay = least_ms + self.random.below(most_ms - least_ms);
        self.at(self.now_ms + delay, event);
    }

    fn cut(&mut self, tell_sensor: bool) {
        self.connection += 1;
        self.connected = false;
        self.line_busy_until_ms = 0;
        // Sometimes the sensor is told, sometimes it has to find out by itself.
        if tell_sensor && self.random.below(2) == 0 {
            self.after(1, 300, Event::Lost);
        }
    }

    fn handle(&mut self, connection: u64, event: Event) {
        let now_ms = self.now_ms;
        match event {
            Event::Seal => {
                self.sequence += 1;
                let key = Key { boot_epoch: self.boot_epoch, sequence: self.sequence };
                self.spool.insert(key, SMALL, 1);
                self.sealed.insert(key);
            }
            Event::CutLink => self.cut(true),
            Event::RestartBackend => {
                self.backend.queue.clear();
                self.backend.broken = false;
                self.cut(true);
            }
            Event::Process => self.process(),
            Event::RestartSensor => {
                self.cut(false);
                self.boot_epoch += 1;
                self.sequence = 0;
                self.spool.clear_in_flight();
                self.session = session(now_ms, now_ms);
            }
            Event::Evict => {
                if let Some(key) = self.spool.to_evict().filter(|_| self.evictions) {
                    self.spool.remove(key);
                    self.evicted.insert(key);
                }
            }
            _ if connection != self.connection => {}
            Event::Lost => self.lost(),
            Event::Connected => {
                self.connected = true;
                self.session.handle_connected(now_ms, &self.spool);
            }
            Event::ToBackend(message) => {
                self.backend.queue.push_back((connection, message));
                self.after(1, 100, Event::Process);
            }
            Event::Held(held) => self.session.handle_held(now_ms, &held, &self.spool),
            Event::Ack(key, outcome) => self.session.handle_ack(now_ms, key, outcome),
        }
    }

    fn lost(&mut self) {
        self.spool.clear_in_flight();
        self.session.handle_disconnected(self.now_ms);
        self.connection += 1;
        self.connected = false;
    }

    /// The backend does the oldest thing that it was given.
    fn process(&mut self) {
        let Some((connection, message)) = self.backend.queue.pop_front() else { return };
        let answer = match message {
            Message::Hello(epochs) => {
                self.backend.broken = false;
                Event::Held(epochs.iter().map(|epoch| self.backend.last(*epoch)).collect())
            }
            Message::Batch(key) => {
                let outcome = self.backend.commit(key, &mut self.random);
                Event::Ack(key, outcome)
            }
        };
        // Answers go back on streams of their own: in any order, or into a link that is cut before.
        if connection == self.connection {
            self.after(1, 200, answer);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => {
                self.cut(false);
                if self.random.below(4) == 0 {
                    self.after(1, 100, Event::Lost);
                } else {
                    self.after(1, 100, Event::Connected);
                }
            }
            Action::Hello { boot_epochs } => self.send(Message::Hello(boot_epochs)),
            Action::Send(key) => {
                self.spool.set_in_flight(key);
                self.send(Message::Batch(key));
            }
            Action::Remove { key, .. } => {
                if self.spool.remove(key).is_some() {
                    // Refused and its answer lost: the hello covers it.
                    let decided =
                        self.backend.stored.contains(&key) || self.backend.refused.contains(&key);
                    assert!(decided, "{key:?} removed, but not stored");
                    assert!(self.acked.insert(key));
                }
            }
            Action::Reject { key, .. } => {
                if self.spool.remove(key).is_some() {
                    assert!(self.set_aside.insert(key));
                }
            }
            Action::Disconnect { .. } => {
                self.cut(false);
                self.spool.clear_in_flight();
            }
        }
    }

    fn send(&mut self, message: Message) {
        if !self.connected {
            return;
        }
        let arrives = self.line_busy_until_ms.max(self.now_ms) + 1 + self.random.below(40);
        self.line_busy_until_ms = arrives;
        self.at(arrives, Event::ToBackend(message));
    }

    /// Runs until all is quiet and delivered.
    fn run(&mut self) {
        for _ in 0..200_000 {
            while let Some(action) = self.session.poll_action(self.now_ms, &self.spool) {
                self.act(action);
            }
            let next = self.events.first_key_value().map(|(at, _)| *at);
            let timer = self.session.poll_timeout();
            let Some((at_ms, _)) = next else {
                if self.spool.len() == 0 {
                    return;
                }
                self.now_ms = timer.expect("a session with work waits for something");
                self.session.handle_timeout(self.now_ms);
                continue;
            };
            if let Some(timer) = timer.filter(|timer| *timer < at_ms) {
                self.now_ms = timer.max(self.now_ms);
                self.session.handle_timeout(self.now_ms);
                continue;
            }
            let ((at_ms, _), (connection, event)) = self.events.pop_first().expect("just seen");
            self.now_ms = at_ms;
            self.handle(connection, event);
        }
        assert_eq!(self.spool.len(), 0, "still not delivered at {} ms", self.now_ms);
    }
}

#[test]
fn every_sealed_batch_is_stored_once_whatever_the_link_does() {
    let only = std::env::var("SPANWATCH_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = only.map_or(0..400, |seed| seed..seed + 1);
    for seed in seeds {
        let mut world = World::new(seed);
        world.run();
        let name = format!("SPANWATCH_SEED={seed}");
        assert_eq!(world.sealed.len(), 80, "{name}");
        // Each batch left the spool in exactly one way.
        let left = world.acked.len() + world.set_aside.len() + world.evicted.len();
        assert_eq!(left, 80, "{name}");
        // All that was neither refused nor evicted is stored; what was evicted while it was under way may be.
        let refused = &world.backend.refused;
        let stored = &world.backend.stored;
        assert!(stored.is_disjoint(refused), "{name}");
        let must = |key: &&Key| !refused.contains(key) && !world.evicted.contains(key);
        let missing: Vec<&Key> =
            world.sealed.iter().filter(must).filter(|key| !stored.contains(key)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
        assert!(stored.is_subset(&world.sealed), "{name}");
        assert!(world.set_aside.is_subset(refused), "{name}");
    }
}

#[test]
fn the_wait_doubles_up_to_its_bound_and_is_reset_by_an_ack() {
    let spool = {
        let mut spool = SpoolIndex::default();
        spool.insert(Key { boot_epoch: 1, sequence: 1 }, SMALL, 1);
        spool
    };
    let mut session = session(7, 0);
    let mut now_ms = 0;
    let mut wait = |session: &mut Session| {
        assert_eq!(session.poll_action(now_ms, &spool), Some(Action::Connect));
        let wait = session.handle_disconnected(now_ms);
        assert_eq!(session.poll_action(now_ms, &spool), None);
        now_ms += wait;
        wait
    };
    for most in [10, 20, 40, 80, 160, 320, 640, 1280, 2000, 2000] {
        let waited = wait(&mut session);
        assert!((most / 2..=most).contains(&waited), "{waited} of {most}");
    }
    let key = Key { boot_epoch: 1, sequence: 1 };
    assert_eq!(session.poll_action(now_ms, &spool), Some(Action::Connect));
    session.handle_connected(now_ms, &spool);
    let hello = Action::Hello { boot_epochs: vec![1] };
    assert_eq!(session.poll_action(now_ms, &spool), Some(hello));
    session.handle_held(now_ms, &[0], &spool);
    assert_eq!(session.poll_action(now_ms, &spool), Some(Action::Send(key)));
    session.handle_ack(now_ms, key, Outcome::Stored);
    assert!(session.handle_disconnected(now_ms) <= 10);
}

#[test]
fn a_backend_that_never_answers_is_given_up_and_tried_again() {
    let mut spool = SpoolIndex::default();
    spool.insert(Key { boot_epoch: 1, sequence: 1 }, SMALL, 1);
    let mut session = session(7, 0);
    let timed_out = |session: &mut Session, spool: &SpoolIndex, now_ms: u64| {
        session.handle_timeout(now_ms - 1);
        assert_eq!(session.poll_action(now_ms - 1, spool), None);
        session.handle_timeout(now_ms);
        let Some(Action::Disconnect { reason }) = session.poll_action(now_ms, spool) else {
            unreachable!("a wait that is over is a failure")
        };
        let next = session.poll_timeout().expect("it waits");
        assert_eq!(session.poll_action(next, spool), Some(Action::Connect));
        (reason, next)
    };
    assert_eq!(session.poll_action(0, &spool), Some(Action::Connect));
    let (reason, now_ms) = timed_out(&mut session, &spool, 1000);
    assert_eq!(reason, "no connection within 1000 ms");
    session.handle_connected(now_ms, &spool);
    assert!(matches!(session.poll_action(now_ms, &spool), Some(Action::Hello { .. })));
    let (reason, now_ms) = timed_out(&mut session, &spool, now_ms + 1000);
    assert_eq!(reason, "no answer to the hello within 1000 ms");
    session.handle_connected(now_ms, &spool);
    assert!(matches!(session.poll_action(now_ms, &spool), Some(Action::Hello { .. })));
    session.handle_held(now_ms, &[0], &spool);
    assert!(matches!(session.poll_action(now_ms, &spool), Some(Action::Send(_))));
    let (reason, _) = timed_out(&mut session, &spool, now_ms + 1000);
    assert_eq!(reason, "no ack within 1000 ms");
}

#[test]
fn attempts_at_a_connection_are_short_at_first_and_longer_later() {
    let spool = SpoolIndex::default();
    let settings = SessionSettings {
        in_flight_max: 1,
        backoff_min_ms: 10,
        backoff_max_ms: 20,
        connect_timeout_ms: 3_000,
        answer_timeout_ms: 20_000,
        seed: 7,
    };
    let mut session = Session::new(settings, 0);
    let mut now_ms = 0;
    for expected_ms in [3_000, 6_000, 12_000, 20_000, 20_000] {
        assert_eq!(session.poll_action(now_ms, &spool), Some(Action::Connect));
        let until_ms = session.poll_timeout().expect("an attempt has an end");
        assert_eq!(until_ms - now_ms, expected_ms);
        session.handle_timeout(until_ms);
        let reason = format!("no connection within {expected_ms} ms");
        assert_eq!(session.poll_action(until_ms, &spool), Some(Action::Disconnect { reason }));
        now_ms = session.poll_timeout().expect("it waits");
    }
}
