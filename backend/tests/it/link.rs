//! The whole backend as `serve` runs it, with a real sensor's outbox at the other end of a loopback link.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use backend::listing::{SensorLine, health_line, members, print_sensors, sensors};
use backend::serve::serve;
use backend::status::Status;
use backend::verify::{Asked, verify};
use flow::Books;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uplink::{
    DeliverOptions, DeliveryTotals, EnrollError, EnrolmentCode, Outbox, OutboxOptions, Shutdown,
    deliver, enroll,
};

use crate::lab::{Lab, NOON_MS, connection, probe};

/// What `serve` prints, line by line.
struct Lines {
    sender: mpsc::UnboundedSender<String>,
    line: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        self.sender.send(line).map_err(io::Error::other)
    }
}

struct Serving {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Serving {
    async fn start(lab: &Lab) -> Result<Self> {
        let (sender, mut lines) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let folder = lab.folder.clone();
        let task = tokio::spawn(async move {
            let mut out = Lines { sender, line: Vec::new() };
            serve(&folder, &mut out, async { drop(stopped.await) }).await
        });
        let line = lines.recv().await.context("serve says where it listens")?;
        let address = line.trim().strip_prefix("listening on ").context("one line when ready")?;
        Ok(Self { address: address.parse()?, stop, task })
    }

    async fn stop(self) -> Result<()> {
        self.stop.send(()).map_err(|()| anyhow::anyhow!("it stopped by itself"))?;
        self.task.await?
    }
}

async fn code(lab: &Lab, address: SocketAddr, hash_to_forget: bool) -> Result<String> {
    let code = EnrolmentCode::new(&address.to_string(), lab.folder.authority()?.pin())?;
    if !hash_to_forget {
        let database = lab.database().await?;
        let member = database.member("town-hall").await?.id;
        database.add_code(&member, code.secret_hash(), 0, u64::MAX >> 1).await?;
    }
    Ok(code.to_string())
}

async fn deliver_all(outbox: &Outbox, address: SocketAddr) -> Result<DeliveryTotals> {
    let options = DeliverOptions {
        backend: Some(address.to_string()),
        ..DeliverOptions::new(outbox.spool())
    };
    let within = Duration::from_mins(1);
    let (_sender, shutdown) = watch::channel(Shutdown::WhenEmpty { within });
    Ok(deliver(options, |_event| {}, shutdown).await?)
}

fn outbox(state_dir: PathBuf) -> Result<Outbox> {
    Ok(Outbox::open(OutboxOptions {
        state_dir,
        spool_bytes_max: 64 << 20,
        object_sha256: [7; 32],
        sensor_version: "0.0.0-test".to_owned(),
        now_ms: NOON_MS,
    })?)
}

/// The only sensor, and the list as people see it.
async fn sensor_line(lab: &Lab) -> Result<(SensorLine, String)> {
    let lines = sensors(&lab.database().await?).await?;
    let mut table = Vec::new();
    print_sensors(&lines, &mut table)?;
    let line = lines.into_iter().next().context("the sensor is listed")?;
    Ok((line, String::from_utf8(table)?))
}

/// What was received is kept, and a flipped bit of it shows.
async fn evidence_shows_a_flipped_bit(lab: &Lab, sensor: &str) -> Result<()> {
    let (database, evidence) = (lab.database().await?, lab.folder.evidence());
    let verdict = verify(&database, &evidence, &Asked::default()).await?;
    let found = &verdict.sensors[sensor];
    assert_eq!((verdict.breaks(), found.batches, found.records), (0, 21, 1_040), "{verdict:?}");
    let file = evidence.files()?.pop().context("there is evidence")?;
    let whole = std::fs::read(&file)?;
    let mut flipped = whole.clone();
    flipped[200] ^= 1;
    std::fs::write(&file, flipped)?;
    let verdict = verify(&database, &evidence, &Asked::default()).await?;
    let first = verdict.sensors[sensor].first_break.clone();
    assert_eq!(first.and_then(|first| first.batch).map(|(_, sequence)| sequence), Some(21));
    std::fs::write(&file, whole)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_enrols_delivers_survives_a_restart_and_is_revoked() -> Result<()> {
    let lab = Lab::new().await?;
    let state = tempfile::tempdir()?;
    let serving = Serving::start(&lab).await?;

    let unknown = code(&lab, serving.address, true).await?;
    let refused = enroll(&unknown, state.path()).await;
    assert!(refused.is_err(), "{refused:?}");
    let good = code(&lab, serving.address, false).await?;
    let enrolled = enroll(&good, state.path()).await?;
    assert_eq!(enrolled.member.as_str(), "town-hall");
    let (line, table) = sensor_line(&lab).await?;
    assert_eq!(
        (line.id.as_str(), line.member_name.as_str()),
        (enrolled.sensor.as_str(), "Town Hall")
    );
    let days = line.certificate_ends_ms.context("known from the enrolment")? - line.enrolled_ms;
    assert_eq!(line.state, "valid");
    assert!(days.abs_diff(30 * 86_400_000) < 86_400_000, "{days} ms");
    assert_eq!((line.last_received_ms, line.last_sequence, line.revoked_ms), (None, None, None));
    assert_eq!(table.matches("never").count(), 4, "{table}");
    assert_eq!((line.health, table.matches("unknown").count()), (None, 1), "{table}");
    let again = tempfile::tempdir()?;
    let used = enroll(&good, again.path()).await;
    assert!(
        matches!(used, Err(ref error) if !matches!(error, EnrollError::Unreachable { .. })),
        "{used:?}"
    );

    let mut outbox = outbox(state.path().to_owned())?;
    let books = Books { frames_seen: 9, packets_ip: 9, packets_in_flows: 9, ..Books::default() };
    for n in 0..20 {
        let records: Vec<_> = (0..50).map(|m| connection(n * 50 + m)).collect();
        outbox.seal(&records, &books, NOON_MS)?;
    }
    let totals = deliver_all(&outbox, serving.address).await?;
    assert_eq!(
        (totals.batches_acked, totals.records_acked, totals.batches_duplicate),
        (20, 1_000, 0)
    );
    assert_eq!(lab.rows().await?, (1_000, 1_000));

    // A second `serve` on the folder would store everything twice, so there is none.
    let second = serve(&lab.folder, &mut Vec::new(), std::future::pending()).await;
    let second = second.expect_err("the folder is served already").to_string();
    assert!(second.contains("another process serves"), "{second}");

    serving.stop().await?;
    let serving = Serving::start(&lab).await?;
    outbox.seal(&(0..40).map(probe).collect::<Vec<_>>(), &books, NOON_MS)?;
    let totals = deliver_all(&outbox, serving.address).await?;
    assert_eq!((totals.batches_acked, totals.records_acked), (1, 40));
    let status = Status::read(&lab.folder).await?;
    assert_eq!(
        (status.rows_stored, status.batches_stored, status.batches_duplicate),
        (1_040, 21, 0)
    );
    let sensor = status.sensors.first().context("the sensor is listed")?;
    assert_eq!(sensor.last_sequence, Some(21));
    assert_eq!(sensor.books.map(|books| books.records_sealed), Some(1_040));
    assert!(status.findings >= 1, "the scan was found before it was acknowledged");

    evidence_shows_a_flipped_bit(&lab, enrolled.sensor.as_str()).await?;
    let database = lab.database().await?;
    database.revoke_sensor(enrolled.sensor.as_str(), 1).await?;
    let (line, table) = sensor_line(&lab).await?;
    assert!(line.last_received_ms.is_some_and(|ms| ms >= line.enrolled_ms), "{line:?}");
    assert_eq!((line.last_sequence, line.revoked_ms), (Some(21), Some(1)));
    assert!(!table.contains("never"), "{table}");
    let heard = line.health.context("it has told of itself at every start of a connection")?;
    let health = &heard.report.health;
    assert_eq!(health.sensor_version.as_deref(), Some("0.0.0-test"));
    assert_eq!((health.frames_seen, health.frames_missed), (Some(9), None), "{heard:?}");
    assert_eq!((health.batches_evicted, health.spool_bytes_max), (Some(0), Some(64 << 20)));
    assert!(health.batches_waiting.is_some_and(|waiting| waiting <= 1), "{heard:?}");
    // One machine, one clock.
    let ahead = heard.report.clock_offset_ms.context("both clocks are known")?;
    assert!(ahead.abs() < 60_000, "{heard:?}");
    let text = health_line(Some(&heard), heard.heard_ms + 3_500);
    assert!(text.starts_with("heard 3 s ago: version 0.0.0-test; spool "), "{text}");
    assert!(text.ends_with("; port unknown frames missed, 0 packets folded"), "{text}");
    let members = members(&database).await?;
    let member = members.first().context("there is one")?;
    assert_eq!((member.id.as_str(), member.sensors, member.sensors_revoked), ("town-hall", 0, 1));
    assert_eq!(member.last_received_ms, line.last_received_ms);
    outbox.seal(&[connection(1)], &books, NOON_MS)?;
    let options = DeliverOptions {
        backend: Some(serving.address.to_string()),
        ..DeliverOptions::new(outbox.spool())
    };
    let (sender, shutdown) = watch::channel(Shutdown::No);
    let (noted, mut note) = mpsc::unbounded_channel();
    let delivering = tokio::spawn(async move {
        deliver(options, move |event| drop(noted.send(format!("{event:?}"))), shutdown).await
    });
    note.recv().await.context("the attempt is told")?;
    sender.send(Shutdown::Now)?;
    assert_eq!(delivering.await??.batches_acked, 0);
    serving.stop().await?;
    assert_eq!(lab.rows().await?, (1_040, 1_040));
    Ok(())
}
