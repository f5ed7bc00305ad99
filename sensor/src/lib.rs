//! The sensor: frames from a mirror port or a capture file become flow records, and flow records go
//! to outputs.
//!
//! In: the kernel's flow cache ([`KernelCapture`]) or capture files ([`CaptureFile`]). Through: the
//! pure [`Aggregator`]. Out: [`Sink`]s. It never keeps, writes or sends a byte from behind the
//! transport header.

mod aggregate;
mod balance;
mod capture;
mod config;
mod doctor;
mod metrics;
mod pages;
mod pcap;
mod pipeline;
mod privacy;
mod replay;
mod sent;
mod sink;
mod summary;
mod top;
mod traits;

pub use aggregate::{
    Aggregator, AggregatorSettings, AggregatorTotals, ApartBy, DirectionsSeen, FlowTable,
    Identities, Identity,
};
pub use balance::{Balance, BalanceError, Equation, Term};
pub use capture::{
    After, AttachMode, Calls, CaptureError, CaptureOptions, Channels, DrainTotals, FRAME_BYTES_MAX,
    FRAME_BYTES_MIN, Feeder, Folded, InterfaceFacts, Interrupt, KernelCapture, KernelCounters,
    KernelInspection, KernelTestRun, LogFill, MachineFacts, NicStatistics, ObjectError, Offloads,
    PortStates, Rings, Spread, TableSizes, XdpAttached,
};
pub use config::{
    AfterCounting, AttachBy, Bounded, CPUS_MAX, CaptureConfig, Collector, Config, ConfigError, Cpu,
    EpochMs, FlowsConfig, InternalTraffic, ListenAddress, MetricsConfig, OutputConfig,
    OutputConfigError, OutputKind, PowerOfTwo, PrivacyConfig, Schema, Transport, UplinkConfig,
};
pub use doctor::{
    DoctorError, DoctorOptions, Finding, Inspector, Nic, Remedy, Report, Severity, Tcp, Traffic,
    doctor_file, doctor_interface,
};
pub use pcap::{
    CaptureFile, CaptureFileError, CapturedFrame, INTERFACES_MAX, LinkType, RECORD_BYTES_MAX,
};
pub use pipeline::{
    Counts, Delivered, NoSpeed, Options, Outcome, PipelineError, PortCounts, SENSOR_VERSION,
    Source, SourceError, SourceFacts, Speed, deliver, replay, run, run_source,
};
pub use privacy::{
    Kept, KeyEpoch, KeyError, NetworksError, NoPseudonym, Prefix, PrefixError, Privacy,
    PrivacyError, PrivacyTotals, RevealError, RevealOptions, Revealed, Revealer, parse_moment,
    reveal,
};
pub use replay::{FrameCounts, FrameObserver, Replay, ReplayClock, Tick, replay_all};
pub use sent::{SentError, SentOptions, sent};
pub use sink::{
    Files, IpfixSettings, IpfixSink, JsonLines, NullSink, Outputs, ParquetSink, Rotation,
    SealingSettings, Sink, SinkError, SinkTotals, TextSink, UplinkSink, ipfix_messages,
};
pub use summary::{
    CaptureSummary, EthertypeSummary, FileSummary, HostSummary, ProtocolSummary, SUMMARY_NAME,
    ServiceSummary, Summary, UnlistedHosts,
};
pub use top::{MessageWriter, Messages, ScreenError, Tab, TopError, TopOptions, Topped, top};
pub use traits::{FRAGMENT_NAMES, PacketTraits};
