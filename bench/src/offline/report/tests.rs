//! Reports as the programs write them, shortened.

use std::fs;

use super::{Counted, capinfos, pmacctd, softflowd, summary};

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), text).expect("writing to it");
    file
}

#[test]
fn capinfos_says_packets() {
    let said = file("File name:           few.pcap\nNumber of packets:   5000000\n");
    assert_eq!(
        capinfos(said.path()).expect("it says so"),
        Counted { packets: 5_000_000, flows: None }
    );
}

#[test]
fn softflowd_says_both() {
    let said = file(
        "Number of active flows: 0\nPackets processed: 200000\nFragments: 0\n\
         Flows expired: 39755 (0 forced)\nFlows exported: 73354 (73354 records) in 2489 packets\n",
    );
    assert_eq!(
        softflowd(said.path()).expect("it says so"),
        Counted { packets: 200_000, flows: Some(39_755) }
    );
    assert!(softflowd(file("softflowd: no such file\n").path()).is_err());
}

#[test]
fn pmacctd_writes_a_line_for_each_flow() {
    let written = file(
        "SRC_IP,DST_IP,SRC_PORT,DST_PORT,PROTOCOL,PACKETS,BYTES\n\
         10.64.34.101,198.18.6.99,28805,443,tcp,1,50\n\
         SRC_IP,DST_IP,SRC_PORT,DST_PORT,PROTOCOL,PACKETS,BYTES\n\
         2001:db8::1,fd20::1,53,20000,udp,7,910\n",
    );
    assert_eq!(
        pmacctd(written.path()).expect("it is a table"),
        Counted { packets: 8, flows: Some(2) }
    );
    assert!(pmacctd(file("no table\n").path()).is_err());
}

#[test]
fn the_summary_of_another_version_is_refused() {
    let counted = summary(file("{\"packets_in_records\": 3, \"records_out\": 2}").path());
    assert_eq!(counted.expect("both are there"), Counted { packets: 3, flows: Some(2) });
    let error = summary(file("{\"packets_in_records\": 3}").path()).expect_err("one is missing");
    assert!(error.to_string().contains("records_out"), "{error}");
}
