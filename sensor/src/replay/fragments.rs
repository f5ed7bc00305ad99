//! Takes the fragments of a capture; gives later ones the ports of their first one, as the kernel's program does.

use flow::{FRAGMENTS, Fragment, FragmentSlot, Packet, fragment_place};

/// How long a first fragment lends its ports: as long as Linux waits for the others.
const AGE_MAX_MS: u32 = 30_000;

/// The newest first fragments.
pub(super) struct Fragments {
    slots: Box<[FragmentSlot]>,
}

impl Fragments {
    pub(super) fn new() -> Self {
        Self { slots: vec![FragmentSlot::default(); FRAGMENTS as usize].into_boxed_slice() }
    }

    /// Gives a later fragment its ports. Says what it was: 0 a first one, 1 a later one that got them, 2 a later one
    /// whose ports stay unknown.
    #[cold]
    pub(super) fn handle_packet(&mut self, packet: &mut Packet, time_ms: u64) -> Option<usize> {
        let (identification, first) = match packet.fragment {
            Fragment::Whole => return None,
            Fragment::First(identification) => (identification, true),
            Fragment::Later(identification) => (identification, false),
        };
        #[expect(clippy::cast_possible_truncation, reason = "ages are compared, which may wrap")]
        let time = time_ms as u32;
        let slot = &mut self.slots[fragment_place(&packet.key, identification) as usize];
        if first {
            slot.remember(packet, identification, time);
            return Some(0);
        }
        match slot.recall(packet, identification, time, AGE_MAX_MS) {
            Some(key) => {
                packet.key = key;
                Some(1)
            }
            None => Some(2),
        }
    }
}
