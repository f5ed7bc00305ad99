//! Packets and bytes by who sends to whom: what the two opinions are compared in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use flow::{Record, protocol};

/// Sender, receiver, their ports, protocol.
pub type Tuple = (IpAddr, IpAddr, u16, u16, u8);

/// What was sent.
pub type Table = BTreeMap<Tuple, Sum>;

/// Packets, and their bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Packets.
    pub packets: u64,
    /// Layer-2 bytes.
    pub bytes: u64,
}

/// What one of the two makes of a capture. Parts of a flow between timeouts are added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opinion {
    /// Of the innermost packets, TCP and UDP with known ports.
    pub flows: Table,
    /// Of all innermost IP packets; ports and protocol are 0.
    pub hosts: Table,
}

impl Opinion {
    /// Adds what a record says of both directions.
    pub fn handle_record(&mut self, record: &Record) {
        let (here, there) = (record.initiator, record.responder);
        let (near, far) = (record.initiator_port, record.responder_port);
        let has_ports =
            matches!(record.protocol, protocol::TCP | protocol::UDP) && record.ports_known;
        for (ends, side) in [
            ((here, there, near, far), record.from_initiator),
            ((there, here, far, near), record.from_responder),
        ] {
            let sum = Sum { packets: side.packets, bytes: side.bytes };
            if sum.packets > 0 {
                let (source, destination, near, far) = ends;
                add(&mut self.hosts, (source, destination, 0, 0, 0), sum);
                if has_ports {
                    add(&mut self.flows, (source, destination, near, far, record.protocol), sum);
                }
            }
        }
    }
}

pub(super) fn add(table: &mut Table, tuple: Tuple, sum: Sum) {
    let entry = table.entry(tuple).or_default();
    entry.packets += sum.packets;
    entry.bytes += sum.bytes;
}

/// Packets and bytes that one table has and the other has not, and the first tuple of them.
#[must_use]
pub fn missing(from: &Table, of: &Table) -> (Sum, Option<Tuple>) {
    let mut total = Sum::default();
    let mut example = None;
    for (tuple, sum) in of {
        let other = from.get(tuple).copied().unwrap_or_default();
        let packets = sum.packets.saturating_sub(other.packets);
        let bytes = sum.bytes.saturating_sub(other.bytes);
        if packets > 0 || bytes > 0 {
            example = example.or(Some(*tuple));
            total.packets += packets;
            total.bytes += bytes;
        }
    }
    (total, example)
}
