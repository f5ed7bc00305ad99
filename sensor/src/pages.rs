//! Takes how large a table may become; gives room for all of it at one place, of which the system backs what is used,
//! in large pages where it can. So a table grows without being moved, and a look-up in one that is larger than the
//! processor's caches does not also wait for the table of pages. Never touches what it gives.
#![expect(unsafe_code, reason = "the advice is a system call that takes an address")]

use std::ffi::c_void;

use rustix::mm::{Advice, madvise};
use tracing::debug;

/// The size of a large page on most machines. Elsewhere less of the room lies in large pages, or none.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// An empty vector with room for `len` items. Where the system refuses so much, which it does when it promises no more
/// than it has, the vector grows as others do.
pub(crate) fn roomy<T>(len: usize) -> Vec<T> {
    let mut items: Vec<T> = Vec::new();
    if let Err(error) = items.try_reserve_exact(len) {
        debug!(%error, len, "the table grows by moving");
        return items;
    }
    let room = items.spare_capacity_mut();
    let start = room.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(LARGE_PAGE_BYTES);
    let bytes = size_of_val(room).saturating_sub(skipped) / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES;
    if bytes > 0 {
        let first = start.wrapping_add(skipped).cast::<c_void>();
        // SAFETY: whole pages within the vector's own room; the advice changes neither what they hold nor whose they
        // are, only what the kernel backs them with.
        if let Err(error) = unsafe { madvise(first, bytes, Advice::LinuxHugepage) } {
            debug!(%error, bytes, "no large pages");
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_room_and_is_not_moved() {
        let mut items = roomy::<u64>(1 << 20);
        let before = items.as_ptr();
        items.extend(0..1 << 20);
        assert_eq!((before, items[12_345]), (items.as_ptr(), 12_345));
    }

    #[test]
    fn a_small_one_and_one_beyond_all_memory_are_vectors_like_others() {
        for len in [0, 3, usize::MAX / 64] {
            let mut items = roomy::<[u64; 4]>(len);
            items.push([7; 4]);
            assert_eq!(items, [[7; 4]]);
        }
    }
}
