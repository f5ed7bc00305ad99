//! The memory that the program shares with user space, and the constants that user space sets at load.
//! User space sizes each array when it loads the program; one entry here stands for any number.
#![expect(unsafe_code, reason = "the loader finds these constants by their symbol names")]

use aya_ebpf::{Global, macros::map, maps::Array};
use flow::{
    FragmentSlot, Outer, Slot, Walk,
    kernel::{CoarseSlot, Control, Cpu, MMAPABLE, Set},
};

/// Which epoch is written.
#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, MMAPABLE);

/// Counters and cursors, by CPU number.
#[map]
pub(crate) static CPUS: Array<Cpu> = Array::with_max_entries(1, MMAPABLE);

/// Where each CPU's parser is, by CPU number.
#[map]
pub(crate) static WALKS: Array<Walk> = Array::with_max_entries(1, MMAPABLE);

/// The cache: regions × 2 epochs × `SETS_PER_EPOCH`.
#[map]
pub(crate) static SETS: Array<Set> = Array::with_max_entries(1, MMAPABLE);

/// Victims of the cache, in the order they left it: regions × 2 epochs × `LOG_SLOTS`.
#[map]
pub(crate) static LOG: Array<Slot> = Array::with_max_entries(1, MMAPABLE);

/// Totals of what found room in neither: regions × 2 epochs × `COARSE_SLOTS`.
#[map]
pub(crate) static COARSE: Array<CoarseSlot> = Array::with_max_entries(1, MMAPABLE);

/// Outer identities that have a number: regions × `OUTERS`.
#[map]
pub(crate) static OUTER_IDENTITIES: Array<Outer> = Array::with_max_entries(1, MMAPABLE);

/// First fragments, whose ports the later ones lack: regions × `FRAGMENTS`.
#[map]
pub(crate) static FIRST_FRAGMENTS: Array<FragmentSlot> = Array::with_max_entries(1, MMAPABLE);

/// Sets of one region and epoch; a power of two.
#[unsafe(no_mangle)]
pub(crate) static SETS_PER_EPOCH: Global<u32> = Global::new(1);

/// Log slots of one region and epoch.
#[unsafe(no_mangle)]
pub(crate) static LOG_SLOTS: Global<u32> = Global::new(1);

/// Random, so that nobody outside can choose addresses that collide.
#[unsafe(no_mangle)]
pub(crate) static HASH_SEED: Global<u64> = Global::new(0);
