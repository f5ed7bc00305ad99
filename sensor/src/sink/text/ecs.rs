//! Takes records; appends one JSON object a line with the names of the Elastic Common Schema, nested. What
//! the schema has no name for stands under `spanwatch`, as in our own form. What is not known is left
//! out: so there is no `network.direction`, since a mirror port does not say which side is inside.

use flow::{EndReason, Record, RoleEvidence, protocol};

use super::super::known::{Known, Sent, end_reason_name, handshake_name, role_name};
use super::write::{Calendar, address, number};
use super::{Format, tunnels};

/// The version of the schema whose names these are.
const ECS_VERSION: &str = "8.17.0";

/// Names of the Elastic Common Schema.
pub(super) struct Ecs {
    calendar: Calendar,
    /// The object about this sensor, for each interface; the first is for an unknown one.
    observers: Vec<String>,
}

impl Ecs {
    /// `interfaces` are the names of those that are listened on, in the order of the configuration.
    pub(super) fn new(interfaces: &[String]) -> Self {
        let observer = |interface: &str| {
            format!(
                "\"observer\":{{\"vendor\":\"Spanwatch\",\"product\":\"spanwatch-sensor\",\
                 \"type\":\"sensor\",\"version\":\"{}\"{interface}}}",
                env!("CARGO_PKG_VERSION")
            )
        };
        let named = interfaces.iter().enumerate().map(|(at, name)| {
            // The one text here that was not made here.
            let name = serde_json::Value::from(name.as_str());
            let id = at + 1;
            observer(&format!(",\"ingress\":{{\"interface\":{{\"id\":\"{id}\",\"name\":{name}}}}}"))
        });
        let observers = std::iter::once(observer("")).chain(named).collect();
        Self { calendar: Calendar::new(), observers }
    }

    fn line(&mut self, record: &Record, out: &mut Vec<u8>) {
        let known = Known::of(record);
        out.push(b'{');
        self.event(out, &known);
        end(out, ",\"source\":{", &known, Side::Initiator);
        end(out, ",\"destination\":{", &known, Side::Responder);
        if known.role != RoleEvidence::Guess {
            end(out, ",\"client\":{", &known, Side::Initiator);
            end(out, ",\"server\":{", &known, Side::Responder);
        }
        if known.prefix_bits.is_none() {
            out.extend_from_slice(b",\"related\":{\"ip\":[\"");
            address(out, known.initiator);
            if known.responder != known.initiator {
                out.extend_from_slice(b"\",\"");
                address(out, known.responder);
            }
            out.extend_from_slice(b"\"]}");
        }
        network(out, &known);
        out.push(b',');
        let interface = usize::from(known.interface.unwrap_or(0));
        let observer = self.observers.get(interface).or_else(|| self.observers.first());
        out.extend_from_slice(observer.map_or("", String::as_str).as_bytes());
        own(out, &known);
        out.extend_from_slice(b"}\n");
    }

    fn event(&mut self, out: &mut Vec<u8>, known: &Known) {
        if let Some(ms) = known.end_ms {
            self.time(out, "\"@timestamp\":\"", ms);
            out.push(b',');
        }
        write(out, "\"ecs\":{\"version\":\"");
        write(out, ECS_VERSION);
        write(
            out,
            "\"},\"event\":{\"kind\":\"event\",\"category\":[\"network\"],\"type\":[\"connection\"",
        );
        if matches!(known.end_reason, EndReason::EndOfFlow | EndReason::IdleTimeout) {
            write(out, ",\"end\"");
        }
        write(out, "],\"module\":\"spanwatch\",\"dataset\":\"spanwatch.flow\",\"reason\":\"");
        write(out, end_reason_name(known.end_reason));
        out.push(b'"');
        for (before, time) in [(",\"start\":\"", known.start_ms), (",\"end\":\"", known.end_ms)] {
            if let Some(ms) = time {
                self.time(out, before, ms);
            }
        }
        if known.start_ms.is_some() && known.end_ms.is_some() {
            write(out, ",\"duration\":");
            number(out, u128::from(known.duration_ms) * 1_000_000);
        }
        out.push(b'}');
    }

    fn time(&mut self, out: &mut Vec<u8>, before: &str, ms: u64) {
        write(out, before);
        self.calendar.rfc3339(out, ms);
        out.push(b'"');
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Initiator,
    Responder,
}

fn write(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Writes a value after its name, and a comma before both unless it is the first of its object.
fn maybe(out: &mut Vec<u8>, name: &str, value: Option<impl itoa::Integer>) {
    let Some(value) = value else { return };
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write(out, name);
    number(out, value);
}

/// One end of the flow; `before` opens its object.
fn end(out: &mut Vec<u8>, before: &str, known: &Known, side: Side) {
    let (ip, port, sent) = match side {
        Side::Initiator => (known.initiator, known.initiator_port, &known.from_initiator),
        Side::Responder => (known.responder, known.responder_port, &known.from_responder),
    };
    write(out, before);
    let prefix_bits = known.prefix_bits.filter(|_| side == Side::Initiator);
    if known.is_rest() {
        // Of these packets not even the addresses are known.
    } else if let Some(bits) = prefix_bits {
        write(out, "\"address\":\"");
        address(out, ip);
        out.push(b'/');
        number(out, bits);
        out.push(b'"');
    } else {
        write(out, "\"ip\":\"");
        address(out, ip);
        out.push(b'"');
    }
    maybe(out, "\"port\":", port.filter(|_| !known.is_icmp()));
    maybe(out, "\"packets\":", Some(sent.packets));
    maybe(out, "\"bytes\":", Some(sent.bytes));
    out.push(b'}');
}

fn network(out: &mut Vec<u8>, known: &Known) {
    write(out, ",\"network\":{");
    if let Some(protocol) = known.protocol {
        write(
            out,
            if known.responder.is_ipv4() { "\"type\":\"ipv4\"" } else { "\"type\":\"ipv6\"" },
        );
        if let Some(name) = transport(protocol) {
            write(out, ",\"transport\":\"");
            write(out, name);
            out.push(b'"');
        }
        write(out, ",\"iana_number\":\"");
        number(out, protocol);
        out.push(b'"');
    }
    if let Some(id) = known.community_id() {
        write(out, ",\"community_id\":\"");
        write(out, id.as_str());
        out.push(b'"');
    }
    let (from, to) = (&known.from_initiator, &known.from_responder);
    maybe(out, "\"packets\":", Some(from.packets.saturating_add(to.packets)));
    maybe(out, "\"bytes\":", Some(from.bytes.saturating_add(to.bytes)));
    if let Some(id) = known.vlan_outer {
        write(out, ",\"vlan\":{\"id\":\"");
        number(out, id);
        write(out, "\"}");
    }
    if let Some(id) = known.vlan_inner {
        write(out, ",\"inner\":{\"vlan\":{\"id\":\"");
        number(out, id);
        write(out, "\"}}");
    }
    out.push(b'}');
}

/// The schema's word for a protocol: IANA's keyword in lower case. Only those that occur as the
/// innermost of a flow.
fn transport(number: u8) -> Option<&'static str> {
    Some(match number {
        protocol::ICMP => "icmp",
        2 => "igmp",
        protocol::IPV4 => "ipv4",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        33 => "dccp",
        protocol::IPV6 => "ipv6",
        46 => "rsvp",
        protocol::GRE => "gre",
        50 => "esp",
        protocol::AH => "ah",
        protocol::ICMP6 => "ipv6-icmp",
        89 => "ospfigp",
        103 => "pim",
        112 => "vrrp",
        protocol::SCTP => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

/// What the schema has no names for.
fn own(out: &mut Vec<u8>, known: &Known) {
    write(out, ",\"spanwatch\":{\"role\":\"");
    write(out, role_name(known.role));
    out.push(b'"');
    if let Some(handshake) = known.handshake {
        write(out, ",\"handshake\":\"");
        write(out, handshake_name(handshake));
        out.push(b'"');
    }
    maybe(out, "\"handshake_rtt_us\":", known.handshake_rtt_us);
    maybe(out, "\"mpls_label\":", known.mpls_label);
    tunnels(out, ",\"tunnels\":", known);
    if known.is_icmp() && known.initiator_port.is_some() {
        write(out, ",\"icmp\":{");
        maybe(out, "\"type\":", known.initiator_port);
        let name = if known.one_way { "\"code\":" } else { "\"answer_type\":" };
        maybe(out, name, known.responder_port);
        out.push(b'}');
    }
    sent(out, ",\"initiator\":{", &known.from_initiator);
    sent(out, ",\"responder\":{", &known.from_responder);
    if known.folded {
        write(out, ",\"folded\":true");
    }
    out.push(b'}');
}

/// What is known of one side's packets; nothing when there is nothing to tell.
fn sent(out: &mut Vec<u8>, before: &str, sent: &Sent) {
    let began = out.len();
    write(out, before);
    maybe(out, "\"tcp_flags\":", sent.tcp_flags);
    maybe(out, "\"first_flags\":", sent.first_flags);
    maybe(out, "\"ttl\":", sent.ttl);
    maybe(out, "\"dscp\":", sent.dscp);
    maybe(out, "\"length_min\":", sent.length_min);
    maybe(out, "\"length_max\":", sent.length_max);
    match (sent.fragmented, out.last()) {
        (Some(true), _) => write(out, ",\"fragmented\":true}"),
        (_, Some(b'{')) => out.truncate(began),
        _ => out.push(b'}'),
    }
}

impl Format for Ecs {
    fn name(&self) -> &'static str {
        "json"
    }

    fn write(&mut self, records: &[Record], out: &mut Vec<u8>) {
        for record in records {
            self.line(record, out);
        }
    }
}
