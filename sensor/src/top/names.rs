//! Takes numbers; gives the words that people have for them: protocols, well-known services, how
//! far a connection got, and numbers that fit into a column.

use flow::{Handshake, Record, protocol, tcp_flag};

use super::tracker::ServiceId;
use crate::summary::{grouped, port_name};

/// Name of an IP protocol (IANA's, in lower case), or its number.
pub(super) fn protocol_name(number: u8) -> String {
    let name = match number {
        0 => "hopopt",
        protocol::ICMP => "icmp",
        2 => "igmp",
        protocol::IPV4 => "ipip",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        33 => "dccp",
        protocol::IPV6 => "ipv6",
        46 => "rsvp",
        protocol::GRE => "gre",
        50 => "esp",
        protocol::AH => "ah",
        protocol::ICMP6 => "icmp6",
        88 => "eigrp",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        115 => "l2tp",
        protocol::SCTP => "sctp",
        136 => "udpl",
        other => return format!("ip{other}"),
    };
    name.to_owned()
}

/// Number of the protocol with this name.
pub(super) fn protocol_number(name: &str) -> Option<u8> {
    (0..=u8::MAX).find(|number| protocol_name(*number) == name)
}

fn icmp_name(number: u8, message: u16) -> &'static str {
    match (number, message) {
        (protocol::ICMP, 0 | 8) | (protocol::ICMP6, 128 | 129) => "echo",
        (protocol::ICMP, 3) | (protocol::ICMP6, 1) => "unreachable",
        (protocol::ICMP, 5) | (protocol::ICMP6, 137) => "redirect",
        (protocol::ICMP, 11) | (protocol::ICMP6, 3) => "time exceeded",
        (protocol::ICMP6, 2) => "too big",
        (protocol::ICMP6, 130..=132 | 143) => "listeners",
        (protocol::ICMP6, 133 | 134) => "router",
        (protocol::ICMP6, 135 | 136) => "neighbour",
        _ => "",
    }
}

/// A service as people call it: `tcp/443 https`, `icmp/8 echo`, `gre`.
pub(super) fn service_name((number, port): ServiceId) -> String {
    let Some(port) = port else { return protocol_name(number) };
    let name = match number {
        protocol::ICMP | protocol::ICMP6 => icmp_name(number, port),
        _ => port_name(number, port),
    };
    format!("{}/{port} {name}", protocol_name(number)).trim_end().to_owned()
}

/// How a flow stands, in one word.
pub(super) fn state_name(record: &Record) -> &'static str {
    let back = record.from_responder.packets;
    if record.protocol != protocol::TCP {
        return if back == 0 || record.from_initiator.packets == 0 { "one-way" } else { "both" };
    }
    let [there, back] = [record.from_initiator.tcp_flags, record.from_responder.tcp_flags];
    match record.handshake {
        Handshake::Syn => "syn",
        Handshake::SynAck => "syn-ack",
        Handshake::Rejected => "refused",
        _ if (there | back) & tcp_flag::RST != 0 => "reset",
        _ if there & back & tcp_flag::FIN != 0 => "closed",
        Handshake::Established => "open",
        Handshake::OneWay => "one-way",
        Handshake::None => "midway",
    }
}

/// Three digits and the power of 1,000: `0`, `999`, `1.23k`, `98.7M`.
pub(super) fn short(number: u64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    if number < 1_000 {
        return number.to_string();
    }
    // Rounded down, as a counter is: 999,999 is not yet a million.
    let (mut thousandths, mut unit) = (u128::from(number) * 1_000, 0);
    while thousandths >= 1_000_000 {
        thousandths /= 1_000;
        unit += 1;
    }
    let (whole, part) = (thousandths / 1_000, thousandths % 1_000);
    let unit = UNITS.get(unit).copied().unwrap_or("");
    match whole {
        0..10 => format!("{whole}.{:02}{unit}", part / 10),
        10..100 => format!("{whole}.{}{unit}", part / 100),
        _ => format!("{whole}{unit}"),
    }
}

/// The exact number with commas where it fits, else [`short`].
pub(super) fn fitting(number: u64, columns: usize) -> String {
    let exact = grouped(number);
    if exact.len() <= columns { exact } else { short(number) }
}

/// How long, in its two largest units at most.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..10 => format!("{seconds}.{}s", ms % 1_000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A part of a whole, one digit after the point: `12.3 %`.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let permille = u128::from(part) * 1_000 / u128::from(whole.max(1));
    format!("{}.{} %", permille / 10, permille % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_down_and_never_wide() {
        for (number, told) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.00k"),
            (1_239, "1.23k"),
            (98_765, "98.7k"),
            (999_999, "999k"),
            (1_000_000, "1.00M"),
            (123_456_789, "123M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(short(number), told);
        }
        assert_eq!(fitting(1_234_567, 9), "1,234,567");
        assert_eq!(fitting(12_345_678, 9), "12.3M");
    }

    #[test]
    fn times_have_two_units() {
        let told = [900, 9_999, 59_999, 61_000, 3_661_000, 90_000_000].map(duration);
        assert_eq!(told, ["0.9s", "9.9s", "59s", "1m01s", "1h01m", "1d01h"]);
    }

    #[test]
    fn services_have_their_names() {
        assert_eq!(service_name((protocol::TCP, Some(443))), "tcp/443 https");
        assert_eq!(service_name((protocol::UDP, Some(443))), "udp/443 quic");
        assert_eq!(service_name((protocol::ICMP, Some(8))), "icmp/8 echo");
        assert_eq!(service_name((protocol::GRE, None)), "gre");
        assert_eq!(service_name((200, Some(4))), "ip200/4");
        assert_eq!(protocol_number("icmp6"), Some(58));
        assert_eq!(protocol_number("ip200"), Some(200));
        assert_eq!(protocol_number("https"), None);
    }
}
