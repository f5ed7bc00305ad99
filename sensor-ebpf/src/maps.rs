//! The memory that the program shares with user space, and the constants that user space sets at load.
//! User space sizes each array when it loads the program; one entry here stands for any number.
//!
//! The arrays are declared with their types in the object (BTF), so that the sensor's check of the object reads
//! what an entry is made of, field by field.
#![expect(unsafe_code, reason = "the loader finds these constants by their symbol names")]

use aya_ebpf::{Global, btf_maps::Array, macros::btf_map};
use flow::{
    FragmentSlot, HandshakeSlot, Outer, RecentSet, Record, Slot, Walk,
    kernel::{CoarseSlot, Cpu, MMAPABLE, Set},
};

/// Every array is mapped by user space.
pub(crate) const FLAGS: usize = MMAPABLE as usize;

/// The running epoch, counters and cursors, by CPU number.
#[btf_map]
pub(crate) static CPUS: Array<Cpu, 1, FLAGS> = Array::new();

/// Where each CPU's parser is, by CPU number.
#[btf_map]
pub(crate) static WALKS: Array<Walk, 1, FLAGS> = Array::new();

/// The cache: regions × 2 epochs × [`Cpu::sets`].
#[btf_map]
pub(crate) static SETS: Array<Set, 1, FLAGS> = Array::new();

/// Victims of the cache, in the order they left it: regions × 2 epochs × `LOG_SLOTS`.
#[btf_map]
pub(crate) static LOG: Array<Slot, 1, FLAGS> = Array::new();

/// Totals of what found room in neither: regions × 2 epochs × `COARSE_SLOTS`.
#[btf_map]
pub(crate) static COARSE: Array<CoarseSlot, 1, FLAGS> = Array::new();

/// Outer identities that have a number: regions × `OUTERS`.
#[btf_map]
pub(crate) static OUTER_IDENTITIES: Array<Outer, 1, FLAGS> = Array::new();

/// First fragments, whose ports the later ones lack: regions × `FRAGMENTS`.
#[btf_map]
pub(crate) static FIRST_FRAGMENTS: Array<FragmentSlot, 1, FLAGS> = Array::new();

/// Times of connections being opened, for all CPUs: `HANDSHAKES`.
#[btf_map]
pub(crate) static HANDSHAKE_TIMES: Array<HandshakeSlot, 1, FLAGS> = Array::new();

/// Packets seen a moment ago: regions × `RECENT_SETS` where copies are removed, else one entry that nothing touches.
#[btf_map]
pub(crate) static RECENT_PACKETS: Array<RecentSet, 1, FLAGS> = Array::new();

/// How many ticks after a packet its copy may come.
#[unsafe(no_mangle)]
pub(crate) static COPY_TICKS: Global<u32> = Global::new(0);

/// Secret, so that nobody outside can foresee what tells a packet from others.
#[unsafe(no_mangle)]
pub(crate) static IDENTITY_SEED: Global<u64> = Global::new(0);

/// Log slots of one region and epoch.
#[unsafe(no_mangle)]
pub(crate) static LOG_SLOTS: Global<u32> = Global::new(1);

/// The interfaces that the program is attached to, by their indices in the kernel, in the sensor's order; 0 is none.
#[unsafe(no_mangle)]
pub(crate) static INTERFACES: [Global<u32>; Record::INTERFACE_MAX as usize] =
    [const { Global::new(0) }; Record::INTERFACE_MAX as usize];

/// Random and odd; see `cache::hash`.
#[unsafe(no_mangle)]
pub(crate) static HASH_FACTORS: [Global<u64>; 5] = [const { Global::new(1) }; 5];
