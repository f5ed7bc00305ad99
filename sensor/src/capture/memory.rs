//! Takes a mmap-able BPF array; gives its entries as plain memory, without a system call for each.
//!
//! The kernel's programs write the same memory. Entries that they may be writing now are read word by word
//! ([`Table::snapshot`]); a half that they have left is read in place ([`Table::quiet`]).
#![expect(
    unsafe_code,
    reason = "the memory is shared with the kernel and reached through pointers"
)]

use std::ffi::c_void;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use flow::inspect::{Conversation, InspectTotals};
use flow::kernel::{CoarseSlot, Cpu, Set};
use flow::{HandshakeSlot, Outer, Slot};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::CaptureError;

/// A value that both sides of the kernel boundary lay out alike.
///
/// # Safety
///
/// The type is `repr(C)` or an integer, holds integers only, has no padding the compiler chose, and every bit
/// pattern is a value of it.
pub(super) unsafe trait Shared: Copy + 'static {}

// SAFETY: `repr(C)`, two integers.
unsafe impl Shared for Outer {}
// SAFETY: `repr(C)`, two integers.
unsafe impl Shared for HandshakeSlot {}
// SAFETY: `repr(C)`, integers; its fields are followed only by what the alignment adds.
unsafe impl Shared for Cpu {}
// SAFETY: `repr(C)`, an array of slots, which are integers only.
unsafe impl Shared for Set {}
// SAFETY: `repr(C)`, integers only, of exactly 64 bytes.
unsafe impl Shared for Slot {}
// SAFETY: `repr(C)`, integers, padding spelt out, of exactly 64 bytes.
unsafe impl Shared for CoarseSlot {}
// SAFETY: `repr(C)`, integers of 64 bits only.
unsafe impl Shared for InspectTotals {}
// SAFETY: `repr(C)`, integers only, padding spelt out; its size is asserted beside it.
unsafe impl Shared for Conversation {}

/// An array that the XDP program and this process share.
pub(super) struct Table<T> {
    base: NonNull<T>,
    entries: usize,
    bytes: usize,
    /// Keeps the kernel's array alive.
    _map: MapData,
}

// SAFETY: the memory is not bound to a thread; writing it from here takes `&mut self` or an atomic.
unsafe impl<T: Shared> Send for Table<T> {}

impl<T: Shared> Table<T> {
    /// Maps the array of this name out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, CaptureError> {
        let odd = |source| CaptureError::Table { table: name, source };
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            return Err(odd(None));
        };
        let info = map.info().map_err(|error| odd(Some(Box::new(error))))?;
        // The kernel rounds an entry up to whole words; no type here needs that.
        if info.value_size() as usize != size_of::<T>() || !size_of::<T>().is_multiple_of(8) {
            return Err(odd(None));
        }
        let entries = info.max_entries() as usize;
        let bytes = entries * size_of::<T>();
        let base = Self::map(&map, bytes).map_err(|source| CaptureError::Mapping {
            table: name,
            bytes,
            source,
        })?;
        Ok(Self { base, entries, bytes, _map: map })
    }

    fn map(map: &MapData, bytes: usize) -> io::Result<NonNull<T>> {
        let file = map.fd().as_fd();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let anywhere = std::ptr::null_mut();
        // SAFETY: a null hint lets the kernel choose a free range, so no memory of this process is replaced.
        let base = unsafe { mmap(anywhere, bytes, protection, MapFlags::SHARED, file, 0) }?;
        NonNull::new(base.cast::<T>())
            .ok_or_else(|| io::Error::other("the kernel mapped the table at address 0"))
    }

    /// Entries.
    pub(super) const fn len(&self) -> usize {
        self.entries
    }

    /// Where entry `index` lies.
    fn entry(&self, index: usize) -> NonNull<T> {
        assert!(index < self.entries, "entry {index} of a table of {}", self.entries);
        // SAFETY: the index is inside the mapping, by the assertion above.
        unsafe { self.base.add(index) }
    }

    /// A copy of an entry that a program may be writing right now: each word is whole, but they may be from
    /// different moments.
    pub(super) fn snapshot(&self, index: usize) -> T {
        let source = self.entry(index).cast::<u64>();
        let mut copy = MaybeUninit::<T>::uninit();
        let target = copy.as_mut_ptr().cast::<u64>();
        for word in 0..size_of::<T>() / 8 {
            // SAFETY: inside the entry, whose size is a whole number of words.
            let from = unsafe { source.add(word) };
            // SAFETY: aligned (an entry starts at a multiple of its size in a page-aligned mapping), valid
            // while `self` lives, and every write by the kernel is one of a whole word or less.
            let from = unsafe { AtomicU64::from_ptr(from.as_ptr()) };
            // SAFETY: inside the copy, which has the same size.
            let to = unsafe { target.add(word) };
            // SAFETY: `to` is inside the copy; it need not be aligned.
            unsafe { to.write_unaligned(from.load(Ordering::Relaxed)) };
        }
        // SAFETY: every word has been written, and `Shared` promises that any bits are a value.
        unsafe { copy.assume_init() }
    }

    /// Entries that no program writes, in place.
    ///
    /// The caller has flipped the epoch and waited; the half stays untouched until it flips again, for which it
    /// needs the table mutably.
    pub(super) fn quiet(&mut self, start: usize, length: usize) -> &mut [T] {
        let end = start.saturating_add(length);
        assert!(end <= self.entries, "entries {start} to {end} of a table of {}", self.entries);
        // SAFETY: the range is inside the mapping, by the assertion above.
        let first = unsafe { self.base.add(start) };
        // SAFETY: initialised (the kernel zeroes an array at creation), plain data by `Shared`, borrowed
        // mutably, and no program writes this half, as the caller made sure.
        unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), length) }
    }
}

impl Table<Cpu> {
    /// From now on the programs of this CPU write the epoch that the word stands for.
    pub(super) fn publish(&self, index: usize, epoch: u64) {
        const { assert!(offset_of!(Cpu, epoch) == 0) };
        let row = self.entry(index);
        // SAFETY: the epoch is the first field of a `repr(C)` struct that starts on a cache line, so the pointer is
        // aligned; the programs only read it.
        let word = unsafe { AtomicU64::from_ptr(row.cast::<u64>().as_ptr()) };
        word.store(epoch, Ordering::Release);
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: `take` mapped exactly this range, and nothing borrowed from it outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "the range was mapped");
    }
}
