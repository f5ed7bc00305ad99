//! The program itself: exit codes, modes of what it makes, and a kill in the middle of its work.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use flow::Books;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use uplink::{DeliverOptions, DeliveryEvent, Outbox, OutboxOptions, Shutdown, deliver, enroll};

use crate::lab::{NOON_MS, connection};

fn command(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanwatch-backend"));
    command.args(arguments).arg("--data").arg(data);
    command
}

fn run(arguments: &[&str], data: &Path) -> Result<Output> {
    Ok(command(arguments, data).output()?)
}

fn json(arguments: &[&str], data: &Path) -> Result<Value> {
    let output = run(arguments, data)?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A UDP port of loopback that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

fn init(data: &Path, address: SocketAddr) -> Result<Output> {
    let address = address.to_string();
    run(&["init", "--listen", &address, "--address", &address], data)
}

/// A served folder; killed when the test ends in any way.
struct Served(Child);

impl Served {
    fn start(data: &Path) -> Result<Self> {
        let mut child = command(&["serve"], data).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("its output is a pipe")?;
        let served = Self(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        anyhow::ensure!(line.starts_with("listening on "), "{line:?}");
        Ok(served)
    }

    fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    fn terminate(mut self) -> Result<bool> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        Ok(self.0.wait()?.success())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be gone already; there is nothing more to do about it then.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn init_overwrites_nothing_and_everything_it_makes_is_private() -> Result<()> {
    let root = tempfile::tempdir()?;
    let data = root.path().join("data");
    let address = free_address()?;
    assert!(init(&data, address)?.status.success());
    let before = std::fs::read(data.join("ca/server.key"))?;
    let again = init(&data, address)?;
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));
    assert_eq!(std::fs::read(data.join("ca/server.key"))?, before);

    let mut folders = vec![data.clone()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(std::fs::metadata(&folder)?.permissions().mode() & 0o777, 0o700, "{folder:?}");
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600, "{path:?}");
        }
    }
    assert!(files >= 6, "{files} files");
    Ok(())
}

#[test]
fn mistakes_are_told_with_exit_codes() -> Result<()> {
    let root = tempfile::tempdir()?;
    let data = root.path().join("data");
    let missing = run(&["status"], &data)?;
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("has no backend.toml"));
    assert_eq!(run(&["no-such-verb"], &data)?.status.code(), Some(2));
    let bad = run(&["init", "--address", "nowhere"], &data)?;
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("\"nowhere\" is not a host and a port"));
    std::fs::create_dir_all(data.join("lake/flows"))?;
    let unfinished = init(&data, free_address()?)?;
    assert_eq!(unfinished.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unfinished.stderr).contains("remove it to start again"));
    std::fs::remove_dir_all(&data)?;

    assert!(init(&data, free_address()?)?.status.success());
    assert_eq!(json(&["sensor", "list", "--json"], &data)?, Value::Array(Vec::new()));
    let empty = run(&["member", "list"], &data)?;
    assert_eq!(
        String::from_utf8_lossy(&empty.stdout),
        "member  name  added  sensors  last batch received\n"
    );
    json(&["member", "add", "--name", "Bücherei", "--json"], &data)?;
    let listed = json(&["member", "list", "--json"], &data)?;
    assert_eq!((&listed[0]["id"], &listed[0]["name"]), (&"b-cherei".into(), &"Bücherei".into()));
    assert_eq!(listed[0]["last_received_ms"], Value::Null);
    let table = run(&["member", "list"], &data)?.stdout;
    assert!(String::from_utf8_lossy(&table).trim_end().ends_with("  0        never"), "{table:?}");

    let config = data.join("backend.toml");
    let text = std::fs::read_to_string(&config)? + "\n[surprise]\n";
    std::fs::write(&config, text)?;
    let unknown = run(&["serve"], &data)?;
    assert_eq!(unknown.status.code(), Some(2));
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(told.contains("backend.toml") && told.contains("unknown field `surprise`"), "{told}");
    assert_eq!(told.matches("unknown field").count(), 1, "told once: {told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_in_the_middle_lose_nothing_and_store_nothing_twice() -> Result<()> {
    let root = tempfile::tempdir()?;
    let (data, state) = (root.path().join("data"), root.path().join("sensor"));
    assert!(init(&data, free_address()?)?.status.success());
    let member = json(&["member", "add", "--name", "Town Hall", "--json"], &data)?;
    let mut served = Some(Served::start(&data)?);
    enroll(member["code"].as_str().context("a code")?, &state).await?;
    let mut outbox = Outbox::open(OutboxOptions {
        state_dir: state,
        spool_bytes_max: 64 << 20,
        object_sha256: [0; 32],
        sensor_version: "0.0.0-test".to_owned(),
        now_ms: NOON_MS,
    })?;
    for n in 0..120 {
        let records: Vec<_> = (0..20).map(|m| connection(n * 20 + m)).collect();
        outbox.seal(&records, &Books::default(), NOON_MS)?;
    }

    // The sensor delivers all the while; the backend dies at whatever it does when some acks have come.
    let (sender, shutdown) = watch::channel(Shutdown::No);
    let (noted, mut note) = mpsc::unbounded_channel();
    let options = DeliverOptions {
        backoff_min_ms: 10,
        backoff_max_ms: 50,
        ..DeliverOptions::new(outbox.spool())
    };
    let delivering = tokio::spawn(async move {
        let progress = move |event: DeliveryEvent| drop(noted.send(event));
        deliver(options, progress, shutdown).await
    });
    for _kill in 0..4 {
        let mut acks = 0;
        while acks < 7 {
            let event = note.recv().await.context("the delivery goes on")?;
            acks += usize::from(matches!(event, DeliveryEvent::Acked { .. }));
        }
        served.take().context("it is served")?.kill()?;
        served = Some(Served::start(&data)?);
    }
    sender.send(Shutdown::WhenEmpty { within: Duration::from_mins(2) })?;
    let totals = delivering.await??;
    assert_eq!(outbox.totals().batches_waiting, 0, "{totals:?}");

    let status = json(&["status", "--json"], &data)?;
    assert_eq!(status["rows_stored"], 2_400);
    assert_eq!(status["batches_stored"], 120);
    let different = "SELECT count(*) AS n FROM (SELECT DISTINCT sensor, boot_epoch, sequence, position FROM flows)";
    assert_eq!(json(&["query", different, "--format", "json"], &data)?[0]["n"], 2_400);
    assert!(served.take().context("it is served")?.terminate()?, "SIGTERM ends it in order");
    Ok(())
}
