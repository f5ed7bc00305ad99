//! What is counted of IP packets beside their flows: what carried them, how whole they were. The same for the kernel's
//! counters and for a replay.

use flow::Notes;
use flow::kernel::CARRIERS;

/// Counts of IP packets; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketTraits {
    /// Shorter than their header says: cut on the way to the port, or by whoever copied them.
    pub cut: u64,
    /// By what else is to be told of them, in the order of [`Notes::NAMES`].
    pub noted: [u64; Notes::NAMES.len()],
    /// By what carried them, named by [`flow::kernel::carrier_name`]; one in several counts once for each.
    pub carried: [u64; CARRIERS],
    /// Fragments, in the order of [`FRAGMENT_NAMES`].
    pub fragments: [u64; 3],
}

/// Names of [`PacketTraits::fragments`]: first ones, later ones that got the ports of their first one, later ones
/// whose ports are unknown.
pub const FRAGMENT_NAMES: [&str; 3] = ["first", "later_with_ports", "later_without_ports"];
