//! Takes what was heard of the backend at regular looks; says when a connection on which an answer is due is as good
//! as gone. Pure: the looks are counted, not timed, so that a box which slept does not blame the backend.
//!
//! QUIC itself waits twice as long after each probe that nobody answers. So a backend that was away for ten seconds
//! would be noticed again up to ten seconds after its return, and one that stays away at the idle timeout.

/// Counts the looks without a sign of life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silence {
    heard: u64,
    looks: u32,
}

impl Silence {
    /// One look: packets heard so far, whether an answer is due, and how many silent looks are too many. True
    /// when the connection should be given up.
    pub(crate) const fn handle_look(&mut self, heard: u64, due: bool, looks_max: u32) -> bool {
        // Whoever owes no answer may be silent.
        if heard != self.heard || !due {
            *self = Self { heard, looks: 0 };
            return false;
        }
        self.looks += 1;
        self.looks >= looks_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lasting_silence_while_an_answer_is_due_is_the_end() {
        let mut silence = Silence::default();
        assert!(!(0..100).any(|_| silence.handle_look(0, false, 4)), "nothing is due");
        assert!(!(1..100).any(|heard| silence.handle_look(heard, true, 4)), "it is heard");
        let looks: Vec<bool> = (0..4).map(|_| silence.handle_look(99, true, 4)).collect();
        assert_eq!(looks, [false, false, false, true]);
        assert!(!silence.handle_look(100, true, 4), "a sign of life begins anew");
        assert!(!silence.handle_look(100, true, 2));
        assert!(!silence.handle_look(100, false, 2), "so does an answer that is due no more");
        assert!(!silence.handle_look(100, true, 2));
        assert!(silence.handle_look(100, true, 2));
    }
}
