//! Takes the configuration's interfaces; runs the kernel capture as a source until a signal comes.

use std::thread;

use crossbeam_channel::{Receiver, bounded};
use flow::{Books, Observation};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::live::{Counts, Source, SourceError, SourceFacts, run_source};
use super::privileges::drop_privileges;
use super::{Options, Outcome, PipelineError};
use crate::capture::{After, AttachMode, CaptureOptions, KernelCapture, TableSizes};
use crate::config::{AfterCounting, AttachBy, Config};

/// Signals that are remembered: the first stops the capture, the second ends the wait for the
/// backend.
const SIGNALS_MAX: usize = 2;

/// Listens on the configured interfaces until SIGINT or SIGTERM.
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
        sizes: TableSizes::default(),
    };
    let capture = KernelCapture::attach(&capture_options)
        .map_err(|error| PipelineError::Capture(Box::new(error)))?;
    if let Err(error) = drop_privileges() {
        tracing::warn!("the rights that only attaching needed could not be given up: {error}");
    }
    let (stop, handle) = stop_on_signals()
        .map_err(|source| PipelineError::Start { what: "the signal handler", source })?;
    let interfaces = config.capture.interfaces.clone();
    let outcome = run_source(config, options, Box::new(Kernel { capture, interfaces }), &stop);
    handle.close();
    outcome
}

/// A message for each SIGINT or SIGTERM.
pub(crate) fn stop_on_signals() -> std::io::Result<(Receiver<()>, Handle)> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
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

/// The kernel capture as a source.
struct Kernel {
    capture: KernelCapture,
    interfaces: Vec<String>,
}

impl Source for Kernel {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            interfaces: self.interfaces.clone(),
            xdp_mode: Some(self.capture.mode().name()),
            object_sha256: self.capture.object_sha256(),
        }
    }

    fn drain(&mut self, visit: &mut dyn FnMut(Observation)) -> Result<(), SourceError> {
        self.capture.drain(visit)?;
        Ok(())
    }

    fn counts(&mut self) -> Result<Counts, SourceError> {
        let counters = self.capture.counters()?;
        let nic = self.capture.nic_statistics()?;
        Ok(Counts {
            books: Books {
                nic_received: nic.received,
                nic_missed: nic.missed,
                frames_seen: counters.frames_seen,
                packets_ip: counters.packets_ip,
                packets_not_ip: counters.packets_not_ip,
                packets_malformed: counters.packets_malformed,
                packets_folded: counters.packets_folded,
                ..Books::default()
            },
            not_ip: counters.not_ip,
            malformed: counters.malformed,
        })
    }

    fn fill_permille(&self) -> u32 {
        self.capture.log_fill_permille()
    }

    fn stop(&mut self) -> Result<(), SourceError> {
        self.capture.detach()?;
        Ok(())
    }
}
