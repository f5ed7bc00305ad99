//! Frames of every encapsulation that a mirror port shows, each with a payload of the caller's. In: payloads. Out:
//! whole frames, with where the payload lies in them and whose flow it is.

pub mod layers;

use std::net::IpAddr;

use layers::{
    IPV4, IPV6, Ipv4, authentication, erspan_1, erspan_2, erspan_3, esp, ethernet, extension,
    fragment, geneve, gre, gre_plain, gtp_u, icmp, ipv6, mpls, pppoe, sctp, tag, tcp, udp, vxlan,
};

const ICMP: u8 = 1;
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SIX_IN_FOUR: u8 = 41;
const GRE: u8 = 47;
const ESP: u8 = 50;
const AH: u8 = 51;
const ICMP6: u8 = 58;
const SCTP: u8 = 132;

const ACK: u8 = 0x10;
/// A TCP time stamp option, padded.
const TCP_OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
/// A router alert.
const IP_OPTIONS: [u8; 4] = [0x94, 4, 0, 0];
/// Ends of every tunnel here.
const TUNNEL: ([u8; 4], [u8; 4]) = ([203, 0, 113, 1], [203, 0, 113, 2]);

/// One frame.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which encapsulation.
    pub name: &'static str,
    /// The whole frame.
    pub frame: Vec<u8>,
    /// Where the payload begins: from here to the end of the frame nothing may matter.
    pub payload_start: usize,
    /// Source address of the innermost packet that is no payload.
    pub source: IpAddr,
}

impl Sample {
    /// The source address as it stands in the frame.
    #[must_use]
    pub fn source_octets(&self) -> Vec<u8> {
        match self.source {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }
}

/// The innermost packets: each sample has addresses of its own.
struct Inner<'a> {
    number: u8,
    payload: &'a [u8],
}

impl Inner<'_> {
    const fn v4_source(&self) -> [u8; 4] {
        [198, 18, 77, self.number]
    }

    const fn v6_source(&self) -> [u8; 16] {
        let mut address = [0x20, 0x01, 0x0d, 0xb8, 0x51, 0x62, 0x73, 0x84, 0, 0, 0, 0, 0, 0, 0, 1];
        address[15] = self.number;
        address
    }

    fn v4(&self) -> Ipv4<'static> {
        Ipv4::plain(self.v4_source(), [198, 19, 88, self.number])
    }

    fn v6(&self, next: u8, behind: &[u8]) -> Vec<u8> {
        let mut destination = self.v6_source();
        destination[8] = 1;
        ipv6(self.v6_source(), destination, next, behind)
    }

    fn tcp(&self) -> Vec<u8> {
        tcp([40_000, 443], ACK, &TCP_OPTIONS, self.payload)
    }

    fn udp(&self) -> Vec<u8> {
        udp([40_001, 53], self.payload)
    }

    fn v4_tcp(&self) -> Vec<u8> {
        self.v4().packet(TCP, &self.tcp())
    }

    fn v4_udp(&self) -> Vec<u8> {
        self.v4().packet(UDP, &self.udp())
    }

    fn v6_tcp(&self) -> Vec<u8> {
        self.v6(TCP, &self.tcp())
    }
}

/// A packet between the ends of a tunnel.
fn tunnel(protocol: u8, behind: &[u8]) -> Vec<u8> {
    ethernet(IPV4, &Ipv4::plain(TUNNEL.0, TUNNEL.1).packet(protocol, behind))
}

fn udp_tunnel(port: u16, behind: &[u8]) -> Vec<u8> {
    tunnel(UDP, &udp([50_000, port], behind))
}

type Builder = fn(&Inner<'_>) -> Vec<u8>;

/// What is not in any tunnel.
const PLAIN: [(&str, bool, Builder); 20] = [
    ("ipv4 tcp", true, |inner| ethernet(IPV4, &inner.v4_tcp())),
    ("ipv4 udp", true, |inner| ethernet(IPV4, &inner.v4_udp())),
    ("ipv6 tcp", false, |inner| ethernet(IPV6, &inner.v6_tcp())),
    ("ipv6 udp", false, |inner| ethernet(IPV6, &inner.v6(UDP, &inner.udp()))),
    ("ipv4 sctp", true, |inner| {
        ethernet(IPV4, &inner.v4().packet(SCTP, &sctp([40_002, 38_412], inner.payload)))
    }),
    ("ipv4 icmp echo", true, |inner| {
        ethernet(IPV4, &inner.v4().packet(ICMP, &icmp(8, 0, inner.payload)))
    }),
    ("ipv4 icmp error", true, |inner| {
        // The quoted packet is payload of the message, but for the canary only what it quotes of the payload.
        let quoted = Ipv4::plain([198, 19, 88, inner.number], inner.v4_source());
        let quoted = quoted.packet(UDP, &udp([53, 40_001], inner.payload));
        ethernet(IPV4, &inner.v4().packet(ICMP, &icmp(3, 3, &quoted)))
    }),
    ("ipv6 icmp error", false, |inner| {
        let quoted = inner.v6(UDP, &udp([53, 40_001], inner.payload));
        ethernet(IPV6, &inner.v6(ICMP6, &icmp(1, 4, &quoted)))
    }),
    ("ipv4 options", true, |inner| {
        let packet = Ipv4 { options: &IP_OPTIONS, ..inner.v4() };
        ethernet(IPV4, &packet.packet(TCP, &inner.tcp()))
    }),
    ("ipv4 first fragment", true, |inner| {
        let packet = Ipv4 { fragment: 0x2000, ..inner.v4() };
        ethernet(IPV4, &packet.packet(UDP, &inner.udp()))
    }),
    ("ipv4 later fragment", true, |inner| {
        let packet = Ipv4 { fragment: 0x0064, ..inner.v4() };
        ethernet(IPV4, &packet.packet(UDP, inner.payload))
    }),
    ("ipv6 extension headers", false, |inner| {
        // Hop-by-hop, routing, destination options.
        let options = extension(43, &extension(60, &extension(TCP, &inner.tcp())));
        ethernet(IPV6, &inner.v6(0, &options))
    }),
    ("ipv6 first fragment", false, |inner| {
        ethernet(IPV6, &inner.v6(44, &fragment(UDP, 0x0001, &inner.udp())))
    }),
    ("ipv6 later fragment", false, |inner| {
        ethernet(IPV6, &inner.v6(44, &fragment(UDP, 0x0328, inner.payload)))
    }),
    ("esp", true, |inner| ethernet(IPV4, &inner.v4().packet(ESP, &esp(inner.payload)))),
    ("ah", true, |inner| {
        ethernet(IPV4, &inner.v4().packet(AH, &authentication(TCP, &inner.tcp())))
    }),
    ("unknown protocol", true, |inner| ethernet(IPV4, &inner.v4().packet(253, inner.payload))),
    ("802.1q", true, |inner| ethernet(0x8100, &tag(100, IPV4, &inner.v4_tcp()))),
    ("qinq", false, |inner| ethernet(0x88a8, &tag(200, 0x8100, &tag(300, IPV6, &inner.v6_tcp())))),
    ("udp with a trailer", true, |inner| {
        // What follows the end of the IP packet is the link layer's.
        let mut frame = ethernet(IPV4, &inner.v4().packet(UDP, &udp([40_001, 53], &[])));
        frame.extend_from_slice(inner.payload);
        frame
    }),
];

/// What is.
const TUNNELLED: [(&str, bool, Builder); 19] = [
    ("mpls", true, |inner| ethernet(0x8847, &mpls(&[1000, 2000], &inner.v4_tcp()))),
    ("mpls ipv6", false, |inner| ethernet(0x8847, &mpls(&[1000], &inner.v6_tcp()))),
    ("pppoe", true, |inner| ethernet(0x8864, &pppoe(7, 0x0021, &inner.v4_tcp()))),
    ("pppoe ipv6", false, |inner| ethernet(0x8864, &pppoe(7, 0x0057, &inner.v6_tcp()))),
    ("gre", true, |inner| tunnel(GRE, &gre(IPV4, 77, &inner.v4_tcp()))),
    ("gre ipv6", false, |inner| tunnel(GRE, &gre_plain(IPV6, &inner.v6_tcp()))),
    ("gre ethernet", true, |inner| tunnel(GRE, &gre(0x6558, 78, &ethernet(IPV4, &inner.v4_udp())))),
    ("erspan i", true, |inner| tunnel(GRE, &erspan_1(&ethernet(IPV4, &inner.v4_tcp())))),
    ("erspan ii", true, |inner| tunnel(GRE, &erspan_2(11, &ethernet(IPV4, &inner.v4_tcp())))),
    ("erspan iii", true, |inner| tunnel(GRE, &erspan_3(12, &ethernet(IPV4, &inner.v4_udp())))),
    ("vxlan", true, |inner| udp_tunnel(4789, &vxlan(5000, &ethernet(IPV4, &inner.v4_tcp())))),
    ("vxlan vlan ipv6", false, |inner| {
        let frame = ethernet(0x8100, &tag(9, IPV6, &inner.v6_tcp()));
        udp_tunnel(4789, &vxlan(5001, &frame))
    }),
    ("geneve", true, |inner| udp_tunnel(6081, &geneve(6000, &ethernet(IPV4, &inner.v4_tcp())))),
    ("ip in ip", true, |inner| tunnel(IPIP, &inner.v4_tcp())),
    ("6in4", false, |inner| tunnel(SIX_IN_FOUR, &inner.v6_tcp())),
    ("gtp-u", true, |inner| udp_tunnel(2152, &gtp_u(0x0102_0304, &inner.v4_tcp()))),
    ("gtp-u ipv6", false, |inner| udp_tunnel(2152, &gtp_u(0x0102_0305, &inner.v6_tcp()))),
    ("qinq vxlan", true, |inner| {
        let outer = Ipv4::plain(TUNNEL.0, TUNNEL.1);
        let inner = vxlan(5002, &ethernet(IPV4, &inner.v4_udp()));
        let outer = outer.packet(UDP, &udp([50_000, 4789], &inner));
        ethernet(0x88a8, &tag(201, 0x8100, &tag(301, IPV4, &outer)))
    }),
    ("vxlan in gre", true, |inner| {
        let inner = vxlan(5003, &ethernet(IPV4, &inner.v4_tcp()));
        let middle = Ipv4::plain([192, 0, 2, 1], [192, 0, 2, 2]);
        let middle = middle.packet(UDP, &udp([50_000, 4789], &inner));
        tunnel(GRE, &gre_plain(IPV4, &middle))
    }),
];

/// How many samples there are.
pub const SAMPLES: usize = PLAIN.len() + TUNNELLED.len();

/// One frame of every kind; `payload` is asked for each in turn.
pub fn samples(payload: &mut dyn FnMut() -> Vec<u8>) -> Vec<Sample> {
    let mut made = Vec::with_capacity(SAMPLES);
    for (number, (name, is_v4, build)) in (1..).zip(PLAIN.iter().chain(&TUNNELLED)) {
        let payload = payload();
        let inner = Inner { number, payload: &payload };
        let frame = build(&inner);
        let source: IpAddr =
            if *is_v4 { inner.v4_source().into() } else { inner.v6_source().into() };
        let payload_start = frame.len() - payload.len();
        made.push(Sample { name, frame, payload_start, source });
    }
    made
}
