//! From a capture through the real sensor and the real backend: no own client's address and nothing internal or trusted
//! gets out, all of it is counted, and whoever has the keys gets the addresses back.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Station, read};

const TIMEOUT: Duration = Duration::from_mins(1);
const CONFIG: &str = r#"
[uplink]
batch_records_max = 40
shutdown_grace_ms = 60000
[privacy]
own_prefixes = ["10.0.0.0/8", "2001:db8:7::/48"]
public_servers = ["10.0.0.80"]
trusted_prefixes = ["198.51.100.0/24"]
"#;
const CLIENTS: u8 = 100;
const INTERNAL: u64 = 7;
const TRUSTED: u64 = 5;

fn client(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1 + number % 7, number, 200 - number)
}

/// A capture of one UDP packet a flow, from client ports 1,000 and so on.
fn capture(file: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    let mut port = 1_000_u16;
    let mut packet = |from: Ipv4Addr, to: Ipv4Addr| {
        for word in [1_795_348_800_u32, u32::from(port), 42, 42] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([0; 12]);
        bytes.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        bytes.extend(from.octets());
        bytes.extend(to.octets());
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 53, 0, 8, 0, 0]);
        port += 1;
    };
    let (outside, server) = (Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(10, 0, 0, 80));
    for number in 0..CLIENTS {
        packet(client(number), outside);
    }
    packet(outside, server);
    for number in 0..INTERNAL {
        packet(client(u8::try_from(number)?), server);
    }
    for number in 0..TRUSTED {
        packet(client(u8::try_from(number)?), Ipv4Addr::new(198, 51, 100, 7));
    }
    fs::write(file, bytes).context("the capture")
}

/// Every batch below a folder, as its bytes.
fn batches(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path: PathBuf = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|suffix| suffix == "batch") {
                found.push(fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// The values of a text column.
fn texts(rows: &[Value], column: &str) -> Result<Vec<String>> {
    let text = |row: &Value| row[column].as_str().map(str::to_owned).context("no text");
    rows.iter().map(text).collect()
}

#[test]
fn own_clients_stay_hidden_all_the_way_and_can_be_revealed() -> Result<()> {
    let station = Station::new()?;
    let backend = station.serve()?;
    let (file, config) = (station.path("site.pcap"), station.path("sensor.toml"));
    let summary = station.path("summary.json");
    capture(&file)?;
    fs::write(&config, CONFIG)?;
    let mut replay = station.sensor_command("replay")?;
    replay.args(["--output", "uplink", "--config"]).arg(&config);
    let told = replay.arg("--summary").arg(&summary).arg(&file).output()?;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    ensure!(told.contains("sent as pseudonyms of key epoch"), "{told}");
    backend.terminate(TIMEOUT)?;

    // The books: all of it is somewhere, at home or stored.
    let books: Value = serde_json::from_slice(&fs::read(&summary)?)?;
    let sent = u64::from(CLIENTS) + 1;
    assert_eq!(books["records_out"], sent + INTERNAL + TRUSTED, "{books}");
    assert_eq!(books["records_kept"]["internal"], INTERNAL);
    assert_eq!(books["records_kept"]["trusted"], TRUSTED);
    assert_eq!(books["bytes_kept"]["internal"], INTERNAL * 42);
    assert_eq!((&books["records_sealed"], &books["records_acked"]), (&sent.into(), &sent.into()));
    read(station.sensor_command("balance")?.arg(&summary))?;

    // No batch has a client's address, in its bytes or as a record.
    let clients: BTreeSet<IpAddr> = (0..CLIENTS).map(|number| client(number).into()).collect();
    let sealed = batches(&station.sensor_folder())?;
    ensure!(sealed.len() >= 3, "{} batches", sealed.len());
    let mut records = 0;
    let mut last = 0;
    for bytes in &sealed {
        for address in 0..CLIENTS {
            let octets = client(address).octets();
            let reversed: Vec<u8> = octets.iter().rev().copied().collect();
            let is_in = |needle: &[u8]| bytes.windows(4).any(|four| four == needle);
            // Of four bytes in a few kilobytes, one in a million may be there by chance; not of a hundred addresses.
            ensure!(!is_in(&octets) || !is_in(&reversed), "{} is in a batch", client(address));
        }
        let batch = uplink::open(bytes)?;
        ensure!(batch.header.key_epoch.is_some(), "a batch without a key epoch");
        for record in &batch.records {
            ensure!(!clients.contains(&record.initiator), "{record:?}");
            ensure!(
                record.pseudonyms.initiator
                    == (record.responder_port == 53
                        && record.initiator != IpAddr::from([192, 0, 2, 9])),
                "{record:?}"
            );
        }
        records += batch.records.len();
        last = last.max(
            batch.header.books.records_kept_internal + batch.header.books.records_kept_trusted,
        );
    }
    assert_eq!(records as u64, sent);
    assert_eq!(last, INTERNAL + TRUSTED, "the backend knows what was kept");

    // Nor has the lake; nothing internal or trusted is there.
    let rows = station.query(
        "SELECT ip(initiator) AS initiator, ip(responder) AS responder, initiator_port AS port, \
         initiator_pseudonym AS hidden, key_epoch FROM flows ORDER BY initiator_port",
    )?;
    assert_eq!(rows.len() as u64, sent);
    let (from, to) = (texts(&rows, "initiator")?, texts(&rows, "responder")?);
    for address in from.iter().chain(&to) {
        ensure!(!clients.contains(&address.parse::<IpAddr>()?), "{address} is in the lake");
        ensure!(!address.starts_with("198.51.100."), "{address} is trusted");
    }
    let server = rows.iter().find(|row| row["responder"] == "10.0.0.80").context("the server")?;
    assert_eq!((&server["initiator"], &server["hidden"]), (&"192.0.2.9".into(), &false.into()));

    // Whoever has the key gets each of them back, and finds its own.
    let hidden: Vec<&Value> = rows.iter().filter(|row| row["hidden"] == true).collect();
    assert_eq!(hidden.len(), usize::from(CLIENTS));
    let epoch = hidden[0]["key_epoch"].as_u64().context("a key epoch")?.to_string();
    let ask = |more: &[&str], addresses: &[String]| -> Result<Vec<Value>> {
        let mut reveal = station.sensor_command("reveal")?;
        let text = read(reveal.args(["--json", "--epoch", &epoch]).args(more).args(addresses))?;
        text.lines().map(|line| serde_json::from_str(line).context("JSON")).collect()
    };
    let pseudonyms: Vec<String> =
        hidden.iter().filter_map(|row| row["initiator"].as_str().map(str::to_owned)).collect();
    let addresses = texts(&ask(&[], &pseudonyms)?, "address")?;
    // Flows were made in the order of their ports.
    let expected: Vec<String> = (0..CLIENTS).map(|number| client(number).to_string()).collect();
    assert_eq!(addresses, expected);
    assert_eq!(texts(&ask(&["--pseudonym"], &addresses)?, "pseudonym")?, pseudonyms);

    // What was sent is shown as it was sent, or as it was.
    let shown = read(station.sensor_command("sent")?.arg("--records"))?;
    let marked = shown.matches("\"initiator_pseudonym\":true").count();
    assert_eq!(marked, usize::from(CLIENTS), "{shown}");
    ensure!(expected.iter().all(|address| !shown.contains(&format!("\"{address}\""))), "{shown}");
    let shown = read(station.sensor_command("sent")?.args(["--records", "--reveal"]))?;
    ensure!(expected.iter().all(|address| shown.contains(&format!("\"{address}\""))), "{shown}");

    // The report says so.
    let report = station.path("report.html");
    let mut make = station.backend_command("report")?;
    read(make.args(["--member", &station.member, "--out"]).arg(&report))?;
    let page = fs::read_to_string(&report)?;
    ensure!(page.contains(&format!("key epoch {epoch} of sensor")), "no key epoch in the report");
    ensure!(
        page.contains("7 records of traffic within your own network and 5 records"),
        "what was kept"
    );

    // Without its key the sensor sends nothing, and says why.
    let key = station.sensor_folder().join(format!("pseudonyms/{epoch}.key"));
    fs::remove_file(&key)?;
    let mut replay = station.sensor_command("replay")?;
    let refused =
        replay.args(["--output", "uplink", "--config"]).arg(&config).arg(&file).output()?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && told.contains("is missing: restore "), "{told}");
    assert_eq!(batches(&station.sensor_folder())?.len(), sealed.len());
    Ok(())
}
