//! Takes a capture file; inspects its frames with the same code as the kernel, on the capture's own clock. Memory is
//! bounded whatever the file holds: the tables have the size of the kernel's.

use std::fs::File;
use std::path::Path;

use flow::inspect::{
    CONVERSATION_PLACES, CONVERSATION_PROBES, Conversation, InspectTotals, Look, RECENT_PLACES,
    Recent, Seen, Segment, compare, conversation_place, is_copy, look, look_inside, recent_place,
};
use flow::{COPY_WITHIN_MS, LinkLayer, tcp_flag};

use super::finding::{Finding, Severity};
use super::{DoctorError, Report, Traffic, checks};
use crate::capture::Inspected;
use crate::pcap::{CaptureFile, CaptureFileError, LinkType};

/// The inspection in user space.
pub struct Inspector {
    seed: u64,
    totals: InspectTotals,
    recent: Vec<Recent>,
    conversations: Vec<Conversation>,
}

impl Inspector {
    /// Empty tables. `seed` makes the fingerprints.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            totals: InspectTotals::default(),
            recent: vec![Recent::default(); RECENT_PLACES as usize],
            conversations: vec![Conversation::default(); CONVERSATION_PLACES as usize],
        }
    }

    /// Takes one frame, which had this many bytes on the wire and came at this millisecond of any clock.
    pub fn handle_frame(&mut self, link: LinkLayer, frame: &[u8], wire_bytes: u64, now_ms: u32) {
        let about = Look { wire_bytes, own_address: 0, seed: self.seed, cpu: 0 };
        look(frame, link, &about, &mut self.totals);
        let parsed = flow::parse(frame, link);
        let Some(mut seen) = look_inside(&parsed, &mut self.totals) else { return };
        compare(frame, &about, &mut seen, &mut self.totals);
        if seen.identity != 0
            && let Some(recent) = self.recent.get_mut(recent_place(seen.identity) as usize)
            && is_copy(recent, &seen, now_ms, COPY_WITHIN_MS, &mut self.totals)
        {
            return;
        }
        if seen.has_segment == 0 {
            return;
        }
        let segment = seen.segment;
        if !self.follow(&seen, &segment) {
            self.totals.unplaced += 1;
            let is_opening = segment.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
            self.totals.unplaced_syns += u64::from(is_opening);
        }
    }

    /// Gives the segment to its conversation; false when that found no place.
    fn follow(&mut self, seen: &Seen, segment: &Segment) -> bool {
        let (key, tag, half) = seen.conversation(self.seed);
        for probe in 0..CONVERSATION_PROBES {
            let place = conversation_place(tag, probe) as usize;
            let Some(conversation) = self.conversations.get_mut(place) else { return false };
            if conversation.tag == 0 {
                (conversation.tag, conversation.key) = (tag, key);
            }
            if conversation.tag == tag {
                let [forward, backward] = &mut conversation.streams;
                let (own, peer) = if half == 0 { (forward, backward) } else { (backward, forward) };
                own.handle(segment, peer.acknowledges());
                return true;
            }
        }
        false
    }

    /// What was counted, and the conversations, in the order of their places.
    #[must_use]
    pub fn read(&self) -> (InspectTotals, Vec<Conversation>) {
        let placed = self.conversations.iter().filter(|conversation| conversation.tag != 0);
        (self.totals, placed.copied().collect())
    }
}

/// Examines a capture.
///
/// # Errors
/// When the file cannot be opened or is no capture. A capture that is cut or broken further on is judged by the
/// frames before, with a finding that says where it ends.
pub fn doctor_file(path: &Path) -> Result<Report, DoctorError> {
    let fail = |source| DoctorError::File { path: path.to_owned(), source };
    let source = File::open(path).map_err(|error| fail(CaptureFileError::Open(error)))?;
    let mut file = CaptureFile::open(source).map_err(fail)?;
    // Nobody sends this file in answer to the fingerprints, so any seed will do.
    let mut inspector = Inspector::new(0x9e37_79b9_7f4a_7c15);
    let mut snapped = 0_u64;
    let mut unreadable = 0_u64;
    let mut times: Option<(u64, u64)> = None;
    let broken = loop {
        match file.next_frame() {
            Ok(Some(frame)) => {
                snapped += u64::from((frame.bytes.len() as u64) < frame.wire_bytes);
                if let Some(now) = frame.time_ms {
                    let (first, last) = times.unwrap_or((now, now));
                    times = Some((first.min(now), last.max(now)));
                }
                let Some(link) = LinkType::network(frame.link, frame.bytes) else {
                    unreadable += 1;
                    continue;
                };
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "only differences of some milliseconds are looked at"
                )]
                let now_ms = frame.time_ms.unwrap_or(0) as u32;
                inspector.handle_frame(link, frame.bytes, frame.wire_bytes, now_ms);
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let (mut totals, conversations) = inspector.read();
    totals.frames += unreadable;
    totals.packets_malformed += unreadable;
    let mut traffic = Traffic::new(&Inspected { totals: vec![(0, totals)], conversations });
    traffic.frames_by_cpu.clear();
    traffic.frames_snapped = Some(snapped);
    traffic.duration_ms = times.map(|(first, last)| last - first);
    let mut findings = checks::file(&traffic);
    if let Some(error) = broken {
        findings.push(
            Finding::new("capture_broken", Severity::Warning, "The capture is broken or cut.")
                .evidence(error.to_string())
                .why("What stands behind the break was not read."),
        );
    }
    let report = Report::new(path.display().to_string(), findings);
    Ok(Report { traffic: Some(traffic), ..report })
}
