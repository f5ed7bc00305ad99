//! The XDP program without any interface: single frames go in through `BPF_PROG_TEST_RUN`, and the same tables,
//! epochs and counters come out as on the wire. For tests and for measuring.

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use flow::Observation;

use super::epochs::{DrainTotals, Epochs, KernelCounters, LogFill, TableSizes};
use super::translated::{self, Calls};
use super::{CaptureError, Programs as _, object};

/// Shortest frame that the kernel takes: an Ethernet header.
pub const FRAME_BYTES_MIN: usize = 14;
/// Longest frame that the kernel takes in a single buffer: a page, less what it needs around the frame
/// (256 bytes of headroom, 320 of `struct skb_shared_info`).
pub const FRAME_BYTES_MAX: usize = 4096 - 256 - 320;

/// A loaded object that is attached to nothing.
///
/// ```no_run
/// # fn main() -> Result<(), sensor::CaptureError> {
/// use sensor::{KernelTestRun, TableSizes};
/// let mut kernel = KernelTestRun::load(TableSizes::default())?;
/// let frame = [0_u8; 60];
/// let ns = kernel.feed(&frame, 1_000)?;
/// let totals = kernel.drain(&mut |observation| println!("{observation:?}"))?;
/// # Ok(())
/// # }
/// ```
pub struct KernelTestRun {
    epochs: Epochs,
    /// For frames in one buffer, and in several.
    programs: [&'static str; 2],
}

/// A second at the fastest clock that a kernel has.
const COPY_TICKS_MAX: u32 = 1_000;

const COUNT: [&str; 2] = ["count_drop", "count_drop_frags"];
const DEDUPLICATE: [&str; 2] = ["deduplicate_drop", "deduplicate_drop_frags"];

impl KernelTestRun {
    /// Loads the object with tables of these sizes.
    ///
    /// # Errors
    ///
    /// As [`super::KernelCapture::attach`], those about interfaces aside.
    pub fn load(sizes: TableSizes) -> Result<Self, CaptureError> {
        Self::load_programs(sizes, COUNT)
    }

    /// The same; packets that come again are removed as copies. Of a copy it does not matter here how much later it
    /// comes (a second, at least), so that nothing hangs on how fast the frames are fed.
    ///
    /// # Errors
    ///
    /// As [`KernelTestRun::load`].
    pub fn load_deduplicating(sizes: TableSizes) -> Result<Self, CaptureError> {
        Self::load_programs(sizes, DEDUPLICATE)
    }

    fn load_programs(sizes: TableSizes, programs: [&'static str; 2]) -> Result<Self, CaptureError> {
        let copies = (programs == DEDUPLICATE).then_some(COPY_TICKS_MAX);
        let mut epochs = Epochs::load(sizes, &[], copies)?;
        // The others are as long in the verifier; they are loaded when somebody wants them.
        epochs.program(programs[0])?;
        Ok(Self { epochs, programs })
    }

    /// Loads another object that has the product's tables, for comparison, after setting `constants` of its own and
    /// the numbers of `entries` of its own tables. It is not checked as the product is, and its programs are loaded
    /// when they are asked for.
    ///
    /// # Errors
    ///
    /// As [`KernelTestRun::load`].
    pub fn load_object(
        object: &[u8],
        constants: &[(&str, u32)],
        entries: &[(&str, u32)],
        sizes: TableSizes,
    ) -> Result<Self, CaptureError> {
        let copies = Some(COPY_TICKS_MAX);
        let epochs = Epochs::load_object(object, [constants, entries], sizes, &[], copies)?;
        Ok(Self { epochs, programs: COUNT })
    }

    /// A handle that gives frames to one program while another thread drains.
    ///
    /// # Errors
    ///
    /// When the object has no such program, or the kernel does not take it.
    pub fn feeder(&mut self, program: &'static str) -> Result<Feeder, CaptureError> {
        let failed = |source| CaptureError::Program { program, source: Box::new(source) };
        let loaded = self.epochs.program(program)?;
        let info = loaded.info().map_err(failed)?;
        let handle = Xdp::from_program_info(info, program.into(), XdpAttachType::Interface)
            .map_err(failed)?;
        Ok(Feeder { handle, program })
    }

    /// The calls that are left in a program after the kernel has translated it. Where the kernel put the callee's
    /// instructions in the call's place, there is none.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Translated`] when the kernel does not show it; otherwise as [`KernelTestRun::feeder`].
    pub fn calls(&mut self, program: &'static str) -> Result<Calls, CaptureError> {
        let failed = |source| CaptureError::Program { program, source: Box::new(source) };
        let file = self.epochs.program(program)?.fd().map_err(failed)?;
        translated::calls(file).map_err(|source| CaptureError::Translated { program, source })
    }

    /// Gives the program the same frame `repeat` times, on the CPU this thread runs on; gives nanoseconds a
    /// frame, as the kernel measured them. More than once costs some milliseconds of preparation in the kernel.
    /// Frames longer than [`FRAME_BYTES_MAX`] go through the program for
    /// frames in several buffers.
    ///
    /// # Errors
    ///
    /// [`CaptureError::TestRun`] when the kernel does not take the frame: shorter than [`FRAME_BYTES_MIN`], or
    /// longer than it has pages for.
    pub fn feed(&mut self, frame: &[u8], repeat: u32) -> Result<u64, CaptureError> {
        let [whole, in_parts] = self.programs;
        let program = if frame.len() > FRAME_BYTES_MAX { in_parts } else { whole };
        self.epochs.program(program)?;
        self.epochs.run(program, frame, repeat).map(|ran| ran.nanoseconds)
    }

    /// Gives the frame `repeat` times to a program that only drops: the floor of what [`KernelTestRun::feed`]
    /// can take, in nanoseconds a frame.
    ///
    /// # Errors
    ///
    /// As [`KernelTestRun::feed`].
    pub fn floor(&mut self, frame: &[u8], repeat: u32) -> Result<u64, CaptureError> {
        self.epochs.program("floor_drop")?;
        self.epochs.run("floor_drop", frame, repeat).map(|ran| ran.nanoseconds)
    }

    /// As [`super::KernelCapture::drain`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn drain(
        &mut self,
        visit: &mut dyn FnMut(Observation),
    ) -> Result<DrainTotals, CaptureError> {
        self.epochs.drain(visit)
    }

    /// As [`super::KernelCapture::counters`].
    #[must_use]
    pub fn counters(&self) -> KernelCounters {
        self.epochs.counters()
    }

    /// As [`super::KernelCapture::log_fill`].
    #[must_use]
    pub fn log_fill(&self) -> LogFill {
        self.epochs.log_fill()
    }

    /// SHA-256 of the object.
    #[must_use]
    pub fn object_sha256(&self) -> [u8; 32] {
        object::sha256()
    }
}

/// One program, to which frames can be given while the tables are drained elsewhere.
pub struct Feeder {
    handle: Xdp,
    program: &'static str,
}

impl Feeder {
    /// As [`KernelTestRun::feed`], with this handle's program.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn feed(&self, frame: &[u8], repeat: u32) -> Result<u64, CaptureError> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let ran = self.handle.test_run(options).map_err(|source| CaptureError::TestRun {
            program: self.program,
            bytes: frame.len(),
            source: Box::new(source),
        })?;
        Ok(u64::try_from(ran.duration.as_nanos()).unwrap_or(u64::MAX))
    }
}
