//! The memory that the program shares with user space, and the constants that user space sets at load.
//! User space sizes each array when it loads the program; one entry here stands for any number.
#![expect(unsafe_code, reason = "the loader finds these constants by their symbol names")]

use aya_ebpf::{Global, macros::map, maps::Array};
use flow::{
    Slot,
    kernel::{CoarseSlot, Cpu, MMAPABLE, Set},
};

/// The running epoch, counters and cursors, by CPU number.
#[map]
pub(crate) static CPUS: Array<Cpu> = Array::with_max_entries(1, MMAPABLE);

/// The cache: regions × 2 epochs × [`Cpu::sets`].
#[map]
pub(crate) static SETS: Array<Set> = Array::with_max_entries(1, MMAPABLE);

/// Victims of the cache, in the order they left it: regions × 2 epochs × `LOG_SLOTS`.
#[map]
pub(crate) static LOG: Array<Slot> = Array::with_max_entries(1, MMAPABLE);

/// Totals of what found room in neither: regions × 2 epochs × `COARSE_SLOTS`.
#[map]
pub(crate) static COARSE: Array<CoarseSlot> = Array::with_max_entries(1, MMAPABLE);

/// VLAN stacks of two tags: regions × `STACKS`.
#[map]
pub(crate) static STACK_WORDS: Array<u64> = Array::with_max_entries(1, MMAPABLE);

/// Log slots of one region and epoch.
#[unsafe(no_mangle)]
pub(crate) static LOG_SLOTS: Global<u32> = Global::new(1);

/// Random and odd; see `cache::hash`.
#[unsafe(no_mangle)]
pub(crate) static HASH_FACTORS: [Global<u64>; 5] = [const { Global::new(1) }; 5];
