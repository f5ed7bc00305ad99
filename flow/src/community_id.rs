//! Takes a flow's ends; gives its Community ID v1, the join key that Zeek, Suricata and Arkime also write.

use core::fmt;
use core::net::IpAddr;

use base64ct::{Base64, Encoding as _};
use sha1::{Digest as _, Sha1};

/// Characters of `1:` and a base64-coded SHA-1.
const TEXT_LENGTH: usize = 30;

/// A Community ID, version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommunityId([u8; TEXT_LENGTH]);

impl CommunityId {
    /// As text, for example `1:LQU9qZlK+B5F3KDmev6m5PMibrg=`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("base64 text and `1:` are ASCII")
    }
}

impl fmt::Display for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The Community ID v1 (seed 0) of a flow, either direction.
///
/// `ports` are those of [`crate::FlowKey`] (ICMP type and counter-type as ports); `None` where the protocol has
/// no ports or they are unknown. `one_way` is set for an ICMP message that nothing answers: it is not ordered.
#[must_use]
pub fn community_id(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<[u16; 2]>,
    one_way: bool,
) -> CommunityId {
    let [low, high] = ports.unwrap_or_default();
    let (first, second) = ((source, low), (destination, high));
    let (first, second) =
        if one_way || first <= second { (first, second) } else { (second, first) };
    let mut hash = Sha1::new_with_prefix([0, 0]);
    for (ip, _) in [first, second] {
        match ip {
            IpAddr::V4(v4) => hash.update(v4.octets()),
            IpAddr::V6(v6) => hash.update(v6.octets()),
        }
    }
    hash.update([protocol, 0]);
    if ports.is_some() {
        hash.update(first.1.to_be_bytes());
        hash.update(second.1.to_be_bytes());
    }
    let mut text = *b"1:0000000000000000000000000000";
    Base64::encode(&hash.finalize(), &mut text[2..])
        .expect("28 characters are what base64 makes of 20 bytes");
    CommunityId(text)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString as _;

    use super::community_id;

    /// Source, destination, protocol, ports, one way, identifier.
    type Case = (&'static str, &'static str, u8, Option<[u16; 2]>, bool, &'static str);

    /// The examples that the Community ID specification publishes for its first version.
    #[test]
    fn published_examples() {
        let ip = |text: &str| text.parse().expect("a literal address");
        let cases: [Case; 6] = [
            (
                "128.232.110.120",
                "66.35.250.204",
                6,
                Some([34855, 80]),
                false,
                "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
            ),
            (
                "66.35.250.204",
                "128.232.110.120",
                6,
                Some([80, 34855]),
                false,
                "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
            ),
            (
                "192.168.1.52",
                "8.8.8.8",
                17,
                Some([54585, 53]),
                false,
                "1:d/FP5EW3wiY1vCndhwleRRKHowQ=",
            ),
            (
                "192.168.0.89",
                "192.168.0.1",
                1,
                Some([8, 0]),
                false,
                "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=",
            ),
            (
                "192.168.170.8",
                "192.168.170.56",
                132,
                Some([7, 80]),
                false,
                "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ=",
            ),
            ("10.1.24.4", "10.1.12.1", 46, None, false, "1:/nQI4Rh/TtY3mf0R2gJFBkVlgS4="),
        ];
        for (source, destination, protocol, ports, one_way, expected) in cases {
            let id = community_id(ip(source), ip(destination), protocol, ports, one_way);
            assert_eq!(id.to_string(), expected, "{source} -> {destination}, protocol {protocol}");
        }
    }
}
