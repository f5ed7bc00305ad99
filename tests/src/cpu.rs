//! Which CPU a test runs on: the kernel's tables are one CPU's own, and a thread that moves meets others.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread on the first CPU that it may run on.
///
/// # Errors
///
/// When the system does not tell which CPUs those are, or refuses.
pub fn stay_on_one_cpu() -> Result<()> {
    let allowed = sched_getaffinity(None).context("asking which CPUs this thread may run on")?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(first.context("this thread may run somewhere")?);
    sched_setaffinity(None, &one).context("choosing a CPU")
}
