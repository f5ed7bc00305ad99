//! What can go wrong between the sensor and the kernel, each with what to do about it.

use std::io;

use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

use super::object::ObjectError;

/// Why the kernel side could not be set up or read.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Name at least one interface.
    #[error("no interface given")]
    NoInterface,
    /// `ip link` lists the interfaces of this network namespace.
    #[error("no network interface is called `{name}`")]
    UnknownInterface {
        /// The name that was asked for.
        name: String,
    },
    /// Name each interface once.
    #[error("interface `{name}` is given twice")]
    InterfaceTwice {
        /// The name that was given twice.
        name: String,
    },
    /// Run as root, or give the program the named capabilities (the shipped systemd unit does).
    #[error(
        "the kernel does not permit {operation}: CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed"
    )]
    NotPermitted {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Run a newer kernel.
    #[error("this kernel is {found}, and the sensor needs at least {needed}")]
    KernelTooOld {
        /// The running kernel.
        found: String,
        /// The oldest that works.
        needed: &'static str,
    },
    /// Detach the other program: `ip link set dev NAME xdp off` (`xdpgeneric off`), or stop the other sensor.
    #[error("interface `{name}` already has an XDP program in {mode} mode")]
    AlreadyAttached {
        /// The interface.
        name: String,
        /// The mode that was tried.
        mode: &'static str,
    },
    /// Try generic mode, or another driver.
    #[error("cannot attach to interface `{name}` in {mode} mode")]
    Attach {
        /// The interface.
        name: String,
        /// The mode that was tried.
        mode: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// The attachment would outlive a crash of the sensor, so it was taken back. Run a newer kernel or driver.
    #[error("interface `{name}` takes no XDP link in {mode} mode")]
    NoLink {
        /// The interface.
        name: String,
        /// The mode that was tried.
        mode: &'static str,
    },
    /// The installation is damaged: install it again.
    #[error("the XDP object is not what the sensor may load")]
    Object(#[from] ObjectError),
    /// A bug, or a kernel that lacks something: the source has the kernel's words.
    #[error("the kernel did not take the XDP object")]
    Load(#[source] Box<aya::EbpfError>),
    /// A bug, or a kernel that lacks something: the source has the verifier's words.
    #[error("the kernel did not take program `{program}`")]
    Program {
        /// The program within the object.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// A bug: object and sensor disagree about a table.
    #[error("table `{table}` is not as the sensor expects it")]
    Table {
        /// The table within the object.
        table: &'static str,
        /// What aya said, where it was asked.
        #[source]
        source: Option<Box<MapError>>,
    },
    /// Fewer CPUs or smaller tables; the bound is in the option's documentation.
    #[error("{what} is {value}, allowed is {least} to {most}")]
    Size {
        /// Which size.
        what: &'static str,
        /// The value that was given.
        value: u64,
        /// Smallest value allowed.
        least: u64,
        /// Largest value allowed.
        most: u64,
    },
    /// More memory, or smaller tables.
    #[error("cannot map {bytes} bytes of table `{table}`")]
    Mapping {
        /// The table within the object.
        table: &'static str,
        /// Its size.
        bytes: usize,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel runs with `nohz_full` CPUs, or without `membarrier`; boot it without.
    #[error(
        "the kernel has no MEMBARRIER_CMD_GLOBAL, by which the sensor waits for an epoch's end"
    )]
    NoBarrier,
    /// The system call that waits for the end of an epoch failed.
    #[error("cannot wait for the end of the epoch")]
    Barrier(#[source] io::Error),
    /// The kernel's tick rate could not be recognised. Try again when the machine is less busy.
    #[error("the kernel's tick lasts {measured_ns} ns, which is no known tick rate")]
    TickRate {
        /// The length of a tick as measured; 0 when the counter was never seen to step.
        measured_ns: u64,
    },
    /// `BPF_PROG_TEST_RUN` failed.
    #[error("a test run of program `{program}` with a frame of {bytes} bytes failed")]
    TestRun {
        /// The program within the object.
        program: &'static str,
        /// Length of the frame.
        bytes: usize,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// Run as root; where the kernel hides translated programs, there is nothing to count.
    #[error("cannot read how the kernel translated program `{program}`")]
    Translated {
        /// The program within the object.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Asking the kernel about its interfaces failed.
    #[error("cannot ask the kernel about its network interfaces")]
    Interfaces(#[source] io::Error),
    /// Asking the kernel about its CPUs failed.
    #[error("cannot read which CPUs there are")]
    Cpus(#[source] io::Error),
}

/// The system's error number inside aya's error, where there is one.
pub(super) fn system_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(call) => call.io_error.raw_os_error(),
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::XdpError(aya::programs::XdpError::NetlinkError(netlink)) => {
            netlink.raw_os_error()
        }
        _ => None,
    }
}
