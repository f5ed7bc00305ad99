//! Takes how often each symbol occurs; gives a prefix code (Huffman), and from the lengths of a code the table that
//! reads it. Pure arithmetic; lengths that are no code are refused.
#![expect(clippy::cast_possible_truncation, reason = "symbols are bytes and nodes at most 511")]

/// Longest code, bits: a table of all of them fits the first-level cache twice.
pub(super) const LENGTH_MAX: u32 = 11;
/// Symbols of a code at most.
pub(super) const SYMBOLS_MAX: usize = 256;
const TABLE: usize = 1 << LENGTH_MAX;

/// Finds codes; keeps its memory.
#[derive(Default)]
pub(super) struct CodeMaker {
    /// Leaves by ascending count, then the inner nodes as they are made: count and parent.
    nodes: Vec<(u32, u16)>,
    leaves: Vec<(u32, u16)>,
}

impl CodeMaker {
    /// The length of each symbol's code, 0 for one that does not occur; at least one does.
    pub(super) fn lengths(&mut self, counts: &[u32], lengths: &mut Vec<u8>) {
        lengths.clear();
        lengths.resize(counts.len(), 0);
        let mut halvings = 0;
        loop {
            let occurring = (0_u16..).zip(counts).filter(|(_, count)| **count > 0);
            self.leaves.clear();
            self.leaves
                .extend(occurring.map(|(symbol, count)| ((count >> halvings).max(1), symbol)));
            self.leaves.sort_unstable();
            if let [(_, only)] = self.leaves[..] {
                lengths[usize::from(only)] = 1;
                return;
            }
            if self.depths(lengths) <= LENGTH_MAX {
                return;
            }
            // Rare symbols get shorter codes when counts differ less.
            halvings += 1;
        }
    }

    /// Huffman's way with two queues; gives the longest length.
    fn depths(&mut self, lengths: &mut [u8]) -> u32 {
        let Self { nodes, leaves } = self;
        let count = leaves.len();
        nodes.clear();
        nodes.extend(leaves.iter().map(|(count, _)| (*count, 0)));
        let (mut leaf, mut inner) = (0, count);
        for made in count..2 * count - 1 {
            let mut sum = 0;
            for _ in 0..2 {
                let takes_leaf = leaf < count && (inner >= made || nodes[leaf].0 <= nodes[inner].0);
                let least = if takes_leaf { &mut leaf } else { &mut inner };
                // At most 511 nodes.
                nodes[*least].1 = made as u16;
                sum += nodes[*least].0;
                *least += 1;
            }
            nodes.push((sum, 0));
        }
        // From the root down, a node's depth takes the place of its count.
        let root = 2 * count - 2;
        nodes[root].0 = 0;
        for node in (0..root).rev() {
            nodes[node].0 = nodes[usize::from(nodes[node].1)].0 + 1;
        }
        let mut longest = 0;
        for ((depth, _), (_, symbol)) in nodes.iter().zip(leaves) {
            longest = longest.max(*depth);
            lengths[usize::from(*symbol)] = (*depth).min(255) as u8;
        }
        longest
    }
}

/// Gives each symbol its code, first bit lowest: shorter codes come first, equally long ones in the order of symbols.
pub(super) fn codes(lengths: &[u8]) -> [u16; SYMBOLS_MAX] {
    let mut next = first_codes(lengths);
    let mut codes = [0; SYMBOLS_MAX];
    for (code, length) in codes.iter_mut().zip(lengths) {
        if *length > 0 {
            let next = &mut next[usize::from(*length)];
            *code = next.reverse_bits() >> (16 - length);
            *next += 1;
        }
    }
    codes
}

fn first_codes(lengths: &[u8]) -> [u16; LENGTH_MAX as usize + 2] {
    let mut counts = [0_u16; LENGTH_MAX as usize + 2];
    for length in lengths.iter().filter(|length| **length > 0) {
        counts[usize::from(*length)] += 1;
    }
    let mut first = [0_u16; LENGTH_MAX as usize + 2];
    for length in 1..=LENGTH_MAX as usize {
        first[length + 1] = (first[length] + counts[length]) << 1;
    }
    first
}

/// Reads symbols.
pub(super) struct CodeTable {
    entries: Box<[Entry; TABLE]>,
    /// One less than the entries that are in use.
    mask: usize,
}

/// What the next bits mean: a symbol, the bits of its code, the same with those that follow it; a byte each.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry(u32);

impl Entry {
    const fn new(symbol: u8, length: u8, whole: u8) -> Self {
        Self(u32::from_le_bytes([symbol, length, whole, 0]))
    }

    #[inline]
    pub(super) const fn symbol(self) -> usize {
        self.0 as usize & 0xff
    }

    #[inline]
    pub(super) const fn length(self) -> usize {
        self.0 as usize >> 8 & 0xff
    }

    #[inline]
    pub(super) const fn whole(self) -> usize {
        self.0 as usize >> 16
    }
}

impl CodeTable {
    pub(super) fn new() -> Self {
        Self { entries: Box::new([Entry::default(); TABLE]), mask: 0 }
    }

    /// Takes over a code, given by its lengths and by how many bits follow each symbol; false when the lengths are
    /// those of none.
    pub(super) fn fill(&mut self, lengths: &[u8], follow: &[u8; SYMBOLS_MAX]) -> bool {
        if lengths.iter().any(|length| u32::from(*length) > LENGTH_MAX) {
            return false;
        }
        let entry = |symbol: u8, length: u8| {
            let whole = length + follow[usize::from(symbol)];
            Entry::new(symbol, length, whole)
        };
        let mut used = (0_u8..=u8::MAX).zip(lengths).filter(|(_, length)| **length > 0);
        if let (Some((symbol, 1)), None) = (used.next(), used.next()) {
            self.entries[0] = entry(symbol, 1);
            self.mask = 0;
            return true;
        }
        // A code that leaves no bits without a meaning, and none with two.
        let taken = |length: &u8| if *length > 0 { TABLE >> length } else { 0 };
        if lengths.iter().map(taken).sum::<usize>() != TABLE {
            return false;
        }
        let codes = codes(lengths);
        // A table of the longest code that there is: most are shorter than the longest that there may be.
        let longest = lengths.iter().copied().max().unwrap_or(0);
        self.mask = (1 << longest) - 1;
        let entries = &mut self.entries[..=self.mask & (TABLE - 1)];
        for ((symbol, length), code) in (0_u8..=u8::MAX).zip(lengths).zip(codes) {
            if *length > 0 {
                let entry = entry(symbol, *length);
                let mut place = usize::from(code);
                while let Some(room) = entries.get_mut(place) {
                    *room = entry;
                    place += 1 << length;
                }
            }
        }
        true
    }

    /// What these bits mean, the lowest first.
    #[inline]
    pub(super) fn read(&self, bits: u64) -> Entry {
        self.entries[bits as usize & self.mask & (TABLE - 1)]
    }
}
