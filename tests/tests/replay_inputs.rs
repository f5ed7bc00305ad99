//! What `spanwatch-sensor replay` reads, with the real program: compressed files, standard input and
//! several files in any mixture give the flows of the plain capture; faults are named; a pace is kept;
//! a signal ends it with closed books. A third opinion on link types and clocks comes from tshark.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tempfile::TempDir;
use tests::{Process, program, skip};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ethernet, IPv4 and TCP of one client's connection.
fn frame(client: u8, port: u16, flags: u8) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend(packet(client, port, flags));
    frame
}

/// IPv4 and TCP.
fn packet(client: u8, port: u16, flags: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend([10, 0, 0, client, 192, 0, 2, 1]);
    packet.extend(port.to_be_bytes());
    packet.extend(443_u16.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    packet
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A capture with one connection attempt every 100 ms.
fn capture(start_s: u32, frames: u16) -> Result<Vec<u8>> {
    let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for at in 0..frames {
        let frame = frame(u8::try_from(at % 5)?, 10_000 + at, 2);
        let (s, us) = (u32::from(at) / 10, u32::from(at) % 10 * 100_000);
        let length = u32::try_from(frame.len())?;
        bytes.extend(words(&[start_s + s, us, length, length]));
        bytes.extend(frame);
    }
    Ok(bytes)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// A folder with captures, and what the program makes of them.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        Ok(Self { folder: TempDir::new()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, bytes)?;
        Ok(path)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("spanwatch-sensor")?);
        command.current_dir(self.folder.path());
        command.arg("replay").args(arguments);
        command.args(["--output", "json", "--out", "records", "--summary", "summary"]);
        Ok(command)
    }

    /// Runs it with `input` as standard input.
    fn replay(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        let mut command = self.command(arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut pipe = child.stdin.take().context("standard input is a pipe")?;
        let input = input.to_vec();
        // Who reads no standard input closes it unread.
        let writer = std::thread::spawn(move || pipe.write_all(&input).is_ok());
        let output = child.wait_with_output()?;
        let _unread = writer.join();
        Ok(output)
    }

    fn records(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("records"))?)
    }

    fn summary(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.path("summary"))?)?)
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ended(output: &Output, code: i32) -> Result<()> {
    ensure!(output.status.code() == Some(code), "{}: {}", output.status, errors(output));
    Ok(())
}

#[test]
fn whatever_a_capture_comes_in_its_flows_are_the_same() -> Result<()> {
    let place = Place::new()?;
    let (first, second, third) = (capture(1_000, 200)?, capture(1_020, 200)?, capture(1_040, 200)?);
    place.write("1.pcap", &first)?;
    place.write("2.pcap", &second)?;
    place.write("3.pcap", &third)?;
    place.write("2.gz", &gzip(&second)?)?;
    // Names say nothing.
    place.write("3.txt", &zstd::encode_all(third.as_slice(), 3)?)?;
    ended(&place.replay(&["1.pcap", "2.pcap", "3.pcap"], &[])?, 0)?;
    let expected = place.records()?;
    ensure!(expected.lines().count() == 600, "one flow a frame");
    for (arguments, input) in [
        (["1.pcap", "2.gz", "3.txt"], &[][..]),
        (["-", "2.gz", "3.pcap"], &first),
        (["1.pcap", "2.pcap", "-"], &gzip(&third)?),
        (["1.pcap", "-", "3.txt"], &zstd::encode_all(second.as_slice(), 1)?),
    ] {
        ended(&place.replay(&arguments, input)?, 0)?;
        ensure!(place.records()? == expected, "{arguments:?}");
    }
    let summary = place.summary()?;
    let compressions: Vec<&Value> = summary["files"]
        .as_array()
        .context("a list of files")?
        .iter()
        .map(|file| &file["compression"])
        .collect();
    ensure!(compressions == [&Value::Null, &"zstd".into(), &"zstd".into()], "{compressions:?}");
    let capture = &summary["capture"];
    ensure!(capture["links"]["Ethernet"] == 600, "{capture}");
    ensure!(capture["hosts"][0]["address"] == "192.0.2.1", "{capture}");
    ensure!(capture["hosts"][0]["records"] == 600, "{capture}");
    ensure!(capture["services"][0]["port"] == 443, "{capture}");
    ensure!(capture["end_reasons"]["idle_timeout"].as_u64() > Some(0), "{capture}");

    // A named pipe, which keeps its reader waiting until somebody writes.
    let pipe = place.path("pipe");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, rustix::fs::Mode::RWXU, 0)?;
    let writer = std::thread::spawn(move || fs::write(pipe, second));
    ended(&place.replay(&["1.pcap", "pipe", "3.pcap"], &[])?, 0)?;
    ensure!(writer.join().is_ok_and(|written| written.is_ok()), "all of it was read");
    ensure!(place.records()? == expected, "from a named pipe");

    // Standard input that is a file, read from where it stands.
    let mut command = place.command(&["-"])?;
    let output = command.stdin(fs::File::open(place.path("2.gz"))?).output()?;
    ended(&output, 0)?;
    ensure!(place.summary()?["frames_seen"] == 200, "{}", errors(&output));
    Ok(())
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_read() -> Result<()> {
    let place = Place::new()?;
    let good = capture(1_000, 200)?;
    let packed = gzip(&good)?;
    place.write("cut.gz", &packed[..packed.len() - 9])?;
    place.write("twice", &zstd::encode_all(packed.as_slice(), 3)?)?;
    place.write("good", &good)?;
    fs::create_dir(place.path("folder"))?;
    let output = place.replay(&["cut.gz", "twice", "folder", "-", "good"], b"BZh91AY&SY")?;
    ended(&output, 1)?;
    let told = errors(&output);
    for expected in [
        "error: cut.gz: the gzip data end early, at byte ",
        "error: twice: the file is compressed twice: with zstd, and inside that with gzip; ",
        "error: folder: this is a folder; name the captures in it\n",
        "error: standard input: the file is compressed with bzip2; decompress it first\n",
    ] {
        ensure!(told.contains(expected), "{expected} in\n{told}");
    }
    let frames = place.summary()?["frames_seen"].as_u64();
    ensure!(frames > Some(300), "the good file, and much of the cut one: {frames:?}");

    let output = place.replay(&["-", "-"], &[])?;
    ended(&output, 2)?;
    ensure!(errors(&output).contains("standard input (-) can be read only once"), "told");
    let output = place.replay(&["good", "--speed", "fast"], &[])?;
    ended(&output, 2)?;
    ensure!(errors(&output).contains("expected max, wire, or a factor"), "{}", errors(&output));
    Ok(())
}

#[test]
fn a_pace_is_kept_and_a_signal_ends_the_wait_with_closed_books() -> Result<()> {
    let place = Place::new()?;
    // 2.9 seconds of traffic, ten times as fast.
    place.write("short", &capture(1_000, 30)?)?;
    let start = Instant::now();
    ended(&place.replay(&["short", "--speed", "10x"], &[])?, 0)?;
    ensure!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());

    // Hours of traffic: nobody waits for its end.
    let mut hours = capture(1_000, 30)?;
    hours.extend(&capture(1_000_000, 30)?[24..]);
    place.write("long", &hours)?;
    fs::remove_file(place.path("summary"))?;
    let log = place.path("log");
    let mut process = Process::start(&mut place.command(&["long", "--speed", "10x"])?, &log)?;
    // The summary is written once a second while it waits.
    let summary = || place.summary().is_ok_and(|summary| summary["frames_seen"] == 30);
    process.wait_until("at the pause", PATIENCE, |_| summary())?;
    let pid = i32::try_from(process.id())?;
    let pid = rustix::process::Pid::from_raw(pid).context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    let status = process.wait(PATIENCE)?;
    ensure!(status.code() == Some(1), "{status}: {}", process.log());
    let told = process.log();
    ensure!(told.contains("balance   closed"), "{told}");
    ensure!(told.contains("error: stopped by a signal: files read to their end: 0 of 1"), "{told}");
    let summary = place.summary()?;
    ensure!(summary["balanced"] == true && summary["finished"] == true, "{summary}");
    ensure!(summary["capture"]["stopped"] == true, "{summary}");
    ensure!(summary["files"][0]["error"] == "stopped before its end", "{summary}");
    ensure!(summary["packets_in_records"] == 30, "{summary}");
    ensure!(place.records()?.lines().count() == 30, "all records were written");
    Ok(())
}

#[test]
fn a_signal_ends_a_replay_whose_pipe_gives_nothing() -> Result<()> {
    let place = Place::new()?;
    let pipe = place.path("pipe");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, rustix::fs::Mode::RWXU, 0)?;
    let log = place.path("log");
    let mut process = Process::start(&mut place.command(&["pipe"])?, &log)?;
    let mut writer = fs::File::options().write(true).open(&pipe)?;
    writer.write_all(&capture(1_000, 30)?)?;
    // It has read everything and waits for more.
    let read_all = || rustix::io::ioctl_fionread(&writer).is_ok_and(|left| left == 0);
    process.wait_until("the pipe was read", PATIENCE, |_| read_all())?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(process.id())?).context("an id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let status = process.wait(PATIENCE)?;
    ensure!(status.code() == Some(1), "{status}: {}", process.log());
    let summary = place.summary()?;
    ensure!(summary["balanced"] == true && summary["finished"] == true, "{summary}");
    drop(writer);
    Ok(())
}

/// One block of a pcapng file.
fn block(kind: u32, body: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(body.len().next_multiple_of(4) + 12)?;
    let mut bytes = words(&[kind, length]);
    bytes.extend(body);
    bytes.resize(length as usize - 4, 0);
    bytes.extend(length.to_le_bytes());
    Ok(bytes)
}

/// What an interface says of its clock: a code and a value.
type Option_<'a> = (u16, &'a [u8]);

fn interface(link: u16, options: &[Option_<'_>]) -> Result<Vec<u8>> {
    let mut body = words(&[u32::from(link), 0]);
    for (code, value) in options {
        body.extend(code.to_le_bytes());
        body.extend(u16::try_from(value.len())?.to_le_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    block(1, &body)
}

/// A pcapng file with an interface of every link type, each with a clock of its own, and a packet from
/// each at the same moment.
fn interfaces() -> Result<(Vec<u8>, usize)> {
    const MOMENT_S: u64 = 1_780_000_000;
    let ip = packet(1, 40_000, 2);
    let ethernet = frame(2, 40_000, 2);
    let cooked = [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0][..], &ip].concat();
    let cooked2 = [&[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], &ip].concat();
    let null = [&[2, 0, 0, 0][..], &ip].concat();
    let null_swapped = [&[0, 0, 0, 2][..], &ip].concat();
    let ppp = [&[0xff, 3, 0, 0x21][..], &ip].concat();
    let hdlc = [&[0x0f, 0, 8, 0][..], &ip].concat();
    // Resolutions: microseconds by default, nanoseconds, milliseconds, seconds, 2⁻²⁰ s, 2⁻³² s.
    let offset = 1_000_000_000_i64.to_le_bytes();
    let before = (-5_000_i64).to_le_bytes();
    let links: [(u16, &[u8], &[Option_<'_>], u64); 10] = [
        (1, &ethernet, &[], MOMENT_S * 1_000_000),
        (113, &cooked, &[(9, &[9])], MOMENT_S * 1_000_000_000),
        (276, &cooked2, &[(9, &[3])], MOMENT_S * 1_000),
        (101, &ip, &[(9, &[0])], MOMENT_S),
        (228, &ip, &[(9, &[0x94])], MOMENT_S << 20),
        (0, &null, &[(9, &[0xa0])], MOMENT_S << 32),
        (0, &null_swapped, &[(14, &offset)], (MOMENT_S - 1_000_000_000) * 1_000_000),
        (108, &null_swapped, &[(9, &[6]), (14, &before)], (MOMENT_S + 5_000) * 1_000_000),
        (9, &ppp, &[(9, &[10]), (14, &offset)], (MOMENT_S - 1_000_000_000) * 10_u64.pow(10)),
        (104, &hdlc, &[(9, &[0x80])], MOMENT_S),
    ];
    let mut bytes = block(0x0a0d_0d0a, &[&words(&[0x1a2b_3c4d, 1])[..], &[0xff; 8]].concat())?;
    for (link, _, options, _) in links {
        bytes.extend(interface(link, options)?);
    }
    for ((_, data, _, ticks), at) in links.iter().zip(0..) {
        let length = u32::try_from(data.len())?;
        let (high, low) = (u32::try_from(ticks >> 32)?, u32::try_from(ticks & 0xffff_ffff)?);
        let head = words(&[at, high, low, length, length]);
        bytes.extend(block(6, &[&head[..], data].concat())?);
    }
    Ok((bytes, links.len()))
}

#[test]
fn link_types_and_clocks_are_read_as_tshark_reads_them() -> Result<()> {
    let place = Place::new()?;
    let (bytes, count) = interfaces()?;
    let file = place.write("links.pcapng", &bytes)?;
    ended(&place.replay(&["links.pcapng"], &[])?, 0)?;
    let summary = place.summary()?;
    ensure!(summary["packets_in_flows"] == count, "every frame has an IP packet: {summary}");
    let first = summary["capture"]["first_time"].as_str().context("a time")?;
    ensure!(summary["capture"]["span_ms"] == 0, "one moment: {summary}");
    ensure!(first == "2026-05-28T20:26:40.000Z", "{first}");
    let links = summary["capture"]["links"].as_object().context("link types")?;
    ensure!(links.len() == 9 && links["BSD loopback"] == 2, "{links:?}");

    let Some(frames) = tshark(&file)? else {
        skip("tshark is not installed");
        return Ok(());
    };
    ensure!(frames.len() == count, "{frames:?}");
    for line in frames {
        let fields: Vec<&str> = line.split('\t').collect();
        ensure!(fields[0].starts_with("1780000000.000"), "{line}");
        ensure!(fields[1].starts_with("10.0.0.") && fields[2] == "40000", "{line}");
    }
    Ok(())
}

/// Time, source and port of each frame; `None` without tshark.
fn tshark(file: &Path) -> Result<Option<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-e", "frame.time_epoch", "-e", "ip.src"]);
    command.args(["-e", "tcp.srcport", "-r"]).arg(file);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8(output.stdout)?;
    Ok(Some(text.lines().map(str::to_owned).collect()))
}
