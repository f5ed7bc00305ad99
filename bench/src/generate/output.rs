//! In: frames and their times. Out: a capture file, little endian: pcapng where its name ends so, pcap anywhere else.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, Endianness, TsResolution};

const BUFFER_BYTES: usize = 1 << 20;
/// Decimal places of a second that pcapng's interfaces count in (`if_tsresol`); 6 needs no saying.
const NANOSECONDS: u8 = 9;

/// A capture that is being written.
pub(super) struct Output {
    name: String,
    writer: Writer,
    nanoseconds: bool,
}

enum Writer {
    Pcap(PcapWriter<BufWriter<File>>),
    PcapNg(PcapNgWriter<BufWriter<File>>),
}

impl Output {
    /// `-` is standard output.
    pub(super) fn create(path: &Path, snap_bytes: u32, nanoseconds: bool) -> Result<Self> {
        let name = if path == Path::new("-") {
            "standard output".to_owned()
        } else {
            path.display().to_string()
        };
        let file = if path == Path::new("-") {
            let output = std::io::stdout().as_fd().try_clone_to_owned();
            File::from(output.context("there is no standard output")?)
        } else {
            File::create(path).with_context(|| format!("cannot create {name}"))?
        };
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let is_pcapng = path.extension().is_some_and(|extension| extension == "pcapng");
        let writer = if is_pcapng {
            pcapng(file, snap_bytes, nanoseconds)
        } else {
            pcap(file, snap_bytes, nanoseconds)
        };
        let writer = writer.with_context(|| format!("cannot write {name}"))?;
        Ok(Self { name, writer, nanoseconds })
    }

    /// Adds a frame of which `captured` was captured; `at` is since the Unix epoch.
    pub(super) fn write(&mut self, at: Duration, wire_bytes: usize, captured: &[u8]) -> Result<()> {
        let wire_bytes = u32::try_from(wire_bytes).context("a frame longer than 4 GiB")?;
        let written = match &mut self.writer {
            Writer::Pcap(writer) => writer.write_packet(&PcapPacket::new(at, wire_bytes, captured)),
            Writer::PcapNg(writer) => {
                // The library writes the nanoseconds as the number of units, whatever unit the interface has.
                let units = if self.nanoseconds { at.as_nanos() } else { at.as_micros() };
                let units = u64::try_from(units).context("a time later than the year 2500")?;
                writer.write_pcapng_block(EnhancedPacketBlock {
                    interface_id: 0,
                    timestamp: Duration::from_nanos(units),
                    original_len: wire_bytes,
                    data: Cow::Borrowed(captured),
                    options: Vec::new(),
                })
            }
        };
        written.map(drop).with_context(|| format!("cannot write {}", self.name))
    }

    /// Everything that was added is written when this returns without an error.
    pub(super) fn finish(self) -> Result<()> {
        let mut file = match self.writer {
            Writer::Pcap(writer) => writer.into_writer(),
            Writer::PcapNg(writer) => writer.into_inner(),
        };
        file.flush().with_context(|| format!("cannot write {}", self.name))
    }
}

fn pcap(file: BufWriter<File>, snap_bytes: u32, nanoseconds: bool) -> Result<Writer> {
    let header = PcapHeader {
        snaplen: snap_bytes,
        datalink: DataLink::ETHERNET,
        ts_resolution: if nanoseconds {
            TsResolution::NanoSecond
        } else {
            TsResolution::MicroSecond
        },
        endianness: Endianness::Little,
        ..PcapHeader::default()
    };
    Ok(Writer::Pcap(PcapWriter::with_header(file, header)?))
}

fn pcapng(file: BufWriter<File>, snap_bytes: u32, nanoseconds: bool) -> Result<Writer> {
    let mut writer = PcapNgWriter::with_endianness(file, Endianness::Little)?;
    let options = if nanoseconds {
        vec![InterfaceDescriptionOption::IfTsResol(NANOSECONDS)]
    } else {
        Vec::new()
    };
    writer.write_pcapng_block(InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        snaplen: snap_bytes,
        options,
    })?;
    Ok(Writer::PcapNg(writer))
}
