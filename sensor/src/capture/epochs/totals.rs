//! What a drain gives beside the observations, and what the kernel has counted.

use flow::{FlowKey, Malformed, Outer};

use crate::traits::PacketTraits;

/// Packets that found no room in cache and log: exact totals for one prefix of sources, destination, port and
/// protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// Source prefix (as its network address, with port 0), destination, destination port and protocol; `None`
    /// for the rest, which is every packet that found no place even here.
    pub key: Option<FlowKey>,
    /// The outer identity of the key's domain; `None` where it is not known.
    pub outer: Option<Outer>,
    /// Packets.
    pub packets: u64,
    /// Layer-2 bytes.
    pub bytes: u64,
    /// TCP packets with SYN and without ACK.
    pub syns: u64,
    /// Time of the first and the last of them, milliseconds since the Unix epoch; `None` where it is not known.
    pub times_ms: Option<(u64, u64)>,
}

impl Folded {
    /// Takes over the packets of `other`, which is of the same key. Times are known where one of both is.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.syns += other.syns;
        self.times_ms = match (self.times_ms, other.times_ms) {
            (Some((first, last)), Some((other_first, other_last))) => {
                Some((first.min(other_first), last.max(other_last)))
            }
            (one, other) => one.or(other),
        };
    }
}

/// How full the fullest CPU's log of the running epoch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFill {
    /// Slots that are taken.
    pub used: u32,
    /// Slots that there are.
    pub slots: u32,
}

impl LogFill {
    /// In thousandths.
    #[must_use]
    pub fn permille(self) -> u32 {
        let slots = u64::from(self.slots.max(1));
        u32::try_from(u64::from(self.used) * 1000 / slots).unwrap_or(1000).min(1000)
    }
}

/// What one drain gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainTotals {
    /// Observations given.
    pub observations: u64,
    /// Those of them that had left the cache for the log before the epoch's end.
    pub observations_logged: u64,
    /// Packets in the observations.
    pub packets: u64,
    /// Layer-2 bytes in the observations.
    pub bytes: u64,
    /// Packets in `folded`.
    pub packets_folded: u64,
    /// Totals of the packets that are in no observation; bounded by the kernel's table.
    pub folded: Vec<Folded>,
}

/// The kernel's counters since the start; each only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// Frames that the program was given.
    pub frames_seen: u64,
    /// Frames with a usable IP header.
    pub packets_ip: u64,
    /// IP packets that were counted in coarse totals only.
    pub packets_folded: u64,
    /// IP packets that were removed as copies.
    pub packets_duplicate: u64,
    /// Frames that carry something other than IP.
    pub packets_not_ip: u64,
    /// The same by what they carry, the names as in metrics; kinds that were not seen are left out.
    pub not_ip: Vec<(&'static str, u64)>,
    /// Frames that say they carry IP and are broken.
    pub packets_malformed: u64,
    /// The same by reason, in the order of [`Malformed::ALL`].
    pub malformed: [u64; Malformed::ALL.len()],
    /// What is counted of IP packets beside their flows.
    pub traits: PacketTraits,
}
