//! Every file output of one replay, read back by others: Parquet by `duckdb`, CSV by its library, Zeek's log by the
//! names in its header. All of them have to hold the same flows as the JSON of the same replay.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{capture_folder, program, python, read};

/// IPv6, VLAN tags, tunnels, ICMP, fragments.
const CAPTURES: [&str; 6] = [
    "decode/zeek/testing/btest/Traces/vlan-collisions.pcap",
    "decode/nDPI/tests/cfgs/default/pcap/lru_ipv6_caches.pcapng",
    "decode/suricata-verify/tests/vxlan-decoder-03/vxlan.pcap",
    "decode/suricata-verify/tests/bug-4663-03/icmp_and_ssh.pcap",
    "decode/tcpreplay/test/test.rewrite_vlan802.1ad",
    "decode/zeek/testing/btest/Traces/ipv6-reassembly-state-leak.pcap",
];

fn captures() -> Result<Option<Vec<PathBuf>>> {
    let Some(folder) = capture_folder() else { return Ok(None) };
    let files = CAPTURES.map(|name| folder.join(name));
    let missing = files.iter().find(|file| !file.is_file());
    ensure!(missing.is_none(), "{missing:?} is not among the captures");
    Ok(Some(files.to_vec()))
}

/// Replays into every file output at once; gives what was said at the end.
fn replay(files: &[PathBuf], place: &Path, settings: &str) -> Result<String> {
    let config = place.join("sensor.toml");
    fs::write(&config, settings.replace("PLACE", &place.display().to_string()))?;
    let mut command = Command::new(program("spanwatch-sensor")?);
    let output = command.arg("--config").arg(&config).arg("replay").args(files).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(said)
}

const EVERYTHING: &str = r#"
[output]
kinds = ["json", "csv", "parquet"]
json_file = "PLACE/flows.json"
csv_file = "PLACE/flows.csv"
parquet_file = "PLACE/flows.parquet"
parquet_group_records = 1024
"#;

fn json(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// A value as CSV writes it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[test]
fn csv_has_what_json_has() -> Result<()> {
    let Some(files) = captures()? else { return Ok(()) };
    let place = tempfile::tempdir()?;
    replay(&files, place.path(), EVERYTHING)?;
    let records = json(&place.path().join("flows.json"))?;
    ensure!(records.len() > 50, "{}", records.len());
    let mut reader = csv::Reader::from_path(place.path().join("flows.csv"))?;
    let header = reader.headers()?.clone();
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
    ensure!(rows.len() == records.len(), "{} of {}", rows.len(), records.len());
    for (record, row) in records.iter().zip(&rows) {
        let fields = record.as_object().context("a line is an object")?;
        for (name, value) in header.iter().zip(row) {
            let expected = match name {
                // Always there in a table, and told only when it is so in JSON.
                "folded" => fields.contains_key("folded").to_string(),
                "initiator_fragmented" | "responder_fragmented" => {
                    let packets = record[name.replace("fragmented", "packets")].as_u64();
                    let known = packets.is_some_and(|packets| packets > 0);
                    if known { fields.contains_key(name).to_string() } else { String::new() }
                }
                "ip_version" => {
                    if plain(&record["responder"]).contains(':') { "6" } else { "4" }.to_owned()
                }
                "initiator_prefix_bits" => String::new(),
                name => fields.get(name).map(plain).unwrap_or_default(),
            };
            ensure!(value == expected, "{name}: `{value}` in {record}");
        }
        let unknown = fields.keys().find(|key| !header.iter().any(|name| name == *key));
        ensure!(unknown.is_none(), "{unknown:?} is no column");
    }
    Ok(())
}

/// Asks `duckdb`; gives what it prints as JSON.
fn duckdb(interpreter: &Path, query: &str) -> Result<Value> {
    const SCRIPT: &str = "import duckdb, json, sys\n\
        found = duckdb.sql(sys.argv[1])\n\
        print(json.dumps([dict(zip(found.columns, row)) for row in found.fetchall()], default=str))";
    let text = read(Command::new(interpreter).args(["-c", SCRIPT, query]))?;
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn duckdb_opens_parquet_with_sensible_types_and_the_same_sums() -> Result<()> {
    let Some(files) = captures()? else { return Ok(()) };
    let Some(interpreter) = python() else { return Ok(()) };
    let place = tempfile::tempdir()?;
    replay(&files, place.path(), EVERYTHING)?;
    let table = format!("'{}'", place.path().join("flows.parquet").display());
    let described = duckdb(&interpreter, &format!("DESCRIBE SELECT * FROM {table}"))?;
    let types: BTreeMap<String, String> = described
        .as_array()
        .context("a list of columns")?
        .iter()
        .map(|column| (plain(&column["column_name"]), plain(&column["column_type"])))
        .collect();
    for (name, expected) in [
        ("start_time", "TIMESTAMP WITH TIME ZONE"),
        ("end_time", "TIMESTAMP WITH TIME ZONE"),
        ("protocol", "UTINYINT"),
        ("initiator", "VARCHAR"),
        ("initiator_port", "USMALLINT"),
        ("mpls_label", "UINTEGER"),
        ("tunnels", "VARCHAR"),
        ("initiator_packets", "BIGINT"),
        ("responder_bytes", "BIGINT"),
        ("initiator_tcp_flags", "UTINYINT"),
        ("initiator_fragmented", "BOOLEAN"),
        ("handshake", "VARCHAR"),
        ("folded", "BOOLEAN"),
    ] {
        let found = types.get(name).with_context(|| format!("no {name} in {types:?}"))?;
        ensure!(found == expected, "{name}: {found}");
    }
    let records = json(&place.path().join("flows.json"))?;
    let sum = |key: &str| records.iter().filter_map(|record| record[key].as_u64()).sum::<u64>();
    let count = |key: &str| records.iter().filter(|record| !record[key].is_null()).count() as u64;
    let asked = format!(
        "SELECT count(*)::BIGINT AS records, sum(initiator_packets)::BIGINT AS packets, \
         sum(responder_bytes)::BIGINT AS bytes, count(responder_port)::BIGINT AS ports, \
         count(vlan_outer)::BIGINT AS tagged, count(tunnels)::BIGINT AS tunnelled, \
         count(handshake)::BIGINT AS connections, count(responder_ttl)::BIGINT AS answered, \
         sum(initiator_port)::BIGINT AS ports_sum, \
         count(DISTINCT community_id)::BIGINT AS identifiers FROM {table}"
    );
    let found = duckdb(&interpreter, &asked)?;
    let found = &found[0];
    let mut identifiers: Vec<String> =
        records.iter().map(|record| plain(&record["community_id"])).collect();
    identifiers.sort_unstable();
    identifiers.dedup();
    for (name, expected) in [
        ("records", records.len() as u64),
        ("packets", sum("initiator_packets")),
        ("bytes", sum("responder_bytes")),
        ("ports", count("responder_port")),
        ("tagged", count("vlan_outer")),
        ("tunnelled", count("tunnels")),
        ("connections", count("handshake")),
        ("answered", count("responder_ttl")),
        ("ports_sum", sum("initiator_port")),
        ("identifiers", identifiers.len() as u64),
    ] {
        ensure!(expected > 0, "no {name} to compare");
        ensure!(found[name] == expected, "{name}: {} for {expected}", found[name]);
    }
    let text = format!(
        "SELECT strftime(min(start_time) AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ') AS first \
         FROM {table}"
    );
    let first = records.iter().map(|record| plain(&record["start_time"])).min();
    let told = duckdb(&interpreter, &text)?;
    ensure!(Some(plain(&told[0]["first"])) == first, "{told} for {first:?}");
    Ok(())
}

#[test]
fn zeek_is_cut_by_the_names_of_its_fields() -> Result<()> {
    let Some(files) = captures()? else { return Ok(()) };
    let place = tempfile::tempdir()?;
    replay(&files, place.path(), EVERYTHING)?;
    let zeek = "[output]\njson_file = \"PLACE/conn.log\"\njson_schema = \"zeek\"\n";
    replay(&files, place.path(), zeek)?;
    let text = fs::read_to_string(place.path().join("conn.log"))?;
    let names: Vec<&str> = text
        .lines()
        .find_map(|line| line.strip_prefix("#fields\t"))
        .context("a header")?
        .split('\t')
        .collect();
    let cut = |wanted: [&str; 8]| -> Result<Vec<[String; 8]>> {
        let at = |name: &str| names.iter().position(|field| *field == name).context("a field");
        let places = wanted.map(at);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let values: Vec<&str> = line.split('\t').collect();
                ensure!(values.len() == names.len(), "{line}");
                let mut row = <[String; 8]>::default();
                for (value, place) in row.iter_mut().zip(&places) {
                    let place = place.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
                    values[*place].clone_into(value);
                }
                Ok(row)
            })
            .collect()
    };
    let rows = cut([
        "id.orig_h",
        "id.orig_p",
        "id.resp_h",
        "id.resp_p",
        "ip_proto",
        "orig_pkts",
        "resp_pkts",
        "community_id",
    ])?;
    let records = json(&place.path().join("flows.json"))?;
    ensure!(rows.len() == records.len(), "{} of {}", rows.len(), records.len());
    for (row, record) in rows.iter().zip(&records) {
        let expected = [
            "initiator",
            "initiator_port",
            "responder",
            "responder_port",
            "protocol",
            "initiator_packets",
            "responder_packets",
            "community_id",
        ]
        .map(|key| match plain(&record[key]) {
            unknown if unknown.is_empty() => "-".to_owned(),
            known => known,
        });
        ensure!(*row == expected, "{row:?} for {expected:?}");
    }
    Ok(())
}

#[test]
fn a_series_of_files_holds_every_flow_and_no_more_files_than_allowed() -> Result<()> {
    let Some(files) = captures()? else { return Ok(()) };
    let place = tempfile::tempdir()?;
    let series = "[output]\nkinds = [\"json\", \"csv\"]\njson_file = \"PLACE/flows.json\"\n\
                  csv_file = \"PLACE/flows.csv\"\nrotate_bytes = 8192\n";
    let said = replay(&files, place.path(), series)?;
    ensure!(!said.contains("old ones deleted"), "{said}");
    let listed = |kind: &str| -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in place.path().read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == kind) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    };
    let (json_files, csv_files) = (listed("json")?, listed("csv")?);
    ensure!(json_files.len() > 2 && csv_files.len() > 1, "{json_files:?} {csv_files:?}");
    ensure!(listed("partial")?.is_empty(), "every file is complete");
    let mut records = 0;
    for file in &json_files {
        records += json(file)?.len();
    }
    let mut rows = 0;
    for file in &csv_files {
        rows += csv::Reader::from_path(file)?.records().count();
    }
    ensure!(records == rows && records > 50, "{records} in JSON, {rows} in CSV");

    let said = replay(&files, place.path(), &format!("{series}files_max = 2\n"))?;
    ensure!(said.contains("old ones deleted"), "{said}");
    ensure!(listed("json")?.len() == 2 && listed("csv")?.len() == 2, "{said}");
    Ok(())
}
