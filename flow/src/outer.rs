//! What a packet was carried in: VLAN tags, MPLS labels and tunnels, as two integers that tell networks apart.
//! Equal addresses in different tunnels are different flows.

use core::fmt;
use core::str::FromStr;

#[cfg(not(target_arch = "bpf"))]
use serde::{Deserialize, Serialize};

/// VLAN tags, outermost first, by VLAN identifier (1 to 4094); 0 where there is no such tag. A priority tag
/// (identifier 0) counts as no tag, as IEEE 802.1Q has it. Of a deeper stack the outer two are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
pub struct Vlans(pub [u16; 2]);

/// How one packet was put into another; the numbers are part of [`Outer::layers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
#[cfg_attr(not(target_arch = "bpf"), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum TunnelKind {
    /// PPP over Ethernet, RFC 2516; identified by its session.
    Pppoe = 1,
    /// IPv4 in IP, RFC 2003 and RFC 2473.
    Ipv4InIp = 2,
    /// IPv6 in IP, RFC 4213 (6in4) and RFC 2473.
    Ipv6InIp = 3,
    /// Generic Routing Encapsulation without a key, RFC 2784; also PPTP, whose key is none.
    Gre = 4,
    /// The same with a key, RFC 2890; also NVGRE, whose key is network and flow.
    GreKeyed = 5,
    /// A mirrored frame without a session number, ERSPAN type I.
    Erspan = 6,
    /// A mirrored frame, ERSPAN type II or III; identified by its session.
    ErspanSession = 7,
    /// RFC 7348; identified by its network.
    Vxlan = 8,
    /// RFC 8926; identified by its network.
    Geneve = 9,
    /// User data of a mobile network, 3GPP TS 29.281; identified by the receiver's tunnel endpoint.
    GtpU = 10,
}

impl TunnelKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Pppoe,
        Self::Ipv4InIp,
        Self::Ipv6InIp,
        Self::Gre,
        Self::GreKeyed,
        Self::Erspan,
        Self::ErspanSession,
        Self::Vxlan,
        Self::Geneve,
        Self::GtpU,
    ];

    /// The name that records, metrics and summaries use; that of the protocol, whichever form it has.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pppoe => "pppoe",
            Self::Ipv4InIp => "ipv4_in_ip",
            Self::Ipv6InIp => "ipv6_in_ip",
            Self::Gre | Self::GreKeyed => "gre",
            Self::Erspan | Self::ErspanSession => "erspan",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::GtpU => "gtp_u",
        }
    }

    /// Whether a number comes with it.
    #[inline(always)]
    #[must_use]
    pub const fn has_id(self) -> bool {
        !matches!(self, Self::Ipv4InIp | Self::Ipv6InIp | Self::Gre | Self::Erspan)
    }

    fn from_number(number: usize) -> Option<Self> {
        Self::ALL.get(number.checked_sub(1)?).copied()
    }
}

/// One tunnel that a packet came out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tunnel {
    /// How the packet was put in.
    pub kind: TunnelKind,
    /// Key, session, network or endpoint; `None` for a kind that has no number.
    pub id: Option<u32>,
}

impl fmt::Display for Tunnel {
    /// The protocol's name, and its number where it has one: `vxlan:5001`, `gre`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind.name())?;
        match self.id {
            Some(id) => write!(formatter, ":{id}"),
            None => Ok(()),
        }
    }
}

/// A text that names no tunnel. Remedy: it has to be as [`Tunnel`] is displayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTunnel;

impl FromStr for Tunnel {
    type Err = NoTunnel;

    fn from_str(text: &str) -> Result<Self, NoTunnel> {
        let (name, id) = match text.split_once(':') {
            Some((name, id)) => {
                (name, Some(id.parse().map_err(|_no_number: core::num::ParseIntError| NoTunnel)?))
            }
            None => (text, None),
        };
        let named = |kind: &&TunnelKind| kind.name() == name && kind.has_id() == id.is_some();
        let kind = *TunnelKind::ALL.iter().find(named).ok_or(NoTunnel)?;
        Ok(Self { kind, id })
    }
}

/// Tunnels inside one another that are entered; what is deeper belongs to the flow of its carrier.
pub const TUNNELS_MAX: usize = 4;
/// Tunnels with a number among them.
pub const TUNNEL_IDS_MAX: usize = 2;

/// The outer identity of a packet: exact within its bounds, integers only, all zero for a plain frame.
///
/// ```text
/// layers  0         12        24       28       32       36       40         60 61    64
///         ┌─────────┬─────────┬────────┬────────┬────────┬────────┬──────────┬──┬─────┐
///         │ outer   │ inner   │ tunnel │ tunnel │ tunnel │ tunnel │ lowest   │1 │ 0   │
///         │ VLAN    │ VLAN    │ kind 1 │ kind 2 │ kind 3 │ kind 4 │ label    │  │     │
///         └─────────┴─────────┴────────┴────────┴────────┴────────┴──────────┴──┴─────┘
/// ids     the numbers of the first two tunnels that have one, 32 bits each
/// ```
///
/// A frame whose only outer identity is one VLAN tag has that tag's number in `layers` and 0 in `ids`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
pub struct Outer {
    /// VLAN tags, kinds of tunnels, MPLS label.
    pub layers: u64,
    /// Numbers of tunnels.
    pub ids: u64,
}

const VLAN_BITS: u32 = 12;
const VLAN_MASK: u64 = 0xfff;
const KINDS_SHIFT: u32 = 24;
const KIND_BITS: u32 = 4;
const KIND_MASK: u64 = 0xf;
const KINDS_MASK: u64 = 0xffff << KINDS_SHIFT;
const LABEL_SHIFT: u32 = 40;
const LABEL_MASK: u64 = 0xf_ffff << LABEL_SHIFT;
const LABELLED: u64 = 1 << 60;
/// A bit for each kind that has a number.
const WITH_ID: u32 = {
    let mut bits = 0;
    let mut index = 0;
    while index < TunnelKind::ALL.len() {
        if TunnelKind::ALL[index].has_id() {
            bits |= 1 << TunnelKind::ALL[index] as u32;
        }
        index += 1;
    }
    bits
};

impl Outer {
    /// Of a frame with these VLAN tags and nothing else.
    #[inline(always)]
    #[must_use]
    pub const fn from_vlans(vlans: Vlans) -> Self {
        let outer = vlans.0[0] as u64 & VLAN_MASK;
        let inner = vlans.0[1] as u64 & VLAN_MASK;
        Self { layers: outer | inner << VLAN_BITS, ids: 0 }
    }

    /// Of a packet with these VLAN tags, this lowest label, and these tunnels, outermost first; `None` when that is
    /// more than there is room for.
    #[must_use]
    pub fn new(
        vlans: Vlans,
        mpls_label: Option<u32>,
        tunnels: impl IntoIterator<Item = Tunnel>,
    ) -> Option<Self> {
        let mut outer = Self::from_vlans(vlans);
        if let Some(label) = mpls_label {
            outer = outer.with_mpls_label(label);
        }
        for tunnel in tunnels {
            outer = outer.with_tunnel(tunnel.kind, tunnel.id.unwrap_or(0))?;
        }
        (outer.vlans() == vlans && outer.mpls_label() == mpls_label).then_some(outer)
    }

    /// Whether the frame was carried in nothing.
    #[inline(always)]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.layers | self.ids == 0
    }

    /// VLAN tags, those inside of tunnels after those outside.
    #[must_use]
    pub const fn vlans(&self) -> Vlans {
        let inner = self.layers >> VLAN_BITS & VLAN_MASK;
        Vlans([(self.layers & VLAN_MASK) as u16, inner as u16])
    }

    /// The lowest MPLS label, the one next to the packet.
    #[must_use]
    pub const fn mpls_label(&self) -> Option<u32> {
        if self.layers & LABELLED == 0 {
            return None;
        }
        Some(((self.layers & LABEL_MASK) >> LABEL_SHIFT) as u32)
    }

    /// The numbers of the kinds of tunnels, outermost first; 0 where there is none.
    #[inline(always)]
    #[must_use]
    pub const fn kind_numbers(&self) -> [usize; TUNNELS_MAX] {
        let kinds = self.layers >> KINDS_SHIFT;
        [
            (kinds & KIND_MASK) as usize,
            (kinds >> KIND_BITS & KIND_MASK) as usize,
            (kinds >> (2 * KIND_BITS) & KIND_MASK) as usize,
            (kinds >> (3 * KIND_BITS) & KIND_MASK) as usize,
        ]
    }

    /// The tunnels that the packet came out of, outermost first.
    pub fn tunnels(&self) -> impl Iterator<Item = Tunnel> + use<> {
        let (mut kinds, mut ids) = (self.kind_numbers().into_iter(), self.ids);
        core::iter::from_fn(move || {
            let kind = TunnelKind::from_number(kinds.next()?)?;
            let id = kind.has_id().then_some((ids & 0xffff_ffff) as u32);
            if id.is_some() {
                ids >>= 32;
            }
            Some(Tunnel { kind, id })
        })
    }

    /// What is the same for both directions of a conversation: without the MPLS label and without the endpoints
    /// of GTP-U, which each direction has its own of.
    #[must_use]
    pub fn both_ways(&self) -> Self {
        let mut paired = Self { layers: self.layers & !(LABEL_MASK | LABELLED), ids: 0 };
        let mut place = 0;
        for tunnel in self.tunnels() {
            let Some(id) = tunnel.id else { continue };
            let id = if matches!(tunnel.kind, TunnelKind::GtpU) { 0 } else { id };
            paired.ids |= u64::from(id) << place;
            place += 32;
        }
        paired
    }

    /// Whether the words could have come from a frame: no unknown kind, no gap, nothing where nothing belongs.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let known = (VLAN_MASK | VLAN_MASK << VLAN_BITS) | KINDS_MASK | LABEL_MASK | LABELLED;
        let mut kinds = 0_u64;
        let mut numbered = 0_u32;
        for (place, tunnel) in (0..).zip(self.tunnels()) {
            kinds |= (tunnel.kind as u64) << (KINDS_SHIFT + place * KIND_BITS);
            numbered += u32::from(tunnel.id.is_some());
        }
        let ids_fit = match numbered {
            0 => self.ids == 0,
            1 => self.ids >> 32 == 0,
            2 => true,
            _ => false,
        };
        self.layers & !known == 0
            && self.layers & KINDS_MASK == kinds
            && (self.layers & LABELLED != 0 || self.layers & LABEL_MASK == 0)
            && ids_fit
    }

    /// With one more VLAN tag; `None` when two are kept already.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn with_vlan(self, identifier: u16) -> Option<Self> {
        let identifier = identifier as u64 & VLAN_MASK;
        if self.layers & VLAN_MASK == 0 {
            return Some(Self { layers: self.layers | identifier, ids: self.ids });
        }
        if self.layers >> VLAN_BITS & VLAN_MASK == 0 {
            return Some(Self { layers: self.layers | identifier << VLAN_BITS, ids: self.ids });
        }
        None
    }

    /// With this as the lowest label.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn with_mpls_label(self, label: u32) -> Self {
        let label = (label as u64) << LABEL_SHIFT & LABEL_MASK;
        Self { layers: self.layers & !LABEL_MASK | LABELLED | label, ids: self.ids }
    }

    /// With one more tunnel; `None` when there is no room for its kind or its number.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn with_tunnel(self, kind: TunnelKind, id: u32) -> Option<Self> {
        let shift = match self.kind_numbers() {
            [0, ..] => KINDS_SHIFT,
            [_, 0, ..] => KINDS_SHIFT + KIND_BITS,
            [_, _, 0, _] => KINDS_SHIFT + 2 * KIND_BITS,
            [_, _, _, 0] => KINDS_SHIFT + 3 * KIND_BITS,
            _ => return None,
        };
        let layers = self.layers | (kind as u64) << shift;
        if !kind.has_id() {
            return Some(Self { layers, ids: self.ids });
        }
        match self.numbered() {
            0 => Some(Self { layers, ids: self.ids | id as u64 }),
            1 => Some(Self { layers, ids: self.ids | (id as u64) << 32 }),
            _ => None,
        }
    }

    /// Tunnels that have a number.
    #[inline(always)]
    const fn numbered(&self) -> u32 {
        let mut count = 0;
        let mut shift = KINDS_SHIFT;
        while shift < KINDS_SHIFT + 16 {
            let kind = self.layers >> shift & KIND_MASK;
            count += WITH_ID >> kind & 1;
            shift += KIND_BITS;
        }
        count
    }
}
