//! Takes the configuration's interfaces; runs the kernel capture as a source until a signal comes.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
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
    let source = listen(config)?;
    let (stop, handle) = stop_on_signals()
        .map_err(|source| PipelineError::Start { what: "the signal handler", source })?;
    let outcome = run_source(config, options, source, &stop);
    handle.close();
    outcome
}

/// Attaches to the configured interfaces and gives up the rights that only this needed.
///
/// # Errors
/// No interface, no permission, or no driver support.
pub(crate) fn listen(config: &Config) -> Result<Box<dyn Source>, PipelineError> {
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
        deduplicate: config.capture.deduplicate,
    };
    let capture = KernelCapture::attach(&capture_options)
        .map_err(|error| PipelineError::Capture(Box::new(error)))?;
    if let Err(error) = drop_privileges() {
        tracing::warn!("the rights that only attaching needed could not be given up: {error}");
    }
    let interfaces = config.capture.interfaces.clone();
    let source = Kernel::new(capture, interfaces).map_err(PipelineError::Capture)?;
    Ok(Box::new(source))
}

/// A message for each SIGINT, SIGTERM or SIGHUP; a hang-up only where this process was not started so as
/// to ignore it, as `nohup` does.
pub(crate) fn stop_on_signals() -> std::io::Result<(Receiver<()>, Handle)> {
    let (tell, stop) = bounded(SIGNALS_MAX);
    Ok((stop, stop_on_signals_with(tell)?))
}

/// The same, to where other messages to stop come from, too.
pub(crate) fn stop_on_signals_with(tell: Sender<()>) -> std::io::Result<Handle> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if !ignores(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    let handle = signals.handle();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _signal in signals.forever() {
            // Two are all that anybody waits for.
            let _enough = tell.try_send(());
        }
    })?;
    Ok(handle)
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
    /// At the first look, once all were attached: what the drivers had counted before is not ours.
    first: Ports,
    /// At the latest.
    latest: Ports,
    stopped: bool,
}

/// The interfaces at one look.
#[derive(Clone, Copy)]
struct Ports {
    at: Instant,
    nic: NicStatistics,
    states: PortStates,
    /// Frames the program had been given just before, and how many came meanwhile.
    frames_seen: u64,
    frames_meanwhile: u64,
}

impl Ports {
    fn look(capture: &mut KernelCapture) -> Result<Self, SourceError> {
        let frames_seen = capture.counters()?.frames_seen;
        let (nic, states) = capture.look_at_ports()?;
        let frames_meanwhile = capture.counters()?.frames_seen - frames_seen;
        Ok(Self { at: Instant::now(), nic, states, frames_seen, frames_meanwhile })
    }
}

impl Kernel {
    fn new(mut capture: KernelCapture, interfaces: Vec<String>) -> Result<Self, SourceError> {
        let first = Ports::look(&mut capture)?;
        Ok(Self { capture, interfaces, first, latest: first, stopped: false })
    }

    /// What the drivers counted since the first look, and the frames that had been seen by then, which they
    /// had received. Attaching takes a while in which frames come that the program is not given.
    fn port_counts(&self, frames_seen: u64) -> (NicStatistics, PortCounts) {
        let Self { first, latest, .. } = self;
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        let received = since(latest.nic.received, first.nic.received);
        let received = received.map(|frames| frames + first.frames_seen);
        let missed = since(latest.nic.missed, first.nic.missed);
        let unclear = since(latest.nic.unclear, first.nic.unclear);
        // Once detached, all that came after the look was on its way when the drivers were read.
        let meanwhile =
            if self.stopped { frames_seen - latest.frames_seen } else { latest.frames_meanwhile };
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        let in_flight =
            |frames: u64| if frames == 0 { 0 } else { frames + POLL_FRAMES * processors };
        let in_flight = in_flight(first.frames_meanwhile) + in_flight(meanwhile);
        let counts = PortCounts {
            nic_frames_seen: received.map(|_| latest.frames_seen),
            nic_frames_in_flight: received.map(|_| in_flight),
            interfaces_up: Some(latest.states.up),
            interfaces_down: Some(latest.states.down),
            interfaces_gone: Some(latest.states.gone),
            interface_losses: Some(latest.states.losses),
        };
        (NicStatistics { received, missed, unclear }, counts)
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
        if !self.stopped && self.latest.at.elapsed() >= PORTS_PERIOD {
            self.latest = Ports::look(&mut self.capture)?;
        }
        let counters = self.capture.counters()?;
        let (nic, port) = self.port_counts(counters.frames_seen);
        Ok(Counts {
            books: Books {
                nic_received: nic.received,
                nic_missed: nic.missed,
                frames_seen: counters.frames_seen,
                packets_ip: counters.packets_ip,
                packets_not_ip: counters.packets_not_ip,
                packets_malformed: counters.packets_malformed,
                packets_duplicate: counters.packets_duplicate,
                ..Books::default()
            },
            not_ip: counters.not_ip,
            malformed: counters.malformed,
            traits: counters.traits,
            port,
        })
    }

    fn log_fill(&self) -> LogFill {
        self.capture.log_fill()
    }

    fn grace(&self) -> Duration {
        self.capture.grace()
    }

    fn ended(&self) -> Option<String> {
        (self.latest.states.gone == self.interfaces.len() as u64)
            .then(|| "no interface is left to listen on; restart the sensor when one is".to_owned())
    }

    fn stop(&mut self) -> Result<(), SourceError> {
        if !self.stopped {
            self.stopped = true;
            let looked = Ports::look(&mut self.capture);
            self.capture.detach()?;
            self.latest = looked?;
        }
        Ok(())
    }
}
