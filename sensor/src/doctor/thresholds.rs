//! Every threshold of `doctor` in one place, each with its reason. Shares are in thousandths.

/// Conversations, packets or segments below which a share says nothing.
pub(super) const SAMPLE_MIN: u64 = 20;

/// Copies, of the packets that can be compared. A mirror that copies both ways gives 500; what is left of a
/// mirror of several ports that hand frames to each other is more than one in a hundred. Single copies come from
/// the network itself.
pub(super) const COPIES_FAULT: u64 = 200;
/// See [`COPIES_FAULT`].
pub(super) const COPIES_WARNING: u64 = 10;

/// Conversations of which one direction only was seen although it acknowledges what the other sends. A mirror of one
/// direction gives 1,000; two uplinks of which one is mirrored give some hundreds; the edges of the listening
/// time a few.
pub(super) const ONE_DIRECTION_FAULT: u64 = 900;
/// See [`ONE_DIRECTION_FAULT`].
pub(super) const ONE_DIRECTION_WARNING: u64 = 100;

/// Conversations whose directions carry different VLAN tags. Each of them is two flows for whoever keeps VLANs apart,
/// so more than one in ten is no accident of routing.
pub(super) const TAGS_FAULT: u64 = 100;

/// Payload bytes that were acknowledged and never seen. Above one in a hundred, detectors that compare sizes and
/// orders of segments are misled; Zeek warns from the same share on. Above one in a thousand it is worth a look.
pub(super) const LOSS_FAULT: u64 = 10;
/// See [`LOSS_FAULT`].
pub(super) const LOSS_WARNING: u64 = 1;
/// Fewer holes than this are an accident, whatever their share.
pub(super) const LOSS_HOLES_MIN: u64 = 5;

/// A stream lost its long segments, and only those, when so many times more bytes of it are missing than were seen.
pub(super) const ONLY_SHORT_FACTOR: u64 = 10;
/// And when no segment that was seen was longer than this: a header of an application, not its data.
pub(super) const ONLY_SHORT_BYTES: u16 = 600;

/// Frames that card or driver lost, of those they received.
pub(super) const CARD_LOSS_FAULT: u64 = 1;

/// Frames shorter than their IP header says. A single one is a broken sender; one in a hundred is a setting.
pub(super) const CUT_FAULT: u64 = 10;

/// Changes of the CPU within one direction from which on its frames count as scattered. One or two are an interrupt
/// that was moved.
pub(super) const CPU_CHANGES_MIN: u32 = 3;
/// Scattered conversations from which on the card, not chance, scatters them.
pub(super) const SCATTERED_WARNING: u64 = 50;

/// Frames on the busiest CPU, where there are several queues. Fewer conversations than [`SAMPLE_MIN`] do not
/// spread evenly.
pub(super) const BUSIEST_CPU_WARNING: u64 = 900;

/// Fragments, of all IP packets: behind the first they carry no ports.
pub(super) const FRAGMENTS_NOTE: u64 = 10;

/// Memory of one receive buffer: drivers give an XDP program one page a frame.
pub(super) const BUFFER_BYTES: u64 = 4096;
/// What the rings may take of the last-level cache: a half. Frames that are still there when the program reads their
/// headers cost a third less (xdp-paper, `bench01`: 87.6 against 56 million frames a second on six queues, with
/// rings of 512 against 1,024).
pub(super) const CACHE_SHARE: u64 = 2;
/// Rings below this lose frames in every burst.
pub(super) const RING_MIN: u64 = 256;

/// `part` of `whole` in thousandths.
pub(super) const fn permille(part: u64, whole: u64) -> u64 {
    match part.saturating_mul(1000).checked_div(whole) {
        Some(share) => share,
        None => 0,
    }
}
