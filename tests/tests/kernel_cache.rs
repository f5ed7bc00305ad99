//! The kernel's flow cache beyond its size: what finds no room is folded, and every total stays exact.
//!
//! Frames go in through `BPF_PROG_TEST_RUN`.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use flow::{OpeningTime, Outer, Vlans, protocol, tcp_flag};
use sensor::{CaptureError, KernelTestRun, TableSizes};
use tests::{skip, stay_on_one_cpu};

/// The longest tick of a common kernel (100 Hz), and the rounding of milliseconds.
const PRECISION_MS: u64 = 11;

/// What a set of packets adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    packets: u64,
    bytes: u64,
    syns: u64,
}

impl Sum {
    fn add(&mut self, packets: u64, bytes: u64, syns: u64) {
        self.packets += packets;
        self.bytes += bytes;
        self.syns += syns;
    }
}

/// A TCP frame; its payload is zeros.
fn frame(
    tags: &[u16],
    source: u32,
    destination: u32,
    port: u16,
    flags: u8,
    length: usize,
) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend_from_slice(&[0x81, 0x00]);
        frame.extend_from_slice(&tag.to_be_bytes());
    }
    frame.extend_from_slice(&[0x08, 0x00]);
    frame.extend_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol::TCP, 0, 0]);
    frame.extend_from_slice(&source.to_be_bytes());
    frame.extend_from_slice(&destination.to_be_bytes());
    frame.extend_from_slice(&40_000_u16.to_be_bytes());
    frame.extend_from_slice(&port.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame.resize(frame.len().max(length), 0);
    frame
}

/// A loaded object of which one CPU's tables are used, or `None` after saying why not.
fn kernel(sizes: TableSizes) -> Result<Option<KernelTestRun>> {
    if rustix::process::geteuid().is_root() {
        stay_on_one_cpu()?;
        Ok(Some(KernelTestRun::load(sizes)?))
    } else {
        skip("loading an XDP program needs root");
        Ok(None)
    }
}

#[test]
fn a_flood_of_new_flows_is_folded_with_exact_totals() -> Result<()> {
    let sizes = TableSizes { sets: 16, log_slots: 64 };
    let Some(mut kernel) = kernel(sizes)? else { return Ok(()) };
    let victims: [(u32, u16); 3] = [(0x0a00_0001, 80), (0x0a00_0001, 443), (0x0a00_0002, 53)];
    let mut expected: BTreeMap<(u32, u16), Sum> = BTreeMap::new();
    for number in 0..30_000_u32 {
        let (address, port) = victims[number as usize % victims.len()];
        // Every fourth packet is no SYN.
        let flags = if number % 4 == 0 { tcp_flag::ACK } else { tcp_flag::SYN };
        let bytes = 60 + number as usize % 700;
        let frame = frame(&[], 0xc000_0000 + number, address, port, flags, bytes);
        kernel.feed(&frame, 1)?;
        let syns = u64::from(flags == tcp_flag::SYN);
        expected.entry((address, port)).or_default().add(1, frame.len() as u64, syns);
    }
    let mut found: BTreeMap<(u32, u16), Sum> = BTreeMap::new();
    let to = |key: flow::FlowKey| {
        (u32::from_be_bytes(key.destination.octets_v4()), key.destination_port())
    };
    let totals = kernel.drain(&mut |one| {
        // Every source sent one packet, so a slot's SYN bit is its number of SYNs.
        assert_eq!(one.packets, 1);
        found.entry(to(one.key)).or_default().add(1, one.bytes, u64::from(one.tcp.syn));
    })?;
    let in_flows: u64 = found.values().map(|sum| sum.packets).sum();
    for folded in &totals.folded {
        let key = folded.key.expect("three keys find room among a thousand");
        assert_eq!(folded.outer, Some(Outer::default()));
        assert_eq!((key.source_port(), key.protocol()), (0, protocol::TCP));
        found.entry(to(key)).or_default().add(folded.packets, folded.bytes, folded.syns);
    }
    assert_eq!(found, expected);
    let counters = kernel.counters();
    assert_eq!(counters.packets_ip, 30_000);
    assert_eq!(counters.packets_folded, totals.packets_folded);
    assert_eq!(in_flows + totals.packets_folded, 30_000);
    assert_eq!(in_flows, 16 * 2 + 64, "table and log are full, and no fuller");
    assert_eq!(totals.observations, totals.packets);
    Ok(())
}

#[test]
fn more_destinations_than_coarse_places_go_into_the_rest() -> Result<()> {
    let sizes = TableSizes { sets: 1, log_slots: 1 };
    let Some(mut kernel) = kernel(sizes)? else { return Ok(()) };
    let mut bytes = 0;
    for number in 0..20_000_u32 {
        let frame = frame(&[], 0xc000_0000, 0x0a00_0000 + number, 80, tcp_flag::SYN, 60);
        bytes += frame.len() as u64;
        kernel.feed(&frame, 1)?;
    }
    let mut sum = Sum::default();
    let totals =
        kernel.drain(&mut |one| sum.add(one.packets, one.bytes, u64::from(one.tcp.syn)))?;
    for folded in &totals.folded {
        sum.add(folded.packets, folded.bytes, folded.syns);
    }
    assert_eq!(sum, Sum { packets: 20_000, bytes, syns: 20_000 });
    let rest = totals.folded.iter().filter(|folded| folded.key.is_none());
    assert!(rest.map(|folded| folded.packets).sum::<u64>() > 10_000, "most found no place");
    Ok(())
}

#[test]
fn nothing_is_given_twice_and_the_next_epoch_starts_empty() -> Result<()> {
    let Some(mut kernel) = kernel(TableSizes { sets: 64, log_slots: 256 })? else { return Ok(()) };
    let mut fed = 0;
    for epoch in 1..=20_u32 {
        for number in 0..epoch * 10 {
            kernel.feed(&frame(&[], number, 1, 80, tcp_flag::ACK, 60), 1)?;
            fed += 1;
        }
        let mut packets = 0;
        let totals = kernel.drain(&mut |one| packets += one.packets)?;
        assert_eq!(packets + totals.packets_folded, u64::from(epoch) * 10, "epoch {epoch}");
    }
    let totals = kernel.drain(&mut |one| panic!("{one:?} was given already"))?;
    assert_eq!(totals, sensor::DrainTotals::default());
    assert_eq!(kernel.counters().packets_ip, fed);
    Ok(())
}

#[test]
fn vlan_stacks_are_told_apart_exactly_until_their_table_is_full() -> Result<()> {
    let Some(mut kernel) = kernel(TableSizes::default())? else { return Ok(()) };
    // The same addresses and ports in 6,000 stacks of two tags, and in every single tag.
    let mut expected: BTreeMap<Vlans, u64> = BTreeMap::new();
    for number in 0..6_000_u16 {
        let tags = [1 + number / 60, 1 + number % 60];
        kernel.feed(&frame(&tags, 1, 2, 80, tcp_flag::ACK, 64), 1)?;
        expected.insert(Vlans(tags), 1);
    }
    for tag in 1..=4094_u16 {
        kernel.feed(&frame(&[tag], 1, 2, 80, tcp_flag::ACK, 64), 1)?;
        expected.insert(Vlans([tag, 0]), 1);
    }
    let mut found: BTreeMap<Vlans, u64> = BTreeMap::new();
    let mut domains: BTreeMap<u16, Vlans> = BTreeMap::new();
    let totals = kernel.drain(&mut |one| {
        *found.entry(one.outer.vlans()).or_default() += one.packets;
        let vlans = *domains.entry(one.key.domain()).or_insert(one.outer.vlans());
        assert_eq!(vlans, one.outer.vlans(), "one domain, one meaning");
    })?;
    for (vlans, packets) in &found {
        assert!(packets <= &expected[vlans], "{vlans:?}");
    }
    for tag in 1..=4094 {
        assert_eq!(found.get(&Vlans([tag, 0])), Some(&1), "a single tag is never unknown");
    }
    let known: u64 = found.values().sum();
    let unknown: u64 = totals.folded.iter().map(|folded| folded.packets).sum();
    assert_eq!(known + unknown, 6_000 + 4_094);
    assert!(unknown > 0, "6,000 stacks do not fit into a table of 4,096");
    assert!(totals.folded.iter().all(|folded| folded.outer.is_none()));
    assert_eq!(kernel.counters().packets_folded, unknown);
    // A stack that is known keeps its meaning in every later epoch.
    let stack = found.keys().find(|vlans| vlans.0[1] != 0).copied().expect("some are known");
    kernel.feed(&frame(&stack.0, 1, 2, 80, tcp_flag::ACK, 64), 1)?;
    let mut again = None;
    kernel.drain(&mut |one| again = Some(one.outer.vlans()))?;
    assert_eq!(again, Some(stack));
    Ok(())
}

#[test]
fn stamps_are_of_now() -> Result<()> {
    let Some(mut kernel) = kernel(TableSizes::default())? else { return Ok(()) };
    let now_ms = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    };
    let before_ms = now_ms()?;
    kernel.feed(&frame(&[], 1, 2, 80, tcp_flag::ACK, 60), 1)?;
    let after_ms = now_ms()?;
    let mut stamps = None;
    kernel.drain(&mut |one| stamps = Some((one.first_ms, one.last_ms)))?;
    let (first_ms, last_ms) = stamps.expect("one packet");
    ensure!(first_ms == last_ms, "one packet has one time");
    ensure!(
        first_ms + PRECISION_MS >= before_ms && first_ms <= after_ms + 1,
        "{first_ms} lies between {before_ms} and {after_ms}"
    );
    Ok(())
}

#[test]
fn a_frame_that_no_test_run_takes_is_an_error_that_names_its_length() -> Result<()> {
    let Some(mut kernel) = kernel(TableSizes { sets: 1, log_slots: 1 })? else { return Ok(()) };
    let error = kernel.feed(&[0; 13], 1).expect_err("an Ethernet header has 14 bytes");
    assert!(matches!(error, CaptureError::TestRun { bytes: 13, .. }), "{error}");
    Ok(())
}

/// SYN and SYN-ACK between two hosts; both use the same port.
fn opening(host: u32, flags: u8) -> Vec<u8> {
    const PORT: u16 = 40_000;
    let (client, server) = (0xc000_0200 + host, 0x0a00_0001);
    if flags & tcp_flag::ACK == 0 {
        frame(&[], client, server, PORT, flags, 60)
    } else {
        frame(&[], server, client, PORT, flags, 60)
    }
}

#[test]
fn the_time_from_syn_to_syn_ack_is_measured() -> Result<()> {
    const SYN: u8 = tcp_flag::SYN;
    const SYN_ACK: u8 = tcp_flag::SYN | tcp_flag::ACK;
    let Some(mut kernel) = kernel(TableSizes::default())? else { return Ok(()) };
    let times = |kernel: &mut KernelTestRun, host: u32| -> Result<Vec<OpeningTime>> {
        let mut times = Vec::new();
        kernel.drain(&mut |one| {
            if one.tcp.syn_ack {
                assert_eq!(one.key.destination.octets_v4(), (0xc000_0200 + host).to_be_bytes());
                times.push(one.opening);
            } else {
                assert_eq!(one.opening, OpeningTime::Unknown);
            }
        })?;
        Ok(times)
    };
    // Answered within the same epoch, and at once; the copy of an answer changes nothing.
    kernel.feed(&opening(1, SYN), 1)?;
    kernel.feed(&opening(1, SYN_ACK), 2)?;
    let began = std::time::Instant::now();
    let [OpeningTime::After(first_us)] = times(&mut kernel, 1)?[..] else {
        anyhow::bail!("one answer, which was measured")
    };
    // Answered in a later epoch: the time between them is at least that of the drain in between.
    kernel.feed(&opening(2, SYN), 1)?;
    let asked = std::time::Instant::now();
    ensure!(times(&mut kernel, 2)?.is_empty());
    let waited_us = asked.elapsed().as_micros();
    kernel.feed(&opening(2, SYN_ACK), 1)?;
    let most_us = asked.elapsed().as_micros() + began.elapsed().as_micros();
    let [OpeningTime::After(second_us)] = times(&mut kernel, 2)?[..] else {
        anyhow::bail!("one answer, which was measured")
    };
    ensure!(u128::from(second_us) >= waited_us, "{second_us} us, the drain took {waited_us} us");
    ensure!(u128::from(second_us) <= most_us && u128::from(first_us) < 120_000_000);
    // An answer to nobody.
    kernel.feed(&opening(3, SYN_ACK), 1)?;
    ensure!(times(&mut kernel, 3)? == [OpeningTime::Unknown]);
    Ok(())
}
