//! Takes how often each symbol occurs; gives a prefix code (Huffman), and from the lengths of a code the table that
//! reads it. Pure arithmetic; lengths that are no code are refused.
#![expect(clippy::cast_possible_truncation, reason = "symbols are bytes and nodes at most 511")]

use super::numbers::LOWEST;

/// Longest code, bits: a table of all of them fits the first-level cache twice.
pub(super) const LENGTH_MAX: u32 = 11;
/// Symbols of a code at most.
pub(super) const SYMBOLS_MAX: usize = 256;
const TABLE: usize = 1 << LENGTH_MAX;
/// With two bits on top these make 32.
const FOLLOW_NARROW_MAX: usize = 30;

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

/// Reads numbers: what a symbol stands for lies where its code says.
pub(super) struct CodeTable {
    entries: Box<[Entry; TABLE]>,
    /// One less than the entries that are in use.
    mask: usize,
    /// See [`CodeTable::whole_max`].
    whole_max: usize,
}

/// A number, or the least one of a class.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    /// Its lower half.
    base: u32,
    /// What lies above the bits that follow.
    top: u16,
    length: u8,
    whole: u8,
}

impl Entry {
    /// `length` is that of the code; `follow`, at most 62, says how many bits of the number follow it.
    pub(super) const fn new(top: u16, length: u8, follow: u8) -> Self {
        Self { base: ((top as u64) << follow) as u32, top, length, whole: length + follow }
    }

    /// Bits of the code.
    #[inline]
    pub(super) const fn length(self) -> usize {
        self.length as usize
    }

    /// Bits of the code and of what follows it.
    #[inline]
    pub(super) const fn whole(self) -> usize {
        self.whole as usize
    }

    /// The number, if all of the table are [narrow](CodeTable::whole_max); `bits` begin with the code.
    #[inline]
    pub(super) const fn narrow(self, bits: u64) -> u64 {
        self.base as u64 | (bits & LOWEST[self.whole as usize & 63]) >> (self.length & 63)
    }

    /// The number; `more` begins with what follows the code.
    pub(super) const fn number(self, more: u64) -> u64 {
        let follow = (self.whole - self.length) & 63;
        (self.top as u64) << follow | more & LOWEST[follow as usize]
    }
}

impl CodeTable {
    pub(super) fn new() -> Self {
        Self { entries: Box::new([Entry::default(); TABLE]), mask: 0, whole_max: 0 }
    }

    /// Takes over a code: what its symbols stand for, with the lengths of their codes; false when those are of none.
    pub(super) fn fill(&mut self, symbols: &[Entry]) -> bool {
        let lengths = || symbols.iter().map(|symbol| symbol.length());
        let longest = lengths().max().unwrap_or(0);
        if longest > LENGTH_MAX as usize {
            return false;
        }
        let mut counts = [0_usize; LENGTH_MAX as usize + 1];
        lengths().for_each(|length| counts[length] += 1);
        let used = symbols.iter().filter(|symbol| symbol.length() > 0);
        let wholes = used.clone().map(|symbol| {
            let is_narrow = symbol.whole() - symbol.length() <= FOLLOW_NARROW_MAX;
            if is_narrow { symbol.whole() } else { usize::MAX }
        });
        self.whole_max = wholes.max().unwrap_or(0);
        if longest == 1 && counts[1] == 1 {
            self.mask = 0;
            used.for_each(|symbol| self.entries[0] = *symbol);
            return true;
        }
        // A code that leaves no bits without a meaning, and none with two.
        if (1..).zip(&counts[1..]).map(|(length, count)| count * (TABLE >> length)).sum::<usize>()
            != TABLE
        {
            return false;
        }
        let mut next = [0; LENGTH_MAX as usize + 1];
        let mut sum = 0;
        for (next, count) in next.iter_mut().zip(counts).skip(1) {
            *next = sum;
            sum += count;
        }
        let mut by_length = [Entry::default(); SYMBOLS_MAX];
        for symbol in used {
            let next = &mut next[symbol.length()];
            by_length[*next] = *symbol;
            *next += 1;
        }
        let mut by_length = &by_length[..];
        // A table of the longest code that there is: most are shorter than the longest that there may be. Bit by bit
        // it grows to twice its size: what is known already does not depend on the bit.
        self.mask = (1 << longest) - 1;
        let entries = &mut self.entries[..];
        let mut code = 0_u16;
        for (length, count) in counts.into_iter().enumerate().take(longest + 1).skip(1) {
            let half = 1 << (length - 1);
            entries.copy_within(..half, half);
            code <<= 1;
            let (symbols, longer) = by_length.split_at(count);
            by_length = longer;
            for symbol in symbols {
                entries[usize::from(code.reverse_bits() >> (16 - length))] = *symbol;
                code += 1;
            }
        }
        true
    }

    /// Bits that a number takes at most, if every number has at most 32 itself.
    pub(super) const fn whole_max(&self) -> usize {
        self.whole_max
    }

    /// What these bits mean, the lowest first.
    #[inline]
    pub(super) fn read(&self, bits: u64) -> Entry {
        self.entries[bits as usize & self.mask & (TABLE - 1)]
    }
}
