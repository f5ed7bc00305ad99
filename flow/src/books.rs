//! The counts that must balance, from the port to the sealed record.

#[cfg(not(target_arch = "bpf"))]
use serde::{Deserialize, Serialize};

/// Totals since the sensor started; each only grows. `None` means the number is not known, which is not 0.
///
/// ```text
/// nic_received    = frames_seen + nic_missed                          (where the driver tells)
/// frames_seen     = packets_ip + packets_not_ip + packets_malformed
/// packets_ip      = packets_in_flows + packets_folded + packets_duplicate + packets_in_cache
///
/// packets in all records = packets_in_flows + packets_folded          (once the sensor has finished)
/// records_out            = records_sealed + records_kept_internal + records_kept_trusted
///                          + those that wait to be sealed or were lost
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
pub struct Books {
    /// Frames the network card received, as its driver counts them.
    pub nic_received: Option<u64>,
    /// Frames the network card received and dropped before the XDP program.
    pub nic_missed: Option<u64>,
    /// Frames the parser was given.
    pub frames_seen: u64,
    /// Frames with a usable IP header.
    pub packets_ip: u64,
    /// Frames that carry something other than IP.
    pub packets_not_ip: u64,
    /// Frames that say they carry IP but whose headers are cut or contradict themselves.
    pub packets_malformed: u64,
    /// IP packets that are in the record of their own flow, written or open.
    pub packets_in_flows: u64,
    /// IP packets that are in folded totals (see [`crate::Record::folded`]), written or open, because a table
    /// of the kernel was full.
    pub packets_folded: u64,
    /// IP packets that were removed as copies of one a moment before; 0 unless that was asked for, and of sensors that
    /// could not.
    #[cfg_attr(not(target_arch = "bpf"), serde(default))]
    pub packets_duplicate: u64,
    /// Records handed to the outputs.
    pub records_out: u64,
    /// Records sealed into batches for the backend.
    pub records_sealed: u64,
    /// Sealed records that were evicted from a full spool before the backend had them.
    pub records_evicted: u64,
    /// Records that were not sent because both ends are in the organisation's own network; 0 also of sensors that sent
    /// everything.
    #[cfg_attr(not(target_arch = "bpf"), serde(default))]
    pub records_kept_internal: u64,
    /// Records that were not sent because an end is in a network that was named as trusted; likewise.
    #[cfg_attr(not(target_arch = "bpf"), serde(default))]
    pub records_kept_trusted: u64,
    /// Packets in the records that were kept as internal.
    #[cfg_attr(not(target_arch = "bpf"), serde(default))]
    pub packets_kept_internal: u64,
    /// Packets in the records that were kept as trusted.
    #[cfg_attr(not(target_arch = "bpf"), serde(default))]
    pub packets_kept_trusted: u64,
}

impl Books {
    /// Packets that the parser accepted, that are no copies, and that user space has neither in a flow nor in folded
    /// totals: what the kernel's tables still hold. 0 once everything has been drained.
    #[must_use]
    pub const fn packets_in_cache(&self) -> u64 {
        let elsewhere = self.packets_in_flows + self.packets_folded + self.packets_duplicate;
        self.packets_ip.saturating_sub(elsewhere)
    }

    /// Whether every frame is accounted for, with nothing left in the cache.
    #[must_use]
    pub const fn balanced(&self) -> bool {
        self.frames_seen == self.packets_ip + self.packets_not_ip + self.packets_malformed
            && self.packets_ip
                == self.packets_in_flows + self.packets_folded + self.packets_duplicate
    }
}
