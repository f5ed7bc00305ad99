//! `spanwatch-bench xdp` as a performance tester runs it: real program, real kernel, few packets. No time is asserted.
#![forbid(unsafe_code)]

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{program, read, skip};

/// Runs the rows of these names.
fn rows(packets: u32, names: &[&str]) -> Result<Option<Vec<Value>>> {
    if !rustix::process::geteuid().is_root() {
        skip("loading XDP programs needs root");
        return Ok(None);
    }
    let mut bench = Command::new(program("spanwatch-bench")?);
    bench.args(["xdp", "--json", "--runs", "1", "--packets", &packets.to_string()]);
    for name in names {
        bench.args(["--only", name]);
    }
    let mut document: Value = serde_json::from_str(&read(&mut bench)?).context("JSON")?;
    let rows = document.get_mut("rows").map(Value::take).context("it has rows")?;
    Ok(Some(rows.as_array().context("they are a list")?.clone()))
}

#[test]
fn every_packet_is_accounted_for_while_epochs_flip() -> Result<()> {
    let names = [
        "drop",
        "parse",
        "hit 1",
        "hit 1k",
        "flows 1M",
        "hit ipv6 1k",
        "new every packet",
        "new every syn",
        "deduplicate 1k",
        "deduplicate copies",
    ];
    let Some(rows) = rows(800_000, &names)? else { return Ok(()) };
    assert_eq!(rows.len(), names.len());
    for (row, name) in rows.iter().zip(names) {
        let mut keys: Vec<_> = row.as_object().context("a row")?.keys().collect();
        keys.sort();
        assert_eq!(keys, ["name", "ns", "packets", "ratio", "unaccounted"]);
        assert_eq!(row["name"], name);
        assert_eq!(row["unaccounted"], 0, "{row}");
        ensure!(row["packets"].as_u64() >= Some(800_000), "{row}");
        ensure!(row["ns"].as_f64() > Some(0.0) && row["ratio"].as_f64() > Some(0.0), "{row}");
    }
    Ok(())
}

#[test]
fn the_other_designs_run_too() -> Result<()> {
    let names = ["lru hit 1k", "ring"];
    let Some(rows) = rows(80_000, &names)? else { return Ok(()) };
    for row in rows {
        // Neither table nor ring is full with so few.
        assert_eq!(row["unaccounted"], 0, "{row}");
    }
    Ok(())
}

#[test]
fn the_table_names_targets_and_helper_calls() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("loading XDP programs needs root");
        return Ok(());
    }
    let mut bench = Command::new(program("spanwatch-bench")?);
    let text =
        read(bench.args(["xdp", "--runs", "1", "--packets", "16000", "--only", "hit vlan"]))?;
    ensure!(text.contains("hit vlan") && text.contains("<= 2.2"), "{text}");
    ensure!(text.contains("On the plain hit path: 0 (target 0 met)"), "{text}");
    Ok(())
}
