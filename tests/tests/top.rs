//! The live view as a person meets it: on a real port, on a capture, in a real terminal, and where
//! there is none.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Process, VethPair, capture_folder, program, read, skip, udp_frame};

const TIMEOUT: Duration = Duration::from_mins(1);
/// Bytes of a frame.
const FRAME: u16 = 100;
/// Where the source port is in it.
const SOURCE_PORT: Range<usize> = 34..36;
/// What clears the way for a screen, and what gives the old one back.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

fn summary(file: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Numbers of a row of the list, which are separated by blanks: those behind the state.
fn numbers(line: &str, state: &str) -> Vec<String> {
    let behind = line.split_once(state).map_or("", |(_, behind)| behind);
    behind.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_port_shows_its_flows_while_they_last_with_exact_totals() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (books, log) = (folder.path().join("summary.json"), folder.path().join("screen.txt"));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", pair.span_namespace()]).arg(program("spanwatch-sensor")?);
    command.args(["top", "--interface", &VethPair::span_end(0), "--once", "--seconds", "3600"]);
    command.arg("--summary").arg(&books);
    command.envs([("COLUMNS", "140"), ("LINES", "40")]);
    let mut top = Process::start(&mut command, &log)?;
    let counted = |key: &str| summary(&books).and_then(|books| books[key].as_u64()).unwrap_or(0);
    top.wait_until("counting", TIMEOUT, |_| counted("epochs") > 0)?;
    // Once attached it has no rights any more, as `run`.
    let status = fs::read_to_string(format!("/proc/{}/status", top.id()))?;
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    assert_eq!(held.trim(), "0000000000000000");

    // One flow of 700 packets and ten of 30: none of them ends before the screen is printed.
    let sizes = std::iter::once((40_000_u16, 700)).chain((1..=10).map(|flow| (40_000 + flow, 30)));
    for (port, packets) in sizes {
        let mut frame = udp_frame(usize::from(FRAME))?;
        frame[SOURCE_PORT].copy_from_slice(&port.to_be_bytes());
        pair.send(0, std::iter::repeat_n(frame.as_slice(), packets))?;
    }
    top.wait_until("counted", TIMEOUT, |_| counted("packets_in_flows") >= 1_000)?;
    // SIGTERM ends the wait; what was counted by then is shown.
    top.terminate(TIMEOUT)?;
    let screen = fs::read_to_string(&log)?;
    ensure!(screen.contains("span0 (native XDP)"), "{screen}");
    assert_eq!(screen.matches(" udp   one-way ").count(), 11, "{screen}");
    let large = screen.lines().find(|line| line.contains(":40000 ")).context(screen.clone())?;
    let row = numbers(large, "one-way");
    assert_eq!(row[2..6], ["700", "0", "70,000", "0"], "{screen}");
    for flow in 1..=10 {
        let port = format!(":{} ", 40_000 + flow);
        let small = screen.lines().find(|line| line.contains(&port)).context(screen.clone())?;
        assert_eq!(numbers(small, "one-way")[2..6], ["30", "0", "3,000", "0"], "{screen}");
    }
    ensure!(screen.contains("1-11 of 11 by rate"), "{screen}");
    assert!(!pair.is_attached(0)?, "it has detached");
    let books = summary(&books).context("the books")?;
    assert_eq!((&books["balanced"], &books["command"]), (&Value::from(true), &Value::from("top")));
    Ok(())
}

/// The sample capture: a client that loads a page of Wikipedia, ten seconds.
fn capture() -> Option<std::path::PathBuf> {
    let Some(folder) = capture_folder() else {
        skip("there are no captures");
        return None;
    };
    Some(folder.join("attack/negative_wikipedia.pcap"))
}

#[test]
fn a_capture_is_shown_as_text_without_a_terminal() -> Result<()> {
    let Some(capture) = capture() else { return Ok(()) };
    let print = |arguments: &[&str]| {
        let mut command = Command::new(program("spanwatch-sensor")?);
        command.args(["top", "--once", "--seconds", "60", "--speed", "max"]).args(arguments);
        command.arg(&capture).envs([("COLUMNS", "120"), ("LINES", "60")]);
        read(&mut command)
    };
    let flows = print(&[])?;
    let replayed = read(
        Command::new(program("spanwatch-sensor")?)
            .args(["replay", "--output", "json"])
            .arg(&capture),
    )?;
    let count = replayed.lines().count();
    ensure!(flows.contains(&format!("1-{count} of {count} by bytes")), "{count} records\n{flows}");
    let hosts = print(&["--tab", "hosts", "--filter", "udp 53"])?;
    ensure!(hosts.contains("\n HOSTS\n") && hosts.contains(" filter udp 53"), "{hosts}");
    ensure!(hosts.contains("1-2 of 2 by bytes"), "a client and its resolver\n{hosts}");
    ensure!(!flows.contains('\x1b') && !hosts.contains('\x1b'), "it is text");
    Ok(())
}

#[test]
fn without_a_terminal_it_says_what_to_do() -> Result<()> {
    let Some(capture) = capture() else { return Ok(()) };
    let mut command = Command::new(program("spanwatch-sensor")?);
    let output = command.arg("top").arg(&capture).output().context("starting it")?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    ensure!(error.contains("there is no terminal to show it on: use --once"), "{error}");
    Ok(())
}

/// Runs it in a terminal of its own and types `keys`; gives everything that came on the terminal.
fn in_terminal(shell: &str, keys: &str) -> Result<Option<String>> {
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", shell, "/dev/null"]);
    command.env("SHELL", "/bin/sh").env("TERM", "xterm");
    let mut terminal = match command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
        Ok(terminal) => terminal,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("`script` (bsdutils) makes the terminal");
            return Ok(None);
        }
        Err(error) => return Err(error).context("starting `script`"),
    };
    let mut keyboard = terminal.stdin.take().context("a pipe")?;
    keyboard.write_all(keys.as_bytes())?;
    // The keyboard stays: a terminal that hangs up ends it, too.
    let output = terminal.wait_with_output()?;
    drop(keyboard);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}\n{text}", output.status);
    Ok(Some(text))
}

#[test]
fn the_terminal_is_given_back_as_it_was() -> Result<()> {
    let Some(capture) = capture() else { return Ok(()) };
    let top =
        format!("{} top --speed max {}", program("spanwatch-sensor")?.display(), capture.display());
    // The shell compares what the terminal was set to; typed keys may stand anywhere before.
    let shell = format!(
        "stty rows 30 columns 100; before=$(stty -g); {top} && test \"$before\" = \"$(stty -g)\""
    );
    let Some(text) = in_terminal(&shell, "2/udp\n?q")? else { return Ok(()) };
    ensure!(text.contains(ENTER) && text.contains(LEAVE), "{text}");
    ensure!(text.contains("spanwatch top"), "{text}");
    let after = text.rsplit_once(LEAVE).map_or("", |(_, after)| after);
    ensure!(
        after.contains("balance") && after.contains("closed"),
        "the books are told last: {after}"
    );
    Ok(())
}
