//! What card and driver counted: takes the kernel's generic counters of an interface and the driver's own; gives what
//! was received and what was lost before the XDP program. Where the counters do not tell, the loss is unknown.

/// What card and driver counted since the interface came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicStatistics {
    /// Frames received (`rx_packets`).
    pub received: Option<u64>,
    /// Frames that reached the card and were lost before the XDP program, for want of room.
    pub missed: Option<u64>,
    /// Frames that the kernel counts as dropped (`rx_dropped`) and of which it is not known whether the XDP
    /// program saw them: most drivers count here what they lost before it, the network stack what it had no
    /// use for behind it.
    pub unclear: Option<u64>,
}

impl NicStatistics {
    /// What was counted after `earlier`; unknown where either is. The loss is unknown too when there are unclear
    /// drops: they may be part of it.
    pub(in crate::capture) fn since(self, earlier: Self) -> Self {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        let unclear = difference(self.unclear, earlier.unclear);
        let missed = difference(self.missed, earlier.missed);
        Self {
            received: difference(self.received, earlier.received),
            missed: missed.filter(|_| unclear == Some(0)),
            unclear,
        }
    }

    /// The sum over two interfaces; unknown where one is.
    pub(in crate::capture) fn plus(self, other: Self) -> Self {
        let sum = |one: Option<u64>, two: Option<u64>| Some(one? + two?);
        Self {
            received: sum(self.received, other.received),
            missed: sum(self.missed, other.missed),
            unclear: sum(self.unclear, other.unclear),
        }
    }

    /// From the generic counters, made clearer by the driver's own where it is known what they mean.
    pub(super) fn new(generic: Generic, driver: Option<&str>, own: &[(String, u64)]) -> Self {
        let mut statistics =
            Self { received: generic.received, missed: generic.missed, unclear: generic.dropped };
        let Some(driver) = DRIVERS.iter().find(|known| Some(known.name) == driver) else {
            return statistics;
        };
        let sum = |patterns: &[&str]| -> u64 {
            let named = own.iter().filter(|(name, _)| patterns.iter().any(|one| fits(name, one)));
            named.map(|(_, value)| *value).sum()
        };
        let dropped_before = sum(driver.dropped);
        let by_program = sum(driver.dropped_by_program);
        let lost = sum(driver.missed) + dropped_before.saturating_sub(by_program);
        statistics.missed = statistics.missed.map(|missed| missed + lost);
        statistics.unclear =
            statistics.unclear.map(|unclear| unclear.saturating_sub(dropped_before));
        statistics
    }
}

/// The counters that every interface has (`struct rtnl_link_stats64`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Generic {
    pub(super) received: Option<u64>,
    /// `rx_missed_errors`: the card had no room.
    pub(super) missed: Option<u64>,
    /// `rx_dropped`.
    pub(super) dropped: Option<u64>,
}

/// A driver whose own counters say more than the generic ones. `#` in a name stands for a queue's number.
struct Driver {
    name: &'static str,
    /// Losses that no generic counter includes.
    missed: &'static [&'static str],
    /// Losses before the XDP program that `rx_dropped` includes.
    dropped: &'static [&'static str],
    /// What `dropped` includes although the XDP program itself dropped it.
    dropped_by_program: &'static [&'static str],
}

const DRIVERS: [Driver; 4] = [
    // The generic counter has what the ring had no room for; this one what the port's buffer had none for.
    Driver {
        name: "mlx5_core",
        missed: &["rx_discards_phy"],
        dropped: &[],
        dropped_by_program: &[],
    },
    // Frames for a queue without free descriptors; the generic counter has those for a full packet buffer.
    Driver {
        name: "ixgbe",
        missed: &["rx_no_dma_resources"],
        dropped: &[],
        dropped_by_program: &[],
    },
    Driver {
        name: "virtio_net",
        missed: &[],
        dropped: &["rx#_drops", "rx_queue_#_drops"],
        dropped_by_program: &["rx#_xdp_drops", "rx_queue_#_xdp_drops"],
    },
    Driver { name: "veth", missed: &[], dropped: &["rx_queue_#_drops"], dropped_by_program: &[] },
];

/// Whether this driver's own counters say more than the generic ones.
pub(super) fn is_known(driver: &str) -> bool {
    DRIVERS.iter().any(|known| known.name == driver)
}

/// Whether a counter's name is this one, with any number in place of `#`.
fn fits(name: &str, pattern: &str) -> bool {
    let Some((front, back)) = pattern.split_once('#') else { return name == pattern };
    let number = name.strip_prefix(front).and_then(|rest| rest.strip_suffix(back));
    number.is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}
