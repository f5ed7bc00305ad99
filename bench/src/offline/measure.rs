//! In: a command. Out: how long it took, on one CPU, and what the kernel says that it used.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use wait4::Wait4 as _;

/// What a process used, with the children that it waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) elapsed: Duration,
    /// User and system time.
    pub(super) cpu: Duration,
    /// The most memory that was resident at a time.
    pub(super) rss_bytes: u64,
}

/// Keeps this thread, and whatever it starts from now on, on the last CPU that it may use; says which.
pub(super) fn stay_on_one_cpu() -> Result<usize> {
    let allowed = sched_getaffinity(None).context("cannot ask which CPUs there are")?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    let cpu = last.context("this process may run on no CPU")?;
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).with_context(|| format!("cannot stay on CPU {cpu}"))?;
    Ok(cpu)
}

/// Runs a command to its end. What it writes goes where the command says, by default nowhere.
///
/// # Errors
///
/// When it cannot be started, or fails.
pub(super) fn measured(command: &mut Command) -> Result<Usage> {
    let program = command.get_program().display().to_string();
    command.stdin(Stdio::null());
    let started = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let used = child.wait4().with_context(|| format!("waiting for {program}"))?;
    let elapsed = started.elapsed();
    ensure!(used.status.success(), "{program} ended with {}", used.status);
    Ok(Usage { elapsed, cpu: used.rusage.utime + used.rusage.stime, rss_bytes: used.rusage.maxrss })
}
