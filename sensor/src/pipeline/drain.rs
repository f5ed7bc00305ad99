//! Takes a source; empties it epoch by epoch until it is told to stop, and hands what came over to the
//! aggregator. Whatever way this ends, the source lets no more frames in afterwards.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use flow::Observation;

use super::live::{Counts, Source};
use super::pace::Pace;
use super::wall_ms;
use crate::capture::Folded;

/// Observations handed over at once.
pub(super) const CHUNK_OBSERVATIONS: usize = 4_096;

/// From the drain to the aggregator.
pub(super) enum Message {
    Observations(Vec<Observation>),
    EpochEnd(Box<EpochEnd>),
    Fault(String),
}

/// What ended with an epoch.
pub(super) struct EpochEnd {
    pub(super) now_ms: u64,
    pub(super) counts: Counts,
    pub(super) folded: Vec<Folded>,
    pub(super) facts: EpochFacts,
}

/// How an epoch went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EpochFacts {
    pub(super) lasted: Duration,
    /// What the kernel took to end it.
    pub(super) grace: Duration,
    /// The fullest log when it ended.
    pub(super) log_fill_permille: u32,
    /// It ended before its time because a log filled.
    pub(super) early: bool,
    /// How long the drain waited for the aggregator to take what it gave.
    pub(super) waited: Duration,
}

/// The aggregator is gone: it has failed, and nobody takes what is drained.
pub(super) struct ReceiverGone;

/// Why draining ended before it was told to.
enum Broken {
    /// The source, in words.
    Source(String),
    Receiver,
}

impl From<ReceiverGone> for Broken {
    fn from(_: ReceiverGone) -> Self {
        Self::Receiver
    }
}

/// The draining thread.
pub(super) struct Drain {
    out: Sender<Message>,
    spare: Receiver<Vec<Observation>>,
    chunk: Vec<Observation>,
}

impl Drain {
    pub(super) fn new(out: Sender<Message>, spare: Receiver<Vec<Observation>>) -> Self {
        Self { out, spare, chunk: Vec::with_capacity(CHUNK_OBSERVATIONS) }
    }

    /// Runs until `stop` gives a message, or something breaks; says what.
    pub(super) fn run(
        &mut self,
        source: &mut dyn Source,
        target: Duration,
        longest: Duration,
        stop: &Receiver<()>,
    ) {
        let fault = match self.until_stopped(source, target, longest, stop) {
            Ok(None) | Err(Broken::Receiver) => None,
            Ok(Some(fault)) | Err(Broken::Source(fault)) => Some(fault),
        };
        // A second time after an orderly end, which does nothing then.
        if let Err(error) = source.stop() {
            tracing::error!("cannot detach: {error}");
        }
        if let Some(fault) = fault {
            let _receiver_gone = self.out.send(Message::Fault(fault));
        }
    }

    /// Gives why the source ended by itself, when it did.
    fn until_stopped(
        &mut self,
        source: &mut dyn Source,
        target: Duration,
        longest: Duration,
        stop: &Receiver<()>,
    ) -> Result<Option<String>, Broken> {
        // What attaching let in before the first epoch was timed is no epoch of its own.
        let mut pace = Pace::new(target, longest, Instant::now());
        self.epoch(source, &mut pace, false)?;
        loop {
            let look = pace.next_look(Instant::now(), source.log_fill());
            let stopping = match stop.recv_deadline(look) {
                Err(RecvTimeoutError::Timeout) => false,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            };
            let ended = source.ended();
            if stopping || ended.is_some() {
                source.stop().map_err(|error| Broken::Source(format!("cannot detach: {error}")))?;
                self.epoch(source, &mut pace, false)?;
                // The other half of the cache took frames while the first was being emptied.
                self.epoch(source, &mut pace, false)?;
                return Ok(ended);
            }
            let now = Instant::now();
            if pace.is_over(now, source.log_fill()) {
                let early = !pace.is_due(now);
                self.epoch(source, &mut pace, early)?;
            }
        }
    }

    fn epoch(
        &mut self,
        source: &mut dyn Source,
        pace: &mut Pace,
        early: bool,
    ) -> Result<(), Broken> {
        let now_ms = wall_ms();
        let flipped = Instant::now();
        let log_fill_permille = source.log_fill().permille();
        let mut observations = 0;
        let mut waited = Duration::ZERO;
        let mut delivered = Ok(());
        let folded = source
            .drain(&mut |seen| {
                observations += 1;
                if delivered.is_err() {
                    return;
                }
                self.chunk.push(seen);
                if self.chunk.len() == CHUNK_OBSERVATIONS {
                    delivered = hand_over(&self.out, &self.spare, &mut self.chunk, &mut waited);
                }
            })
            .map_err(|error| Broken::Source(format!("cannot drain the kernel's cache: {error}")))?;
        delivered?;
        if !self.chunk.is_empty() {
            hand_over(&self.out, &self.spare, &mut self.chunk, &mut waited)?;
        }
        let counts = source
            .counts()
            .map_err(|error| Broken::Source(format!("cannot read the kernel's counts: {error}")))?;
        let lasted = pace.handle_flip(flipped, observations);
        let facts = EpochFacts { lasted, grace: source.grace(), log_fill_permille, early, waited };
        let end = EpochEnd { now_ms, counts, folded, facts };
        self.out.send(Message::EpochEnd(Box::new(end))).map_err(|_gone| Broken::Receiver)
    }
}

/// Gives the chunk away, and `waited` how long it took while the aggregator was behind.
fn hand_over(
    out: &Sender<Message>,
    spare: &Receiver<Vec<Observation>>,
    chunk: &mut Vec<Observation>,
    waited: &mut Duration,
) -> Result<(), ReceiverGone> {
    let empty = spare.try_recv().unwrap_or_else(|_none| Vec::with_capacity(CHUNK_OBSERVATIONS));
    let full = std::mem::replace(chunk, empty);
    match out.try_send(Message::Observations(full)) {
        Ok(()) => Ok(()),
        Err(TrySendError::Disconnected(_)) => Err(ReceiverGone),
        Err(TrySendError::Full(full)) => {
            let began = Instant::now();
            let sent = out.send(full).map_err(|_gone| ReceiverGone);
            *waited += began.elapsed();
            sent
        }
    }
}
