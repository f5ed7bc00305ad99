//! Takes the times of a capture's frames as they stand in the file; gives the time at which to end
//! an epoch. Never goes back, whatever the file does.

/// A step back of more than this means another clock, not packets out of order.
const BACK_MAX_MS: u64 = 1_000;

/// A clock that follows a capture.
#[derive(Debug)]
pub struct ReplayClock {
    epoch_ms: u64,
    /// A step back further than this means another capture.
    separate_ms: u64,
    state: Option<State>,
}

#[expect(clippy::struct_field_names, reason = "units come last in names")]
#[derive(Debug)]
struct State {
    start_ms: u64,
    now_ms: u64,
    epoch_end_ms: u64,
    /// Added to the capture's times since it stepped back.
    ahead_ms: u64,
}

/// What a frame's time means for the flows before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// It belongs to the current epoch.
    Same,
    /// An epoch has ended, at this time.
    Epoch {
        /// The aggregator's new time.
        now_ms: u64,
    },
    /// The capture's clock went back so far that this must be another capture: all flows end.
    Separate,
}

impl ReplayClock {
    /// A clock that ends an epoch every `epoch_ms`, as the drain of a live capture does, and takes
    /// a step back of more than `separate_ms` for the start of another capture.
    #[must_use]
    pub fn new(epoch_ms: u64, separate_ms: u64) -> Self {
        Self { epoch_ms: epoch_ms.max(1), separate_ms: separate_ms.max(BACK_MAX_MS), state: None }
    }

    /// Takes the time of the next frame.
    #[inline]
    pub fn handle_time(&mut self, time_ms: u64) -> Tick {
        // Most frames lie within the current epoch, in order.
        if let Some(state) = &mut self.state
            && let Some(time_ms) = time_ms.checked_add(state.ahead_ms)
            && (state.now_ms..state.epoch_end_ms).contains(&time_ms)
        {
            state.now_ms = time_ms;
            return Tick::Same;
        }
        self.handle_other_time(time_ms)
    }

    fn handle_other_time(&mut self, time_ms: u64) -> Tick {
        let epoch_ms = self.epoch_ms;
        let Some(state) = &mut self.state else {
            self.state = Some(State {
                start_ms: time_ms,
                now_ms: time_ms,
                epoch_end_ms: time_ms.saturating_add(epoch_ms),
                ahead_ms: 0,
            });
            return Tick::Epoch { now_ms: time_ms };
        };
        let time_ms = time_ms.saturating_add(state.ahead_ms);
        let back_ms = state.now_ms.saturating_sub(time_ms);
        if back_ms > BACK_MAX_MS {
            // Time goes on from here at the capture's pace.
            state.ahead_ms += back_ms;
            return if back_ms > self.separate_ms { Tick::Separate } else { Tick::Same };
        }
        state.now_ms = state.now_ms.max(time_ms);
        if state.now_ms < state.epoch_end_ms {
            return Tick::Same;
        }
        let epochs = (state.now_ms - state.start_ms) / epoch_ms;
        let now_ms = state.start_ms + epochs * epoch_ms;
        state.epoch_end_ms = now_ms.saturating_add(epoch_ms);
        Tick::Epoch { now_ms }
    }
}
