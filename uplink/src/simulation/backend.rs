//! The backend of the simulated world: the real [`Reception`] of each connection and the real [`Ledger`], around a
//! store that commits in groups, fails, and loses what was not committed. The order of things is that of the shells:
//! `serve::delivery` and the backend's writer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Broken;
use crate::ledger::{Judgement, Ledger, Session};
use crate::session::reception::{Deed, Reception, ReceptionSettings};
use crate::spool::Key;
use crate::test_records::Random;
use crate::wire::{EPOCHS_MAX, Outcome};

const SETTINGS: ReceptionSettings =
    ReceptionSettings { group_batches: 5, group_records: 100, queue_batches: 64 };
/// What is sent to the backend on a stream.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Hello(Vec<u64>),
    /// Number of the stream among those of batches.
    Batch(u64, Key),
}

/// What it sends back.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Held(Vec<u64>),
    Ack(Key, Outcome),
    Close,
}

/// One connection, as the backend sees it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they come about independently")]
struct Connection {
    number: u64,
    reception: Reception,
    /// What arrived before its turn.
    early: Vec<Message>,
    has_turn: bool,
    /// Neither the sensor nor a newer connection has ended it.
    is_open: bool,
    is_closed_here: bool,
    /// Of the present group: handed to the store or not, and what became of it.
    group: Vec<(Key, Option<Outcome>)>,
    /// How many of the group the store has room for so far.
    handed: usize,
    looks: Option<Vec<u64>>,
    greeted: bool,
    /// By the number of their stream.
    keys: BTreeMap<u64, Key>,
}

#[derive(Debug)]
enum Request {
    Look { connection: u64, boot_epochs: Vec<u64> },
    Commit { connection: u64, at: usize, key: Key },
}

/// A group that is being written.
#[derive(Debug, Default)]
struct Group {
    new: Vec<(u64, usize, Key)>,
    repeated: Vec<(u64, usize)>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) stored: BTreeSet<Key>,
    pub(super) refused: BTreeSet<Key>,
    connections: BTreeMap<u64, Connection>,
    queue: VecDeque<Request>,
    ledger: Ledger,
    group: Option<Group>,
    session: String,
    broken: Option<Broken>,
    pub(super) fails_one_in: Option<u64>,
    /// Greets as if the sensor had not asked for its boot epochs, as happens to those beyond the 64th: what is stored
    /// comes again.
    pub(super) forgetful: bool,
    /// Requests that the store takes before it has worked on them.
    pub(super) queue_max: usize,
    pub(super) disk_is_full: bool,
    /// What goes back, by connection.
    pub(super) answers: Vec<(u64, Answer)>,
    pub(super) fault: Option<String>,
}

impl Backend {
    pub(super) fn new(broken: Option<Broken>, fails_one_in: Option<u64>) -> Self {
        Self {
            stored: BTreeSet::new(),
            refused: BTreeSet::new(),
            connections: BTreeMap::new(),
            queue: VecDeque::new(),
            ledger: Ledger::default(),
            group: None,
            session: "acme-1".to_owned(),
            broken,
            fails_one_in,
            forgetful: false,
            queue_max: 3,
            disk_is_full: false,
            answers: Vec::new(),
            fault: None,
        }
    }

    /// A store that never takes some batches says so before it looks at their order.
    pub(super) const fn refuses(key: Key) -> bool {
        (key.boot_epoch + key.sequence).is_multiple_of(17)
    }

    fn session(&self, boot_epoch: u64) -> Session {
        (self.session.parse().expect("a name"), boot_epoch)
    }

    fn last(&self, boot_epoch: u64) -> Option<u64> {
        let epoch = Key { boot_epoch, sequence: 0 }..=Key { boot_epoch, sequence: u64::MAX };
        self.stored.range(epoch).next_back().map(|key| key.sequence)
    }

    /// Everything that is not on the disk is gone.
    pub(super) fn restart(&mut self, random: &mut Random) {
        if let Some(group) = self.group.take()
            && random.below(2) == 0
        {
            // The commit was through, and nobody heard of it.
            group.new.into_iter().for_each(|(_, _, key)| self.store(key));
        }
        self.connections.clear();
        self.queue.clear();
        self.ledger = Ledger::default();
        self.answers.clear();
    }

    pub(super) fn handle_message(&mut self, number: u64, message: Message) {
        if !self.connections.contains_key(&number) {
            // The newest connection of the sensor replaces the others; one that was ended stays so.
            if self.connections.last_key_value().is_some_and(|(newest, _)| *newest > number) {
                return;
            }
            self.connections.values_mut().for_each(|old| old.is_open = false);
            let connection = Connection {
                number,
                reception: Reception::new(SETTINGS),
                early: Vec::new(),
                has_turn: false,
                is_open: true,
                is_closed_here: false,
                group: Vec::new(),
                handed: 0,
                looks: None,
                greeted: false,
                keys: BTreeMap::new(),
            };
            self.connections.insert(number, connection);
        }
        if let Some(connection) = self.connections.get_mut(&number).filter(|it| it.is_open) {
            connection.early.push(message);
        }
        self.work();
    }

    /// The sensor's end is gone, and this end has noticed.
    pub(super) fn handle_lost(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_open = false;
        }
        self.work();
    }

    /// Everything that connections can do without the store.
    pub(super) fn work(&mut self) {
        let greets_early = self.broken == Some(Broken::GreetsEarly);
        loop {
            self.connections.retain(|_, connection| !connection.is_over());
            let Some(first) = self.connections.keys().next().copied() else { return };
            let mut idle = true;
            for (number, connection) in &mut self.connections {
                // One at a time hands batches over.
                if *number == first || greets_early {
                    connection.has_turn = true;
                    idle &= !connection.work(
                        self.broken,
                        (&mut self.queue, self.queue_max),
                        &mut self.answers,
                    );
                }
            }
            if idle {
                return;
            }
        }
    }

    /// Whether the store has something to do.
    pub(super) fn is_busy(&self) -> bool {
        self.group.is_some() || !self.queue.is_empty()
    }

    /// Whether a group is being written.
    pub(super) const fn is_writing(&self) -> bool {
        self.group.is_some()
    }

    /// The store takes what a group has room for; later `handle_committed`.
    pub(super) fn collect(&mut self, random: &mut Random) {
        if self.group.is_some() {
            return;
        }
        let mut group = Group::default();
        let most = 1 + usize::try_from(random.below(4)).unwrap_or(0);
        while group.new.len() < most
            && let Some(request) = self.queue.pop_front()
        {
            match request {
                Request::Look { connection, boot_epochs } => self.look(connection, &boot_epochs),
                Request::Commit { connection, at, key } => {
                    self.take(connection, at, key, &mut group);
                }
            }
            self.work();
        }
        if group.new.is_empty() {
            return self.work();
        }
        if self.broken == Some(Broken::AckBeforeCommit) {
            for (connection, at, _) in &group.new {
                settle(&mut self.connections, *connection, *at, Outcome::Stored);
            }
        }
        self.group = Some(group);
        self.work();
    }

    fn look(&mut self, connection: u64, boot_epochs: &[u64]) {
        let mut held = Vec::new();
        for boot_epoch in boot_epochs.iter().take(EPOCHS_MAX) {
            let session = self.session(*boot_epoch);
            self.ledger.handle_start(&session);
            let known = self.ledger.held(&session).unwrap_or_else(|| {
                let last = self.last(*boot_epoch);
                self.ledger.learn(session, last);
                last
            });
            held.push(if self.forgetful { 0 } else { known.unwrap_or(0) });
        }
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.reception.handle_held(Some(held));
        }
    }

    fn take(&mut self, connection: u64, at: usize, key: Key, group: &mut Group) {
        let session = self.session(key.boot_epoch);
        let retry = || Outcome::Retry("an earlier one is not stored".to_owned());
        let no_halt = self.broken == Some(Broken::GoesOnAfterRetry);
        let outcome = if self.ledger.is_halted(&session) && !no_halt {
            retry()
        } else if Self::refuses(key) {
            self.refused.insert(key);
            Outcome::Rejected("of no use".to_owned())
        } else {
            if no_halt {
                self.ledger.handle_start(&session);
            }
            let mut judgement = self.ledger.judge(&session, key.sequence);
            if judgement == Judgement::Unknown {
                self.ledger.learn(session.clone(), self.last(key.boot_epoch));
                judgement = self.ledger.judge(&session, key.sequence);
            }
            if self.broken == Some(Broken::DuplicateUnknown) {
                judgement = Judgement::New;
            }
            match judgement {
                Judgement::New => return group.new.push((connection, at, key)),
                Judgement::Repeated => return group.repeated.push((connection, at)),
                Judgement::Stored => Outcome::Duplicate,
                Judgement::Halted | Judgement::Unknown => retry(),
            }
        };
        settle(&mut self.connections, connection, at, outcome);
    }

    /// The group's write has ended, well or not.
    pub(super) fn handle_committed(&mut self, random: &mut Random) {
        let Some(group) = self.group.take() else { return };
        let fails = self.fails_one_in.is_some_and(|one_in| random.below(one_in) == 0);
        let outcomes = if fails || self.disk_is_full {
            self.ledger.handle_failed();
            [Outcome::Retry("the disk is full".to_owned()), Outcome::Retry("so is it".to_owned())]
        } else {
            self.ledger.handle_stored();
            group.new.iter().for_each(|(_, _, key)| self.store(*key));
            [Outcome::Stored, Outcome::Duplicate]
        };
        let [new, repeated] = outcomes;
        for (connection, at, _) in group.new {
            settle(&mut self.connections, connection, at, new.clone());
        }
        for (connection, at) in group.repeated {
            settle(&mut self.connections, connection, at, repeated.clone());
        }
        self.work();
    }

    fn store(&mut self, key: Key) {
        if !self.stored.insert(key) {
            self.fault.get_or_insert_with(|| format!("{key:?} is stored twice"));
        }
    }
}

fn settle(connections: &mut BTreeMap<u64, Connection>, number: u64, at: usize, outcome: Outcome) {
    if let Some(connection) = connections.get_mut(&number)
        && let Some((_, settled)) = connection.group.get_mut(at)
    {
        settled.get_or_insert(outcome);
    }
}

impl Connection {
    /// Ended, with nothing left with the store.
    fn is_over(&self) -> bool {
        let waits = !self.group.is_empty() || self.looks.is_some();
        (!self.is_open || self.is_closed_here)
            && !waits
            && (self.early.is_empty() || !self.has_turn)
    }

    /// Whether it did something.
    fn work(
        &mut self,
        broken: Option<Broken>,
        (queue, queue_max): (&mut VecDeque<Request>, usize),
        answers: &mut Vec<(u64, Answer)>,
    ) -> bool {
        let mut did = false;
        if self.is_closed_here {
            self.early.clear();
        }
        for message in std::mem::take(&mut self.early) {
            did = true;
            self.take_in(message, broken);
        }
        // The store has room for some more of the group.
        while self.handed < self.group.len() && queue.len() < queue_max {
            let (connection, at, key) = (self.number, self.handed, self.group[self.handed].0);
            queue.push_back(Request::Commit { connection, at, key });
            self.handed += 1;
            did = true;
        }
        if let Some(boot_epochs) = self.looks.take() {
            queue.push_back(Request::Look { connection: self.number, boot_epochs });
            did = true;
        }
        if !self.group.is_empty() && self.group.iter().all(|(_, outcome)| outcome.is_some()) {
            let outcomes = self.group.drain(..).filter_map(|(_, outcome)| outcome).collect();
            self.handed = 0;
            self.reception.handle_settled(outcomes);
        }
        if self.group.is_empty() {
            while let Some(deed) = self.reception.poll_deed() {
                did = true;
                let answer = match deed {
                    Deed::Look { boot_epochs } => {
                        self.looks = Some(boot_epochs);
                        break;
                    }
                    Deed::Greet { held } => Answer::Held(held),
                    Deed::Ack { key, outcome, .. } => Answer::Ack(key, outcome),
                    Deed::Close(_) => {
                        self.is_closed_here = true;
                        Answer::Close
                    }
                    Deed::Commit { streams } => {
                        let key = |stream| Some((*self.keys.get(stream)?, None));
                        self.group = streams.iter().filter_map(key).collect();
                        break;
                    }
                };
                answers.push((self.number, answer));
            }
        }
        did
    }

    fn take_in(&mut self, message: Message, broken: Option<Broken>) {
        match message {
            Message::Hello(_) if self.greeted => {}
            Message::Hello(epochs) => {
                self.greeted = true;
                self.reception.handle_hello(epochs);
            }
            Message::Batch(stream, key) => {
                let in_order = broken != Some(Broken::TakesAnyOrder);
                let stream = if in_order { stream } else { self.keys.len() as u64 };
                self.keys.insert(stream, key);
                self.reception.handle_batch(stream, key, 1);
            }
        }
    }
}
