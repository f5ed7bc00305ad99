//! In: a flow's number, and a seed. Out: who speaks to whom in it, and by what. No two flows of a capture have the
//! same ends, the other way round included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use super::order::mixed;
use super::shares::{Share, fall, rest};
use crate::generate::encapsulation::{Encapsulation, Version};
use crate::generate::frames::Ends;

/// Ports that servers listen at; the more often, the more flows go there.
const SERVICES: [u16; 16] =
    [443, 443, 443, 443, 443, 443, 443, 80, 80, 53, 53, 123, 22, 25, 993, 853];
/// Smallest port of a client; the largest is 32,767 above it, so never one that a server listens at.
const CLIENT_PORT: u16 = 16_384;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    /// Echo requests and their replies.
    Icmp,
}

impl Protocol {
    pub(super) const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];
}

/// What one flow is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) protocol: Protocol,
    pub(super) version: Version,
    /// Which of the encapsulations; their number stands for none.
    pub(super) encapsulation: usize,
    /// From the initiator to the responder.
    pub(super) ends: Ends,
}

/// Gives each flow its identity.
#[derive(Clone, Debug)]
pub(super) struct Identities {
    key: u64,
    protocols: Vec<Share<Protocol>>,
    ipv6_percent: u8,
    encapsulations: Vec<Share<Encapsulation>>,
}

impl Identities {
    pub(super) fn new(
        seed: u64,
        protocols: &[Share<Protocol>],
        ipv6_percent: u8,
        encapsulations: &[Share<Encapsulation>],
    ) -> Result<Self> {
        let left = rest(protocols).context("--protocols")?;
        ensure!(left == 0, "--protocols: {left} of 100 flows have none");
        rest(encapsulations).context("--encapsulate")?;
        Ok(Self {
            key: mixed(seed),
            protocols: protocols.to_vec(),
            ipv6_percent,
            encapsulations: encapsulations.to_vec(),
        })
    }

    pub(super) fn identity(&self, flow: u32) -> Identity {
        let lots = mixed(self.key ^ u64::from(flow));
        let hundredth = |shift: u32| {
            let lot = lots >> shift & 0xffff;
            u8::try_from((lot * 100) >> 16).expect("less than a hundred")
        };
        let at = fall(&self.protocols, hundredth(0));
        let protocol = self.protocols.get(at).map_or(Protocol::Tcp, |share| share.kind);
        let version = if hundredth(16) < self.ipv6_percent { Version::V6 } else { Version::V4 };
        let encapsulation = fall(&self.encapsulations, hundredth(32));
        // Different for each flow: 17 bits of it are the client's address, 15 its port, or for ICMP, which has no
        // ports, the server's address.
        let number = scrambled(flow, self.key);
        let (client, rest) = (number >> 15, number & 0x7fff);
        let ports = u16::try_from(rest).expect("15 bits");
        let server = match protocol {
            Protocol::Icmp => rest,
            Protocol::Tcp | Protocol::Udp => low_32(mixed(lots)) & 0x1_ffff,
        };
        let [.., service, direction] = (lots >> 48).to_be_bytes();
        let service = SERVICES[usize::from(service & 0x0f)];
        // One of four flows comes in from outside.
        let inside_asks = direction & 3 != 0;
        let (inside, outside) = if inside_asks { (client, server) } else { (server, client) };
        let (inside, outside) = addresses(version, inside, outside);
        let (client, server) = if inside_asks { (inside, outside) } else { (outside, inside) };
        Identity {
            protocol,
            version,
            encapsulation,
            ends: Ends::new((client, CLIENT_PORT + ports), (server, service)),
        }
    }
}

/// Addresses of the site and of the world, from 17 bits each: private ones and those of RFC 2544 and RFC 3849.
fn addresses(version: Version, inside: u32, outside: u32) -> (IpAddr, IpAddr) {
    match version {
        Version::V4 => (
            Ipv4Addr::from_bits(0x0a40_0000 | inside).into(),
            Ipv4Addr::from_bits(0xc612_0000 | outside).into(),
        ),
        Version::V6 => {
            let site = 0xfd20_0000_0000_0000_0000_0000_0000_0000;
            let world = 0x2001_0db8_0051_0000_0000_0000_0000_0000;
            (
                Ipv6Addr::from_bits(site | u128::from(inside)).into(),
                Ipv6Addr::from_bits(world | u128::from(outside)).into(),
            )
        }
    }
}

/// Another number for each flow; xor with what is above it, odd factors and sums can all be undone.
fn scrambled(flow: u32, key: u64) -> u32 {
    let x = flow ^ low_32(key);
    let x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

fn low_32(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("32 bits")
}
