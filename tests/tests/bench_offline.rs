//! `spanwatch-bench offline` and `generate` as a performance tester runs them: the real programs, small captures. No
//! time is asserted.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::tshark::has_tshark;
use tests::{program, read};

/// What `offline --quick` prints, with captures in this folder.
fn quick(folder: &Path, more: &[&str]) -> Result<String> {
    let mut bench = Command::new(program("spanwatch-bench")?);
    read(bench.args(["offline", "--quick", "--dir"]).arg(folder).args(more))
}

#[test]
fn every_packet_that_was_generated_is_counted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let document: Value = serde_json::from_str(&quick(folder.path(), &["--json"])?)?;
    let rows = document["rows"].as_array().context("it has rows")?;
    let mut own = Vec::new();
    for row in rows {
        let name = row["name"].as_str().context("a row has a name")?;
        for figure in ["packets_per_s", "flows_per_s", "ratio_to_cat", "rss_bytes", "elapsed_s"] {
            ensure!(row[figure].as_f64() > Some(0.0), "{name}, {figure}: {row}");
        }
        ensure!(row["packets"].as_u64() >= Some(4_000), "{row}");
        if name.contains("replay") {
            // Each flow is one record: all end within the timeouts.
            assert_eq!(row["packets_counted"], row["packets"], "{row}");
            assert_eq!(row["flows_counted"], row["flows"], "{row}");
            own.push(name);
        }
    }
    let wanted = [
        "mix replay",
        "few replay",
        "new replay",
        "open replay",
        "open replay, JSON",
        "lone replay",
    ];
    assert_eq!(own, wanted);
    // Of small captures nothing is judged.
    assert_eq!(document["targets"], Value::Array(Vec::new()));
    Ok(())
}

#[test]
fn the_table_says_how_each_program_was_called() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = quick(folder.path(), &["--only", "few", "--without-peers"])?;
    ensure!(text.contains("spanwatch-bench generate --packets 20000 --flows 4"), "{text}");
    ensure!(text.contains("few replay") && text.contains("all, 4 flows"), "{text}");
    ensure!(text.contains("--output null") && !text.contains("argus"), "{text}");
    Ok(())
}

#[test]
fn tshark_finds_no_fault_in_generated_frames() -> Result<()> {
    const WRONG: &str = "ip.checksum.status==0 || tcp.checksum.status==0 || udp.checksum.status==0 \
                         || icmp.checksum.status==0 || icmpv6.checksum.status==0 \
                         || ip.bogus_ip_length || udp.length.bad || tcp.analysis.lost_segment \
                         || tcp.analysis.out_of_order || tcp.analysis.ack_lost_segment";
    if !has_tshark() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("generated.pcapng");
    let mut generate = Command::new(program("spanwatch-bench")?);
    generate.args(["generate", "--packets", "20000", "--flows", "3000", "--conversations"]);
    generate.args(["--ipv6", "30", "--protocols", "tcp=60,udp=30,icmp=10", "--encapsulate"]);
    generate.arg("vlan=9,qinq=9,mpls=9,pppoe=9,gre=9,erspan=9,vxlan=9,geneve=9,ipip=9,gtp=9");
    read(generate.arg("--out").arg(&path))?;
    let look = |filter: &str| {
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-r"]).arg(&path).args(["-Y", filter, "-T", "fields"]);
        for layer in ["ip", "tcp", "udp"] {
            tshark.args(["-o", &format!("{layer}.check_checksum:TRUE")]);
        }
        read(tshark.args(["-e", "frame.number", "-e", "frame.protocols"]))
    };
    assert_eq!(look(WRONG)?, "");
    assert_eq!(look("tcp || udp || icmp || icmpv6")?.lines().count(), 20_000);
    for carrier in
        ["vlan", "ieee8021ad", "mpls", "pppoes", "gre", "erspan", "vxlan", "geneve", "gtp"]
    {
        ensure!(!look(carrier)?.is_empty(), "no frame with {carrier}");
    }
    Ok(())
}
