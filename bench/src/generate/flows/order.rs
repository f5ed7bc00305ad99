//! In: how many packets, and a seed. Out: each of their numbers once, in an order that looks drawn by lot. Keeps
//! nothing a packet.

/// Rounds of mixing; three leave no pattern that the eye finds.
const ROUNDS: usize = 3;

/// The numbers below `packets`, shuffled.
#[derive(Clone, Debug)]
pub(super) struct Order {
    packets: u64,
    next: u64,
    /// One less than the smallest power of two that is no less than `packets`.
    mask: u64,
    shift: u32,
    /// Odd factors.
    factors: [u64; ROUNDS],
}

impl Order {
    pub(super) fn new(packets: u32, seed: u64) -> Self {
        let size = u64::from(packets).next_power_of_two();
        let factor = |round: u64| mixed(seed ^ mixed(round + 1)) | 1;
        Self {
            packets: u64::from(packets),
            next: 0,
            mask: size - 1,
            shift: size.trailing_zeros().div_ceil(2),
            factors: [factor(0), factor(1), factor(2)],
        }
    }

    /// Another number not above the mask, for each number a different one: xor with what is above it, odd factors and
    /// sums can all be undone.
    fn scrambled(&self, number: u64) -> u64 {
        self.factors.iter().fold(number, |x, factor| {
            let x = x ^ x >> self.shift;
            let x = x.wrapping_mul(*factor).wrapping_add(*factor >> 32) & self.mask;
            x ^ x >> self.shift
        })
    }
}

impl Iterator for Order {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while self.next <= self.mask {
            let number = self.scrambled(self.next);
            self.next += 1;
            // At most every second one is too large.
            if number < self.packets {
                return u32::try_from(number).ok();
            }
        }
        None
    }
}

/// A number in which every bit of the one given matters for every bit (the finalizer of `SplitMix64`).
pub(super) fn mixed(number: u64) -> u64 {
    let x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
