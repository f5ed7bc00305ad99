//! Takes records; appends one JSON object a line. Names follow the record's fields, values RFC 3339
//! and Community ID v1. What is not known is left out, never written as 0.

use flow::Record;

use super::super::known::{Known, Sent, end_reason_name, handshake_name, role_name};
use super::write::{Calendar, address, number};
use super::{Format, tunnels};

/// The names of one side's fields, with what stands before their values.
struct SideNames {
    packets: &'static str,
    bytes: &'static str,
    tcp_flags: &'static str,
    first_flags: &'static str,
    ttl: &'static str,
    dscp: &'static str,
    fragmented: &'static str,
    length_min: &'static str,
    length_max: &'static str,
}

macro_rules! side_names {
    ($side:literal) => {
        SideNames {
            packets: concat!(",\"", $side, "_packets\":"),
            bytes: concat!(",\"", $side, "_bytes\":"),
            tcp_flags: concat!(",\"", $side, "_tcp_flags\":"),
            first_flags: concat!(",\"", $side, "_first_flags\":"),
            ttl: concat!(",\"", $side, "_ttl\":"),
            dscp: concat!(",\"", $side, "_dscp\":"),
            fragmented: concat!(",\"", $side, "_fragmented\":"),
            length_min: concat!(",\"", $side, "_length_min\":"),
            length_max: concat!(",\"", $side, "_length_max\":"),
        }
    };
}

const INITIATOR: SideNames = side_names!("initiator");
const RESPONDER: SideNames = side_names!("responder");

/// Our own names.
pub(super) struct Native {
    calendar: Calendar,
    /// Whether lines have the Community ID, which follows from their other fields.
    community_ids: bool,
}

impl Native {
    pub(super) const fn new() -> Self {
        Self { calendar: Calendar::new(), community_ids: true }
    }

    /// Without what follows from the other fields.
    pub(super) const fn without_community_ids() -> Self {
        Self { calendar: Calendar::new(), community_ids: false }
    }

    fn time(&mut self, out: &mut Vec<u8>, ms: Option<u64>) {
        match ms {
            Some(ms) => {
                out.push(b'"');
                self.calendar.rfc3339(out, ms);
                out.push(b'"');
            }
            // No calendar holds it: the capture's clock was wrong.
            None => out.extend_from_slice(b"null"),
        }
    }

    fn line(&mut self, record: &Record, out: &mut Vec<u8>) {
        let known = Known::of(record);
        out.extend_from_slice(b"{\"start_time\":");
        self.time(out, known.start_ms);
        out.extend_from_slice(b",\"end_time\":");
        self.time(out, known.end_ms);
        // Of pseudonyms it would be the identifier of a flow that nobody else has seen.
        let is_as_seen = self.community_ids && !record.pseudonyms.any();
        if let Some(id) = is_as_seen.then(|| known.community_id()).flatten() {
            out.extend_from_slice(b",\"community_id\":\"");
            out.extend_from_slice(id.as_str().as_bytes());
            out.push(b'"');
        }
        maybe(out, ",\"protocol\":", known.protocol);
        out.extend_from_slice(b",\"initiator\":\"");
        address(out, known.initiator);
        out.push(b'"');
        maybe(out, ",\"initiator_port\":", known.initiator_port);
        out.extend_from_slice(b",\"responder\":\"");
        address(out, known.responder);
        out.push(b'"');
        maybe(out, ",\"responder_port\":", known.responder_port);
        maybe(out, ",\"vlan_outer\":", known.vlan_outer);
        maybe(out, ",\"vlan_inner\":", known.vlan_inner);
        maybe(out, ",\"mpls_label\":", known.mpls_label);
        tunnels(out, ",\"tunnels\":", &known);
        side(out, &INITIATOR, &known.from_initiator);
        side(out, &RESPONDER, &known.from_responder);
        if let Some(handshake) = known.handshake {
            word(out, ",\"handshake\":\"", handshake_name(handshake));
        }
        maybe(out, ",\"handshake_rtt_us\":", known.handshake_rtt_us);
        maybe(out, ",\"interface\":", known.interface);
        word(out, ",\"role\":\"", role_name(known.role));
        word(out, ",\"end_reason\":\"", end_reason_name(known.end_reason));
        if known.folded {
            out.extend_from_slice(b",\"folded\":true");
        }
        // Only what was sent to the backend has any.
        if record.pseudonyms.initiator {
            out.extend_from_slice(b",\"initiator_pseudonym\":true");
        }
        if record.pseudonyms.responder {
            out.extend_from_slice(b",\"responder_pseudonym\":true");
        }
        out.extend_from_slice(b"}\n");
    }
}

fn maybe(out: &mut Vec<u8>, before: &str, value: Option<impl itoa::Integer>) {
    if let Some(value) = value {
        out.extend_from_slice(before.as_bytes());
        number(out, value);
    }
}

fn word(out: &mut Vec<u8>, before: &str, word: &str) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(word.as_bytes());
    out.push(b'"');
}

fn side(out: &mut Vec<u8>, names: &SideNames, sent: &Sent) {
    maybe(out, names.packets, Some(sent.packets));
    maybe(out, names.bytes, Some(sent.bytes));
    maybe(out, names.tcp_flags, sent.tcp_flags);
    maybe(out, names.ttl, sent.ttl);
    maybe(out, names.dscp, sent.dscp);
    maybe(out, names.first_flags, sent.first_flags);
    if sent.fragmented == Some(true) {
        out.extend_from_slice(names.fragmented.as_bytes());
        out.extend_from_slice(b"true");
    }
    maybe(out, names.length_min, sent.length_min);
    maybe(out, names.length_max, sent.length_max);
}

impl Format for Native {
    fn name(&self) -> &'static str {
        "json"
    }

    fn write(&mut self, records: &[Record], out: &mut Vec<u8>) {
        for record in records {
            self.line(record, out);
        }
    }
}
