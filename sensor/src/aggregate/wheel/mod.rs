//! Takes tickets, each a place in the flow table, with a time at which to look at it again; gives them
//! back when that time has come. Tickets lie in blocks that are used again, so that nothing is allocated
//! for a timer, and whoever is given a block can look at all of its places at once.
//!
//! A ticket is never taken back: whoever files a place again gives it another number, and the former
//! ticket counts for nothing when its time comes.

#[cfg(test)]
mod tests;

/// Milliseconds of one list, as a power of two: 256.
const TICK_SHIFT: u32 = 8;
/// Lists in the wheel; 262 s. A later time is looked at early and put back.
const TICKS: u16 = 1024;
/// Tickets of a block; with its head it fills eight cache lines.
const BLOCK_TICKETS: usize = 63;
/// No block: the end of a list.
const NONE: u32 = u32::MAX;

/// A place to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) place: u32,
    /// Which of the tickets of this place.
    pub(super) number: u32,
}

/// Some tickets of one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    next: u32,
    start: u16,
    end: u16,
    tickets: [Ticket; BLOCK_TICKETS],
}

impl Block {
    const EMPTY: Self =
        Self { next: NONE, start: 0, end: 0, tickets: [Ticket { place: 0, number: 0 }; 63] };

    /// What it holds, in the order in which it was filed.
    pub(super) fn tickets(&self) -> &[Ticket] {
        self.tickets.get(usize::from(self.start)..usize::from(self.end)).unwrap_or_default()
    }
}

/// The rest of a list that was taken out of the wheel.
#[derive(Debug)]
pub(super) struct Taken(u32);

/// Where tickets wait, by the time at which to look at their places.
#[derive(Debug)]
pub(super) struct Wheel {
    blocks: Vec<Block>,
    /// First of the unused blocks.
    unused: u32,
    heads: Vec<u32>,
    tails: Vec<u32>,
    /// One bit a list: not empty.
    filled: [u64; TICKS as usize / 64],
    /// Tickets, valid or not.
    len: usize,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self {
            blocks: Vec::new(),
            unused: NONE,
            heads: vec![NONE; usize::from(TICKS)],
            tails: vec![NONE; usize::from(TICKS)],
            filled: [0; TICKS as usize / 64],
            len: 0,
        }
    }

    /// Tickets that it holds, also those that count for nothing any more.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The list for a place to be looked at at `due_ms`, seen from `now_ms`.
    pub(super) fn list_for(due_ms: u64, now_ms: u64) -> u16 {
        let now_tick = now_ms >> TICK_SHIFT;
        let tick = (due_ms >> TICK_SHIFT).clamp(now_tick, now_tick + u64::from(TICKS) - 1);
        u16::try_from(tick % u64::from(TICKS)).expect("a remainder of 1,024 fits 16 bits")
    }

    /// Files a ticket for `due_ms`.
    pub(super) fn file(&mut self, ticket: Ticket, due_ms: u64, now_ms: u64) {
        self.append(ticket, usize::from(Self::list_for(due_ms, now_ms)));
    }

    fn append(&mut self, ticket: Ticket, list: usize) {
        let tail = self.tails[list];
        let block = match self.blocks.get(tail as usize) {
            Some(block) if usize::from(block.end) < BLOCK_TICKETS => tail,
            _ => self.add_block(list, tail),
        };
        let block = &mut self.blocks[block as usize];
        block.tickets[usize::from(block.end)] = ticket;
        block.end += 1;
        self.len += 1;
    }

    /// An empty block at the end of a list whose last one is `tail`.
    fn add_block(&mut self, list: usize, tail: u32) -> u32 {
        let added = if let Some(unused) = self.blocks.get_mut(self.unused as usize) {
            let next = std::mem::replace(unused, Block::EMPTY).next;
            std::mem::replace(&mut self.unused, next)
        } else {
            self.blocks.push(Block::EMPTY);
            u32::try_from(self.blocks.len() - 1).expect("there are fewer blocks than places")
        };
        match self.blocks.get_mut(tail as usize) {
            Some(tail) => tail.next = added,
            None => self.heads[list] = added,
        }
        self.tails[list] = added;
        self.filled[list / 64] |= 1 << (list % 64);
        added
    }

    /// Takes out a whole list. What is filed in it from now on is not met by whoever holds the rest.
    pub(super) fn take(&mut self, list: u16) -> Taken {
        let list = usize::from(list);
        self.tails[list] = NONE;
        self.filled[list / 64] &= !(1 << (list % 64));
        Taken(std::mem::replace(&mut self.heads[list], NONE))
    }

    /// The next block of a list that was taken out.
    pub(super) fn next_block(&mut self, rest: &mut Taken) -> Option<Block> {
        let block = self.blocks.get_mut(rest.0 as usize)?;
        let given = *block;
        block.next = std::mem::replace(&mut self.unused, rest.0);
        rest.0 = given.next;
        self.len -= given.tickets().len();
        Some(given)
    }

    /// Takes out the ticket that waits for the earliest time; says in which list.
    pub(super) fn pop_earliest(&mut self, now_ms: u64) -> Option<(Ticket, u16)> {
        let number = self.earliest(now_ms)?;
        let list = usize::from(number);
        let head = self.heads[list];
        let block = &mut self.blocks[head as usize];
        let ticket = block.tickets[usize::from(block.start)];
        block.start += 1;
        self.len -= 1;
        if block.start == block.end {
            let next = std::mem::replace(&mut block.next, self.unused);
            self.unused = head;
            self.heads[list] = next;
            if next == NONE {
                self.tails[list] = NONE;
                self.filled[list / 64] &= !(1 << (list % 64));
            }
        }
        Some((ticket, number))
    }

    /// The first list that is not empty, from the one for `now_ms` on.
    fn earliest(&self, now_ms: u64) -> Option<u16> {
        let start = usize::from(Self::list_for(now_ms, now_ms));
        let words = self.filled.len();
        (0..=words).find_map(|step| {
            let word = (start / 64 + step) % words;
            let from_start = if step == 0 { u64::MAX << (start % 64) } else { u64::MAX };
            let bits = self.filled[word] & from_start;
            let list = word * 64 + bits.trailing_zeros() as usize;
            (bits != 0).then(|| u16::try_from(list).expect("there are 1,024 lists"))
        })
    }

    /// The lists whose time came after `before_ms` and up to `now_ms`, each once, in order of time.
    pub(super) fn due(before_ms: u64, now_ms: u64) -> impl Iterator<Item = u16> {
        let (from, to) = (before_ms >> TICK_SHIFT, now_ms >> TICK_SHIFT);
        let count = (to - from + 1).min(u64::from(TICKS));
        (to + 1 - count..=to).map(|tick| {
            u16::try_from(tick % u64::from(TICKS)).expect("a remainder of 1,024 fits 16 bits")
        })
    }

    /// Throws out the tickets that `is_valid` says no to.
    pub(super) fn retain(&mut self, is_valid: impl Fn(Ticket) -> bool) {
        for list in 0..TICKS {
            let mut rest = self.take(list);
            while let Some(block) = self.next_block(&mut rest) {
                for &ticket in block.tickets().iter().filter(|ticket| is_valid(**ticket)) {
                    self.append(ticket, usize::from(list));
                }
            }
        }
    }

    /// Forgets every ticket.
    pub(super) fn clear(&mut self) {
        *self = Self { blocks: std::mem::take(&mut self.blocks), ..Self::new() };
        self.blocks.clear();
    }
}
