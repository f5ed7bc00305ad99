//! The sensor: frames from a mirror port or a capture file become flow records, and flow records go
//! to outputs.
//!
//! In: the kernel's flow cache ([`KernelCapture`]) or capture files ([`CaptureFile`]). Through: the
//! pure [`Aggregator`]. Out: [`Sink`]s. It never keeps, writes or sends a byte from behind the
//! transport header.

mod aggregate;
mod capture;
mod config;
mod doctor;
mod pcap;
mod pipeline;
mod replay;
mod sink;
mod summary;

pub use aggregate::{Aggregator, AggregatorSettings, AggregatorTotals};
pub use capture::{
    After, AttachMode, CaptureError, CaptureOptions, Channels, DrainTotals, FRAME_BYTES_MAX,
    FRAME_BYTES_MIN, Folded, InterfaceFacts, Interrupt, KernelCapture, KernelCounters,
    KernelInspection, KernelTestRun, MachineFacts, NicStatistics, ObjectError, Offloads, Rings,
    Spread, TableSizes, XdpAttached,
};
pub use config::{
    AfterCounting, AttachBy, Bounded, CaptureConfig, Config, ConfigError, Cpu, EpochMs,
    FlowsConfig, OutputConfig, OutputKind, UplinkConfig,
};
pub use doctor::{
    DoctorError, DoctorOptions, Finding, Inspector, Nic, Remedy, Report, Severity, Tcp, Traffic,
    doctor_file, doctor_interface,
};
pub use pcap::{
    CaptureFile, CaptureFileError, CapturedFrame, INTERFACES_MAX, LinkType, RECORD_BYTES_MAX,
};
pub use pipeline::{
    Counts, Delivered, Options, Outcome, PipelineError, SENSOR_VERSION, Source, SourceError,
    SourceFacts, deliver, replay, run, run_source,
};
pub use replay::{FrameCounts, Replay, ReplayClock, Tick, replay_all};
pub use sink::{
    JsonSink, NullSink, Outputs, SealingSettings, Sink, SinkError, SinkTotals, UplinkSink,
};
pub use summary::{FileSummary, Summary, frames_text};
