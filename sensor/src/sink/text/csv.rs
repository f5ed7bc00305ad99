//! Takes records; appends comma-separated values (RFC 4180) under a header. The columns are those of
//! the Parquet output, in its order. What is not known is an empty value.

use ::csv::Writer;
use flow::Record;

use super::super::known::{Known, Sent, end_reason_name, handshake_name, role_name, tunnels_text};
use super::Format;
use super::write::{Calendar, address};

/// Names of the columns.
pub(in super::super) const HEADER: [&str; 38] = [
    "start_time",
    "end_time",
    "community_id",
    "ip_version",
    "protocol",
    "initiator",
    "initiator_port",
    "responder",
    "responder_port",
    "vlan_outer",
    "vlan_inner",
    "mpls_label",
    "tunnels",
    "initiator_packets",
    "initiator_bytes",
    "initiator_tcp_flags",
    "initiator_ttl",
    "initiator_dscp",
    "initiator_first_flags",
    "initiator_fragmented",
    "initiator_length_min",
    "initiator_length_max",
    "responder_packets",
    "responder_bytes",
    "responder_tcp_flags",
    "responder_ttl",
    "responder_dscp",
    "responder_first_flags",
    "responder_fragmented",
    "responder_length_min",
    "responder_length_max",
    "handshake",
    "handshake_rtt_us",
    "interface",
    "role",
    "end_reason",
    "folded",
    "initiator_prefix_bits",
];

/// Comma-separated values.
pub(super) struct Csv {
    calendar: Calendar,
    value: Vec<u8>,
}

impl Csv {
    pub(super) const fn new() -> Self {
        Self { calendar: Calendar::new(), value: Vec::new() }
    }

    fn row(&mut self, record: &Record, row: &mut Row<'_>) {
        let known = Known::of(record);
        for time in [known.start_ms, known.end_ms] {
            self.value.clear();
            if let Some(ms) = time {
                self.calendar.rfc3339(&mut self.value, ms);
            }
            row.text(&self.value);
        }
        row.text(known.community_id().as_ref().map_or("", |id| id.as_str()).as_bytes());
        row.number(known.ip_version());
        row.number(known.protocol);
        for (ip, port) in
            [(known.initiator, known.initiator_port), (known.responder, known.responder_port)]
        {
            self.value.clear();
            address(&mut self.value, ip);
            row.text(&self.value);
            row.number(port);
        }
        row.number(known.vlan_outer);
        row.number(known.vlan_inner);
        row.number(known.mpls_label);
        row.text(tunnels_text(known.outer).unwrap_or_default().as_bytes());
        row.side(&known.from_initiator);
        row.side(&known.from_responder);
        row.text(known.handshake.map_or("", handshake_name).as_bytes());
        row.number(known.handshake_rtt_us);
        row.number(known.interface);
        row.text(role_name(known.role).as_bytes());
        row.text(end_reason_name(known.end_reason).as_bytes());
        row.truth(Some(known.folded));
        row.number(known.prefix_bits);
        row.end();
    }
}

const WRITES: &str = "memory takes everything, and every row has as many values as the header";

/// One row on its way into the buffer.
struct Row<'a>(Writer<&'a mut Vec<u8>>);

impl Row<'_> {
    fn text(&mut self, value: &[u8]) {
        self.0.write_field(value).expect(WRITES);
    }

    fn number(&mut self, value: Option<impl itoa::Integer>) {
        match value {
            Some(value) => self.text(itoa::Buffer::new().format(value).as_bytes()),
            None => self.text(b""),
        }
    }

    fn truth(&mut self, value: Option<bool>) {
        self.text(match value {
            Some(true) => b"true",
            Some(false) => b"false",
            None => b"",
        });
    }

    fn side(&mut self, sent: &Sent) {
        self.number(Some(sent.packets));
        self.number(Some(sent.bytes));
        self.number(sent.tcp_flags);
        self.number(sent.ttl);
        self.number(sent.dscp);
        self.number(sent.first_flags);
        self.truth(sent.fragmented);
        self.number(sent.length_min);
        self.number(sent.length_max);
    }

    fn end(&mut self) {
        self.0.write_record(None::<&[u8]>).expect(WRITES);
    }
}

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn begin(&mut self, _opened_ms: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(HEADER.join(",").as_bytes());
        out.push(b'\n');
    }

    fn write(&mut self, records: &[Record], out: &mut Vec<u8>) {
        let mut row = Row(Writer::from_writer(out));
        for record in records {
            self.row(record, &mut row);
        }
        row.0.flush().expect(WRITES);
    }
}
