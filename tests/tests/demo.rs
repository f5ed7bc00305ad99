//! The demo itself: as root live, with XDP on veth pairs in namespaces of its own; otherwise from a capture. And
//! every shared attack capture through the whole path, to exactly the finding that it holds.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{capture_folder, program, read, skip};

/// Runs the demo once and gives what it wrote to `summary.json`.
fn demo(out: &Path, more: &[&str]) -> Result<Value> {
    let mut demo = Command::new(program("xtask")?);
    read(demo.args(["demo", "--once", "--no-build", "--out"]).arg(out).args(more))?;
    let report = std::fs::read_to_string(out.join("report.html")).context("report.html")?;
    ensure!(report.contains("</html>"), "the report is cut");
    Ok(serde_json::from_slice(&std::fs::read(out.join("summary.json"))?)?)
}

fn count(summary: &Value, key: &str) -> Result<u64> {
    summary[key].as_u64().with_context(|| format!("no {key} in {summary}"))
}

fn balanced(summary: &Value) -> Result<()> {
    assert_eq!(summary["balanced"], true, "{summary}");
    let parts = ["packets_in_flows", "packets_folded", "packets_not_ip", "packets_malformed"];
    let sum = parts.iter().map(|key| count(summary, key)).sum::<Result<u64>>()?;
    assert_eq!(count(summary, "frames_seen")?, sum, "{summary}");
    assert_eq!(summary["frames_injected"], summary["frames_seen"], "{summary}");
    assert_eq!(summary["records_sealed"], summary["records_acked"], "{summary}");
    assert_eq!(summary["records_acked"], summary["rows_stored"], "{summary}");
    assert!(count(summary, "rows_stored")? > 0, "{summary}");
    Ok(())
}

#[test]
fn the_demo_balances_and_finds_exactly_what_it_made() -> Result<()> {
    let out = tempfile::tempdir()?;
    let summary = demo(out.path(), &[])?;
    balanced(&summary)?;
    let kinds: Vec<_> = summary["findings"]
        .as_array()
        .context("no findings")?
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(kinds, ["beacon", "password_guessing", "reflection", "syn_flood", "vertical_scan"]);
    if rustix::process::geteuid().is_root() {
        assert_eq!(summary["xdp_mode"], "native", "{summary}");
        assert!(count(&summary, "packets_malformed")? == 3, "{summary}");
    } else {
        skip("not root: the demo replayed a capture, without XDP");
    }
    Ok(())
}

#[test]
fn each_attack_capture_gives_its_finding_and_no_other() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    let none = Value::Null;
    let cases = [
        (
            "vertical_scan_nmap_syn.pcap",
            2_011,
            json!(["vertical_scan", "172.16.0.8", "64.13.134.52"]),
        ),
        ("ssh_guessing.pcap", 431, json!(["password_guessing", "192.168.56.1", "192.168.56.103"])),
        ("syn_flood_spoofed.pcap", 37_841, json!(["syn_flood", none, "10.10.10.10"])),
        ("amplification_bacnet.pcapng", 9_617, json!(["reflection", none, "10.10.10.1"])),
        ("beacon_2s.pcap", 7_931, json!(["beacon", "147.32.80.37", "141.193.213.21"])),
        ("negative_backscatter.pcap", 4_771, none.clone()),
        ("negative_dhcp_flood.pcap", 500, none.clone()),
        ("negative_wikipedia.pcap", 65, none.clone()),
    ];
    for (name, packets, expected) in cases {
        let out = tempfile::tempdir()?;
        let capture = folder.join("attack").join(name);
        let summary = demo(out.path(), &["--pcap", &capture.to_string_lossy()])
            .with_context(|| name.to_owned())?;
        balanced(&summary).with_context(|| name.to_owned())?;
        assert_eq!(count(&summary, "frames_seen")?, packets, "{name}");
        let found: Vec<_> = summary["findings"]
            .as_array()
            .context("no findings")?
            .iter()
            .map(|finding| json!([finding["kind"], finding["source"], finding["target"]]))
            .collect();
        let expected: Vec<_> = if expected.is_null() { Vec::new() } else { vec![expected] };
        assert_eq!(found, expected, "{name}");
    }
    Ok(())
}

#[test]
fn what_the_demo_did_not_make_it_does_not_replace() -> Result<()> {
    let out = tempfile::tempdir()?;
    std::fs::create_dir(out.path().join("data"))?;
    let mut demo = Command::new(program("xtask")?);
    let output = demo.args(["demo", "--once", "--no-build", "--out"]).arg(out.path()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("was not made by the demo"), "{errors}");
    Ok(())
}
