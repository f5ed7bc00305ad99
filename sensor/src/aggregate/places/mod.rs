//! Takes hashes of flow identities; gives the places at which flows with that hash may lie. A table of
//! buckets, each a cache line, so that a look-up in a table that is larger than all caches waits for slow
//! memory once. Knows nothing of what lies at a place: the caller compares.
//!
//! The 32 bits of a hash, never 0, lie in the table, choose the bucket (as a fraction of the table's size) and tell
//! apart what lies in it. So the table grows without looking at a single flow.

#[cfg(test)]
mod tests;

/// No place.
pub(super) const NONE: u32 = u32::MAX;
/// No place, and none to be found by looking further.
pub(super) const ABSENT: u32 = u32::MAX - 1;

/// Entries of a bucket.
const WAYS: usize = 7;
/// The hash of an entry that is not in use; no flow has it.
const UNUSED: u32 = 0;
/// Buckets of the smallest table.
const BUCKETS_MIN: usize = 64;
/// The table grows when this share of it is in use: fuller, and too many flows lie outside of their
/// bucket.
const FILL_MAX: (usize, usize) = (4, 5);

/// One cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Eight of them, so that one comparison of vectors does; the last is never in use.
    hashes: [u32; WAYS + 1],
    places: [u32; WAYS],
    /// Entries that belong here and lie in a later bucket, because this one was full: without any, a
    /// look-up ends here.
    passed_on: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Self = Self {
        hashes: [UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, NONE],
        places: [NONE; WAYS],
        passed_on: 0,
    };

    /// One bit for each entry with this hash.
    #[inline]
    fn matches(&self, hash: u32) -> u32 {
        const BITS: [u32; WAYS + 1] = [1, 2, 4, 8, 16, 32, 64, 0];
        let mut found = [0; WAYS + 1];
        for (found, (held, bit)) in found.iter_mut().zip(self.hashes.iter().zip(BITS)) {
            *found = if *held == hash { bit } else { 0 };
        }
        found.iter().fold(0, |bits, bit| bits | bit)
    }
}

/// From hashes to places.
pub(super) struct Places {
    buckets: Vec<Bucket>,
    len: usize,
}

impl Places {
    pub(super) fn new() -> Self {
        Self { buckets: vec![Bucket::EMPTY; BUCKETS_MIN], len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn home(&self, hash: u32) -> usize {
        home(hash, self.buckets.len())
    }

    /// The first place in the hash's own bucket that may be it; [`NONE`] when there is none there, [`ABSENT`] when
    /// there is none at all. Cheap, and needs one cache line.
    #[inline]
    pub(super) fn likely(&self, hash: u32) -> u32 {
        let bucket = &self.buckets[self.home(hash)];
        let matches = bucket.matches(hash);
        match (matches, bucket.passed_on) {
            (0, 0) => ABSENT,
            (0, _) => NONE,
            _ => bucket.places[matches.trailing_zeros() as usize],
        }
    }

    /// The place with this hash that `is_it` says yes to, or [`NONE`].
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> u32 {
        self.position(hash, is_it).map_or(NONE, |(bucket, way)| self.buckets[bucket].places[way])
    }

    fn position(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<(usize, usize)> {
        let mut at = self.home(hash);
        // A full round ends it; the fill allows none to be full all round.
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut matches = bucket.matches(hash);
            while matches != 0 {
                let way = matches.trailing_zeros() as usize;
                if is_it(bucket.places[way]) {
                    return Some((at, way));
                }
                matches &= matches - 1;
            }
            if bucket.passed_on == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Adds a place that is not in the table.
    pub(super) fn insert(&mut self, hash: u32, place: u32) {
        if (self.len + 1) * FILL_MAX.1 > self.buckets.len() * WAYS * FILL_MAX.0 {
            self.grow();
        }
        self.len += 1;
        self.put(hash, place);
    }

    fn put(&mut self, hash: u32, place: u32) {
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            let unused = bucket.matches(UNUSED);
            if unused != 0 {
                let way = unused.trailing_zeros() as usize;
                bucket.hashes[way] = hash;
                bucket.places[way] = place;
                return;
            }
            bucket.passed_on += 1;
            at = self.after(at);
        }
    }

    /// Takes out a place that was inserted with this hash.
    pub(super) fn remove(&mut self, hash: u32, place: u32) {
        let Some((found, way)) = self.position(hash, |other| other == place) else {
            debug_assert!(false, "whoever removes a place has inserted it");
            return;
        };
        self.buckets[found].hashes[way] = UNUSED;
        self.len -= 1;
        let mut at = self.home(hash);
        while at != found {
            self.buckets[at].passed_on -= 1;
            at = self.after(at);
        }
    }

    /// Half as large again: doubling would leave more of it empty.
    fn grow(&mut self) {
        let larger = self.buckets.len() + self.buckets.len() / 2;
        let former = std::mem::replace(&mut self.buckets, vec![Bucket::EMPTY; larger]);
        for bucket in former {
            for (hash, place) in bucket.hashes.into_iter().zip(bucket.places) {
                if hash != UNUSED {
                    self.put(hash, place);
                }
            }
        }
    }

    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// Empties the table; keeps its size.
    pub(super) fn clear(&mut self) {
        self.buckets.fill(Bucket::EMPTY);
        self.len = 0;
    }
}

/// The bucket of a hash, as a fraction of all: the order of hashes is the order of buckets, whatever
/// their number.
fn home(hash: u32, buckets: usize) -> usize {
    ((u64::from(hash) * buckets as u64) >> 32) as usize
}
