//! The inspection programs of the object at work on one interface for some seconds: in: its name; out: what
//! `flow::inspect` counted there. Like the counting programs, they are held by a link that ends with this process,
//! and no packet byte comes here.

use aya::programs::Xdp;
use aya::util::{nr_cpus, online_cpus};
use aya::{Ebpf, EbpfLoader};
use flow::COPY_WITHIN_MS;
use flow::inspect::{CONVERSATION_PLACES, Conversation, InspectTotals, RECENT_PLACES};
use rustix::thread::{MembarrierCommand, membarrier};

use super::clock::Ticks;
use super::epochs::{
    CLOCK, CLOCK_FRAME, Ran, bounded_u32, check_kernel, load_program, random, run, to_load,
};
use super::interface::{Interfaces, NicStatistics};
use super::memory::Table;
use super::{
    After, AttachMode, CaptureError, InterfaceFacts, Listening, Programs, attach_interface, drops,
    object, to_interfaces,
};

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// What each CPU counted that counted anything, by its number.
    pub(crate) totals: Vec<(u32, InspectTotals)>,
    /// Every TCP conversation that found a place.
    pub(crate) conversations: Vec<Conversation>,
}

/// The object with its inspection tables.
struct Loaded {
    ebpf: Ebpf,
    totals: Table<InspectTotals>,
    conversations: Table<Conversation>,
}

impl Programs for Loaded {
    fn program(&mut self, name: &'static str) -> Result<&mut Xdp, CaptureError> {
        load_program(&mut self.ebpf, name)
    }
}

impl Loaded {
    /// `own_address` is the hardware address of the interface, 0 for none.
    fn load(own_address: u64, seed: u64, copy_ticks: u32) -> Result<Self, CaptureError> {
        let to_io = |(path, error): (&'static str, std::io::Error)| {
            CaptureError::Cpus(std::io::Error::new(error.kind(), format!("{path}: {error}")))
        };
        let online = online_cpus().map_err(to_io)?;
        let possible = nr_cpus().map_err(to_io)?;
        let rows = online.iter().map(|cpu| *cpu as usize + 1).max().unwrap_or(1).max(possible);
        let rows = bounded_u32("the number of CPUs", rows)?;
        let mut ebpf = EbpfLoader::new()
            .override_global("IDENTITY_SEED", &seed, true)
            .override_global("OWN_ADDRESS", &own_address, true)
            .override_global("COPY_TICKS", &copy_ticks, true)
            .map_max_entries("WALKS", rows)
            .map_max_entries("INSPECT_CPUS", rows)
            .map_max_entries("INSPECT_SEEN", rows)
            .map_max_entries("INSPECT_RECENT", rows * RECENT_PLACES)
            .map_max_entries("CONVERSATIONS", CONVERSATION_PLACES)
            .load(object::OBJECT)
            .map_err(to_load)?;
        let totals = Table::take(&mut ebpf, "INSPECT_CPUS")?;
        let conversations = Table::take(&mut ebpf, "CONVERSATIONS")?;
        Ok(Self { ebpf, totals, conversations })
    }

    /// What was counted; nothing counts any more.
    fn read(&mut self) -> Inspected {
        let rows = (0..self.totals.len()).map(|row| (row, self.totals.snapshot(row)));
        let rows = rows.filter(|(_, totals)| totals.frames > 0);
        let totals = rows.filter_map(|(row, totals)| Some((u32::try_from(row).ok()?, totals)));
        let totals = totals.collect();
        let places = self.conversations.len();
        let all = self.conversations.quiet(0, places).iter();
        let conversations = all.filter(|one| one.tag != 0).copied().collect();
        Inspected { totals, conversations }
    }
}

/// The kernel's ticks that a copy may be late. The tables are sized when an object is loaded, so the clock is asked
/// through a loading of its own, with tables of one entry.
pub(super) fn copy_ticks() -> Result<u32, CaptureError> {
    check_kernel()?;
    object::check(object::OBJECT)?;
    let mut ebpf = EbpfLoader::new().load(object::OBJECT).map_err(to_load)?;
    load_program(&mut ebpf, CLOCK)?;
    let ticks = Ticks::calibrate(|| run(&ebpf, CLOCK, &CLOCK_FRAME, 1).map(|ran| ran.verdict))?;
    let within_ns = u64::from(COPY_WITHIN_MS) * 1_000_000;
    Ok(u32::try_from(within_ns.div_ceil(ticks.tick_ns().max(1))).unwrap_or(u32::MAX))
}

/// The inspection on one interface. Dropping it detaches, as does the end of the process.
pub(crate) struct Inspection {
    loaded: Loaded,
    interfaces: Interfaces,
    index: u32,
    before: NicStatistics,
    mode: AttachMode,
    listening: Option<Listening>,
}

impl Inspection {
    /// Attaches to the interface.
    ///
    /// # Errors
    ///
    /// [`CaptureError`] names the interface and what the kernel said.
    pub(crate) fn attach(
        facts: &InterfaceFacts,
        after: After,
        mode: Option<AttachMode>,
    ) -> Result<Self, CaptureError> {
        let interfaces = Interfaces::open().map_err(to_interfaces)?;
        let all = interfaces.list().map_err(to_interfaces)?;
        let Some(interface) = all.iter().find(|interface| interface.name == facts.name) else {
            return Err(CaptureError::UnknownInterface { name: facts.name.clone() });
        };
        let used = interfaces.used_for(interface, &all).map_err(to_interfaces)?;
        let seed = random();
        let mut loaded = Loaded::load(facts.address_number(), seed, copy_ticks()?)?;
        let names = if drops(&interface.name, after, used) {
            ["inspect_drop", "inspect_drop_frags"]
        } else {
            ["inspect_pass", "inspect_pass_frags"]
        };
        let before = interfaces.statistics(interface);
        let index = interface.index;
        let (mode, listening) = attach_interface(&mut loaded, interface, names, mode)?;
        Ok(Self { loaded, interfaces, index, before, mode, listening: Some(listening) })
    }

    /// Where the program runs.
    pub(crate) const fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Frames seen so far.
    pub(crate) fn frames(&self) -> u64 {
        let rows = 0..self.loaded.totals.len();
        rows.map(|row| self.loaded.totals.snapshot(row).frames).sum()
    }

    /// Detaches, waits until no program runs any more, and gives what was counted: by the programs, and meanwhile
    /// by card and driver.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Barrier`] when the kernel refuses to wait.
    pub(crate) fn finish(mut self) -> Result<(Inspected, NicStatistics), CaptureError> {
        let all = self.interfaces.list().map_err(to_interfaces)?;
        let now = all.iter().find(|interface| interface.index == self.index);
        // An interface that has gone is unknown, not 0.
        let nic = now.map_or(NicStatistics::default(), |now| {
            self.interfaces.statistics(now).since(self.before)
        });
        drop(self.listening.take());
        membarrier(MembarrierCommand::Global)
            .map_err(|error| CaptureError::Barrier(error.into()))?;
        Ok((self.loaded.read(), nic))
    }
}

/// The inspection program without any interface: frames go in through `BPF_PROG_TEST_RUN`. For tests.
pub struct KernelInspection {
    loaded: Loaded,
}

impl KernelInspection {
    /// Loads the object. `seed` makes the fingerprints; a copy may come at any later time.
    ///
    /// # Errors
    ///
    /// As [`super::KernelTestRun::load`].
    pub fn load(seed: u64) -> Result<Self, CaptureError> {
        check_kernel()?;
        object::check(object::OBJECT)?;
        let mut loaded = Loaded::load(0, seed, u32::MAX)?;
        for program in ["inspect_drop", "inspect_drop_frags", "inspect_pass", "inspect_pass_frags"]
        {
            loaded.program(program)?;
        }
        Ok(Self { loaded })
    }

    /// Gives the program one frame.
    ///
    /// # Errors
    ///
    /// [`CaptureError::TestRun`] when the kernel does not take the frame.
    pub fn feed(&mut self, frame: &[u8]) -> Result<(), CaptureError> {
        let is_long = frame.len() > super::FRAME_BYTES_MAX;
        let program = if is_long { "inspect_drop_frags" } else { "inspect_drop" };
        run(&self.loaded.ebpf, program, frame, 1).map(|_: Ran| ())
    }

    /// What was counted: the rows of the CPUs that saw frames, and the conversations, in the order of
    /// their places.
    #[must_use]
    pub fn read(&mut self) -> (Vec<InspectTotals>, Vec<Conversation>) {
        let inspected = self.loaded.read();
        let totals = inspected.totals.into_iter().map(|(_, totals)| totals).collect();
        (totals, inspected.conversations)
    }
}
