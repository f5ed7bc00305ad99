//! The generator of frames: what it sends over a veth pair is what it says, flow by flow and byte by byte. The pair
//! lies in network namespaces that the test makes and removes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use flow::protocol;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sensor::{After, AttachMode, CaptureOptions, KernelCapture, TableSizes};
use tests::{Generator, read, skip, stay_on_one_cpu, udp_frame};

const FRAMES: u32 = 200_000;
const FLOWS: u32 = 1000;
const FRAME_BYTES: usize = 90;
/// Drains after the last frame was sent.
const DRAINS_MAX: u32 = 100;

/// Two namespaces with a veth pair between them; removed when dropped.
struct Pair([String; 2]);

impl Pair {
    fn new() -> Result<Self> {
        let name = format!("spanwatch-generator-{}", std::process::id());
        let pair = Self([format!("{name}-span"), format!("{name}-gen")]);
        let [span, generator] = &pair.0;
        for namespace in &pair.0 {
            ip(&["netns", "add", namespace])?;
        }
        ip(&[
            "link", "add", "span0", "netns", span, "type", "veth", "peer", "name", "gen0", "netns",
            generator,
        ])?;
        ip(&["-n", span, "link", "set", "span0", "up"])?;
        ip(&["-n", generator, "link", "set", "gen0", "up"])?;
        Ok(pair)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in &self.0 {
            // The pair goes with its namespaces; a namespace that was never made is no loss.
            ip(&["netns", "delete", namespace]).ok();
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    read(Command::new("ip").args(arguments))
}

fn enter(namespace: &str) -> Result<()> {
    let path = std::path::Path::new("/var/run/netns").join(namespace);
    let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering {}", path.display()))
}

#[test]
fn every_flow_gets_its_share_of_the_frames() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("network namespaces and XDP need root");
        return Ok(());
    }
    let pair = Pair::new()?;
    let [span, generator] = &pair.0;
    enter(span)?;
    let mut capture = KernelCapture::attach(&CaptureOptions {
        interfaces: vec!["span0".to_owned()],
        after: After::Drop,
        mode: Some(AttachMode::Native),
        sizes: TableSizes::default(),
        deduplicate: false,
    })?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            stay_on_one_cpu()?;
            enter(generator)?;
            let generator = Generator::open("gen0", FLOWS, &udp_frame(FRAME_BYTES)?)?;
            generator.send(FRAMES / 2)?;
            generator.send(FRAMES / 2)
        });
        sender.join().unwrap_or_else(|_| bail!("the sender panicked"))
    })?;
    let mut flows: BTreeMap<u32, u64> = BTreeMap::new();
    for _ in 0..DRAINS_MAX {
        capture.drain(&mut |one| {
            // Neighbour discovery may add frames of its own.
            if one.key.protocol() == protocol::UDP && one.key.destination_port() == 9 {
                assert_eq!((one.length_min, one.length_max), (90, 90));
                assert_eq!((one.key.source_port(), one.ttl), (1024, 64));
                let source = u32::from_be_bytes(one.key.source.octets_v4());
                *flows.entry(source).or_default() += one.packets;
            }
        })?;
        if flows.values().sum::<u64>() >= u64::from(FRAMES) {
            break;
        }
    }
    let expected = (0..FLOWS).map(|flow| ((10 << 24) + flow, u64::from(FRAMES / FLOWS)));
    ensure!(flows == expected.collect(), "each of {FLOWS} flows has its share: {flows:?}");
    Ok(())
}

#[test]
fn a_frame_that_it_cannot_vary_is_refused() -> Result<()> {
    assert!(udp_frame(41).is_err());
    let mut arp = udp_frame(60)?;
    arp[13] = 0x06;
    for frame in [&arp[..], &arp[..20]] {
        assert!(Generator::open("lo", 1, frame).is_err());
    }
    Ok(())
}
