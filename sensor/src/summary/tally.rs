//! Takes records and link types of a replay as they come; gives what they add up to: hosts, services,
//! protocols, reasons of ends. A fixed amount of memory; a few nanoseconds a record.

use std::time::Duration;

use flow::{Address, EndReason, Record, protocol};

use super::FileSummary;
use super::sketch::HostSketch;
use crate::pcap::LinkType;

/// Ports there are.
const PORTS: usize = 1 << 16;
/// Protocol numbers there are.
const PROTOCOLS: usize = 1 << 8;
/// Numbers that an end reason can have.
const END_REASONS: usize = EndReason::LackOfResources as usize + 1;

/// What records add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sum {
    /// First, so that sums are in the order of their bytes.
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) records: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64, packets: u64) {
        self.bytes += bytes;
        self.packets += packets;
        self.records += 1;
    }
}

/// What is counted of a replay beside the books.
pub(crate) struct CaptureTally {
    /// It ended before the end of the files.
    pub(crate) stopped: bool,
    /// How long it took.
    pub(crate) elapsed: Option<Duration>,
    pub(super) files: u64,
    pub(super) file_bytes: u64,
    pub(super) links: [u64; LinkType::ALL.len()],
    pub(super) all: Sum,
    pub(super) end_reasons: [u64; END_REASONS],
    pub(super) hosts: HostSketch,
    /// By the responder's port, of TCP and of UDP.
    services: [Vec<Sum>; 2],
    protocols: Vec<Sum>,
}

impl Default for CaptureTally {
    fn default() -> Self {
        Self {
            stopped: false,
            elapsed: None,
            files: 0,
            file_bytes: 0,
            links: [0; LinkType::ALL.len()],
            all: Sum::default(),
            end_reasons: [0; END_REASONS],
            hosts: HostSketch::default(),
            services: [vec![Sum::default(); PORTS], vec![Sum::default(); PORTS]],
            protocols: vec![Sum::default(); PROTOCOLS],
        }
    }
}

impl CaptureTally {
    /// A file was read, as far as that went.
    pub(crate) fn handle_file(&mut self, file: &FileSummary) {
        self.files += 1;
        self.file_bytes += file.bytes;
    }

    /// A frame began with this.
    #[inline]
    pub(crate) fn handle_link(&mut self, link: LinkType) {
        self.links[link as usize] += 1;
    }

    /// A record was given out.
    #[inline]
    pub(crate) fn handle_record(&mut self, record: &Record) {
        let packets = record.from_initiator.packets + record.from_responder.packets;
        let bytes = record.from_initiator.bytes + record.from_responder.bytes;
        self.all.add(bytes, packets);
        self.end_reasons[record.end_reason as usize] += 1;
        self.protocols[usize::from(record.protocol)].add(bytes, packets);
        let ports = match record.protocol {
            protocol::TCP => Some(&mut self.services[0]),
            protocol::UDP => Some(&mut self.services[1]),
            _ => None,
        };
        if let Some(ports) = ports
            && record.ports_known
        {
            ports[usize::from(record.responder_port)].add(bytes, packets);
        }
        self.hosts.handle(Address::from(record.initiator), bytes, packets);
        // Who talks to itself is one host.
        if record.initiator != record.responder {
            self.hosts.handle(Address::from(record.responder), bytes, packets);
        }
    }

    /// The services with the most bytes: protocol number, port, sum.
    pub(super) fn top_services(&self, count: usize) -> Vec<(u8, u16, Sum)> {
        let numbered = [protocol::TCP, protocol::UDP].into_iter().zip(&self.services);
        let mut services: Vec<(u8, u16, Sum)> = numbered
            .flat_map(|(number, ports)| {
                ports.iter().zip(0..=u16::MAX).map(move |(sum, port)| (number, port, *sum))
            })
            .filter(|(_, _, sum)| sum.records > 0)
            .collect();
        services
            .sort_unstable_by_key(|&(number, port, sum)| (std::cmp::Reverse(sum), number, port));
        services.truncate(count);
        services
    }

    /// The protocols that were seen, those with the most bytes first.
    pub(super) fn top_protocols(&self) -> Vec<(u8, Sum)> {
        let mut protocols: Vec<(u8, Sum)> =
            (0..=u8::MAX).zip(self.protocols.iter().copied()).collect();
        protocols.retain(|(_, sum)| sum.records > 0);
        protocols.sort_unstable_by_key(|&(number, sum)| (std::cmp::Reverse(sum), number));
        protocols
    }
}
