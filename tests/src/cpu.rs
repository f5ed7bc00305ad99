//! Which CPU a test runs on: the kernel's tables are one CPU's own, and a thread that moves meets others.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that this thread may run on.
///
/// # Errors
///
/// When the system does not tell which those are.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None).context("asking which CPUs this thread may run on")?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect())
}

/// Keeps this thread on a CPU.
///
/// # Errors
///
/// When the system refuses.
pub fn stay_on_cpu(cpu: usize) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).context("choosing a CPU")
}

/// Keeps this thread on the first CPU that it may run on.
///
/// # Errors
///
/// When the system does not tell which CPUs those are, or refuses.
pub fn stay_on_one_cpu() -> Result<()> {
    let allowed = allowed_cpus()?;
    stay_on_cpu(*allowed.first().context("this thread may run somewhere")?)
}
