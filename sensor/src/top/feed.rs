//! Takes what the pipeline sees, epoch by epoch; gives the latest picture of it to whoever looks,
//! and never waits for them: a picture that nobody took is replaced by the next one.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use flow::Observation;

use super::rate::{Amount, Clock, History, Recent};
use super::tracker::{FLOWS_MAX, Tracked, Tracker};
use crate::config::Config;
use crate::summary::Summary;

/// Shortest time between two pictures. More often nobody can read them.
const PICTURE_PERIOD: Duration = Duration::from_millis(450);

/// What has been counted by the end of an epoch; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) frames: u64,
    /// IP packets, in flows or folded.
    pub(crate) packets: u64,
    /// Their layer-2 bytes.
    pub(crate) bytes: u64,
    /// Flows that began.
    pub(crate) flows: u64,
}

/// How far the reading of capture files has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Which file, from 1.
    pub(crate) file: usize,
    /// The capture's own time, milliseconds since the Unix epoch.
    pub(crate) time_ms: u64,
    /// Bytes read of all files.
    pub(crate) bytes_read: u64,
    /// Bytes of all files; `None` where one of them does not have a size.
    pub(crate) bytes: Option<u64>,
    /// Everything has been read.
    pub(crate) ended: bool,
}

/// Everything that is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) tracked: Tracked,
    /// Packets and bytes a second of late.
    pub(crate) rate: Amount,
    /// New flows a second of late, and frames.
    pub(crate) flows_and_frames: Amount,
    pub(crate) history: History,
    pub(crate) summary: Summary,
    /// Of capture files.
    pub(crate) position: Option<Position>,
}

/// The pipeline's end.
pub(crate) struct Feed {
    tracker: Tracker,
    history: History,
    recent: Recent,
    /// Flows stand where packets do, frames where bytes do.
    recent_flows_and_frames: Recent,
    clock: Option<Clock>,
    before: Counted,
    pictures: Sender<Box<Picture>>,
    /// The other end, to take back what nobody took.
    untaken: Receiver<Box<Picture>>,
    given: Option<Instant>,
}

impl Feed {
    /// A feed, and where its pictures come out.
    pub(crate) fn new(config: &Config) -> (Self, Receiver<Box<Picture>>) {
        let (pictures, taken) = bounded(1);
        let feed = Self {
            tracker: Tracker::new(FLOWS_MAX, config.flows.apart_by),
            history: History::default(),
            recent: Recent::default(),
            recent_flows_and_frames: Recent::default(),
            clock: None,
            before: Counted::default(),
            pictures,
            untaken: taken.clone(),
            given: None,
        };
        (feed, taken)
    }

    /// Counts what an epoch gave, or a part of it.
    pub(crate) fn handle_observations(&mut self, seen: &[Observation]) {
        self.tracker.handle_observations(seen);
    }

    /// Ends an epoch. `describe` is asked when a picture is due, and always for the last one.
    pub(crate) fn handle_epoch(
        &mut self,
        now_ms: u64,
        counted: Counted,
        is_last: bool,
        describe: impl FnOnce() -> (Summary, Option<Position>),
    ) {
        // The first epoch began with the first packet, as far as is known.
        let before_ms = self.clock.map_or(now_ms, |clock| clock.now_ms);
        self.tracker.advance(now_ms);
        let clock = self.tracker.clock();
        self.clock = Some(clock);
        let Counted { frames, packets, bytes, flows } = self.before;
        let came = Counted {
            frames: counted.frames.saturating_sub(frames),
            packets: counted.packets.saturating_sub(packets),
            bytes: counted.bytes.saturating_sub(bytes),
            flows: counted.flows.saturating_sub(flows),
        };
        self.before = counted;
        self.history.handle(
            clock,
            before_ms,
            [came.packets, came.bytes.saturating_mul(8), came.flows, came.frames],
        );
        self.recent.add(clock, Amount::new(came.packets, came.bytes));
        self.recent_flows_and_frames.add(clock, Amount::new(came.flows, came.frames));
        let is_due = self.given.is_none_or(|given| given.elapsed() >= PICTURE_PERIOD);
        if is_last || is_due {
            self.given = Some(Instant::now());
            let (summary, position) = describe();
            self.give(Box::new(Picture {
                tracked: self.tracker.snapshot(),
                rate: self.recent.per_second(clock),
                flows_and_frames: self.recent_flows_and_frames.per_second(clock),
                history: self.history.clone(),
                summary,
                position,
            }));
        }
    }

    fn give(&self, mut picture: Box<Picture>) {
        // Only this end puts pictures in, so there is room once the old one is out.
        while let Err(TrySendError::Full(again)) = self.pictures.try_send(picture) {
            let _taken_meanwhile = self.untaken.try_recv();
            picture = again;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_look_holds_up_nothing_and_sees_the_latest_in_the_end() {
        let (mut feed, pictures) = Feed::new(&Config::default());
        for epoch in 1..=100_u64 {
            let counted = Counted { frames: epoch, ..Counted::default() };
            let describe = || (Summary { frames_seen: epoch, ..Summary::default() }, None);
            feed.handle_epoch(epoch * 250, counted, epoch == 100, describe);
        }
        let picture = pictures.try_recv().expect("the last one is always given");
        assert_eq!(picture.summary.frames_seen, 100);
        assert!(pictures.try_recv().is_err(), "there is one at most");
        // Frames stand where bytes do.
        assert_eq!(picture.flows_and_frames.bytes, 4);
    }
}
