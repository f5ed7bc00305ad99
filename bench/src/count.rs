//! In: a capture. Out: how many frames it holds, by a reader that is not the sensor's.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

/// What a pcapng file begins with: a section header block.
const SECTION_HEADER: [u8; 4] = 0x0a0d_0d0a_u32.to_be_bytes();

/// What `count` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// The capture, pcap or pcapng.
    file: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let name = options.file.display();
    let mut file = File::open(&options.file).with_context(|| format!("cannot open {name}"))?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).with_context(|| format!("{name} is too short for a capture"))?;
    file.rewind().with_context(|| format!("cannot read {name} again"))?;
    let reader = BufReader::new(file);
    let frames = if magic == SECTION_HEADER { pcapng(reader) } else { pcap(reader) };
    let frames = frames.with_context(|| format!("cannot read {name}"))?;
    writeln!(std::io::stdout(), "{frames}").context("cannot write to standard output")
}

fn pcap(reader: BufReader<File>) -> Result<u64> {
    let mut reader = PcapReader::new(reader)?;
    let mut frames = 0;
    while let Some(packet) = reader.next_raw_packet() {
        packet?;
        frames += 1;
    }
    Ok(frames)
}

fn pcapng(reader: BufReader<File>) -> Result<u64> {
    let mut reader = PcapNgReader::new(reader)?;
    let mut frames = 0;
    while let Some(block) = reader.next_block() {
        if matches!(block?, Block::EnhancedPacket(_) | Block::SimplePacket(_) | Block::Packet(_)) {
            frames += 1;
        }
    }
    Ok(frames)
}
