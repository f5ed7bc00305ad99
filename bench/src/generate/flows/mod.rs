//! In: how many packets and flows, of what kinds and sizes, and a seed. Out: the packets one after another, flows
//! mixed as on a busy line, in bounded memory: a few bytes a flow, nothing a packet.

mod identity;
mod order;
mod shares;
mod sizes;
mod template;

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use pnet_packet::tcp::TcpFlags;

use super::encapsulation::{Encapsulation, Version};
use identity::{Identities, Identity, Protocol};
use order::{Order, mixed};
use shares::{FrameBytes, Share};
use sizes::{Sizes, Spread};
use template::{Packet, Template};

const NANOSECONDS: u64 = 1_000_000_000;
/// Conversations of fewer packets are cut off before their end, as captures cut them.
const WITH_END_PACKETS_MIN: u32 = 6;
/// By how much a TCP sequence number grows a packet where nothing counts the bytes.
const SEQUENCE_STEP: u32 = 1_448;

/// What the flows are made from.
#[derive(Args)]
#[command(next_help_heading = "Many flows")]
pub(crate) struct FlowOptions {
    /// Packets to make; without it there is only what --with names.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    packets: Option<u32>,
    /// Flows that they belong to; a fifth as many as packets when it is not given.
    #[arg(long, requires = "packets", value_parser = clap::value_parser!(u32).range(1..))]
    flows: Option<u32>,
    /// How the packets are spread over the flows.
    #[arg(long, requires = "packets", value_enum, default_value_t = Spread::Zipf)]
    sizes: Spread,
    /// Bytes of a frame, the check sequence left out: a number, or `mix` as on a line to the Internet. Headers that
    /// need more get more.
    #[arg(long, requires = "packets", default_value = "mix", value_name = "BYTES|mix")]
    frame_bytes: FrameBytes,
    /// Percentages of flows by protocol, of tcp, udp and icmp.
    #[arg(
        long,
        requires = "packets",
        value_delimiter = ',',
        default_value = "tcp=80,udp=19,icmp=1",
        value_name = "KIND=PERCENT"
    )]
    protocols: Vec<Share<Protocol>>,
    /// TCP flows begin with a handshake and, from six packets on, end with FIN; without it they are caught in their
    /// middle.
    #[arg(long, requires = "packets")]
    conversations: bool,
    /// How many of a hundred flows are IPv6.
    #[arg(long, requires = "packets", default_value_t = 20, value_name = "PERCENT",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    ipv6: u8,
    /// Percentages of flows inside vlan, qinq, mpls, pppoe, gre, erspan, vxlan, geneve, ipip, gtp; the rest is plain.
    #[arg(long, requires = "packets", value_delimiter = ',', value_name = "KIND=PERCENT")]
    encapsulate: Vec<Share<Encapsulation>>,
    /// Packets a second by the capture's clock.
    #[arg(long, requires = "packets", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    packets_per_s: u64,
}

impl FlowOptions {
    /// The packets that were asked for, if any were.
    pub(super) fn packets(&self, seed: u64) -> Result<Option<Packets>> {
        let Some(packets) = self.packets else { return Ok(None) };
        let flows = match (self.sizes, self.flows) {
            (Spread::One, None) => packets,
            (Spread::One, Some(flows)) if flows != packets => {
                bail!("--sizes one makes as many flows as packets, {packets}, not {flows}")
            }
            (_, Some(flows)) => flows,
            (_, None) => packets.div_ceil(5),
        };
        ensure!(flows <= packets, "{flows} flows need at least as many packets, not {packets}");
        let identities = Identities::new(seed, &self.protocols, self.ipv6, &self.encapsulate)?;
        let mut encapsulations: Vec<_> = self.encapsulate.iter().map(|share| share.kind).collect();
        encapsulations.push(Encapsulation::Plain);
        let mut templates = Vec::new();
        for encapsulation in encapsulations {
            for version in [Version::V4, Version::V6] {
                let make = |protocol| Template::new(protocol, version, encapsulation);
                templates.extend(Protocol::ALL.map(make));
            }
        }
        let sequences =
            if self.conversations { vec![[1_000, 9_000]; flows as usize] } else { vec![] };
        Ok(Some(Packets {
            key: mixed(!seed),
            order: Order::new(packets, seed),
            sizes: Sizes::new(self.sizes, packets, flows),
            identities,
            templates,
            frame_bytes: self.frame_bytes,
            rate_per_s: self.packets_per_s,
            made: 0,
            before: if flows < packets { vec![0; flows as usize] } else { vec![] },
            sequences,
        }))
    }
}

/// The packets of many flows, made one at a time.
pub(super) struct Packets {
    key: u64,
    order: Order,
    sizes: Sizes,
    identities: Identities,
    /// By encapsulation, version and protocol.
    templates: Vec<Template>,
    frame_bytes: FrameBytes,
    rate_per_s: u64,
    made: u64,
    /// For each flow how many of its packets were made; empty where each has but one.
    before: Vec<u32>,
    /// For each flow the next sequence numbers of initiator and responder; empty where there are no conversations.
    sequences: Vec<[u32; 2]>,
}

impl Packets {
    /// When the next packet is on the wire, after the start.
    pub(super) fn due(&self) -> Duration {
        Duration::from_nanos(self.made * NANOSECONDS / self.rate_per_s)
    }

    /// Makes the next frame, or as much of it as is captured; returns how long it was on the wire, or `None` when
    /// there is no more.
    pub(super) fn next(&mut self, frame: &mut Vec<u8>, snap_bytes: usize) -> Option<usize> {
        let position = self.order.next()?;
        self.made += 1;
        let flow = self.sizes.flow(position);
        let identity = self.identities.identity(flow);
        let lots = mixed(self.key ^ u64::from(position));
        let (length_lot, direction_lot) = ((lots >> 32) as u32, lots % 8);
        let number = self.before.get_mut(flow as usize).map_or(0, |before| {
            *before += 1;
            *before - 1
        });
        let mut packet = Packet {
            ends: identity.ends,
            // Servers send more than clients. A flow begins with its initiator, and an echo follows its request.
            from_initiator: match identity.protocol {
                Protocol::Icmp => number.is_multiple_of(2),
                Protocol::Tcp | Protocol::Udp => number == 0 || direction_lot < 3,
            },
            number,
            flags: TcpFlags::ACK,
            sequence: number.wrapping_mul(SEQUENCE_STEP),
            acknowledgement: number.wrapping_mul(SEQUENCE_STEP),
        };
        let template = &self.templates[template(&identity)];
        let mut payload_bytes =
            usize::from(self.frame_bytes.draw(length_lot)).saturating_sub(template.headers_bytes());
        if identity.protocol == Protocol::Tcp
            && let Some(sequences) = self.sequences.get_mut(flow as usize)
        {
            let step = step(number, self.sizes.packets(flow));
            if let Some((from_initiator, flags)) = step {
                (packet.from_initiator, packet.flags, payload_bytes) = (from_initiator, flags, 0);
            } else if payload_bytes > 0 {
                packet.flags |= TcpFlags::PSH;
            }
            let (own, other) = if packet.from_initiator { (0, 1) } else { (1, 0) };
            packet.sequence = sequences[own];
            let acknowledges = packet.flags & TcpFlags::ACK != 0;
            packet.acknowledgement = if acknowledges { sequences[other] } else { 0 };
            let counts = packet.flags & (TcpFlags::SYN | TcpFlags::FIN) != 0;
            let used = u32::try_from(payload_bytes).expect("a frame is short") + u32::from(counts);
            sequences[own] = sequences[own].wrapping_add(used);
        }
        Some(template.write(frame, &packet, payload_bytes, snap_bytes))
    }
}

/// Which template a flow's packets are made from.
fn template(identity: &Identity) -> usize {
    let version = usize::from(identity.version == Version::V6);
    let protocol = Protocol::ALL.iter().position(|protocol| *protocol == identity.protocol);
    let protocols = Protocol::ALL.len();
    (identity.encapsulation * 2 + version) * protocols + protocol.unwrap_or(0)
}

/// Who sends the n-th packet of a TCP conversation, and its flags; `None` where it is one of those that carry data.
fn step(number: u32, packets: u32) -> Option<(bool, u8)> {
    match number {
        0 => return Some((true, TcpFlags::SYN)),
        1 => return Some((false, TcpFlags::SYN | TcpFlags::ACK)),
        2 => return Some((true, TcpFlags::ACK)),
        _ => {}
    }
    if packets < WITH_END_PACKETS_MIN {
        return None;
    }
    match packets - number {
        3 => Some((true, TcpFlags::FIN | TcpFlags::ACK)),
        2 => Some((false, TcpFlags::FIN | TcpFlags::ACK)),
        1 => Some((true, TcpFlags::ACK)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
