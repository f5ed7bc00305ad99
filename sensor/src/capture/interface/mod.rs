//! Asks the kernel (rtnetlink) and the driver (ethtool) what an interface is: its number, whether this machine uses
//! it for anything, what card and driver have counted, and how they are set. Works in the network namespace in
//! which it was opened, from any thread. Changes nothing.

mod ethtool;
mod facts;
mod statistics;

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use ethtool::Ethtool;
pub use ethtool::{Channels, Offloads, Rings, Spread};
pub use facts::{InterfaceFacts, Interrupt, MachineFacts, XdpAttached};
use statistics::Generic;
pub use statistics::NicStatistics;

/// Interfaces that are looked at; more are not a machine that this runs on.
const INTERFACES_MAX: usize = 16_384;
/// One answer's buffer; the kernel fills up to 32 KiB at a time for whoever offers it.
const ANSWER_BYTES: usize = 32 * 1024;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 0x301;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_CARRIER: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;

const AF_INET6: u8 = 10;
const RT_SCOPE_LINK: u8 = 253;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    generic: Generic,
    /// It is switched on and has a carrier, so that frames can come.
    pub(super) is_up: bool,
    master: Option<u32>,
    /// The interface that this one is stacked on, in the same namespace.
    link: Option<u32>,
    kind: String,
}

/// Why frames of an interface have to reach the network stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It has an address of its own (an IPv6 link-local address, which every interface gets, aside).
    Address,
    /// It is a port of a bridge or bond.
    Port,
    /// Another interface (VLAN, macvlan, tunnel) is stacked on it.
    Stacked,
}

/// Sockets to the kernel.
pub(super) struct Interfaces {
    socket: OwnedFd,
    ethtool: Ethtool,
}

impl Interfaces {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // Protocol 0 is NETLINK_ROUTE.
        )?;
        Ok(Self { socket, ethtool: Ethtool::open()? })
    }

    /// Every interface of the namespace.
    pub(super) fn list(&self) -> io::Result<Vec<Interface>> {
        let mut interfaces = Vec::new();
        self.dump(RTM_GETLINK, |kind, body| {
            if kind == RTM_NEWLINK
                && interfaces.len() < INTERFACES_MAX
                && let Some(interface) = parse_link(body)
            {
                interfaces.push(interface);
            }
        })?;
        Ok(interfaces)
    }

    /// What this machine uses the interface for, if anything.
    pub(super) fn used_for(
        &self,
        interface: &Interface,
        all: &[Interface],
    ) -> io::Result<Option<Use>> {
        let mut has_address = false;
        self.dump(RTM_GETADDR, |kind, body| {
            has_address |= kind == RTM_NEWADDR && is_address_of(body, interface.index);
        })?;
        Ok(if has_address {
            Some(Use::Address)
        } else if interface.master.is_some() {
            Some(Use::Port)
        } else if all.iter().any(|other| is_stacked_on(other, interface.index)) {
            Some(Use::Stacked)
        } else {
            None
        })
    }

    /// Sends one request and gives every message of the answer.
    fn dump(&self, request: u16, mut visit: impl FnMut(u16, &[u8])) -> io::Result<()> {
        // Header (length, type, flags, sequence, port) and the longest family header, all zero: any family.
        let mut message = Vec::with_capacity(32);
        message.extend_from_slice(&32_u32.to_le_bytes());
        message.extend_from_slice(&request.to_le_bytes());
        message.extend_from_slice(&REQUEST_DUMP.to_le_bytes());
        message.resize(32, 0);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &message, SendFlags::empty(), &kernel)?;
        let mut buffer = vec![0_u8; ANSWER_BYTES];
        loop {
            let (received, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let answer = buffer.get(..received).unwrap_or_default();
            if received == 0 || read_messages(answer, &mut visit)? {
                return Ok(());
            }
        }
    }
}

/// Gives each message; true when it was the last. Netlink is in the host's order, which is little-endian on every
/// machine that the XDP object is for.
fn read_messages(mut answer: &[u8], visit: &mut impl FnMut(u16, &[u8])) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(answer, 0), u16_at(answer, 4)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = answer.get(16..length) else { break };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let number = u32_at(body, 0).unwrap_or_default().cast_signed();
                return Err(io::Error::from_raw_os_error(number.wrapping_neg()));
            }
            _ => visit(kind, body),
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Of a `struct ifinfomsg` and its attributes.
fn parse_link(body: &[u8]) -> Option<Interface> {
    /// `IFF_UP` and `IFF_RUNNING`.
    const UP: u32 = 0x41;
    let is_up = u32_at(body, 8)? & UP == UP;
    let mut interface = Interface { index: u32_at(body, 4)?, is_up, ..Interface::default() };
    let mut is_elsewhere = false;
    for (kind, value) in Attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => interface.name = text(value),
            IFLA_LINK => interface.link = u32_at(value, 0),
            IFLA_MASTER => interface.master = u32_at(value, 0),
            IFLA_LINK_NETNSID => is_elsewhere = true,
            IFLA_LINKINFO => {
                let kind = Attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                interface.kind = kind.map(|(_, name)| text(name)).unwrap_or_default();
            }
            IFLA_STATS64 => {
                // struct rtnl_link_stats64: rx_packets is word 0, rx_dropped 6, rx_missed_errors 15.
                interface.generic = Generic {
                    received: u64_at(value, 0),
                    missed: u64_at(value, 15 * 8),
                    dropped: u64_at(value, 6 * 8),
                };
            }
            _ => {}
        }
    }
    if is_elsewhere {
        interface.link = None;
    }
    Some(interface)
}

/// Of a `struct ifaddrmsg`: family, prefix length, flags, scope, interface.
fn is_address_of(body: &[u8], index: u32) -> bool {
    let [family, _, _, scope] = *body.first_chunk::<4>().unwrap_or(&[0; 4]);
    u32_at(body, 4) == Some(index) && !(family == AF_INET6 && scope == RT_SCOPE_LINK)
}

/// The other end of a veth pair is also called its link, but is not stacked on it.
fn is_stacked_on(other: &Interface, index: u32) -> bool {
    other.index != index && other.link == Some(index) && other.kind != "veth"
}

/// The attributes of a message: length, type, value, padding to four bytes.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        /// The two upper bits of a type say nested and byte order.
        const TYPE_MASK: u16 = 0x3fff;
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests;
