use std::collections::BTreeSet;
use std::path::Path;

use clap::{Parser, ValueEnum as _};
use pcap_file::pcap::PcapReader;
use sensor::{AggregatorSettings, Replay, replay_all};

use super::{Options, Traffic, run};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// What `generate` writes to a file of this name with these arguments.
fn generated(name: &str, arguments: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join(name);
    let path = ["generate", "--out", out.to_str().expect("a plain path")];
    let line = Line::try_parse_from(path.into_iter().chain(arguments.split_whitespace()))
        .expect("arguments that it knows");
    run(&line.options).expect("writing to a temporary folder");
    std::fs::read(out).expect("reading what was just written")
}

/// The frames of a pcap file: time in microseconds after the first, length on the wire, what was captured.
fn frames(file: &[u8]) -> Vec<(u128, u32, Vec<u8>)> {
    let mut reader = PcapReader::new(file).expect("a pcap file");
    let mut frames = Vec::new();
    let mut first = None;
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.expect("a whole packet");
        let at = u128::from(packet.ts_sec) * 1_000_000 + u128::from(packet.ts_frac);
        let first = *first.get_or_insert(at);
        frames.push((at - first, packet.orig_len, packet.data.into_owned()));
    }
    frames
}

#[test]
fn equal_seeds_give_equal_bytes_and_others_do_not() {
    let names: Vec<_> = Traffic::value_variants()
        .iter()
        .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
        .collect();
    for what in [format!("--with {}", names.join(",")), "--packets 5000 --conversations".to_owned()]
    {
        let of = |seed: u64| generated("a.pcap", &format!("{what} --seed {seed}"));
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }
}

#[test]
fn every_kind_adds_frames_of_its_own() {
    let sizes: BTreeSet<usize> = Traffic::value_variants()
        .iter()
        .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
        .map(|kind| generated("a.pcap", &format!("--with {kind}")).len())
        .collect();
    assert_eq!(sizes.len(), Traffic::value_variants().len());
    assert!(sizes.iter().all(|size| *size > 1_000), "a kind that adds next to nothing: {sizes:?}");
}

#[test]
fn frames_are_cut_paced_and_mixed_with_other_traffic_in_time_order() {
    let arguments = "--packets 3000 --packets-per-s 1000 --snap-bytes 96 --with vertical-scan";
    let frames = frames(&generated("a.pcap", arguments));
    assert_eq!(frames.len(), 3_000 + 200);
    assert!(frames.is_sorted_by_key(|(at, ..)| *at));
    assert_eq!(frames.last().map(|(at, ..)| *at), Some(4_970_000 + 400));
    assert!(frames.iter().all(|(_, wire, data)| data.len() == (*wire as usize).min(96)));
    assert!(frames.iter().any(|(_, wire, _)| *wire == 1_514));
}

#[test]
fn pcapng_holds_the_same_frames_with_the_times_in_its_unit() {
    use pcap_file::pcapng::{Block, PcapNgReader};

    let pcap = frames(&generated("a.pcap", "--packets 100 --packets-per-s 3000"));
    // The library takes every unit for a nanosecond; the units a microsecond are what differs.
    for (more, units) in [("", 1), ("--nanoseconds", 1_000)] {
        let file = generated("a.pcapng", &format!("--packets 100 --packets-per-s 3000 {more}"));
        let mut reader = PcapNgReader::new(file.as_slice()).expect("a pcapng file");
        let mut found = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.expect("a whole block") {
                let units_at = packet.timestamp.as_nanos();
                found.push((units_at, packet.original_len, packet.data.into_owned()));
            }
        }
        let first = found.first().map_or(0, |(at, ..)| *at);
        let found: Vec<_> =
            found.into_iter().map(|(at, wire, data)| ((at - first) / units, wire, data)).collect();
        assert!(found == pcap, "other frames or times with `{more}`");
    }
}

#[test]
fn what_cannot_be_made_is_refused() {
    let refused = |arguments: &str| {
        let path = Path::new("/nonexistent/a.pcap");
        let line = ["generate", "--out", path.to_str().expect("a plain path")];
        match Line::try_parse_from(line.into_iter().chain(arguments.split_whitespace())) {
            Ok(line) => run(&line.options)
                .expect_err("it cannot be made")
                .chain()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(": "),
            Err(error) => error.to_string(),
        }
    };
    for (arguments, named) in [
        ("--flows 5", "--packets"),
        ("--packets 5 --flows 6", "6 flows"),
        ("--packets 5 --flows 4 --sizes one", "--sizes one"),
        ("--packets 5 --protocols tcp=90", "10 of 100"),
        ("--packets 5 --protocols tcp=90,sctp=10", "no `sctp`"),
        ("--packets 5 --encapsulate vlan=60,gre=50", "110 of 100"),
        ("--packets 5 --frame-bytes 12", "from 60 to"),
        ("--packets 5", "cannot create"),
    ] {
        let error = refused(arguments);
        let chain = format!("{error:#}");
        assert!(chain.contains(named), "{arguments}: {chain}");
    }
}

/// What the sensor makes of a capture: packets of each flow, both ways; none may be split in time.
fn flows(file: &[u8]) -> Vec<[u64; 2]> {
    let mut replay = Replay::new(AggregatorSettings::default(), 250);
    let mut flows = Vec::new();
    replay_all(&mut replay, file, &mut |_early| {}).expect("a whole capture");
    replay.finish(&mut |record| {
        flows.push([record.from_initiator.packets, record.from_responder.packets]);
    });
    assert_eq!(replay.counts().packets_malformed() + replay.counts().packets_not_ip(), 0);
    flows
}

#[test]
fn there_are_as_many_flows_and_packets_as_asked_for() {
    const EVERY_KIND: &str = "--encapsulate vlan=9,qinq=9,mpls=9,pppoe=9,gre=9,erspan=9,vxlan=9,\
                              geneve=9,ipip=9,gtp=9";
    for (arguments, packets, count) in [
        ("--packets 20000 --flows 4000".to_owned(), 20_000, 4_000),
        ("--packets 20000 --flows 1000 --sizes even --frame-bytes 64".to_owned(), 20_000, 1_000),
        ("--packets 5000 --sizes one --ipv6 50".to_owned(), 5_000, 5_000),
        ("--packets 5000 --flows 5 --protocols icmp=100".to_owned(), 5_000, 5),
        (format!("--packets 20000 --flows 5000 {EVERY_KIND}"), 20_000, 5_000),
    ] {
        let flows = flows(&generated("a.pcap", &arguments));
        assert_eq!(flows.len(), count, "{arguments}");
        assert_eq!(flows.iter().flatten().sum::<u64>(), packets, "{arguments}");
        let both_ways = flows.iter().filter(|[there, back]| *there > 0 && *back > 0).count();
        assert_eq!(both_ways > 0, packets > count as u64, "{arguments}");
    }
}

#[test]
fn conversations_open_and_close() {
    let arguments = "--packets 20000 --flows 100 --sizes even --protocols tcp=100 --conversations";
    let mut replay = Replay::new(AggregatorSettings::default(), 250);
    let mut records = Vec::new();
    let file = generated("a.pcap", arguments);
    let mut emit = |record| records.push(record);
    replay_all(&mut replay, file.as_slice(), &mut emit).expect("a whole capture");
    replay.finish(&mut emit);
    assert_eq!(records.len(), 100);
    for record in &records {
        const FIN_SYN_ACK: u8 = 0x13;
        assert_eq!(format!("{:?}", record.handshake), "Established");
        assert_eq!(format!("{:?}", record.role), "Handshake");
        for side in [record.from_initiator, record.from_responder] {
            assert_eq!(side.tcp_flags & FIN_SYN_ACK, FIN_SYN_ACK);
        }
        assert_eq!(record.from_initiator.packets + record.from_responder.packets, 200);
    }
}
