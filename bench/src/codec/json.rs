//! In: records. Out: the sensor's own JSON lines, and back to typed fields.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use flow::Record;
use jiff::Timestamp;
use sensor::JsonLines;
use serde::Deserialize;

use super::formats::Format;

/// JSON lines of the native schema.
pub(super) struct Json(JsonLines);

impl Json {
    pub(super) fn new(community_ids: bool) -> Self {
        Self(JsonLines::new(community_ids))
    }
}

/// A line's fields, each as what it is.
#[derive(Deserialize)]
#[expect(dead_code, reason = "reading them is what is measured")]
struct Line<'a> {
    start_time: Option<Timestamp>,
    end_time: Option<Timestamp>,
    community_id: Option<&'a str>,
    protocol: Option<u8>,
    initiator: IpAddr,
    initiator_port: Option<u16>,
    responder: IpAddr,
    responder_port: Option<u16>,
    vlan_outer: Option<u16>,
    vlan_inner: Option<u16>,
    mpls_label: Option<u32>,
    initiator_packets: u64,
    initiator_bytes: u64,
    initiator_tcp_flags: Option<u8>,
    initiator_ttl: Option<u8>,
    initiator_dscp: Option<u8>,
    initiator_first_flags: Option<u8>,
    initiator_fragmented: Option<bool>,
    initiator_length_min: Option<u16>,
    initiator_length_max: Option<u16>,
    responder_packets: u64,
    responder_bytes: u64,
    responder_tcp_flags: Option<u8>,
    responder_ttl: Option<u8>,
    responder_dscp: Option<u8>,
    responder_first_flags: Option<u8>,
    responder_fragmented: Option<bool>,
    responder_length_min: Option<u16>,
    responder_length_max: Option<u16>,
    handshake: Option<&'a str>,
    handshake_rtt_us: Option<u32>,
    interface: Option<u8>,
    role: &'a str,
    end_reason: &'a str,
    #[serde(default)]
    folded: bool,
}

impl Format for Json {
    fn encode(&mut self, records: &[Record]) -> Result<Vec<u8>> {
        let mut lines = Vec::new();
        self.0.write(records, &mut lines);
        Ok(lines)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut lines = 0;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Line<'_> =
                serde_json::from_slice(line).with_context(|| format!("line {lines}"))?;
            std::hint::black_box(&line);
            lines += 1;
        }
        Ok(lines)
    }
}
