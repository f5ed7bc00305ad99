//! Makes data folders, records and batches for the tests. Everything is a function of its numbers: no clock, no
//! chance.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use backend::database::Database;
use backend::detection::Detector;
use backend::folder::Folder;
use backend::ingest::{Ingest, Settings, Writer};
use backend::lake::SessionLimits;
use bytes::Bytes;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use flow::{
    Books, Direction, EndReason, Handshake, Outer, Pseudonyms, Record, RoleEvidence, Vlans,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uplink::{Batch, BatchHeader, Commit, CommitError, Intake, MemberId, Peer, SensorId};

/// 2026-11-21 10:00:00 UTC.
pub(crate) const NOON_MS: u64 = 1_795_255_200_000;

/// A data folder that goes with the test.
pub(crate) struct Lab {
    pub(crate) folder: Folder,
    root: TempDir,
}

/// A writer at work, as `serve` wires it but without a link.
pub(crate) struct Running {
    pub(crate) ingest: Ingest,
    writing: JoinHandle<()>,
    judging: JoinHandle<()>,
}

impl Lab {
    pub(crate) async fn new() -> Result<Self> {
        let root = tempfile::tempdir()?;
        let listen = "127.0.0.1:0".parse()?;
        let folder = Folder::create(&root.path().join("data"), listen, "127.0.0.1:7443").await?;
        folder.database().await?.add_member("Town Hall", &[], 1).await?;
        Ok(Self { folder, root })
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.root.path().join("data")
    }

    pub(crate) fn limits(&self) -> SessionLimits {
        SessionLimits { memory_bytes_max: 256 << 20, spill_folder: self.root.path().join("spill") }
    }

    pub(crate) async fn start(&self) -> Result<Running> {
        self.start_with(Settings {
            group_wait: Duration::from_secs(1),
            quiet: Duration::from_millis(20),
            group_records_max: 10_000,
        })
        .await
    }

    pub(crate) async fn start_with(&self, settings: Settings) -> Result<Running> {
        let database = self.folder.database().await?;
        let lake = self.folder.lake().await?;
        let session = lake.session(&self.limits()).await?;
        let detector = Detector::rebuild(database.clone(), &session).await?;
        let (stored, to_judge) = mpsc::channel(1);
        let (ingest, requests) = Ingest::new(database.clone());
        let writer = Writer::new(lake, database, settings, stored).await?;
        let writer = writer.keeping(self.folder.evidence());
        Ok(Running {
            ingest,
            writing: tokio::spawn(writer.run(requests)),
            judging: tokio::spawn(detector.run(to_judge)),
        })
    }

    /// One number of the lake.
    pub(crate) async fn number(&self, sql: &str) -> Result<i64> {
        let session = self.folder.lake().await?.session(&self.limits()).await?;
        let rows = session.sql(sql).await?.collect().await?;
        let rows = rows.first().context("the question has an answer")?;
        Ok(rows.column(0).as_primitive::<Int64Type>().value(0))
    }

    /// Rows, and different rows: equal when none is there twice.
    pub(crate) async fn rows(&self) -> Result<(i64, i64)> {
        let all = self.number("SELECT count(*) FROM flows").await?;
        let different = "SELECT count(*) FROM \
            (SELECT DISTINCT sensor, boot_epoch, sequence, position FROM flows)";
        Ok((all, self.number(different).await?))
    }

    pub(crate) async fn database(&self) -> Result<Database> {
        Ok(self.folder.database().await?)
    }
}

impl Running {
    /// Ends as a power cut would, as far as a process can do that to itself.
    pub(crate) async fn kill(self) {
        self.writing.abort();
        self.judging.abort();
        drop(self.writing.await);
        drop(self.judging.await);
    }

    /// Ends in order: what was taken is stored.
    pub(crate) async fn stop(self) -> Result<()> {
        drop(self.ingest);
        self.writing.await?;
        self.judging.await?;
        Ok(())
    }

    pub(crate) async fn commit(&self, batch: Batch) -> Result<Commit, CommitError> {
        let peer = Peer {
            member: batch.header.member.clone(),
            sensor: batch.header.sensor.clone(),
            certificate_sha256: [0; 32],
            public_key: [0; 32],
        };
        self.ingest.commit(peer, batch, Bytes::from_static(b"as received")).await
    }
}

pub(crate) fn sensor() -> SensorId {
    SensorId::parse("town-hall-00000001").expect("the name is in the alphabet")
}

pub(crate) fn batch(boot_epoch: u64, sequence: u64, records: Vec<Record>) -> Batch {
    let (start_ms, end_ms) = uplink::time_range(&records, NOON_MS);
    let header = BatchHeader {
        member: MemberId::parse("town-hall").expect("the name is in the alphabet"),
        sensor: sensor(),
        boot_epoch,
        sequence,
        start_ms,
        end_ms,
        sealed_ms: NOON_MS,
        records: u32::try_from(records.len()).expect("tests make small batches"),
        books: Books {
            frames_seen: sequence * 100,
            packets_ip: sequence * 100,
            ..Books::default()
        },
        object_sha256: [0; 32],
        previous_blake3: [0; 32],
        sensor_version: "0.0.0-test".to_owned(),
        key_epoch: None,
    };
    Batch { header, records }
}

pub(crate) fn v4(text: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(text))
}

/// A completed connection from outside to a web server inside.
pub(crate) fn connection(n: u32) -> Record {
    let [.., third, fourth] = n.to_be_bytes();
    let start_ms = NOON_MS + u64::from(n) * 10;
    Record {
        start_ms,
        end_ms: start_ms + 5,
        initiator: v4([198, 51, third, fourth]),
        responder: v4([10, 0, 0, 80]),
        initiator_port: 40_000,
        responder_port: 443,
        protocol: 6,
        ports_known: true,
        outer: Outer::default(),
        from_initiator: side(6, 800, 0x1b, 57),
        from_responder: side(5, 4_000, 0x1b, 64),
        handshake: Handshake::Established,
        handshake_rtt_us: Some(23_456),
        interface: 1,
        role: RoleEvidence::Handshake,
        end_reason: EndReason::EndOfFlow,
        folded: false,
        pseudonyms: Pseudonyms::default(),
    }
}

/// One probe of a port scan: a SYN that a closed port refused.
pub(crate) fn probe(n: u16) -> Record {
    let start_ms = NOON_MS + u64::from(n) * 20;
    Record {
        start_ms,
        end_ms: start_ms + 1,
        initiator: v4([203, 0, 113, 66]),
        responder: v4([10, 0, 0, 80]),
        initiator_port: 50_000,
        responder_port: 1_000 + n,
        from_initiator: side(1, 60, 0x02, 57),
        from_responder: side(1, 60, 0x14, 64),
        handshake: Handshake::Rejected,
        handshake_rtt_us: None,
        ..connection(0)
    }
}

/// Records with every value of every enum, absent ports, VLAN tags and an IPv6 address.
pub(crate) fn odd_records() -> Vec<Record> {
    let handshakes = [
        Handshake::None,
        Handshake::Syn,
        Handshake::SynAck,
        Handshake::Established,
        Handshake::Rejected,
        Handshake::OneWay,
    ];
    let roles = [
        RoleEvidence::Handshake,
        RoleEvidence::FirstPacket,
        RoleEvidence::PortRank,
        RoleEvidence::Guess,
    ];
    let reasons = [
        EndReason::IdleTimeout,
        EndReason::ActiveTimeout,
        EndReason::EndOfFlow,
        EndReason::ForcedEnd,
        EndReason::LackOfResources,
    ];
    let v6 = |n: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n));
    let mut records = Vec::new();
    for (n, handshake) in (0_u16..).zip(handshakes) {
        let role = roles[usize::from(n) % roles.len()];
        let end_reason = reasons[usize::from(n) % reasons.len()];
        records.push(Record { handshake, role, end_reason, ..connection(u32::from(n)) });
    }
    records.push(Record {
        initiator: v6(1),
        responder: v6(2),
        initiator_port: 0,
        responder_port: 0,
        protocol: 17,
        ports_known: false,
        outer: "gre:7,ipv4_in_ip,vxlan:16777215"
            .split(',')
            .map(str::parse)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .and_then(|tunnels| Outer::new(Vlans([4_094, 7]), Some(1_048_575), tunnels))
            .expect("two of the three have a number"),
        from_initiator: Direction {
            dscp: 46,
            fragmented: true,
            ..side(u64::MAX >> 1, u64::MAX >> 1, 0, 0)
        },
        from_responder: Direction::default(),
        handshake: Handshake::None,
        handshake_rtt_us: None,
        interface: 0,
        ..connection(7)
    });
    // An IPv6 packet between IPv4-mapped addresses is not an IPv4 packet.
    let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
    records.push(Record { initiator: mapped, responder: mapped, ..connection(8) });
    records.push(Record {
        start_ms: 0,
        end_ms: backend::lake::TIME_MS_MAX,
        handshake_rtt_us: Some(u32::MAX),
        interface: Record::INTERFACE_MAX,
        ..connection(9)
    });
    let totals = |packets| Direction { dscp: 0, first_flags: 0, ..side(packets, 900, 0x02, 0) };
    records.push(Record {
        initiator_port: 0,
        from_initiator: totals(9),
        from_responder: totals(8),
        handshake_rtt_us: None,
        interface: 0,
        folded: true,
        ..connection(10)
    });
    records
}

fn side(packets: u64, bytes: u64, tcp_flags: u8, ttl: u8) -> Direction {
    Direction {
        packets,
        bytes,
        tcp_flags,
        ttl,
        dscp: 10,
        // SYN of who asks, SYN-ACK of who answers, as far as the flags have them.
        first_flags: tcp_flags & 0x12,
        fragmented: false,
        length_min: 60,
        length_max: 1_514,
    }
}
