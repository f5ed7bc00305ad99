//! A source of frames at the speed of the kernel: a program of the comparison object, run on live frames, sends one
//! flow after the other out of an interface, some million frames a second. In: an interface of the namespace that
//! the thread is in. Out: frames on it.

use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// The object is read in place, which wants it aligned as a file in memory would be.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> =
    &Aligned(*include_bytes!("../../sensor-ebpf/prebuilt/comparison.bpf.o"));

const PROGRAM: &str = "generate";
/// Frames that the kernel takes through the program before it hands them on.
const BATCH: u32 = 64;
/// Ethernet, IPv4 without options, and the ports.
const FRAME_BYTES_MIN: usize = 14 + 20 + 4;
/// Where the IPv4 header begins, where its checksum and source address, and its end.
const HEADER: usize = 14;
const CHECKSUM: usize = HEADER + 10;
const SOURCE: usize = HEADER + 12;
const HEADER_END: usize = HEADER + 20;

/// Sends frames out of one interface.
///
/// Flow number `n` has the source address 10.0.0.0 + `n` modulo 2^24 and the source port 1024 + `n` / 2^24; all else
/// is the frame's own. The flows come in turn, so that of `frames` frames each has its exact share.
pub struct Generator {
    ebpf: Ebpf,
    frame: Vec<u8>,
}

impl Generator {
    /// Makes a generator for an interface of the network namespace that this thread is in. The frame is Ethernet,
    /// IPv4 without options, TCP or UDP; `flows` 0 makes every frame a flow of its own.
    ///
    /// An interface of a veth pair takes such frames only while its peer has an XDP program in native mode.
    ///
    /// # Errors
    ///
    /// When there is no such interface, the frame is another one, or the kernel refuses (it takes root).
    pub fn open(interface: &str, flows: u32, frame: &[u8]) -> Result<Self> {
        ensure!(frame.len() >= FRAME_BYTES_MIN, "a frame of {} bytes is too short", frame.len());
        ensure!(
            frame.get(12..15) == Some(&[0x08, 0x00, 0x45]),
            "the frame does not begin as Ethernet with IPv4 without options"
        );
        let inquiry = socket(AddressFamily::INET, SocketType::DGRAM, None)
            .context("a socket to ask about interfaces")?;
        let index = netdevice::name_to_index(&inquiry, interface)
            .with_context(|| format!("interface {interface}"))?;
        let sum = header_sum(frame);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("FLOWS", &flows, true)
            .override_global("GENERATOR_INTERFACE", &index, true)
            .override_global("GENERATOR_HEADER_SUM", &sum, true)
            // Tables of the programs beside this one.
            .map_max_entries("LRU", 64)
            .map_max_entries("RING", 1 << 16);
        let mut ebpf = loader.load(&OBJECT.0).context("loading the comparison object")?;
        let program = ebpf.program_mut(PROGRAM).context("the object has a generator")?;
        let program: &mut Xdp = program.try_into().context("the generator is an XDP program")?;
        program.load().context("loading the generator")?;
        Ok(Self { ebpf, frame: frame.to_vec() })
    }

    /// Sends this many frames, from the CPU that this thread runs on. The thread has to be in the interface's
    /// network namespace. What the other side cannot take, the interface drops and counts.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn send(&self, frames: u32) -> Result<()> {
        let Some(program) = self.ebpf.program(PROGRAM) else { bail!("the generator is gone") };
        let program: &Xdp = program.try_into().context("the generator is an XDP program")?;
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        program.test_run(options).with_context(|| format!("sending {frames} frames"))?;
        Ok(())
    }
}

/// A UDP frame of this length over IPv4, to 192.0.2.1 port 9, with a payload of zeros and no UDP checksum.
///
/// # Errors
///
/// When the length is less than the headers take, or more than an IPv4 packet can have.
pub fn udp_frame(bytes: usize) -> Result<Vec<u8>> {
    const UDP_HEADER: usize = 8;
    let total = bytes.checked_sub(HEADER).context("shorter than an Ethernet header")?;
    let datagram = total.checked_sub(20 + UDP_HEADER).context("shorter than the headers")?;
    let total = u16::try_from(total).context("longer than an IPv4 packet")?;
    let length = u16::try_from(datagram + UDP_HEADER).context("longer than a datagram")?;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 0];
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 0, 192, 0, 2, 1]);
    frame.extend_from_slice(&[4, 0, 0, 9]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.resize(bytes, 0);
    Ok(frame)
}

/// The sum of the header's words without those that the generator writes.
fn header_sum(frame: &[u8]) -> u32 {
    let words = frame.get(HEADER..HEADER_END).unwrap_or_default().as_chunks::<2>().0;
    (HEADER..)
        .step_by(2)
        .zip(words)
        .filter(|(at, _)| !(*at == CHECKSUM || *at == SOURCE || *at == SOURCE + 2))
        .map(|(_, word)| u32::from(u16::from_be_bytes(*word)))
        .sum()
}
