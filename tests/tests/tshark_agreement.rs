//! A third opinion on every shared capture: packets and bytes per 5-tuple and direction of TCP and UDP over IPv4
//! and IPv6, and per pair of hosts of any protocol, of the innermost packet where there is a tunnel, from our replay
//! (parts of a flow between timeouts added up) and from tshark. What the two see differently is
//! listed below with who is right, and why; anything new fails, and so does an entry that no longer holds.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tests::tshark::{Sum, compared, has_tshark, missing};
use tests::{capture_files, capture_folder};

/// A capture that the two see differently: what only tshark and what only we have, and who is right.
struct Difference {
    file: &'static str,
    /// Of TCP and UDP flows, packets and bytes.
    flows: [(u64, u64); 2],
    /// Of pairs of hosts.
    hosts: [(u64, u64); 2],
    why: &'static str,
}

const KNOWN: [Difference; 6] = [
    Difference {
        file: "decode/nDPI/tests/cfgs/default/pcap/capwap.pcap",
        flows: [(5, 2_090), (11, 3_002)],
        hosts: [(11, 3_002), (11, 3_002)],
        why: "both: CAPWAP (RFC 5415) carries frames of a wireless network, and is no tunnel that is entered; the \
              flow is that of its carrier, where tshark goes on to what the wireless client sent",
    },
    Difference {
        file: "decode/nDPI/tests/cfgs/default/pcap/capwap_data.pcapng",
        flows: [(14, 2_624), (14, 2_624)],
        hosts: [(14, 2_624), (14, 2_624)],
        why: "both: CAPWAP, as above",
    },
    Difference {
        file: "decode/tcpdump/tests/bigtcp-ipv4-geneve-ipv4.pcap",
        flows: [(1, 80_116), (1, 80_116)],
        hosts: [(1, 80_116), (1, 80_116)],
        why: "ours: a frame of 80 KB before segmentation, whose UDP length is 0 because the field cannot say it; \
              tshark takes that for broken and stops at the carrier, while the Geneve header behind it is whole",
    },
    Difference {
        file: "decode/tcpdump/tests/bigtcp-ipv6-geneve-ipv4.pcap",
        flows: [(0, 0), (1, 80_136)],
        hosts: [(1, 80_136), (1, 80_136)],
        why: "ours: as above; here tshark reads no ports at all behind an IPv6 payload length of 0",
    },
    Difference {
        file: "decode/zeek/testing/btest/Traces/ipv6-reassembly-state-leak.pcap",
        flows: [(30, 43_876), (0, 0)],
        hosts: [(0, 0), (0, 0)],
        why: "ours: later fragments that come more than 30 s after the first one, when Linux has given the datagram \
              up too (RFC 8200 allows 60 s); they have no ports any more, while this test lends those of the first \
              one for good",
    },
    Difference {
        file: "decode/zeek/testing/btest/Traces/trunc/mpls-6in6-broken.pcap",
        flows: [(0, 0), (0, 0)],
        hosts: [(9, 1_032), (1, 97)],
        why: "neither: a fuzzer's frames without an IP packet. tshark follows any number of labels, and takes the \
              label 0 for a promise of IPv4; ours follows a bounded number, and believes the first four bits",
    },
];

#[test]
fn tshark_counts_the_same_packets_and_bytes_for_every_flow() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    if !has_tshark() {
        return Ok(());
    }
    let captures = compared(&folder, &capture_files(&folder)?)?;
    let (mut flows, mut packets, mut wrong) = (0, 0, Vec::new());
    let mut known: BTreeMap<&str, &Difference> =
        KNOWN.iter().map(|difference| (difference.file, difference)).collect();
    for one in &captures {
        let listed = known.remove(one.name.as_str());
        for (what, ours, theirs, expected) in [
            ("flows", &one.ours.flows, &one.theirs.flows, listed.map(|listed| listed.flows)),
            ("hosts", &one.ours.hosts, &one.theirs.hosts, listed.map(|listed| listed.hosts)),
        ] {
            let (only_theirs, a) = missing(ours, theirs);
            let (only_ours, b) = missing(theirs, ours);
            let found = [only_theirs, only_ours].map(|sum: Sum| (sum.packets, sum.bytes));
            if found != expected.unwrap_or_default() {
                let why = listed.map_or("nothing", |listed| listed.why);
                wrong.push(format!(
                    "{}, {what}: only tshark has {only_theirs:?} ({a:?}), only we have {only_ours:?} ({b:?}); \
                     listed: {expected:?}, {why}",
                    one.name
                ));
            }
        }
        flows += one.ours.flows.len();
        packets += one.ours.hosts.values().map(|sum| sum.packets).sum::<u64>();
    }
    println!(
        "{} captures, {flows} flows of one direction, {packets} packets, {} listed differences",
        captures.len(),
        KNOWN.len()
    );
    let left: Vec<_> = known.keys().collect();
    ensure!(left.is_empty(), "listed, and not among the captures: {left:?}");
    ensure!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(flows > 1000, "there was something to compare");
    Ok(())
}
