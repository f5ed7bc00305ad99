//! Takes what a record says; gives its template and its data record (RFC 7011), as a biflow (RFC 5103).
//! Both come out of one description, so that they cannot disagree. A record gets the template that has
//! exactly the fields it knows: an unknown one is not sent, and never as 0.

use std::net::IpAddr;

use flow::{RoleEvidence, TunnelKind, protocol};

use super::super::known::{Known, Sent};

/// The enterprise number that turns an information element into its reverse, RFC 5103.
const REVERSE_PEN: u32 = 29_305;
/// Marks an element with an enterprise number.
const ENTERPRISE_BIT: u16 = 0x8000;
/// First number that a template may have.
const TEMPLATE_MIN: u16 = 256;
/// Bits of a shape, and so the number of templates that there can be.
const SHAPE_BITS: u32 = 15;

const _: () = assert!(TEMPLATE_MIN as u32 + (1 << SHAPE_BITS) <= u16::MAX as u32 + 1);

/// An information element of IANA's registry, and how many bytes it is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    number: u16,
    bytes: u16,
    reverse: bool,
}

macro_rules! elements {
    ($($name:ident = $number:literal, $bytes:literal;)+) => {
        $(const $name: Element =
            Element { number: $number, bytes: $bytes, reverse: false };)+
    };
}

elements! {
    OCTET_DELTA_COUNT = 1, 8;
    PACKET_DELTA_COUNT = 2, 8;
    PROTOCOL_IDENTIFIER = 4, 1;
    TCP_CONTROL_BITS = 6, 2;
    SOURCE_TRANSPORT_PORT = 7, 2;
    SOURCE_IPV4_ADDRESS = 8, 4;
    SOURCE_IPV4_PREFIX_LENGTH = 9, 1;
    INGRESS_INTERFACE = 10, 4;
    DESTINATION_TRANSPORT_PORT = 11, 2;
    DESTINATION_IPV4_ADDRESS = 12, 4;
    SOURCE_IPV6_ADDRESS = 27, 16;
    DESTINATION_IPV6_ADDRESS = 28, 16;
    SOURCE_IPV6_PREFIX_LENGTH = 29, 1;
    ICMP_TYPE_CODE_IPV4 = 32, 2;
    SOURCE_IPV4_PREFIX = 44, 4;
    VLAN_ID = 58, 2;
    FLOW_END_REASON = 136, 1;
    ICMP_TYPE_CODE_IPV6 = 139, 2;
    FLOW_START_MILLISECONDS = 152, 8;
    FLOW_END_MILLISECONDS = 153, 8;
    SOURCE_IPV6_PREFIX = 170, 16;
    ICMP_TYPE_IPV4 = 176, 1;
    ICMP_TYPE_IPV6 = 178, 1;
    IP_TTL = 192, 1;
    IP_DIFF_SERV_CODE_POINT = 195, 1;
    BIFLOW_DIRECTION = 239, 1;
    DOT1Q_VLAN_ID = 243, 2;
    DOT1Q_CUSTOMER_VLAN_ID = 245, 2;
    LAYER2_SEGMENT_ID = 351, 8;
    LAYER2_OCTET_DELTA_COUNT = 352, 8;
    MINIMUM_LAYER2_TOTAL_LENGTH = 422, 2;
    MAXIMUM_LAYER2_TOTAL_LENGTH = 423, 2;
}

/// The kind of overlay in the first byte of `layer2SegmentId`.
const SEGMENT_VXLAN: u64 = 0x01 << 56;

/// What a record knows, as a set of bits: each set has its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape(u16);

impl Shape {
    const V6: u16 = 1;
    const SOURCE_PORT: u16 = 1 << 1;
    const DESTINATION_PORT: u16 = 1 << 2;
    const ICMP: u16 = 1 << 3;
    const ICMP_CODE: u16 = 1 << 4;
    const TCP: u16 = 1 << 5;
    const FORWARD: u16 = 1 << 6;
    const REVERSE: u16 = 1 << 7;
    const VLAN: u16 = 1 << 8;
    const INNER_VLAN: u16 = 1 << 9;
    const VXLAN: u16 = 1 << 10;
    const INTERFACE: u16 = 1 << 11;
    const PREFIX: u16 = 1 << 12;
    const REST: u16 = 1 << 13;
    const UNDATED: u16 = 1 << 14;

    /// What this record knows.
    pub(super) fn of(known: &Known) -> Self {
        let (forward, reverse) = (&known.from_initiator, &known.from_responder);
        let is_icmp = known.is_icmp();
        // There are elements for ICMP in IPv4 and for ICMPv6 in IPv6, and none for what else is sent.
        let has_type = match known.protocol {
            Some(protocol::ICMP) => known.responder.is_ipv4(),
            Some(protocol::ICMP6) => known.responder.is_ipv6(),
            _ => false,
        };
        let facts = [
            (Self::V6, !known.responder.is_ipv4()),
            (Self::SOURCE_PORT, !is_icmp && known.initiator_port.is_some()),
            (Self::DESTINATION_PORT, !is_icmp && known.responder_port.is_some()),
            (Self::ICMP, has_type && known.initiator_port.is_some()),
            // The code is known only where it tells messages apart.
            (Self::ICMP_CODE, has_type && known.one_way && known.responder_port.is_some()),
            (Self::TCP, forward.tcp_flags.or(reverse.tcp_flags).is_some()),
            (Self::FORWARD, forward.ttl.is_some()),
            (Self::REVERSE, reverse.packets > 0),
            (Self::VLAN, known.vlan_outer.is_some()),
            (Self::INNER_VLAN, known.vlan_inner.is_some()),
            (Self::VXLAN, vxlan(known).is_some()),
            (Self::INTERFACE, known.interface.is_some()),
            (Self::PREFIX, known.prefix_bits.is_some()),
            (Self::REST, known.is_rest()),
            (Self::UNDATED, known.start_ms.is_none() || known.end_ms.is_none()),
        ];
        Self(facts.iter().filter(|(_, holds)| *holds).fold(0, |bits, (bit, _)| bits | bit))
    }

    /// The number of its template.
    pub(super) const fn template(self) -> u16 {
        TEMPLATE_MIN + self.0
    }

    const fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }
}

/// The outermost VXLAN network.
fn vxlan(known: &Known) -> Option<u32> {
    known.outer.tunnels().find(|tunnel| tunnel.kind == TunnelKind::Vxlan)?.id
}

/// Takes the fields of a record, one after the other.
trait Fields {
    fn number(&mut self, element: Element, value: u64);
    fn address(&mut self, element: Element, address: &[u8]);
}

/// Writes field specifiers.
struct Specifiers<'a> {
    out: &'a mut Vec<u8>,
    count: u16,
}

impl Specifiers<'_> {
    fn specify(&mut self, element: Element) {
        self.count += 1;
        let enterprise = if element.reverse { ENTERPRISE_BIT } else { 0 };
        self.out.extend((element.number | enterprise).to_be_bytes());
        self.out.extend(element.bytes.to_be_bytes());
        if element.reverse {
            self.out.extend(REVERSE_PEN.to_be_bytes());
        }
    }
}

impl Fields for Specifiers<'_> {
    fn number(&mut self, element: Element, _value: u64) {
        self.specify(element);
    }

    fn address(&mut self, element: Element, _address: &[u8]) {
        self.specify(element);
    }
}

/// Writes values.
struct Data<'a>(&'a mut Vec<u8>);

impl Fields for Data<'_> {
    fn number(&mut self, element: Element, value: u64) {
        let bytes = value.to_be_bytes();
        self.0.extend_from_slice(&bytes[bytes.len() - usize::from(element.bytes)..]);
    }

    fn address(&mut self, _element: Element, address: &[u8]) {
        self.0.extend_from_slice(address);
    }
}

/// Appends the template record of this shape; `known` is any record that has it.
pub(super) fn template_record(shape: Shape, known: &Known, out: &mut Vec<u8>) {
    out.extend(shape.template().to_be_bytes());
    let count_at = out.len();
    out.extend([0, 0]);
    let mut specifiers = Specifiers { out, count: 0 };
    describe(shape, known, &mut specifiers);
    let count = specifiers.count;
    out[count_at..count_at + 2].copy_from_slice(&count.to_be_bytes());
}

/// Appends the data record.
pub(super) fn data_record(shape: Shape, known: &Known, out: &mut Vec<u8>) {
    describe(shape, known, &mut Data(out));
}

/// The fields of a record, in order. Which there are depends on the shape alone.
fn describe(shape: Shape, known: &Known, fields: &mut impl Fields) {
    if !shape.has(Shape::UNDATED) {
        fields.number(FLOW_START_MILLISECONDS, known.start_ms.unwrap_or_default());
        fields.number(FLOW_END_MILLISECONDS, known.end_ms.unwrap_or_default());
    }
    if !shape.has(Shape::REST) {
        ends(shape, known, fields);
    }
    // The way back first: nfdump 1.7 takes reverse flags for forward ones, and believes what comes last.
    if shape.has(Shape::REVERSE) {
        sent(shape, &known.from_responder, true, fields);
    }
    sent(shape, &known.from_initiator, false, fields);
    let tag = |tag: Option<u16>| u64::from(tag.unwrap_or_default());
    if shape.has(Shape::VLAN) {
        fields.number(VLAN_ID, tag(known.vlan_outer));
        fields.number(DOT1Q_VLAN_ID, tag(known.vlan_outer));
    }
    if shape.has(Shape::INNER_VLAN) {
        fields.number(DOT1Q_CUSTOMER_VLAN_ID, tag(known.vlan_inner));
    }
    if shape.has(Shape::VXLAN) {
        let network = u64::from(vxlan(known).unwrap_or_default());
        fields.number(LAYER2_SEGMENT_ID, SEGMENT_VXLAN | network);
    }
    if shape.has(Shape::INTERFACE) {
        fields.number(INGRESS_INTERFACE, u64::from(known.interface.unwrap_or_default()));
    }
    // RFC 5103: 1 where the source is who opened the flow, 0 where that is not known.
    let direction = u64::from(known.role != RoleEvidence::Guess);
    fields.number(BIFLOW_DIRECTION, direction);
    fields.number(FLOW_END_REASON, known.end_reason as u64);
}

/// Addresses, protocol and ports.
fn ends(shape: Shape, known: &Known, fields: &mut impl Fields) {
    let (v4, prefix) = (!shape.has(Shape::V6), shape.has(Shape::PREFIX));
    let source = match (v4, prefix) {
        (true, false) => SOURCE_IPV4_ADDRESS,
        (true, true) => SOURCE_IPV4_PREFIX,
        (false, false) => SOURCE_IPV6_ADDRESS,
        (false, true) => SOURCE_IPV6_PREFIX,
    };
    address(source, known.initiator, fields);
    if prefix {
        let length = if v4 { SOURCE_IPV4_PREFIX_LENGTH } else { SOURCE_IPV6_PREFIX_LENGTH };
        fields.number(length, u64::from(known.prefix_bits.unwrap_or_default()));
    }
    let destination = if v4 { DESTINATION_IPV4_ADDRESS } else { DESTINATION_IPV6_ADDRESS };
    address(destination, known.responder, fields);
    fields.number(PROTOCOL_IDENTIFIER, u64::from(known.protocol.unwrap_or_default()));
    let port = |port: Option<u16>| u64::from(port.unwrap_or_default());
    if shape.has(Shape::SOURCE_PORT) {
        fields.number(SOURCE_TRANSPORT_PORT, port(known.initiator_port));
    }
    if shape.has(Shape::DESTINATION_PORT) {
        fields.number(DESTINATION_TRANSPORT_PORT, port(known.responder_port));
    }
    let kind = port(known.initiator_port);
    if shape.has(Shape::ICMP_CODE) {
        let element = if v4 { ICMP_TYPE_CODE_IPV4 } else { ICMP_TYPE_CODE_IPV6 };
        fields.number(element, kind << 8 | port(known.responder_port));
    } else if shape.has(Shape::ICMP) {
        let element = if v4 { ICMP_TYPE_IPV4 } else { ICMP_TYPE_IPV6 };
        fields.number(element, kind);
    }
}

fn address(element: Element, ip: IpAddr, fields: &mut impl Fields) {
    match ip {
        IpAddr::V4(ip) => fields.address(element, &ip.octets()),
        IpAddr::V6(ip) => fields.address(element, &ip.octets()),
    }
}

/// What one side sent.
fn sent(shape: Shape, sent: &Sent, reverse: bool, fields: &mut impl Fields) {
    let of = |element: Element| Element { reverse, ..element };
    let byte = |value: Option<u8>| u64::from(value.unwrap_or_default());
    let word = |value: Option<u16>| u64::from(value.unwrap_or_default());
    fields.number(of(OCTET_DELTA_COUNT), sent.bytes);
    fields.number(of(LAYER2_OCTET_DELTA_COUNT), sent.bytes);
    fields.number(of(PACKET_DELTA_COUNT), sent.packets);
    // Of folded packets only this is known, and nothing comes back.
    let flagged = reverse || shape.has(Shape::FORWARD) || !shape.has(Shape::REVERSE);
    if shape.has(Shape::TCP) && flagged {
        fields.number(of(TCP_CONTROL_BITS), byte(sent.tcp_flags));
    }
    if reverse || shape.has(Shape::FORWARD) {
        fields.number(of(IP_TTL), byte(sent.ttl));
        fields.number(of(IP_DIFF_SERV_CODE_POINT), byte(sent.dscp));
        fields.number(of(MINIMUM_LAYER2_TOTAL_LENGTH), word(sent.length_min));
        fields.number(of(MAXIMUM_LAYER2_TOTAL_LENGTH), word(sent.length_max));
    }
}
