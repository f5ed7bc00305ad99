//! Flow records that can be trusted. Of every shared capture: packets and bytes of each biflow, both ways, against
//! tshark's own conversations (`-z conv`); and a second replay, on one CPU or several, writes the same lines.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use flow::protocol;
use sensor::{AggregatorSettings, CaptureFile, Replay};
use tests::tshark::{Conversation, Opinion, Table, Tuple, conversations, has_tshark};
use tests::{ETHERNET_LINK, PcapFile, capture_files, capture_folder, mirrored, program, read};

/// Why tshark's conversations are not our biflows, and who is right.
const CARRIER: &str = "both: tshark counts the datagrams that carry a tunnel as well as what is in them; a flow here is \
                       what is in them, once";
const FRAGMENTS: &str = "ours: later fragments belong to the flow of the first one; tshark, which is asked to look at \
                         each packet for itself, counts them in no conversation";
const WIRELESS: &str = "both: tshark goes on into CAPWAP, which is no tunnel that is entered here";
const LARGE: &str =
    "ours: frames of 80 KB before segmentation, whose length fields say 0; tshark stops there";
const BROKEN: &str = "ours: two TCP headers with a length that cannot be; addresses and ports are whole, and tshark \
                      prints them, but makes no conversation of them";

/// Below `decode`: captures whose conversations differ, how many biflows only tshark has or has otherwise, how many
/// only we have or have otherwise, and why.
const KNOWN: [(&str, usize, usize, &str); 27] = [
    ("nDPI/tests/cfgs/default/pcap/capwap.pcap", 1, 0, WIRELESS),
    ("nDPI/tests/cfgs/default/pcap/capwap_data.pcapng", 1, 0, WIRELESS),
    ("nDPI/tests/cfgs/default/pcap/http_origin_different_than_host.pcap", 1, 0, CARRIER),
    ("nDPI/tests/cfgs/default/pcap/ja3_lots_of_cipher_suites_2_anon.pcap", 1, 0, CARRIER),
    ("nDPI/tests/cfgs/default/pcap/reasm_segv_anon.pcapng", 1, 0, CARRIER),
    ("nDPI/tests/cfgs/default/pcap/rtmp.pcap", 2, 0, CARRIER),
    ("nDPI/tests/cfgs/default/pcap/tls_change_cipher.pcap", 1, 0, CARRIER),
    ("nDPI/tests/cfgs/default/pcap/tls_invalid_reads.pcap", 1, 0, CARRIER),
    ("suricata-verify/tests/bug-6402-01/input.pcap", 1, 0, CARRIER),
    ("suricata-verify/tests/defrag/bug-6887-defrag-ipv6-tcp/frag-ip-tcp.pcap", 1, 1, FRAGMENTS),
    (
        "suricata-verify/tests/defrag/bug-6942-6887-defrag-eth-ip-gre-ppp-ip-udp-data/eth-ip-gre-ppp-max-ip-packet.pcap",
        1,
        1,
        FRAGMENTS,
    ),
    ("suricata-verify/tests/transform-base64-7296/input.pcap", 0, 1, BROKEN),
    ("suricata-verify/tests/vxlan-decoder-01/input.pcap", 1, 0, CARRIER),
    ("suricata-verify/tests/vxlan-decoder-03/vxlan.pcap", 13, 0, CARRIER),
    ("suricata-verify/tests/vxlan-non-zero-reserved-fields/input.pcap", 1, 0, CARRIER),
    ("tcpdump/tests/bigtcp-ipv4-geneve-ipv4.pcap", 0, 1, LARGE),
    ("tcpdump/tests/bigtcp-ipv6-geneve-ipv4.pcap", 0, 1, LARGE),
    ("tcpdump/tests/gso-ipv4-geneve-ipv6.pcap", 1, 0, CARRIER),
    ("tcpdump/tests/gso-ipv4-vxlan-ipv6.pcap", 1, 0, CARRIER),
    ("tcpdump/tests/gso-ipv6-vxlan-ipv6.pcap", 1, 0, CARRIER),
    ("zeek/testing/btest/Traces/ipv4/fragmented-2.pcap", 1, 1, FRAGMENTS),
    ("zeek/testing/btest/Traces/ipv4/fragmented-4.pcap", 1, 1, FRAGMENTS),
    ("zeek/testing/btest/Traces/ipv6-reassembly-state-leak.pcap", 2, 2, FRAGMENTS),
    ("zeek/testing/btest/Traces/tunnels/geneve.pcap", 2, 0, CARRIER),
    ("zeek/testing/btest/Traces/tunnels/gtp/gtp1_gn_normal_incl_fragmentation.pcap", 1, 0, CARRIER),
    ("zeek/testing/btest/Traces/tunnels/gtp/gtp6_gtp_0x32.pcap", 1, 0, CARRIER),
    ("zeek/testing/btest/Traces/tunnels/gtp/gtp_ext_header.pcap", 1, 0, CARRIER),
];

/// Packets and bytes both ways between two ends; the smaller end first.
type Biflows = BTreeMap<Tuple, [(u64, u64); 2]>;

fn replayed(path: &Path) -> Result<Option<Table>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let Ok(mut source) = CaptureFile::open(file) else { return Ok(None) };
    let mut replay = Replay::new(AggregatorSettings::default(), 250);
    let mut opinion = Opinion::default();
    // A file that breaks off is compared up to there.
    while let Ok(Some(frame)) = source.next_frame() {
        replay.handle_frame(&frame, &mut |record| opinion.handle_record(&record));
    }
    replay.finish(&mut |record| opinion.handle_record(&record));
    Ok(Some(opinion.flows))
}

/// Ours, by biflow.
fn biflows(table: &Table) -> Biflows {
    let mut biflows = Biflows::new();
    for ((source, destination, near, far, protocol), sum) in table {
        let turned = (source, near) > (destination, far);
        let key = if turned {
            (*destination, *source, *far, *near, *protocol)
        } else {
            (*source, *destination, *near, *far, *protocol)
        };
        let sides = biflows.entry(key).or_default();
        // Ends that are equal are both directions at once.
        let side = &mut sides[usize::from(turned)];
        side.0 += sum.packets;
        side.1 += sum.bytes;
    }
    biflows
}

/// Theirs: least and most bytes that what tshark prints can stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Printed {
    packets: u64,
    bytes_min: u64,
    bytes_max: u64,
}

impl Printed {
    fn fits(self, (packets, bytes): (u64, u64)) -> bool {
        self.packets == packets && (self.bytes_min..=self.bytes_max).contains(&bytes)
    }
}

/// Theirs, by biflow: streams of one pair of ends, which come one after another, are added up.
fn printed(tables: &[(u8, Vec<Conversation>)]) -> BTreeMap<Tuple, [Printed; 2]> {
    let mut printed = BTreeMap::<Tuple, [Printed; 2]>::new();
    for (protocol, table) in tables {
        for one in table {
            let turned = one.near > one.far;
            let (from, to) = if turned { (one.far, one.near) } else { (one.near, one.far) };
            let sides = printed.entry((from.0, to.0, from.1, to.1, *protocol)).or_default();
            let both = if turned { [one.to_near, one.to_far] } else { [one.to_far, one.to_near] };
            for (side, (packets, size)) in sides.iter_mut().zip(both) {
                side.packets += packets;
                side.bytes_min += size.least();
                side.bytes_max += size.most();
            }
        }
    }
    printed
}

/// How many biflows tshark has that we have not, or otherwise, and the reverse; and the first of each.
fn differences(path: &Path) -> Result<Option<(usize, usize, usize, String)>> {
    let Some(ours) = replayed(path)? else { return Ok(None) };
    let ours = biflows(&ours);
    let [tcp, udp] = conversations(path, ["tcp", "udp"])?;
    let theirs = printed(&[(protocol::TCP, tcp), (protocol::UDP, udp)]);
    let fits = |theirs: &[Printed; 2], ours: &[(u64, u64); 2]| {
        theirs.iter().zip(ours).all(|(printed, sum)| printed.fits(*sum))
    };
    let only_theirs: Vec<_> = theirs
        .iter()
        .filter(|(key, theirs)| ours.get(*key).is_none_or(|ours| !fits(theirs, ours)))
        .collect();
    let only_ours: Vec<_> = ours
        .iter()
        .filter(|(key, ours)| theirs.get(*key).is_none_or(|theirs| !fits(theirs, ours)))
        .collect();
    let example = format!("{:?} against {:?}", only_theirs.first(), only_ours.first());
    Ok(Some((ours.len(), only_theirs.len(), only_ours.len(), example)))
}

#[test]
fn every_biflow_is_a_conversation_of_tshark() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    if !has_tshark() {
        return Ok(());
    }
    let paths = Mutex::new(capture_files(&folder)?);
    let results = Mutex::new(BTreeMap::new());
    let workers = thread::available_parallelism()?.get();
    thread::scope(|scope| -> Result<()> {
        let worker = || -> Result<()> {
            loop {
                let Some(path) = paths.lock().ok().and_then(|mut paths| paths.pop()) else {
                    return Ok(());
                };
                let name = path.strip_prefix(&folder)?.display().to_string();
                let found = differences(&path).with_context(|| name.clone())?;
                if let (Some(found), Ok(mut results)) = (found, results.lock()) {
                    results.insert(name, found);
                }
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            worker.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
        }
        Ok(())
    })?;
    let results = results.into_inner().unwrap_or_default();
    let mut known: BTreeMap<String, (usize, usize, &str)> = KNOWN
        .iter()
        .map(|(file, theirs, ours, why)| (format!("decode/{file}"), (*theirs, *ours, *why)))
        .collect();
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, (biflows, only_theirs, only_ours, example)) in &results {
        count += biflows;
        let listed = known.remove(name).unwrap_or((0, 0, "nothing"));
        if (*only_theirs, *only_ours) != (listed.0, listed.1) {
            wrong.push(format!(
                "{name}: {only_theirs} only by tshark, {only_ours} only by us; listed: {listed:?}; {example}"
            ));
        }
    }
    println!(
        "{} captures, {count} biflows, {} captures with listed differences",
        results.len(),
        KNOWN.len()
    );
    ensure!(known.is_empty(), "listed, and not among the captures: {known:?}");
    ensure!(wrong.is_empty(), "{} captures differ:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(count > 1_000, "there was something to compare: {count} biflows");
    Ok(())
}

/// What `replay` writes of these files as one capture, sorted.
fn lines(files: &[PathBuf], more: &[&str]) -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("records.json");
    let mut replay = Command::new(program("spanwatch-sensor")?);
    replay.arg("replay").args(files).args(more);
    replay.args(["--output", "json", "--out"]).arg(&out);
    // A faulty file is told by the exit code, and its good frames count.
    let run = replay.output().context("starting a replay")?;
    ensure!(run.status.code().is_some_and(|code| code < 2), "{run:?}");
    let text = std::fs::read_to_string(&out)?;
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    Ok(lines)
}

/// Whether `replay` can be told how many CPUs to use.
fn has_shards() -> Result<bool> {
    let mut help = Command::new(program("spanwatch-sensor")?);
    Ok(read(help.args(["replay", "--help"]))?.contains("--cpus"))
}

#[test]
fn a_second_replay_writes_the_same_lines_on_any_number_of_cpus() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let generated = folder.path().join("generated.pcap");
    let mut generate = Command::new(program("spanwatch-bench")?);
    generate.args(["generate", "--packets", "300000", "--flows", "40000", "--conversations"]);
    generate.args(["--encapsulate", "vlan=10,vxlan=10,gre=10", "--packets-per-s", "3000"]);
    read(generate.args(["--with", "pages,syn-flood,vertical-scan", "--out"]).arg(&generated))?;
    // Of each conversation what its server sent, as a mirror of one direction shows it.
    let one_way = folder.path().join("one-way.pcap");
    let mut file = PcapFile::new(ETHERNET_LINK);
    let mut at = Duration::from_hours(491_001);
    for frame in mirrored(2_000, 6, 700).into_iter().filter(|frame| !frame.from_client) {
        at += Duration::from_millis(3);
        file.add(at, frame.bytes.len() as u64, &frame.bytes)?;
    }
    file.write(&one_way)?;
    let is_told = lines(std::slice::from_ref(&one_way), &[])?;
    ensure!(is_told.iter().any(|line| line.contains(r#""handshake":"one_way""#)), "it is noticed");
    let mut sets = vec![vec![generated], vec![one_way]];
    if let Some(folder) = capture_folder() {
        // One after another, as one capture: each set holds many, of which some go back in time.
        let files = capture_files(&folder)?;
        sets.extend(files.chunks(40).map(<[PathBuf]>::to_vec));
    }
    let has_shards = has_shards()?;
    for set in &sets {
        let first = lines(set, &[])?;
        ensure!(!first.is_empty(), "no record of {set:?}");
        let mut others = vec![("again", lines(set, &[])?)];
        if has_shards {
            others.push(("in one part", lines(set, &["--cpus", "0"])?));
            // It is a list: a processor that is named twice builds two parts.
            others.push(("in four", lines(set, &["--cpus", "0,1,0,1"])?));
        }
        for (how, other) in others {
            if first != other {
                let example = first.iter().zip(&other).find(|(a, b)| a != b);
                bail!("{how}: {} lines, then {}: {example:?}", first.len(), other.len());
            }
        }
    }
    Ok(())
}
