//! The XDP program on a real interface: one end of a veth pair, each end in a network namespace of its own that the
//! test makes and removes. Datagrams come from ordinary sockets at the other end.
#![forbid(unsafe_code)]

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sensor::{
    After, AttachMode, CaptureError, CaptureOptions, DrainTotals, KernelCapture, KernelCounters,
    TableSizes,
};
use serde_json::Value;
use tests::{Process, program, read, skip};

/// The listening end, in its namespace.
const SPAN: &str = "span0";
/// The sending end, in the other.
const GENERATOR: &str = "gen0";
const GENERATOR_ADDRESS: &str = "10.11.0.1";
const SPAN_ADDRESS: &str = "10.11.0.2";
/// Drains after the last frame was sent; each waits for a grace period, and softirqs end within one.
const DRAINS_MAX: u32 = 200;
/// Ethernet, IPv4 and UDP headers of a datagram.
const HEADERS: u64 = 14 + 20 + 8;
/// Datagrams carry 0 bytes to one less than this, in turn.
const PAYLOAD_MAX: u64 = 1200;
const PATIENCE: Duration = Duration::from_secs(30);

/// Two namespaces and the pair between them; removed when dropped.
struct Pair {
    span: String,
    generator: String,
}

impl Pair {
    /// `None`, after saying so, without the privilege.
    fn new() -> Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            skip("network namespaces and XDP need root");
            return Ok(None);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("spanwatch-{}-{number}", std::process::id());
        let pair = Self { span: format!("{name}-span"), generator: format!("{name}-gen") };
        for namespace in [&pair.span, &pair.generator] {
            ip(&["netns", "add", namespace])?;
            // Neighbour discovery would add frames of its own to the counts.
            let quiet = "for v in all default; do \
                         echo 1 > /proc/sys/net/ipv6/conf/$v/disable_ipv6; done";
            ip(&["netns", "exec", namespace, "sh", "-c", quiet])?;
        }
        let (span, generator) = (pair.span.as_str(), pair.generator.as_str());
        ip(&[
            "link", "add", SPAN, "netns", span, "type", "veth", "peer", "name", GENERATOR, "netns",
            generator,
        ])?;
        let address = format!("{GENERATOR_ADDRESS}/24");
        ip(&["-n", generator, "address", "add", &address, "dev", GENERATOR])?;
        ip(&["-n", span, "link", "set", SPAN, "up"])?;
        ip(&["-n", generator, "link", "set", GENERATOR, "up"])?;
        let hardware = Self::link(span, SPAN)?;
        let hardware = hardware["address"].as_str().context("a veth end has an address")?;
        ip(&[
            "-n",
            generator,
            "neighbour",
            "replace",
            SPAN_ADDRESS,
            "lladdr",
            hardware,
            "dev",
            GENERATOR,
            "nud",
            "permanent",
        ])?;
        Ok(Some(pair))
    }

    /// Moves this thread into the listening end's namespace.
    fn enter_span(&self) -> Result<()> {
        enter(&self.span)
    }

    /// What `ip` says about an interface.
    fn link(namespace: &str, interface: &str) -> Result<Value> {
        let text = ip(&["-n", namespace, "-json", "-statistics", "link", "show", interface])?;
        let links: Value = serde_json::from_str(&text).context("what ip says")?;
        links.get(0).cloned().context("one interface")
    }

    /// Whether a program is attached to the listening end.
    fn is_attached(&self) -> Result<bool> {
        Ok(Self::link(&self.span, SPAN)?.get("xdp").is_some())
    }

    /// Sends datagrams from the other end, over `flows` destination ports in turn; gives how many frames it really
    /// put on the wire.
    fn send(&self, datagrams: u32, flows: u16) -> Result<Sent> {
        let before = self.frames_sent()?;
        thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<()> {
                enter(&self.generator)?;
                let socket = UdpSocket::bind((GENERATOR_ADDRESS, 5000))?;
                let payload = vec![0_u8; usize::try_from(PAYLOAD_MAX)?];
                for number in 0..datagrams {
                    let port = 10_000 + u16::try_from(number % u32::from(flows))?;
                    let length = usize::try_from(u64::from(number) % PAYLOAD_MAX)?;
                    let payload = payload.get(..length).unwrap_or_default();
                    socket.send_to(payload, (SPAN_ADDRESS, port))?;
                }
                Ok(())
            });
            sender.join().unwrap_or_else(|_| bail!("the sender panicked"))
        })?;
        let frames = self.frames_sent()? - before;
        let bytes = (0..u64::from(datagrams)).map(|number| HEADERS + number % PAYLOAD_MAX).sum();
        // When the other end's queue is full, veth drops and counts; which datagrams it were nobody knows.
        let bytes = (frames == u64::from(datagrams)).then_some(bytes);
        Ok(Sent { frames, bytes })
    }

    /// Frames that the other end's driver has sent; its count of bytes leaves out the Ethernet header.
    fn frames_sent(&self) -> Result<u64> {
        let link = Self::link(&self.generator, GENERATOR)?;
        link["stats64"]["tx"]["packets"].as_u64().context("a counter of sent packets")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.span, &self.generator] {
            // The pair goes with its namespaces; a namespace that was never made is no loss.
            ip(&["netns", "delete", namespace]).ok();
        }
    }
}

/// Frames that left an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    frames: u64,
    /// Known where all of them left.
    bytes: Option<u64>,
}

fn ip(arguments: &[&str]) -> Result<String> {
    read(Command::new("ip").args(arguments))
}

fn enter(namespace: &str) -> Result<()> {
    let path: PathBuf = Path::new("/var/run/netns").join(namespace);
    let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering {}", path.display()))
}

fn options(sizes: TableSizes, mode: Option<AttachMode>) -> CaptureOptions {
    CaptureOptions {
        interfaces: vec![SPAN.to_owned()],
        after: After::Auto,
        mode,
        sizes,
        deduplicate: false,
    }
}

/// Everything that was drained.
#[derive(Default)]
struct Drained {
    packets: u64,
    bytes: u64,
    folded_packets: u64,
    folded_bytes: u64,
    flows: std::collections::BTreeSet<u16>,
    drains: u32,
}

impl Drained {
    fn drain(&mut self, capture: &mut KernelCapture) -> Result<()> {
        let flows = &mut self.flows;
        let totals: DrainTotals = capture.drain(&mut |one| {
            assert_eq!(one.interface, 1, "the only interface is the first one");
            assert!(one.first_ms <= one.last_ms && one.packets > 0);
            flows.insert(one.key.destination_port());
        })?;
        self.packets += totals.packets;
        self.bytes += totals.bytes;
        self.folded_packets += totals.packets_folded;
        self.folded_bytes += totals.folded.iter().map(|folded| folded.bytes).sum::<u64>();
        self.drains += 1;
        Ok(())
    }
}

/// Sends while epochs flip as fast as they can, and drains until everything that was sent has been seen.
#[expect(clippy::print_stdout, reason = "the figures of the run, for whoever looks at them")]
fn send_and_drain(
    pair: &Pair,
    capture: &mut KernelCapture,
    datagrams: u32,
    flows: u16,
) -> Result<(Sent, Drained, KernelCounters)> {
    let mut drained = Drained::default();
    let sent = thread::scope(|scope| -> Result<Sent> {
        let sender = scope.spawn(|| pair.send(datagrams, flows));
        while !sender.is_finished() {
            drained.drain(capture)?;
        }
        sender.join().unwrap_or_else(|_| bail!("the sender panicked"))
    })?;
    for _ in 0..DRAINS_MAX {
        if capture.counters()?.frames_seen >= sent.frames {
            break;
        }
        drained.drain(capture)?;
    }
    capture.detach()?;
    drained.drain(capture)?;
    let counters = capture.counters()?;
    println!(
        "{sent:?}, {} drains, {} flows, {} packets folded, {counters:?}, {:?}",
        drained.drains,
        drained.flows.len(),
        drained.folded_packets,
        capture.nic_statistics()?
    );
    Ok((sent, drained, counters))
}

#[test]
fn two_hundred_thousand_frames_are_all_accounted_for_while_epochs_flip() -> Result<()> {
    let Some(pair) = Pair::new()? else { return Ok(()) };
    pair.enter_span()?;
    let mut capture =
        KernelCapture::attach(&options(TableSizes::default(), Some(AttachMode::Native)))?;
    assert_eq!(capture.mode(), AttachMode::Native);
    let (sent, drained, counters) = send_and_drain(&pair, &mut capture, 200_000, 1000)?;
    ensure!(sent.frames > 100_000, "most datagrams leave: {sent:?}");
    assert_eq!(counters.frames_seen, sent.frames);
    assert_eq!(counters.packets_ip, sent.frames);
    assert_eq!(drained.packets, sent.frames);
    assert_eq!(drained.bytes, sent.bytes.unwrap_or(drained.bytes));
    assert_eq!((counters.packets_folded, drained.folded_packets), (0, 0));
    assert_eq!(drained.flows.len(), 1000);
    ensure!(drained.drains > 3, "epochs flipped meanwhile: {}", drained.drains);
    let nic = capture.nic_statistics()?;
    assert_eq!(nic.received, Some(sent.frames), "the driver's own count agrees");
    Ok(())
}

#[test]
fn under_overload_every_total_is_exact() -> Result<()> {
    let Some(pair) = Pair::new()? else { return Ok(()) };
    pair.enter_span()?;
    let sizes = TableSizes { sets: 16, log_slots: 64 };
    let mut capture = KernelCapture::attach(&options(sizes, Some(AttachMode::Native)))?;
    let (sent, drained, counters) = send_and_drain(&pair, &mut capture, 100_000, 20_000)?;
    assert_eq!(counters.frames_seen, sent.frames);
    assert_eq!(counters.packets_ip, sent.frames);
    assert_eq!(counters.packets_folded, drained.folded_packets);
    ensure!(drained.folded_packets > 0, "32 slots do not hold 20,000 flows");
    assert_eq!(drained.packets + drained.folded_packets, sent.frames);
    let bytes = drained.bytes + drained.folded_bytes;
    assert_eq!(bytes, sent.bytes.unwrap_or(bytes));
    Ok(())
}

#[test]
fn generic_mode_counts_the_same() -> Result<()> {
    let Some(pair) = Pair::new()? else { return Ok(()) };
    pair.enter_span()?;
    let mut capture =
        KernelCapture::attach(&options(TableSizes::default(), Some(AttachMode::Generic)))?;
    assert_eq!(capture.mode(), AttachMode::Generic);
    let (sent, drained, counters) = send_and_drain(&pair, &mut capture, 20_000, 100)?;
    assert_eq!(counters.frames_seen, sent.frames);
    assert_eq!(drained.packets, sent.frames);
    assert_eq!(drained.bytes, sent.bytes.unwrap_or(drained.bytes));
    Ok(())
}

#[test]
fn jumbo_frames_are_counted_with_their_whole_length() -> Result<()> {
    let Some(pair) = Pair::new()? else { return Ok(()) };
    ip(&["-n", &pair.span, "link", "set", SPAN, "mtu", "9000"])?;
    ip(&["-n", &pair.generator, "link", "set", GENERATOR, "mtu", "9000"])?;
    pair.enter_span()?;
    let mut capture =
        KernelCapture::attach(&options(TableSizes::default(), Some(AttachMode::Native)))?;
    let before = pair.frames_sent()?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            enter(&pair.generator)?;
            let socket = UdpSocket::bind((GENERATOR_ADDRESS, 5000))?;
            for _ in 0..100 {
                socket.send_to(&[0; 8900], (SPAN_ADDRESS, 7000))?;
            }
            Ok(())
        });
        sender.join().unwrap_or_else(|_| bail!("the sender panicked"))
    })?;
    let frames = pair.frames_sent()? - before;
    let mut seen = Vec::new();
    for _ in 0..DRAINS_MAX {
        capture.drain(&mut |one| seen.push(one))?;
        if capture.counters()?.frames_seen >= frames {
            break;
        }
    }
    capture.detach()?;
    capture.drain(&mut |one| seen.push(one))?;
    assert_eq!(seen.iter().map(|one| one.packets).sum::<u64>(), frames);
    // 8,900 bytes and the headers of UDP, IPv4 and Ethernet.
    assert!(seen.iter().all(|one| (one.length_min, one.length_max) == (8942, 8942)), "{seen:?}");
    Ok(())
}

#[test]
fn a_mirror_port_drops_and_a_port_with_an_address_passes() -> Result<()> {
    let Some(pair) = Pair::new()? else { return Ok(()) };
    pair.enter_span()?;
    let address = format!("{SPAN_ADDRESS}/24");
    ip(&["-n", &pair.span, "address", "add", &address, "dev", SPAN])?;
    let receiver = UdpSocket::bind((SPAN_ADDRESS, 10_000))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let mut passing =
        KernelCapture::attach(&options(TableSizes::default(), Some(AttachMode::Native)))?;
    pair.send(1, 1)?;
    let mut buffer = [0; 2048];
    receiver.recv(&mut buffer).context("the datagram is passed on")?;
    let mut packets = 0;
    passing.drain(&mut |one| packets += one.packets)?;
    ensure!(packets >= 1, "and counted");
    drop(passing);

    let dropping = CaptureOptions {
        after: After::Drop,
        ..options(TableSizes::default(), Some(AttachMode::Native))
    };
    let mut dropping = KernelCapture::attach(&dropping)?;
    pair.send(1, 1)?;
    for _ in 0..DRAINS_MAX {
        if dropping.counters()?.frames_seen >= 1 {
            break;
        }
        dropping.drain(&mut |_| {})?;
    }
    ensure!(dropping.counters()?.packets_ip >= 1, "it is counted");
    receiver.set_nonblocking(true)?;
    let nothing = receiver.recv(&mut buffer);
    ensure!(nothing.is_err(), "and not passed on");
    Ok(())
}

#[test]
fn what_cannot_be_attached_says_why() -> Result<()> {
    let Some(pair) = Pair::new()? else { return Ok(()) };
    pair.enter_span()?;
    let sizes = TableSizes { sets: 1, log_slots: 1 };
    let attach = |interfaces: &[&str]| {
        let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
        KernelCapture::attach(&CaptureOptions { interfaces, ..options(sizes, None) }).map(drop)
    };
    assert!(matches!(attach(&[]), Err(CaptureError::NoInterface)));
    let unknown = attach(&["nothere0"]).expect_err("there is no such interface");
    assert!(matches!(&unknown, CaptureError::UnknownInterface { name } if name == "nothere0"));
    assert!(matches!(attach(&[SPAN, SPAN]), Err(CaptureError::InterfaceTwice { .. })));

    let first = KernelCapture::attach(&options(sizes, None))?;
    ensure!(pair.is_attached()?, "it is attached");
    let second = attach(&[SPAN]).expect_err("one program an interface");
    assert!(matches!(&second, CaptureError::AlreadyAttached { .. }), "{second}");
    drop(first);
    ensure!(!pair.is_attached()?, "dropping it detaches");
    attach(&[SPAN])?;
    Ok(())
}

#[test]
fn a_killed_sensor_leaves_no_program_behind() -> Result<()> {
    let Some(pair) = Pair::new()? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut sensor = Process::start(
        Command::new("ip")
            .args(["netns", "exec", &pair.span])
            .arg(program("spanwatch-sensor")?)
            .args(["run", "--interface", SPAN, "--output", "null"]),
        &folder.path().join("sensor.log"),
    )?;
    sensor.wait_until("attached", PATIENCE, |_| pair.is_attached().unwrap_or(false))?;
    sensor.kill()?;
    // The kernel takes the link back when it has closed the process's files.
    for _ in 0..DRAINS_MAX {
        if !pair.is_attached()? {
            return Ok(());
        }
    }
    bail!("the program is still on the interface")
}
