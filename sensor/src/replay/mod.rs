//! Takes the frames of capture files; gives the flow records that the wire would have given, and
//! counts every frame that is in none. The capture's own clock is the only one. Pure but for the
//! reader that it is given.

mod cache;
mod clock;
mod duplicates;
mod fragments;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;

use flow::kernel::{CARRIED_MPLS, CARRIED_VLAN};
use flow::{
    Books, Fragment, Malformed, Notes, Observation, OpeningTime, Packet, Parsed, Record, TcpSeen,
    parse, tcp_flag,
};

use cache::FlowCache;
pub use clock::{ReplayClock, Tick};
use duplicates::Duplicates;
use fragments::Fragments;

use crate::aggregate::{Aggregator, AggregatorSettings, FlowTable, Identities, Identity};
use crate::pcap::{CaptureFile, CaptureFileError, CapturedFrame};
use crate::traits::PacketTraits;

/// What the frames so far were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// All of them.
    pub frames_seen: u64,
    /// Those with a usable IP header.
    pub packets_ip: u64,
    /// Those that carry something else, by `EtherType` (or length, up to 1,500).
    pub not_ip: BTreeMap<u16, u64>,
    /// Those that say IP and are broken, by the number of the reason.
    pub malformed: [u64; Malformed::ALL.len()],
    /// Those captured shorter than they were on the wire.
    pub frames_snapped: u64,
    /// Those without a time of their own; they count as captured with the frame before.
    pub frames_undated: u64,
    /// Those of the packets that were removed as copies; they add to no flow.
    pub packets_duplicate: u64,
    /// What is counted of IP packets beside their flows.
    pub traits: PacketTraits,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// Earliest and latest time, milliseconds since the Unix epoch.
    pub span_ms: Option<(u64, u64)>,
}

impl FrameCounts {
    /// Frames that carry something other than IP.
    #[must_use]
    pub fn packets_not_ip(&self) -> u64 {
        self.not_ip.values().sum()
    }

    /// Frames that say they carry IP and are broken.
    #[must_use]
    pub fn packets_malformed(&self) -> u64 {
        self.malformed.iter().sum()
    }
}

impl FrameCounts {
    #[cold]
    fn handle_carriers(&mut self, packet: &Packet) {
        for (bit, count) in self.traits.noted.iter_mut().enumerate() {
            *count += u64::from(packet.notes.has(Notes(1 << bit)));
        }
        self.traits.carried[CARRIED_VLAN] += u64::from(packet.outer.vlans().0[0] != 0);
        self.traits.carried[CARRIED_MPLS] += u64::from(packet.outer.mpls_label().is_some());
        for kind in packet.outer.kind_numbers().into_iter().filter(|kind| *kind != 0) {
            self.traits.carried[kind] += 1;
        }
    }
}

/// Frames in, observations out: what the XDP program does on a live port, for one CPU.
pub struct FrameObserver {
    counts: FrameCounts,
    fragments: Fragments,
    /// Where copies are removed.
    duplicates: Option<Duplicates>,
}

impl Default for FrameObserver {
    fn default() -> Self {
        Self::new(false)
    }
}

impl FrameObserver {
    /// An observer that has seen nothing; `deduplicate` has it remove what a mirror delivers twice.
    #[must_use]
    pub fn new(deduplicate: bool) -> Self {
        Self {
            counts: FrameCounts::default(),
            fragments: Fragments::new(),
            duplicates: deduplicate.then(Duplicates::new),
        }
    }

    /// What the frames so far were.
    #[must_use]
    pub fn counts(&self) -> &FrameCounts {
        &self.counts
    }

    /// Counts a frame; gives what it adds to a flow.
    #[inline]
    pub fn handle_frame(&mut self, frame: &CapturedFrame<'_>, time_ms: u64) -> Option<Observation> {
        let counts = &mut self.counts;
        counts.frames_seen += 1;
        counts.wire_bytes += frame.wire_bytes;
        counts.frames_snapped += u64::from((frame.bytes.len() as u64) < frame.wire_bytes);
        counts.frames_undated += u64::from(frame.time_ms.is_none());
        counts.span_ms = Some(match counts.span_ms {
            None => (time_ms, time_ms),
            Some((first_ms, last_ms)) => (first_ms.min(time_ms), last_ms.max(time_ms)),
        });
        let parsed = match frame.link.network(frame.bytes) {
            Some(link) => parse(frame.bytes, link),
            None => Parsed::Malformed(Malformed::LinkHeaderCut),
        };
        match parsed {
            Parsed::Ip(mut packet) => {
                counts.packets_ip += 1;
                counts.traits.cut += u64::from((packet.length_told as u64) > frame.wire_bytes);
                if packet.notes != Notes::default() || !packet.outer.is_plain() {
                    counts.handle_carriers(&packet);
                }
                if packet.fragment != Fragment::Whole
                    && let Some(index) = self.fragments.handle_packet(&mut packet, time_ms)
                {
                    counts.traits.fragments[index] += 1;
                }
                if let Some(duplicates) = &mut self.duplicates
                    && duplicates.is_copy(frame.bytes, &packet, frame.wire_bytes, time_ms)
                {
                    counts.packets_duplicate += 1;
                    return None;
                }
                let length = u16::try_from(frame.wire_bytes).unwrap_or(u16::MAX);
                Some(Observation {
                    key: packet.key,
                    outer: packet.outer,
                    packets: 1,
                    bytes: frame.wire_bytes,
                    first_ms: time_ms,
                    last_ms: time_ms,
                    tcp: TcpSeen::from_flags(packet.tcp_flags),
                    opening: opening(packet.tcp_flags, frame.time_us),
                    first_flags: packet.tcp_flags,
                    ttl: packet.ttl,
                    dscp: packet.dscp,
                    fragmented: packet.fragment != Fragment::Whole,
                    interface: 0,
                    length_min: length,
                    length_max: length,
                })
            }
            Parsed::NotIp(ethertype) => {
                *counts.not_ip.entry(ethertype).or_default() += 1;
                None
            }
            Parsed::Malformed(reason) => {
                counts.malformed[reason as usize] += 1;
                None
            }
        }
    }
}

/// When a connection was opened or accepted, where the capture says.
fn opening(tcp_flags: u8, time_us: Option<u64>) -> OpeningTime {
    match time_us {
        #[expect(clippy::cast_possible_truncation, reason = "times are compared modulo 2^32")]
        Some(time_us) if tcp_flags & tcp_flag::SYN != 0 => OpeningTime::At(time_us as u32),
        _ => OpeningTime::Unknown,
    }
}

/// Frames in, records out.
pub struct Replay {
    flows: Box<dyn FlowTable>,
    identities: Identities,
    clock: ReplayClock,
    observer: FrameObserver,
    time_ms: u64,
    cache: FlowCache,
    /// What found no room in the cache, and the table has not got yet.
    pending: Vec<Observation>,
    pending_identities: Vec<Identity>,
}

/// Observations handed over at once.
const PENDING_MAX: usize = 64;

impl Replay {
    /// A replay that ends an epoch every `epoch_ms` of the capture's time.
    #[must_use]
    pub fn new(settings: AggregatorSettings, epoch_ms: u64) -> Self {
        let identities = Identities::new(settings.apart_by);
        let flows = Box::new(Aggregator::with_identities(settings, identities.clone()));
        let clock = ReplayClock::new(epoch_ms, settings.idle_timeout_ms);
        Self::with_flows(flows, identities, clock)
    }

    /// A replay into `flows`, whose identities are these.
    #[must_use]
    pub fn with_flows(
        flows: Box<dyn FlowTable>,
        identities: Identities,
        clock: ReplayClock,
    ) -> Self {
        Self {
            flows,
            identities,
            clock,
            observer: FrameObserver::default(),
            time_ms: 0,
            cache: FlowCache::new(),
            pending: Vec::with_capacity(PENDING_MAX),
            pending_identities: Vec::with_capacity(PENDING_MAX),
        }
    }

    /// The same, with copies removed or left in.
    #[must_use]
    pub fn deduplicating(self, deduplicate: bool) -> Self {
        Self { observer: FrameObserver::new(deduplicate), ..self }
    }

    /// What the frames so far were.
    #[must_use]
    pub fn counts(&self) -> &FrameCounts {
        self.observer.counts()
    }

    /// The books so far. A few packets of the current epoch count as in the cache; what the outputs
    /// add is not known here.
    #[must_use]
    pub fn books(&self) -> Books {
        let totals = self.flows.totals();
        let counts = self.counts();
        Books {
            frames_seen: counts.frames_seen,
            packets_ip: counts.packets_ip,
            packets_not_ip: counts.packets_not_ip(),
            packets_malformed: counts.packets_malformed(),
            packets_in_flows: totals.packets_in,
            packets_duplicate: counts.packets_duplicate,
            records_out: totals.records_out,
            ..Books::default()
        }
    }

    /// The flows.
    #[must_use]
    pub fn flows(&self) -> &dyn FlowTable {
        self.flows.as_ref()
    }

    /// Counts one frame. Says whether an epoch ended before it.
    #[inline]
    pub fn handle_frame(
        &mut self,
        frame: &CapturedFrame<'_>,
        emit: &mut dyn FnMut(Record),
    ) -> bool {
        self.time_ms = frame.time_ms.unwrap_or(self.time_ms);
        let tick = self.clock.handle_time(self.time_ms);
        if tick != Tick::Same {
            self.drain(emit);
        }
        match tick {
            Tick::Same => {}
            Tick::Epoch { now_ms } => self.flows.advance(now_ms, emit),
            Tick::Separate => self.flows.finish(emit),
        }
        if let Some(seen) = self.observer.handle_frame(frame, self.time_ms) {
            self.cache.handle(&seen, &mut self.pending);
            if self.pending.len() == PENDING_MAX {
                self.flush(emit);
            }
        }
        tick != Tick::Same
    }

    /// Hands over all of an epoch.
    fn drain(&mut self, emit: &mut dyn FnMut(Record)) {
        self.flush(emit);
        self.pending.extend(self.cache.drain());
        self.flush(emit);
    }

    fn flush(&mut self, emit: &mut dyn FnMut(Record)) {
        let identify = |seen: &Observation| self.identities.of(&seen.key, seen.outer);
        self.pending_identities.clear();
        self.pending_identities.extend(self.pending.iter().map(identify));
        self.flows.handle_identified(&self.pending, &self.pending_identities, emit);
        self.pending.clear();
    }

    /// Ends all flows.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Record)) {
        self.drain(emit);
        self.flows.finish(emit);
    }
}

/// Reads a whole capture into a replay; for tests and small files.
///
/// # Errors
/// The first fault of the file; the frames before it are in the replay.
pub fn replay_all<R: Read>(
    replay: &mut Replay,
    source: R,
    emit: &mut dyn FnMut(Record),
) -> Result<(), CaptureFileError> {
    let mut file = CaptureFile::open(source)?;
    while let Some(frame) = file.next_frame()? {
        replay.handle_frame(&frame, emit);
    }
    Ok(())
}
