//! `spanwatch-sensor doctor` on mirror ports that have one fault each: a veth pair, each end in a network namespace of
//! its own that the test makes and removes, and frames as a switch would mirror them. The real program is run, and
//! must find the fault by its name; the port without a fault has none.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pnet_datalink::{Channel, Config, DataLinkSender};
use rustix::io::Errno;
use rustix::thread::{
    CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_getaffinity, sched_setaffinity,
};
use serde_json::Value;
use tempfile::TempDir;
use tests::{MirroredFrame, Process, mirrored, program, read, skip};

/// The listening end, in its namespace.
const SPAN: &str = "span0";
/// The sending end, in the other.
const GENERATOR: &str = "gen0";
/// The longest frame at an MTU of 1,500 bytes.
const FRAME_BYTES_USUAL: usize = 1514;
const PATIENCE: Duration = Duration::from_mins(1);
/// Conversations of a mirror, the server's segments in each, and their bytes.
const USUAL: (u16, u16, u16) = (40, 8, 1000);

/// Two namespaces and the pair between them, set as a mirror port should be; removed when dropped.
struct Mirror {
    span: String,
    generator: String,
    folder: TempDir,
    /// Programs run so far; each has a log of its own.
    runs: AtomicU32,
}

impl Mirror {
    /// `None`, after saying so, without the privilege.
    fn new() -> Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            skip("network namespaces and XDP need root");
            return Ok(None);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("swdoctor-{}-{number}", std::process::id());
        let mirror = Self {
            span: format!("{name}-span"),
            generator: format!("{name}-gen"),
            folder: tempfile::tempdir()?,
            runs: AtomicU32::new(0),
        };
        for namespace in [&mirror.span, &mirror.generator] {
            ip(&["netns", "add", namespace])?;
            // Neighbour discovery would add frames of its own.
            let quiet = "for v in all default; do \
                         echo 1 > /proc/sys/net/ipv6/conf/$v/disable_ipv6; done";
            ip(&["netns", "exec", namespace, "sh", "-c", quiet])?;
        }
        let (span, generator) = (mirror.span.as_str(), mirror.generator.as_str());
        ip(&[
            "link", "add", SPAN, "netns", span, "type", "veth", "peer", "name", GENERATOR, "netns",
            generator,
        ])?;
        ip(&["-n", span, "link", "set", SPAN, "up", "promisc", "on"])?;
        ip(&["-n", generator, "link", "set", GENERATOR, "up"])?;
        mirror.ethtool(&["-K", SPAN, "rxvlan", "off", "gro", "off"])?;
        Ok(Some(mirror))
    }

    fn ethtool(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.span, "ethtool"]).args(arguments);
        read(&mut command).map(drop)
    }

    /// The program on the listening end.
    fn doctor(&self, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.span])
            .arg(program("spanwatch-sensor")?)
            .args(["doctor", "--interface", SPAN, "--json"])
            .args(arguments);
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        Process::start(&mut command, &self.folder.path().join(format!("doctor-{run}.log")))
    }

    /// Listens until this many of the frames have come; gives the report.
    fn examine(&self, frames: &[MirroredFrame], arguments: &[&str]) -> Result<Examined> {
        self.examine_arriving(frames, frames.len(), arguments, Cpus::One)
    }

    fn examine_arriving(
        &self,
        frames: &[MirroredFrame],
        arriving: usize,
        arguments: &[&str],
        cpus: Cpus,
    ) -> Result<Examined> {
        let arriving = arriving.to_string();
        let usual = ["--seconds", "60", "--frames", &arriving];
        let mut doctor = self.doctor(&[&usual, arguments].concat())?;
        doctor.wait_until("listening", PATIENCE, |log| log.contains("listening on"))?;
        self.send(frames, cpus)?;
        Examined::new(doctor)
    }

    /// Puts the frames on the wire, one after another.
    fn send(&self, frames: &[MirroredFrame], cpus: Cpus) -> Result<()> {
        thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<()> {
                let path: PathBuf = Path::new("/var/run/netns").join(&self.generator);
                let file = std::fs::File::open(&path)?;
                let file = std::os::fd::AsFd::as_fd(&file);
                move_into_link_name_space(file, Some(LinkNameSpaceType::Network))?;
                let allowed = Cpus::allowed()?;
                let mut wire = wire()?;
                for (number, frame) in frames.iter().enumerate() {
                    cpus.choose(number, &allowed)?;
                    let sent = wire.send_to(&frame.bytes, None).context("the wire is open")?;
                    // What is longer than the other end's MTU is lost on the wire; veth tells the sender.
                    let is_lost = sent.as_ref().is_err_and(|error| {
                        error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
                    });
                    if !(is_lost && frame.bytes.len() > FRAME_BYTES_USUAL) {
                        sent.context("sending a frame")?;
                    }
                }
                Ok(())
            });
            sender.join().unwrap_or_else(|_| bail!("the sender panicked"))
        })
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        for namespace in [&self.span, &self.generator] {
            // The pair goes with its namespaces; a namespace that was never made is no loss.
            ip(&["netns", "delete", namespace]).ok();
        }
    }
}

/// The sending end, from within its namespace.
fn wire() -> Result<Box<dyn DataLinkSender>> {
    let interfaces = pnet_datalink::interfaces();
    let interface = interfaces.iter().find(|interface| interface.name == GENERATOR);
    match pnet_datalink::channel(interface.context("the pair's end")?, Config::default())? {
        Channel::Ethernet(sender, _) => Ok(sender),
        _ => bail!("a veth end is Ethernet"),
    }
}

/// Which CPUs the frames are sent on; over a veth pair they are received on the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cpus {
    One,
    InTurn,
}

impl Cpus {
    fn allowed() -> Result<Vec<usize>> {
        let allowed = sched_getaffinity(None)?;
        Ok((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect())
    }

    /// Moves this thread where frame `number` is to be sent.
    fn choose(self, number: usize, allowed: &[usize]) -> Result<()> {
        if self == Self::One && number > 0 {
            return Ok(());
        }
        let mut one = CpuSet::new();
        one.set(*allowed.get(number % allowed.len()).context("this thread may run somewhere")?);
        sched_setaffinity(None, &one).context("choosing a CPU")
    }
}

/// A report and the exit code it came with.
struct Examined {
    code: Option<i32>,
    report: Value,
}

impl Examined {
    fn new(mut doctor: Process) -> Result<Self> {
        let status = doctor.wait(PATIENCE)?;
        let log = doctor.log();
        let start = log.find("{\n").with_context(|| format!("no report: {log}"))?;
        let report = serde_json::from_str(log.get(start..).unwrap_or_default())
            .with_context(|| format!("the report is JSON: {log}"))?;
        Ok(Self { code: status.code(), report })
    }

    fn findings(&self, severity: &str) -> Vec<&str> {
        let findings = self.report["findings"].as_array().into_iter().flatten();
        let findings = findings.filter(|finding| finding["severity"] == severity);
        findings.filter_map(|finding| finding["check"].as_str()).collect()
    }

    /// Exactly this fault was found, with words and a remedy.
    fn has_fault(&self, check: &str) -> Result<&Value> {
        let faults = self.findings("fault");
        ensure!(faults == [check], "{check} is the one fault: {:#}", self.report);
        ensure!(self.code == Some(1), "exit code {:?}", self.code);
        self.told(check)
    }

    fn told(&self, check: &str) -> Result<&Value> {
        let mut findings = self.report["findings"].as_array().into_iter().flatten();
        let finding = findings.find(|finding| finding["check"] == check);
        let finding = finding.with_context(|| format!("no {check}: {:#}", self.report))?;
        for key in ["what", "evidence", "why"] {
            ensure!(finding[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {finding}");
        }
        ensure!(finding["remedies"].as_array().is_some_and(|all| !all.is_empty()), "{finding}");
        Ok(finding)
    }

    fn count(&self, name: &str) -> u64 {
        self.report["traffic"][name].as_u64().unwrap_or(u64::MAX)
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    read(Command::new("ip").args(arguments))
}

fn usual() -> Vec<MirroredFrame> {
    mirrored(USUAL.0, USUAL.1, USUAL.2)
}

#[test]
fn a_mirror_without_a_fault_has_none() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    let frames = usual();
    let examined = mirror.examine(&frames, &[])?;
    ensure!(examined.findings("fault").is_empty(), "{:#}", examined.report);
    assert_eq!(examined.code, Some(0));
    assert_eq!(examined.count("frames"), frames.len() as u64);
    assert_eq!(examined.report["mode"], "native");
    assert_eq!(examined.report["nic"]["received"], frames.len());
    assert_eq!(examined.report["nic"]["missed"], 0);
    assert_eq!(examined.report["traffic"]["tcp"]["both_directions"], USUAL.0);
    let fine = examined.findings("fine");
    for check in
        ["duplicates", "one_direction", "vlan_asymmetric", "loss_upstream", "frames_cut", "mtu"]
    {
        ensure!(fine.contains(&check), "{check}: {:#}", examined.report);
    }
    Ok(())
}

#[test]
fn a_tag_on_one_direction_is_found() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    let tag = |frame: MirroredFrame| if frame.from_client { frame } else { frame.tagged(20) };
    let frames: Vec<_> = usual().into_iter().map(tag).collect();
    mirror.examine(&frames, &[])?.has_fault("vlan_asymmetric")?;
    Ok(())
}

#[test]
fn frames_that_come_twice_are_found() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    let frames: Vec<_> = usual().into_iter().flat_map(|frame| [frame.clone(), frame]).collect();
    let examined = mirror.examine(&frames, &[])?;
    examined.has_fault("duplicates")?;
    assert_eq!(examined.count("copies"), frames.len() as u64 / 2);
    assert_eq!(examined.report["traffic"]["tcp"]["retransmitted"], 0, "a copy is none");
    Ok(())
}

#[test]
fn a_direction_that_is_missing_is_found() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    let frames: Vec<_> = usual().into_iter().filter(|frame| frame.from_client).collect();
    mirror.examine(&frames, &[])?.has_fault("one_direction")?;
    Ok(())
}

#[test]
fn frames_that_are_cut_are_found() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    let mut frames = usual();
    for frame in &mut frames {
        frame.bytes.truncate(128);
    }
    mirror.examine(&frames, &[])?.has_fault("frames_cut")?;
    Ok(())
}

#[test]
fn frames_that_the_mirror_lost_are_found() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    let frames = usual();
    let mut number = 0;
    let keep = |frame: &MirroredFrame| {
        number += u32::from(frame.has_payload);
        !frame.has_payload || number % 7 != 0
    };
    let frames: Vec<_> = frames.into_iter().filter(keep).collect();
    let examined = mirror.examine(&frames, &[])?;
    examined.has_fault("loss_upstream")?;
    assert_eq!(examined.report["traffic"]["tcp"]["retransmitted"], 0);
    Ok(())
}

#[test]
fn too_small_an_mtu_is_found() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    ip(&["-n", &mirror.generator, "link", "set", GENERATOR, "mtu", "9000"])?;
    let frames = mirrored(USUAL.0, USUAL.1, 8000);
    let short = frames.iter().filter(|frame| frame.bytes.len() <= FRAME_BYTES_USUAL).count();
    let examined = mirror.examine_arriving(&frames, short, &[], Cpus::One)?;
    let faults = examined.findings("fault");
    ensure!(faults.contains(&"mtu"), "{:#}", examined.report);
    let remedies = examined.told("mtu")?["remedies"].to_string();
    ensure!(remedies.contains("ip link set dev span0 mtu 9216"), "{remedies}");
    // The remedy works.
    ip(&["-n", &mirror.span, "link", "set", SPAN, "mtu", "9000"])?;
    let mended = mirror.examine(&frames, &[])?;
    ensure!(!mended.findings("fault").contains(&"mtu"), "{:#}", mended.report);
    Ok(())
}

#[test]
fn generic_mode_is_told_and_merging_in_it_is_a_fault() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    let generic = ["--mode", "generic"];
    let examined = mirror.examine(&usual(), &generic)?;
    ensure!(examined.findings("warning").contains(&"generic_mode"), "{:#}", examined.report);
    ensure!(examined.findings("fault").is_empty(), "{:#}", examined.report);
    assert_eq!((examined.code, &examined.report["mode"]), (Some(0), &"generic".into()));

    mirror.ethtool(&["-K", SPAN, "gro", "on"])?;
    // Merged frames are fewer than were sent.
    let examined = mirror.examine_arriving(&usual(), 100, &generic, Cpus::One)?;
    let remedies = examined.has_fault("gro")?["remedies"].to_string();
    ensure!(remedies.contains("ethtool -K span0 gro off"), "{remedies}");
    let native = mirror.examine(&usual(), &[])?;
    ensure!(native.findings("fine").contains(&"gro"), "the program comes before it");
    Ok(())
}

#[test]
fn a_card_that_takes_tags_off_is_told() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    mirror.ethtool(&["-K", SPAN, "rxvlan", "on"])?;
    let examined = mirror.examine(&usual(), &[])?;
    ensure!(examined.findings("warning").contains(&"vlan_stripped"), "{:#}", examined.report);
    examined.told("vlan_stripped")?;
    Ok(())
}

#[test]
fn a_flow_that_arrives_on_several_cpus_is_told() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    if Cpus::allowed()?.len() < 2 {
        skip("frames on several CPUs need several CPUs");
        return Ok(());
    }
    let frames: Vec<_> = usual().into_iter().filter(|frame| !frame.from_client).collect();
    let examined = mirror.examine_arriving(&frames, frames.len(), &[], Cpus::InTurn)?;
    ensure!(examined.findings("warning").contains(&"flow_split"), "{:#}", examined.report);
    examined.told("flow_split")?;
    Ok(())
}

#[test]
fn a_port_that_is_no_mirrors_destination_is_found() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    let mut frames = usual();
    frames.truncate(100);
    for frame in &mut frames {
        frame.bytes.splice(..6, [0xff; 6]);
    }
    mirror.examine(&frames, &[])?.has_fault("no_mirror")?;

    ip(&["-n", &mirror.span, "link", "set", SPAN, "promisc", "off"])?;
    let faults = mirror.examine(&frames, &[])?;
    ensure!(faults.findings("fault").contains(&"promiscuous"), "{:#}", faults.report);
    let silent = Examined::new(mirror.doctor(&["--seconds", "1"])?)?;
    ensure!(silent.findings("fault").contains(&"no_traffic"), "{:#}", silent.report);
    assert_eq!(silent.code, Some(1));
    Ok(())
}

#[test]
fn what_is_in_the_way_is_told_without_listening() -> Result<()> {
    let Some(mirror) = Mirror::new()? else { return Ok(()) };
    let address = "10.12.0.1/24";
    ip(&["-n", &mirror.span, "address", "add", address, "dev", SPAN])?;
    let mut first = mirror.doctor(&["--seconds", "600"])?;
    first.wait_until("listening", PATIENCE, |log| log.contains("listening on"))?;
    let output = Command::new("ip")
        .args(["netns", "exec", &mirror.span])
        .arg(program("spanwatch-sensor")?)
        .args(["doctor", "--interface", SPAN])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains("[xdp_attached]"), "{text}");
    ensure!(text.contains("[addresses]") && text.contains(address), "{text}");
    ensure!(!text.contains('\x1b'), "colours are for terminals");
    assert_eq!(output.status.code(), Some(0), "{text}");
    first.kill()?;

    ip(&["-n", &mirror.span, "link", "set", SPAN, "down"])?;
    let down = Command::new("ip")
        .args(["netns", "exec", &mirror.span])
        .arg(program("spanwatch-sensor")?)
        .args(["doctor", "--interface", SPAN])
        .output()?;
    let text = String::from_utf8(down.stdout)?;
    ensure!(text.contains("ip link set dev span0 up"), "{text}");
    assert_eq!(down.status.code(), Some(1), "{text}");
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_is_a_mistake_of_the_caller() -> Result<()> {
    for arguments in [&["doctor", "--interface", "nothere0"][..], &["doctor", "nothere.pcap"]] {
        let output = Command::new(program("spanwatch-sensor")?).args(arguments).output()?;
        let text = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{text}");
        ensure!(text.contains("nothere"), "{text}");
    }
    Ok(())
}
