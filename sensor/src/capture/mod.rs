//! The kernel side: in: network interfaces; out: the observations that the XDP program counted on them, and the
//! kernel's counters.
//!
//! Loads the committed object, attaches it through links that the kernel takes back when this process ends, flips
//! epochs and reads what they left. It has no way to read a frame, and never sends one.

mod clock;
mod epochs;
mod error;
mod inspect;
mod interface;
mod memory;
mod object;
mod promiscuous;
mod test_run;
mod translated;
mod watch;

use std::fmt;
use std::time::Duration;

use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use flow::Observation;
use rustix::io::Errno;
use tracing::{info, warn};

pub use epochs::{DrainTotals, Folded, KernelCounters, LogFill, TableSizes};
pub use error::CaptureError;
pub use inspect::KernelInspection;
pub(crate) use inspect::{Inspected, Inspection};
pub use interface::{
    Channels, InterfaceFacts, Interrupt, MachineFacts, NicStatistics, Offloads, Rings, Spread,
    XdpAttached,
};
pub use object::ObjectError;
pub use test_run::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, Feeder, KernelTestRun};
pub use translated::Calls;
pub use watch::PortStates;

use epochs::Epochs;
use error::system_error;
use inspect::copy_ticks;
use interface::{Interface, Interfaces, Use};
use promiscuous::Promiscuous;
use watch::Watch;

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the network driver, before any memory is allocated for the frame.
    Native,
    /// In the network stack: every driver can, at a fraction of the speed.
    Generic,
}

impl AttachMode {
    /// The name that logs and summaries use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn flag(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What happens to a frame after it was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// Drop on an interface that only listens, pass on any that the machine uses: one with an address (IPv6
    /// link-local aside), a port of a bridge or bond, or one with VLANs, macvlans or tunnels stacked on it.
    #[default]
    Auto,
    /// Drop: for a mirror port, where passing would only cost time.
    Drop,
    /// Pass to the network stack.
    Pass,
}

/// What to attach to, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureOptions {
    /// Names of the interfaces; several are one sensor, as the two sides of an optical tap.
    pub interfaces: Vec<String>,
    /// What happens to a frame after it was counted.
    pub after: After,
    /// `None`: native, and generic with a warning where the driver cannot.
    pub mode: Option<AttachMode>,
    /// Sizes of the kernel's tables.
    pub sizes: TableSizes,
    /// Packets that the mirror delivers again within a moment are not counted in flows.
    pub deduplicate: bool,
}

/// The programs of a loaded object.
trait Programs {
    /// Loads a program into the kernel, which verifies it.
    fn program(&mut self, name: &'static str) -> Result<&mut Xdp, CaptureError>;
}

/// One interface with the program on it.
struct Attached {
    index: u32,
    mode: AttachMode,
    /// What the driver had counted once it was attached.
    before: NicStatistics,
    _listening: Listening,
}

/// Detaches the program and lets the port be as it was when it is dropped, and when the process ends.
struct Listening {
    _link: FdLink,
    /// `None` where this process may not ask for it.
    _promiscuous: Option<Promiscuous>,
}

/// The XDP program at work on one or more interfaces. Dropping it detaches; so does the end of the process,
/// however it comes.
pub struct KernelCapture {
    epochs: Epochs,
    interfaces: Interfaces,
    attached: Vec<Attached>,
    statistics: NicStatistics,
    watch: Watch,
}

impl KernelCapture {
    /// Attaches to every interface, or to none.
    ///
    /// # Errors
    ///
    /// [`CaptureError`] names the interface and what the kernel said; its variants say what to do.
    pub fn attach(options: &CaptureOptions) -> Result<Self, CaptureError> {
        if options.interfaces.is_empty() {
            return Err(CaptureError::NoInterface);
        }
        let interfaces = Interfaces::open().map_err(to_interfaces)?;
        let all = interfaces.list().map_err(to_interfaces)?;
        let mut chosen: Vec<&Interface> = Vec::with_capacity(options.interfaces.len());
        for name in &options.interfaces {
            let Some(interface) = all.iter().find(|interface| interface.name == *name) else {
                return Err(CaptureError::UnknownInterface { name: name.clone() });
            };
            if chosen.iter().any(|other| other.index == interface.index) {
                return Err(CaptureError::InterfaceTwice { name: name.clone() });
            }
            chosen.push(interface);
        }
        let indices: Vec<u32> = chosen.iter().map(|interface| interface.index).collect();
        let copies = if options.deduplicate { Some(copy_ticks()?) } else { None };
        let mut epochs = Epochs::load(options.sizes, &indices, copies)?;
        let mut attached: Vec<Attached> = Vec::with_capacity(chosen.len());
        let mut watch = Watch::default();
        for interface in chosen {
            let used = interfaces.used_for(interface, &all).map_err(to_interfaces)?;
            let names = match (drops(&interface.name, options.after, used), options.deduplicate) {
                (true, false) => ["count_drop", "count_drop_frags"],
                (false, false) => ["count_pass", "count_pass_frags"],
                (true, true) => ["deduplicate_drop", "deduplicate_drop_frags"],
                (false, true) => ["deduplicate_pass", "deduplicate_pass_frags"],
            };
            let (mode, listening) = attach_interface(&mut epochs, interface, names, options.mode)?;
            attached.push(Attached {
                index: interface.index,
                mode,
                before: NicStatistics::default(),
                _listening: listening,
            });
            watch.add(interface);
        }
        // Attaching takes a while: what was counted meanwhile is not ours either.
        let all = interfaces.list().map_err(to_interfaces)?;
        for one in &mut attached {
            one.before = statistics_of(&interfaces, &all, one.index);
        }
        info!(tick_us = epochs.tick_ns() / 1000, "time stamps are exact to one tick of the kernel");
        let statistics = NicStatistics::default();
        Ok(Self { epochs, interfaces, attached, statistics, watch })
    }

    /// Where the program runs; generic if it does on any of the interfaces.
    #[must_use]
    pub fn mode(&self) -> AttachMode {
        let any_generic = self.attached.iter().any(|one| one.mode == AttachMode::Generic);
        if any_generic { AttachMode::Generic } else { AttachMode::Native }
    }

    /// SHA-256 of the loaded object.
    #[must_use]
    pub fn object_sha256(&self) -> [u8; 32] {
        object::sha256()
    }

    /// Flips the epoch, waits until no program runs in the old one, gives every slot of it. The waiting is an RCU
    /// grace period, some milliseconds; frames go on being counted meanwhile.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Barrier`] when the kernel refuses to wait.
    pub fn drain(
        &mut self,
        visit: &mut dyn FnMut(Observation),
    ) -> Result<DrainTotals, CaptureError> {
        self.epochs.drain(visit)
    }

    /// The kernel's counters. Read them after a drain: what is in `packets_ip` but was not drained yet is still
    /// in the cache.
    ///
    /// # Errors
    ///
    /// None today: the counters are plain memory. The signature leaves room for a kernel that has to be asked.
    pub fn counters(&self) -> Result<KernelCounters, CaptureError> {
        Ok(self.epochs.counters())
    }

    /// What the drivers of the interfaces counted since the program was attached, their sum. After
    /// [`KernelCapture::detach`]: up to then.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Interfaces`] when the kernel does not answer.
    pub fn nic_statistics(&self) -> Result<NicStatistics, CaptureError> {
        if self.attached.is_empty() {
            return Ok(self.statistics);
        }
        Ok(self.statistics_in(&self.interfaces.list().map_err(to_interfaces)?))
    }

    /// The same, and whether the interfaces are still there and up; says so when that has changed.
    ///
    /// # Errors
    ///
    /// As [`KernelCapture::nic_statistics`].
    pub fn look_at_ports(&mut self) -> Result<(NicStatistics, PortStates), CaptureError> {
        let all = self.interfaces.list().map_err(to_interfaces)?;
        let ports = self.watch.handle(&all);
        let attached = !self.attached.is_empty();
        Ok((if attached { self.statistics_in(&all) } else { self.statistics }, ports))
    }

    fn statistics_in(&self, all: &[Interface]) -> NicStatistics {
        let sums = self
            .attached
            .iter()
            .map(|one| statistics_of(&self.interfaces, all, one.index).since(one.before));
        sums.reduce(NicStatistics::plus).unwrap_or_default()
    }

    /// How full the fullest CPU's log of the running epoch is. Drain early when it fills: packets of new flows are
    /// folded once it is full.
    #[must_use]
    pub fn log_fill(&self) -> LogFill {
        self.epochs.log_fill()
    }

    /// How long the kernel took to end the last epoch: a flip cannot be faster. Zero before the first drain.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.epochs.grace()
    }

    /// How long one tick of the stamps' clock lasts, nanoseconds: their precision.
    #[must_use]
    pub fn tick_ns(&self) -> u64 {
        self.epochs.tick_ns()
    }

    /// Detaches from every interface and keeps the tables, so that a last drain gives what is left.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Interfaces`] when the kernel does not answer; it has detached all the same.
    pub fn detach(&mut self) -> Result<(), CaptureError> {
        let statistics = self.nic_statistics();
        self.attached.clear();
        self.statistics = statistics?;
        Ok(())
    }
}

/// What card and driver of an interface have counted; of one that has gone that is unknown, not 0.
fn statistics_of(interfaces: &Interfaces, all: &[Interface], index: u32) -> NicStatistics {
    let found = all.iter().find(|interface| interface.index == index);
    found.map_or(NicStatistics::default(), |found| interfaces.statistics(found))
}

fn to_interfaces(error: std::io::Error) -> CaptureError {
    CaptureError::Interfaces(error)
}

/// Whether frames of this interface are dropped after counting; says why.
fn drops(name: &str, after: After, used: Option<Use>) -> bool {
    match (after, used) {
        (After::Drop | After::Auto, None) => {
            info!(interface = name, "listens only: frames are dropped after counting");
            true
        }
        (After::Drop, Some(used)) => {
            warn!(
                interface = name,
                ?used,
                "frames are dropped although this machine uses the interface"
            );
            true
        }
        (After::Auto | After::Pass, used) => {
            info!(interface = name, ?used, "frames are passed on after counting");
            false
        }
    }
}

/// Facts about the interface of this name, and the machine.
pub(crate) fn interface_facts(name: &str) -> Result<InterfaceFacts, CaptureError> {
    let facts = Interfaces::open().and_then(|interfaces| interfaces.facts(name));
    facts
        .map_err(to_interfaces)?
        .ok_or_else(|| CaptureError::UnknownInterface { name: name.to_owned() })
}

/// Attaches a program and makes the port promiscuous.
fn attach_interface(
    programs: &mut impl Programs,
    interface: &Interface,
    names: [&'static str; 2],
    mode: Option<AttachMode>,
) -> Result<(AttachMode, Listening), CaptureError> {
    let (mode, link) = attach_either(programs, interface, names, mode)?;
    let promiscuous = Promiscuous::enter(interface.index).inspect_err(|error| {
        let name = &interface.name;
        info!(
            interface = name,
            %error,
            "promiscuity is left as it is (CAP_NET_RAW is needed to change it); `ip link set dev {name} promisc on` \
             makes a card take frames for others"
        );
    });
    Ok((mode, Listening { _link: link, _promiscuous: promiscuous.ok() }))
}

/// Attaches the first program, or the second where the driver wants one that takes frames in several buffers.
fn attach_either(
    programs: &mut impl Programs,
    interface: &Interface,
    [whole, in_parts]: [&'static str; 2],
    mode: Option<AttachMode>,
) -> Result<(AttachMode, FdLink), CaptureError> {
    let native = match mode {
        Some(AttachMode::Generic) => None,
        // Jumbo frames arrive in several buffers; a driver set up for them wants the program that knows it.
        None | Some(AttachMode::Native) => {
            Some(attach_program(programs, interface, whole, AttachMode::Native).or_else(|error| {
                if is_final(&error) {
                    return Err(error);
                }
                // If that fails too, the first reason is the telling one.
                attach_program(programs, interface, in_parts, AttachMode::Native).or(Err(error))
            }))
        }
    };
    match native {
        Some(Ok(attached)) => Ok(attached),
        Some(Err(error)) if mode.is_some() || is_final(&error) => Err(error),
        Some(Err(error)) => {
            warn!(
                interface = interface.name,
                error = describe(&error),
                "no native XDP on this interface: generic mode is slower and loses frames at high rates"
            );
            attach_program(programs, interface, whole, AttachMode::Generic)
        }
        None => attach_program(programs, interface, whole, AttachMode::Generic),
    }
}

/// Whether another mode would fail for the same reason.
const fn is_final(error: &CaptureError) -> bool {
    !matches!(error, CaptureError::Attach { .. } | CaptureError::NoLink { .. })
}

pub(crate) fn describe(error: &CaptureError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn attach_program(
    programs: &mut impl Programs,
    interface: &Interface,
    program: &'static str,
    mode: AttachMode,
) -> Result<(AttachMode, FdLink), CaptureError> {
    let program = programs.program(program)?;
    let failed = |error: ProgramError| to_attach(&interface.name, mode, error);
    let identifier = program.attach_to_if_index(interface.index, mode.flag()).map_err(failed)?;
    let link = program.take_link(identifier).map_err(failed)?;
    // Where the kernel has no XDP links, aya attaches the old way, which outlives this process.
    let Ok(link) = FdLink::try_from(link) else {
        return Err(CaptureError::NoLink { name: interface.name.clone(), mode: mode.name() });
    };
    Ok((mode, link))
}

fn to_attach(name: &str, mode: AttachMode, error: ProgramError) -> CaptureError {
    let name = name.to_owned();
    let number = system_error(&error).map(Errno::from_raw_os_error);
    match number {
        Some(Errno::BUSY | Errno::EXIST) => {
            CaptureError::AlreadyAttached { name, mode: mode.name() }
        }
        Some(errno @ (Errno::PERM | Errno::ACCESS)) => CaptureError::NotPermitted {
            operation: "attaching an XDP program",
            source: errno.into(),
        },
        _ => CaptureError::Attach { name, mode: mode.name(), source: Box::new(error) },
    }
}

#[cfg(test)]
mod tests;
