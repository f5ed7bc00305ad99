//! Takes the configuration's interfaces; runs the kernel capture as a source until a signal comes.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use flow::{Books, Observation};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::live::{Counts, PortCounts, Source, SourceError, SourceFacts, run_source};
use super::privileges::drop_privileges;
use super::{Options, Outcome, PipelineError};
use crate::capture::{
    After, AttachMode, CaptureOptions, Folded, KernelCapture, LogFill, NicStatistics, PortStates,
};
use crate::config::{AfterCounting, AttachBy, Config};

/// Signals that are remembered: the first stops the capture, the second ends the wait for the
/// backend.
const SIGNALS_MAX: usize = 2;

/// How often the interfaces are looked at: whether they are there, and what their drivers counted.
const PORTS_PERIOD: Duration = Duration::from_millis(250);
/// A driver adds to its counters once it has handed over this many frames of a queue (`NAPI_POLL_WEIGHT`).
const POLL_FRAMES: u64 = 64;

/// Listens on the configured interfaces until SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// When it cannot begin: no interface, no permission, no driver support, or an output that cannot
/// be opened.
pub fn run(config: &Config, options: &Options) -> Result<Outcome, PipelineError> {
    if config.capture.interfaces.is_empty() {
        return Err(PipelineError::NoInterface);
    }
    let capture_options = CaptureOptions {
        interfaces: config.capture.interfaces.clone(),
        after: match config.capture.after {
            AfterCounting::Auto => After::Auto,
            AfterCounting::Drop => After::Drop,
            AfterCounting::Pass => After::Pass,
        },
        mode: match config.capture.mode {
            AttachBy::Auto => None,
            AttachBy::Native => Some(AttachMode::Native),
            AttachBy::Generic => Some(AttachMode::Generic),
        },
        sizes: config.table_sizes(),
    };
    let capture = KernelCapture::attach(&capture_options)
        .map_err(|error| PipelineError::Capture(Box::new(error)))?;
    if let Err(error) = drop_privileges() {
        tracing::warn!("the rights that only attaching needed could not be given up: {error}");
    }
    let (stop, handle) = stop_on_signals()
        .map_err(|source| PipelineError::Start { what: "the signal handler", source })?;
    let interfaces = config.capture.interfaces.clone();
    let outcome = run_source(config, options, Box::new(Kernel::new(capture, interfaces)), &stop);
    handle.close();
    outcome
}

/// A message for each SIGINT, SIGTERM or SIGHUP; a hang-up only where this process was not started so as
/// to ignore it, as `nohup` does.
pub(super) fn stop_on_signals() -> std::io::Result<(Receiver<()>, Handle)> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !ignores(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    let handle = signals.handle();
    let (tell, stop) = bounded(SIGNALS_MAX);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _signal in signals.forever() {
            // Two are all that anybody waits for.
            let _enough = tell.try_send(());
        }
    })?;
    Ok((stop, handle))
}

/// Whether this process ignores the signal.
fn ignores(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The kernel capture as a source.
struct Kernel {
    capture: KernelCapture,
    interfaces: Vec<String>,
    ports: Option<Ports>,
    stopped: bool,
}

/// The interfaces at the latest look.
#[derive(Clone, Copy)]
struct Ports {
    at: Instant,
    nic: NicStatistics,
    states: PortStates,
    /// Frames the program had been given just before, and how many came meanwhile.
    frames_seen: u64,
    frames_meanwhile: u64,
}

impl Kernel {
    const fn new(capture: KernelCapture, interfaces: Vec<String>) -> Self {
        Self { capture, interfaces, ports: None, stopped: false }
    }

    fn look_at_ports(&mut self) -> Result<Ports, SourceError> {
        let before = self.capture.counters()?.frames_seen;
        let (nic, states) = self.capture.look_at_ports()?;
        let after = self.capture.counters()?.frames_seen;
        let ports = Ports {
            at: Instant::now(),
            nic,
            states,
            frames_seen: before,
            frames_meanwhile: after - before,
        };
        self.ports = Some(ports);
        Ok(ports)
    }
}

impl Source for Kernel {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            interfaces: self.interfaces.clone(),
            xdp_mode: Some(self.capture.mode().name()),
            object_sha256: self.capture.object_sha256(),
        }
    }

    fn drain(&mut self, visit: &mut dyn FnMut(Observation)) -> Result<Vec<Folded>, SourceError> {
        Ok(self.capture.drain(visit)?.folded)
    }

    fn counts(&mut self) -> Result<Counts, SourceError> {
        let ports = match self.ports {
            Some(ports) if self.stopped || ports.at.elapsed() < PORTS_PERIOD => ports,
            _ => self.look_at_ports()?,
        };
        let counters = self.capture.counters()?;
        // Once detached, all that came after the look was on its way when the drivers were read.
        let meanwhile = if self.stopped {
            counters.frames_seen - ports.frames_seen
        } else {
            ports.frames_meanwhile
        };
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        let in_flight = if meanwhile == 0 { 0 } else { meanwhile + POLL_FRAMES * processors };
        Ok(Counts {
            books: Books {
                nic_received: ports.nic.received,
                nic_missed: ports.nic.missed,
                frames_seen: counters.frames_seen,
                packets_ip: counters.packets_ip,
                packets_not_ip: counters.packets_not_ip,
                packets_malformed: counters.packets_malformed,
                ..Books::default()
            },
            not_ip: counters.not_ip,
            malformed: counters.malformed,
            port: PortCounts {
                nic_frames_seen: ports.nic.received.map(|_| ports.frames_seen),
                nic_frames_in_flight: ports.nic.received.map(|_| in_flight),
                interfaces_up: Some(ports.states.up),
                interfaces_down: Some(ports.states.down),
                interfaces_gone: Some(ports.states.gone),
                interface_losses: Some(ports.states.losses),
            },
        })
    }

    fn log_fill(&self) -> LogFill {
        self.capture.log_fill()
    }

    fn grace(&self) -> Duration {
        self.capture.grace()
    }

    fn ended(&self) -> Option<String> {
        let gone = self.ports?.states.gone;
        (gone == self.interfaces.len() as u64)
            .then(|| "no interface is left to listen on; restart the sensor when one is".to_owned())
    }

    fn stop(&mut self) -> Result<(), SourceError> {
        if !self.stopped {
            self.stopped = true;
            let looked = self.look_at_ports();
            self.capture.detach()?;
            looked?;
        }
        Ok(())
    }
}
