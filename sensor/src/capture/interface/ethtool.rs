//! Asks a network driver about itself (`SIOCETHTOOL`): its name, features, rings, queues, how it spreads flows over
//! them, and its own counters. Only reads; a driver that does not answer gives `None`, never a 0.
//!
//! Works in the network namespace in which it was opened, and needs no privilege.
#![expect(unsafe_code, reason = "the system call takes a structure that holds a pointer")]

use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;

use rustix::ioctl::{Updater, ioctl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::Serialize;

/// Counters of one driver that are read; the largest cards have some thousands.
const COUNTERS_MAX: usize = 16_384;
/// Entries of an indirection table that are read.
const INDIRECTION_MAX: usize = 4096;
/// Bytes of a name in a set of strings.
const STRING_BYTES: usize = 32;

const SIOCETHTOOL: u32 = 0x8946;
const GET_DRIVER: u32 = 0x03;
const GET_RINGS: u32 = 0x10;
const GET_STRINGS: u32 = 0x1b;
const GET_COUNTERS: u32 = 0x1d;
const GET_HASH_FIELDS: u32 = 0x29;
const GET_SET_SIZES: u32 = 0x37;
const GET_INDIRECTION: u32 = 0x38;
const GET_FEATURES: u32 = 0x3a;
const GET_CHANNELS: u32 = 0x3c;
const COUNTER_STRINGS: u32 = 1;
const FEATURE_STRINGS: u32 = 4;
const TCP_OVER_IPV4: u32 = 1;
/// `RXH_L4_B_0_1 | RXH_L4_B_2_3`: both ports.
const HASH_PORTS: u32 = 0b1100_0000;

/// Offloads that change what an XDP program sees; `None` where the kernel does not know the feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offloads {
    /// Generic receive offload: the stack merges segments.
    pub gro: Option<bool>,
    /// Large receive offload: the driver merges segments.
    pub lro: Option<bool>,
    /// The card merges segments.
    pub gro_hw: Option<bool>,
    /// The card takes VLAN tags off.
    pub rx_vlan: Option<bool>,
    /// The card checks checksums.
    pub rx_checksum: Option<bool>,
}

/// Receive rings, descriptors each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rings {
    /// Now.
    pub rx: u32,
    /// At most.
    pub rx_max: u32,
}

/// Receive queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Channels {
    /// Now, those for both directions included.
    pub rx: u32,
    /// At most.
    pub rx_max: u32,
    /// The word for `ethtool -L`: `combined` or `rx`.
    pub word: &'static str,
}

/// How the card spreads flows over its queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Queues that the indirection table names.
    pub queues: Option<u32>,
    /// Whether the hash of TCP over IPv4 takes the ports.
    pub tcp_ports: Option<bool>,
}

/// `struct ifreq` with its pointer member.
#[repr(C)]
struct Request {
    name: [u8; 16],
    data: *mut c_void,
    padding: [u8; 16],
}

/// A socket that questions are asked through.
pub(super) struct Ethtool {
    socket: OwnedFd,
}

impl Ethtool {
    pub(super) fn open() -> io::Result<Self> {
        let socket =
            socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket })
    }

    /// Name of the driver.
    pub(super) fn driver(&self, interface: &str) -> Option<String> {
        // struct ethtool_drvinfo: the command, then five texts of 32 bytes, of which the driver is the first.
        let mut words = [0_u32; 49];
        self.ask(interface, GET_DRIVER, &mut words)?;
        Some(text(words.get(1..9)?))
    }

    pub(super) fn offloads(&self, interface: &str) -> Option<Offloads> {
        let names = self.strings(interface, FEATURE_STRINGS)?;
        let blocks = names.len().div_ceil(32);
        // struct ethtool_gfeatures: the command, the number of blocks; four words a block, the third is what is
        // switched on now.
        let mut words = vec![0_u32; 2 + blocks * 4];
        *words.get_mut(1)? = u32::try_from(blocks).ok()?;
        self.ask(interface, GET_FEATURES, &mut words)?;
        let is_on = |name: &str| {
            let bit = names.iter().position(|other| other == name)?;
            let active = words.get(2 + bit / 32 * 4 + 2)?;
            Some(active >> (bit % 32) & 1 == 1)
        };
        Some(Offloads {
            gro: is_on("rx-gro"),
            lro: is_on("rx-lro"),
            gro_hw: is_on("rx-gro-hw"),
            rx_vlan: is_on("rx-vlan-hw-parse"),
            rx_checksum: is_on("rx-checksum"),
        })
    }

    pub(super) fn rings(&self, interface: &str) -> Option<Rings> {
        // struct ethtool_ringparam: the command, four maxima, four present values; receive comes first.
        let mut words = [0_u32; 9];
        self.ask(interface, GET_RINGS, &mut words)?;
        let [_, rx_max, _, _, _, rx, ..] = words;
        (rx_max > 0).then_some(Rings { rx, rx_max })
    }

    pub(super) fn channels(&self, interface: &str) -> Option<Channels> {
        // struct ethtool_channels: the command; maxima, then present values of rx, tx, other, combined.
        let mut words = [0_u32; 9];
        self.ask(interface, GET_CHANNELS, &mut words)?;
        let [_, rx_only_max, _, _, combined_max, rx_only, _, _, combined] = words;
        let word = if combined_max > 0 { "combined" } else { "rx" };
        let rx_max = rx_only_max.max(combined_max);
        let rx = rx_only.saturating_add(combined);
        (rx_max > 0).then_some(Channels { rx, rx_max, word })
    }

    pub(super) fn spread(&self, interface: &str) -> Spread {
        // struct ethtool_rxnfc: the command, the kind of flow, then a word of 64 bits and rules that are not used.
        let mut fields = [0_u32; 64];
        fields[1] = TCP_OVER_IPV4;
        let fields = self.ask(interface, GET_HASH_FIELDS, &mut fields).map(|()| fields[2]);
        Spread {
            queues: self.indirection(interface),
            tcp_ports: fields.map(|fields| fields & HASH_PORTS == HASH_PORTS),
        }
    }

    /// How many different queues the indirection table names.
    fn indirection(&self, interface: &str) -> Option<u32> {
        // struct ethtool_rxfh_indir: the command, the size, the entries. A size of 0 asks for the size.
        let mut head = [0_u32; 2];
        self.ask(interface, GET_INDIRECTION, &mut head)?;
        let size =
            usize::try_from(head[1]).ok().filter(|size| (1..=INDIRECTION_MAX).contains(size))?;
        let mut words = vec![0_u32; 2 + size];
        *words.get_mut(1)? = head[1];
        self.ask(interface, GET_INDIRECTION, &mut words)?;
        let mut queues = words.split_off(2);
        queues.sort_unstable();
        queues.dedup();
        u32::try_from(queues.len()).ok()
    }

    /// The driver's own counters, by the names that it gives them.
    pub(super) fn counters(&self, interface: &str) -> Option<Vec<(String, u64)>> {
        let names = self.strings(interface, COUNTER_STRINGS)?;
        // The driver writes as many as it has at that moment. Twice the room, should queues have been added since.
        let mut words = vec![0_u32; 2 + 2 * 2 * names.len()];
        self.ask(interface, GET_COUNTERS, &mut words)?;
        // When the number has changed meanwhile, names and values no longer belong together.
        if usize::try_from(*words.get(1)?).ok()? != names.len() {
            return None;
        }
        let values = words.get(2..)?.as_chunks::<2>().0.iter();
        let values = values.map(|[low, high]| u64::from(*high) << 32 | u64::from(*low));
        Some(names.into_iter().zip(values).collect())
    }

    fn strings(&self, interface: &str, set: u32) -> Option<Vec<String>> {
        // struct ethtool_sset_info: the command, a reserved word, a mask of 64 bits, the size.
        let mut sizes = [0_u32; 5];
        sizes[2] = 1 << set;
        self.ask(interface, GET_SET_SIZES, &mut sizes)?;
        let size = usize::try_from(sizes[4]).ok()?;
        if sizes[2] == 0 || size == 0 || size > COUNTERS_MAX {
            return None;
        }
        // struct ethtool_gstrings: the command, the set, the number, the names. Twice the room, as above.
        let mut words = vec![0_u32; 3 + 2 * size * STRING_BYTES / 4];
        *words.get_mut(1)? = set;
        self.ask(interface, GET_STRINGS, &mut words)?;
        let names = words.get(3..3 + size * STRING_BYTES / 4)?;
        Some(names.chunks(STRING_BYTES / 4).map(text).collect())
    }

    /// One question. `words` has room for all that the kernel writes for this command; its first word is the
    /// command.
    fn ask(&self, interface: &str, command: u32, words: &mut [u32]) -> Option<()> {
        let mut request =
            Request { name: [0; 16], data: words.as_mut_ptr().cast(), padding: [0; 16] };
        // The last byte stays 0: it ends the name.
        request.name.get_mut(..interface.len().min(15))?.copy_from_slice(
            interface.as_bytes().get(..interface.len().min(15)).unwrap_or_default(),
        );
        *words.first_mut()? = command;
        // SAFETY: `SIOCETHTOOL` takes a `struct ifreq`, which `Request` lays out, with a pointer to a structure
        // that the command names; the callers above gave it the size that the kernel writes.
        let question = unsafe { Updater::<SIOCETHTOOL, Request>::new(&mut request) };
        // SAFETY: as above, and `words` outlives the call.
        unsafe { ioctl(&self.socket, question) }.ok()
    }
}

/// A text of the kernel's, which ends at its first 0.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.to_le_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
