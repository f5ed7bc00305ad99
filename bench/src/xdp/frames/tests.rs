//! Lengths and where the segment begins; that they are what they say is shown by those who parse them.

use super::Around;

#[test]
fn every_frame_holds_its_segment_where_the_headers_end() {
    let cases = [
        (Around::Plain, 60, 14 + 20),
        (Around::Syn, 60, 14 + 20),
        (Around::Identified, 60, 14 + 20),
        (Around::Ipv6, 74, 14 + 40),
        (Around::Vlan, 60, 18 + 20),
        (Around::Qinq, 62, 22 + 20),
        (Around::Mpls, 62, 22 + 20),
        (Around::Pppoe, 62, 22 + 20),
        (Around::Gre, 78, 14 + 20 + 4 + 20),
        (Around::Erspan, 110, 14 + 20 + 16 + 14 + 20),
        (Around::Vxlan, 110, 14 + 20 + 8 + 8 + 14 + 20),
        (Around::Geneve, 110, 14 + 20 + 8 + 8 + 14 + 20),
        (Around::IpIp, 74, 14 + 20 + 20),
        (Around::SixInFour, 94, 14 + 20 + 40),
        (Around::Gtp, 90, 14 + 20 + 8 + 8 + 20),
    ];
    for (around, length, segment) in cases {
        let frame = around.frame();
        assert_eq!(frame.len(), length, "{around:?}");
        // Ports 40,000 and 443.
        assert_eq!(
            frame.get(segment..segment + 4),
            Some(&[0x9c, 0x40, 0x01, 0xbb][..]),
            "{around:?}"
        );
    }
}
