//! Takes records; appends Zeek's `conn.log` in its tab-separated form. What a flow record cannot know
//! (payload bytes, the order of events, the service) is Zeek's "unset", `-`, never 0.

use std::io::Write as _;

use flow::{Handshake, Record, protocol, tcp_flag};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::super::known::Known;
use super::Format;
use super::write::{address, number, seconds};

/// Names and types of the columns: those of `conn.log`, `ip_proto` (Zeek 7.1), and what the policy
/// scripts `vlan-logging` and `community-id-logging` add.
pub(super) const COLUMNS: [(&str, &str); 25] = [
    ("ts", "time"),
    ("uid", "string"),
    ("id.orig_h", "addr"),
    ("id.orig_p", "port"),
    ("id.resp_h", "addr"),
    ("id.resp_p", "port"),
    ("proto", "enum"),
    ("service", "string"),
    ("duration", "interval"),
    ("orig_bytes", "count"),
    ("resp_bytes", "count"),
    ("conn_state", "string"),
    ("local_orig", "bool"),
    ("local_resp", "bool"),
    ("missed_bytes", "count"),
    ("history", "string"),
    ("orig_pkts", "count"),
    ("orig_ip_bytes", "count"),
    ("resp_pkts", "count"),
    ("resp_ip_bytes", "count"),
    ("tunnel_parents", "set[string]"),
    ("ip_proto", "count"),
    ("vlan", "int"),
    ("inner_vlan", "int"),
    ("community_id", "string"),
];

const UNSET: &str = "-";

/// Zeek's `conn.log`.
pub(super) struct Zeek;

impl Zeek {
    pub(super) const fn new() -> Self {
        Self
    }
}

impl Format for Zeek {
    fn name(&self) -> &'static str {
        "json"
    }

    fn begin(&mut self, opened_ms: u64, out: &mut Vec<u8>) {
        let each = |pick: fn(&(&'static str, &'static str)) -> &'static str| {
            COLUMNS.iter().map(pick).collect::<Vec<_>>().join("\t")
        };
        let (names, types) = (each(|column| column.0), each(|column| column.1));
        write!(
            out,
            "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t{UNSET}\n\
             #path\tconn\n#open\t{}\n#fields\t{names}\n#types\t{types}\n",
            moment(opened_ms)
        )
        .expect("memory takes everything");
    }

    fn write(&mut self, records: &[Record], out: &mut Vec<u8>) {
        for record in records {
            line(record, out);
        }
    }

    fn end(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        writeln!(out, "#close\t{}", moment(now_ms)).expect("memory takes everything");
    }
}

/// A time as Zeek's header writes it, in UTC.
fn moment(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| UNSET.to_owned(), |time| time.strftime("%Y-%m-%d-%H-%M-%S").to_string())
}

fn line(record: &Record, out: &mut Vec<u8>) {
    let known = Known::of(record);
    match known.start_ms {
        Some(ms) => seconds(out, ms),
        None => text(out, UNSET),
    }
    out.push(b'\t');
    uid(out, record);
    out.push(b'\t');
    // A prefix is no host, and nothing is no address.
    if known.prefix_bits.is_none() {
        address(out, known.initiator);
    } else {
        text(out, UNSET);
    }
    value(out, known.initiator_port);
    out.push(b'\t');
    if known.is_rest() {
        text(out, UNSET);
    } else {
        address(out, known.responder);
    }
    value(out, known.responder_port);
    word(out, proto(&known));
    word(out, UNSET); // service
    out.push(b'\t');
    if known.start_ms.is_some() && known.end_ms.is_some() {
        seconds(out, known.duration_ms);
    } else {
        text(out, UNSET);
    }
    word(out, UNSET); // orig_bytes
    word(out, UNSET); // resp_bytes
    word(out, conn_state(&known).unwrap_or(UNSET));
    for _local_orig_local_resp_missed_bytes_history in 0..4 {
        word(out, UNSET);
    }
    value(out, Some(known.from_initiator.packets));
    word(out, UNSET); // orig_ip_bytes: frames are counted with their link-layer headers
    value(out, Some(known.from_responder.packets));
    word(out, UNSET); // resp_ip_bytes
    // Tunnels are not connections of their own here, so there are no identifiers of parents.
    let in_tunnel = known.outer.tunnels().next().is_some();
    word(out, if in_tunnel { UNSET } else { "(empty)" });
    value(out, known.protocol);
    value(out, known.vlan_outer);
    value(out, known.vlan_inner);
    word(out, known.community_id().as_ref().map_or(UNSET, |id| id.as_str()));
    out.push(b'\n');
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn word(out: &mut Vec<u8>, word: &str) {
    out.push(b'\t');
    text(out, word);
}

fn value(out: &mut Vec<u8>, value: Option<impl itoa::Integer>) {
    out.push(b'\t');
    match value {
        Some(value) => number(out, value),
        None => text(out, UNSET),
    }
}

/// Zeek's word for the transport; it has four.
fn proto(known: &Known) -> &'static str {
    match known.protocol {
        Some(protocol::TCP) => "tcp",
        Some(protocol::UDP) => "udp",
        Some(protocol::ICMP | protocol::ICMP6) => "icmp",
        _ => "unknown_transport",
    }
}

/// The letter `C` and 96 bits in base 62, as Zeek's identifiers look; from what tells the record from
/// others, so that the same capture gives the same identifiers.
fn uid(out: &mut Vec<u8>, record: &Record) {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const LENGTH: usize = 17;
    let mut hash = Sha256::new();
    for ip in [record.initiator, record.responder] {
        match ip {
            std::net::IpAddr::V4(v4) => hash.update(v4.octets()),
            std::net::IpAddr::V6(v6) => hash.update(v6.octets()),
        }
    }
    hash.update(record.initiator_port.to_be_bytes());
    hash.update(record.responder_port.to_be_bytes());
    hash.update([record.protocol, u8::from(record.ports_known), u8::from(record.folded)]);
    hash.update(record.outer.layers.to_be_bytes());
    hash.update(record.outer.ids.to_be_bytes());
    hash.update(record.start_ms.to_be_bytes());
    let digest = hash.finalize();
    let mut left = digest.iter().take(12).fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    out.push(b'C');
    for _ in 0..LENGTH {
        out.push(DIGITS[usize::try_from(left % 62).expect("it is below 62")]);
        left /= 62;
    }
}

/// Zeek's summary of a connection, from flags and packets; `None` where they do not decide it.
fn conn_state(known: &Known) -> Option<&'static str> {
    if known.folded {
        return None;
    }
    let (ours, theirs) = (&known.from_initiator, &known.from_responder);
    let answered = theirs.packets > 0;
    let handshake = match known.protocol? {
        protocol::TCP => known.handshake?,
        protocol::UDP if ours.packets == 0 => return Some("SHR"),
        protocol::UDP => return Some(if answered { "SF" } else { "S0" }),
        _ => return Some("OTH"),
    };
    let has = |flags: Option<u8>, flag: u8| flags.is_some_and(|flags| flags & flag != 0);
    let fin = [has(ours.tcp_flags, tcp_flag::FIN), has(theirs.tcp_flags, tcp_flag::FIN)];
    let rst = [has(ours.tcp_flags, tcp_flag::RST), has(theirs.tcp_flags, tcp_flag::RST)];
    Some(match handshake {
        Handshake::None | Handshake::OneWay => "OTH",
        Handshake::Rejected => "REJ",
        Handshake::Syn if rst[0] => "RSTOS0",
        Handshake::Syn if fin[0] => "SH",
        Handshake::Syn => "S0",
        // Without a packet of the originator its SYN was not seen.
        Handshake::SynAck if ours.packets == 0 && rst[1] => "RSTRH",
        Handshake::SynAck if ours.packets == 0 && fin[1] => "SHR",
        Handshake::SynAck if ours.packets == 0 => "OTH",
        Handshake::SynAck | Handshake::Established => match (rst, fin) {
            // Who was first cannot be told.
            ([true, true], _) => return None,
            ([true, false], _) => "RSTO",
            ([false, true], _) => "RSTR",
            (_, [true, true]) => "SF",
            (_, [true, false]) => "S2",
            (_, [false, true]) => "S3",
            (_, [false, false]) => "S1",
        },
    })
}
