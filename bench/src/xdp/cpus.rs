//! Which CPU gives the frames and which one reads. In: the CPUs that this process may use. Out: threads that stay.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two CPUs; the same one where there is no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cpus {
    pub(super) feeder: usize,
    pub(super) reader: usize,
}

impl Cpus {
    pub(super) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot ask which CPUs there are")?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let feeder = allowed.next().context("this process may run on no CPU")?;
        Ok(Self { feeder, reader: allowed.next().unwrap_or(feeder) })
    }

    pub(super) const fn shared(self) -> bool {
        self.feeder == self.reader
    }
}

/// Keeps this thread on one CPU.
pub(super) fn stay_on(cpu: usize) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).with_context(|| format!("cannot stay on CPU {cpu}"))
}
