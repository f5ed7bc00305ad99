//! Takes the packets of a capture; tells which of them a mirror has delivered twice, as the kernel's program does.

use flow::{COPY_WITHIN_MS, Packet, RECENT_SETS, RecentSet, packet_identity, recent_set};

/// The same at each start, so that the same capture gives the same records. Whoever writes captures can make packets
/// that count as copies of each other; of four such, one stays.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The packets of the last moment.
pub(super) struct Duplicates {
    sets: Box<[RecentSet]>,
}

impl Duplicates {
    pub(super) fn new() -> Self {
        Self { sets: vec![RecentSet::default(); RECENT_SETS as usize].into_boxed_slice() }
    }

    /// Whether this packet of a frame is a copy of an earlier one.
    pub(super) fn is_copy(
        &mut self,
        frame: &[u8],
        packet: &Packet,
        wire_bytes: u64,
        time_ms: u64,
    ) -> bool {
        let identity = packet_identity(frame, packet, wire_bytes, SEED);
        #[expect(clippy::cast_possible_truncation, reason = "ages are compared, which may wrap")]
        let now = time_ms as u32;
        identity != 0
            && self.sets[recent_set(identity) as usize].is_copy(identity, now, COPY_WITHIN_MS)
    }
}
