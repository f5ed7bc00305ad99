//! Takes an interface; asks, listens, judges. What is asked and counted is decided elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use indicatif::{ProgressBar, ProgressStyle};

use super::checks::{self, NotRun, Port};
use super::finding::number;
use super::{DoctorError, DoctorOptions, Report, Traffic};
use crate::capture::{
    AttachMode, CaptureError, Inspection, MachineFacts, NicStatistics, describe, interface_facts,
};
use crate::pipeline::stop_on_signals;

/// Between two looks at the counts.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Examines an interface.
///
/// # Errors
/// When there is no such interface, or this process may not look at it.
pub fn doctor_interface(options: &DoctorOptions) -> Result<Report, DoctorError> {
    let facts = interface_facts(&options.interface)?;
    let machine = MachineFacts::read();
    let mut mode = None;
    let mut not_run = None;
    let mut traffic = None;
    let mut nic = NicStatistics::default();
    if !facts.up || facts.carrier == Some(false) {
        // Nothing would come.
        not_run = Some(NotRun::Down);
    } else {
        match Inspection::attach(&facts, options.after, options.mode) {
            Ok(inspection) => {
                mode = Some(inspection.mode());
                let duration = listen(&inspection, options)?;
                let (inspected, counted) = inspection.finish()?;
                nic = counted;
                let duration_ms = u64::try_from(duration.as_millis()).ok();
                traffic = Some(Traffic { duration_ms, ..Traffic::new(&inspected) });
            }
            Err(error) => not_run = Some(why_not(error)?),
        }
    }
    let port = Port {
        facts: &facts,
        machine: &machine,
        mode,
        not_run: not_run.as_ref(),
        traffic: traffic.as_ref(),
        nic,
    };
    let report = Report::new(options.interface.clone(), checks::port(&port));
    Ok(Report {
        mode: mode.map(AttachMode::name),
        nic: traffic.is_some().then(|| nic.into()),
        interface: Some(facts),
        machine: Some(machine),
        traffic,
        ..report
    })
}

/// What stands in the way and is itself a finding; the rest are errors.
fn why_not(error: CaptureError) -> Result<NotRun, CaptureError> {
    Ok(match &error {
        CaptureError::AlreadyAttached { .. } => NotRun::Occupied,
        CaptureError::KernelTooOld { .. }
        | CaptureError::NoBarrier
        | CaptureError::Load(_)
        | CaptureError::Program { .. }
        | CaptureError::NoLink { .. } => NotRun::Kernel(clipped(&describe(&error))),
        CaptureError::Attach { .. } => NotRun::Refused(clipped(&describe(&error))),
        _ => return Err(error),
    })
}

/// The beginning and the end of what the kernel says: in between the verifier lists the program.
fn clipped(said: &str) -> String {
    const KEPT: usize = 200;
    let characters: Vec<char> = said.chars().collect();
    match characters.as_slice() {
        [] => String::new(),
        short if short.len() <= 2 * KEPT => said.to_owned(),
        long => {
            let (first, rest) = long.split_at(KEPT);
            let last = rest.get(rest.len().saturating_sub(KEPT)..).unwrap_or_default();
            format!("{} … {}", String::from_iter(first), String::from_iter(last))
        }
    }
}

/// Waits until the time is over, enough frames have come, or somebody interrupts; gives how long it was.
fn listen(inspection: &Inspection, options: &DoctorOptions) -> Result<Duration, DoctorError> {
    let (stop, handle) = stop_on_signals().map_err(DoctorError::Signals)?;
    let progress = Progress::begin(options, inspection);
    let begun = Instant::now();
    let until = begun + options.listen;
    loop {
        let now = Instant::now();
        let frames = inspection.frames();
        progress.show(now - begun, frames);
        if now >= until || options.frames.is_some_and(|enough| frames >= enough) {
            break;
        }
        let interrupted = stop.recv_timeout(LOOK_PERIOD.min(until - now));
        if interrupted != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    progress.bar.finish_and_clear();
    handle.close();
    Ok(begun.elapsed())
}

/// What is shown while listening, on standard error: a bar on a terminal, else one line.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn begin(options: &DoctorOptions, inspection: &Inspection) -> Self {
        let seconds = options.listen.as_secs();
        let interface = &options.interface;
        if !io::stderr().is_terminal() {
            // With standard error gone there is nobody left to tell.
            let _nobody = writeln!(
                io::stderr(),
                "listening on {interface} for {seconds} s ({} XDP); Ctrl-C ends it early",
                inspection.mode()
            );
            return Self { bar: ProgressBar::hidden() };
        }
        let style = ProgressStyle::with_template(
            "listening on {prefix} {bar:30} {pos} of {len} s  {msg}  (Ctrl-C ends it early)",
        )
        .unwrap_or_else(|_invalid| ProgressStyle::default_bar());
        let bar = ProgressBar::new(seconds).with_style(style).with_prefix(interface.clone());
        Self { bar }
    }

    fn show(&self, elapsed: Duration, frames: u64) {
        self.bar.set_message(format!("{} frames", number(frames)));
        self.bar.set_position(elapsed.as_secs());
    }
}
