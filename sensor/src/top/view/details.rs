//! Takes the selected flow; gives everything that is known of it, a line each.

use std::net::{IpAddr, SocketAddr};

use flow::{Direction, Record, RoleEvidence, community_id, protocol};
use ratatui::text::{Line, Span};

use super::{Theme, time};
use crate::summary::grouped;
use crate::top::names::{duration, protocol_name, service_name, short, state_name};
use crate::top::rate::Amount;
use crate::top::state::State;
use crate::top::tracker::service_of;

/// Names of the TCP flags, lowest bit first.
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

pub(super) fn lines(state: &State, paint: Theme) -> Vec<Line<'static>> {
    let Some(picture) = &state.picture else { return Vec::new() };
    let place = state.opened().and_then(|row| row.flow);
    let Some(flow) = place.and_then(|place| picture.tracked.flows.get(place)) else {
        return Vec::new();
    };
    let record = &flow.record;
    let now_ms = picture.tracked.clock.now_ms;
    let line = |name: &str, value: String| {
        Line::from(vec![Span::styled(format!("{name:<14}"), paint.label()), Span::raw(value)])
    };
    let moment = |ms: u64| format!("{} UTC, {} ago", time(ms), duration(now_ms.saturating_sub(ms)));
    let (_, port) = service_of(record);
    let is_icmp = matches!(record.protocol, protocol::ICMP | protocol::ICMP6);
    let has_ports = port.is_some() && !is_icmp;
    let mut lines = vec![
        line("initiator", end(record.initiator, record.initiator_port, has_ports)),
        line("responder", end(record.responder, record.responder_port, has_ports)),
        line("roles", evidence(record.role).to_owned()),
        line("service", service_name(service_of(record))),
        line("state", how_far(record)),
        line("carried in", carried(record)),
        line("first packet", moment(record.start_ms)),
        line("latest packet", moment(record.end_ms)),
        Line::default(),
        Line::from(Span::styled(
            format!("{:<14}{:>22}{:>22}", "", "from the initiator", "from the responder"),
            paint.label(),
        )),
    ];
    let both = |name: &str, value: &dyn Fn(&Direction, Amount) -> String| {
        let [there, back] = flow.rates;
        let values = [value(&record.from_initiator, there), value(&record.from_responder, back)];
        line(name, format!("{:>22}{:>22}", values[0], values[1]))
    };
    lines.extend([
        both("packets", &|side, _| grouped(side.packets)),
        both("bytes", &|side, _| grouped(side.bytes)),
        both("packets/s", &|_, rate| short(rate.packets)),
        both("bits/s", &|_, rate| short(rate.bytes.saturating_mul(8))),
        both("frame bytes", &|side, _| {
            if side.packets == 0 {
                return "none".to_owned();
            }
            format!("{} to {}", side.length_min, side.length_max)
        }),
        both("TTL, DSCP", &|side, _| {
            if side.packets == 0 {
                return "none".to_owned();
            }
            format!("{}, {}", side.ttl, side.dscp)
        }),
    ]);
    if record.protocol == protocol::TCP {
        lines.push(both("first flags", &|side, _| flags(side.first_flags)));
        lines.push(both("TCP flags", &|side, _| flags(side.tcp_flags)));
    }
    if record.from_initiator.fragmented || record.from_responder.fragmented {
        let yes = |side: &Direction| if side.fragmented { "some" } else { "none" };
        lines.push(both("fragments", &|side, _| yes(side).to_owned()));
    }
    if !flow.is_whole {
        lines.push(Line::from(
            "It may have been put out of the list before: totals are at least these.",
        ));
    }
    if !is_icmp {
        let ports = has_ports.then_some([record.initiator_port, record.responder_port]);
        let number = record.protocol;
        let id = community_id(record.initiator, record.responder, number, ports, false);
        lines.push(line("Community ID", id.to_string()));
    }
    lines
}

fn end(address: IpAddr, port: u16, has_port: bool) -> String {
    if has_port { SocketAddr::new(address, port).to_string() } else { address.to_string() }
}

const fn evidence(role: RoleEvidence) -> &'static str {
    match role {
        RoleEvidence::Handshake => "sure: the opening was seen",
        RoleEvidence::FirstPacket => "by the first packet",
        RoleEvidence::PortRank => "by the better-known port",
        RoleEvidence::Guess => "a guess: nothing tells",
    }
}

fn carried(record: &Record) -> String {
    let mut layers: Vec<String> = record
        .outer
        .vlans()
        .0
        .iter()
        .filter(|vlan| **vlan != 0)
        .map(|vlan| format!("VLAN {vlan}"))
        .collect();
    layers.extend(record.outer.mpls_label().map(|label| format!("MPLS {label}")));
    layers.extend(record.outer.tunnels().map(|tunnel| tunnel.to_string()));
    let layers = layers.join(", ");
    if layers.is_empty() {
        format!("nothing: plain {}", protocol_name(record.protocol))
    } else {
        layers
    }
}

/// How far the flow got; of TCP also how long the answer to the SYN took.
fn how_far(record: &Record) -> String {
    let name = state_name(record);
    match (record.protocol, record.handshake_rtt_us) {
        (protocol::TCP, Some(rtt_us)) => {
            format!("{name}; SYN-ACK {}.{:03} ms after the SYN", rtt_us / 1_000, rtt_us % 1_000)
        }
        (protocol::TCP, None) => format!("{name}; round-trip time unknown"),
        _ => name.to_owned(),
    }
}

fn flags(tcp_flags: u8) -> String {
    let set = FLAGS.iter().enumerate().filter(|(bit, _)| tcp_flags >> bit & 1 == 1);
    let names: Vec<&str> = set.map(|(_, name)| *name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::samples::record;

    #[test]
    fn the_state_of_tcp_says_how_long_the_answer_took_or_that_nobody_knows() {
        let mut record = record("192.0.2.1:40000", "198.51.100.2:443");
        assert_eq!(how_far(&record), "midway; round-trip time unknown");
        record.handshake_rtt_us = Some(12_045);
        assert_eq!(how_far(&record), "midway; SYN-ACK 12.045 ms after the SYN");
        record.protocol = protocol::UDP;
        assert!(!how_far(&record).contains("SYN"), "{}", how_far(&record));
    }
}
