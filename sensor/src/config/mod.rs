//! Takes a TOML file; gives the sensor's checked configuration, or an error that names file, line,
//! key and what is allowed. The documentation of each key is written once, here, and is also the
//! default file.

mod bounded;
mod collector;
mod listen;
mod outputs;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use bounded::{Bounded, PowerOfTwo};
pub use collector::{Collector, Transport};
pub use listen::ListenAddress;
pub use outputs::OutputConfigError;

use crate::aggregate::{AggregatorSettings, ApartBy};
use crate::capture::TableSizes;
use crate::privacy::{NetworksError, Prefix, check_networks};

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// One record a line, as JSON or as Zeek's conn.log.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// Parquet files.
    Parquet,
    /// Exported to an IPFIX collector.
    Ipfix,
    /// Sealed, spooled and sent to the backend.
    Uplink,
    /// Counted only.
    Null,
}

/// What lines of the output "json" look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    /// JSON with our own names.
    Native,
    /// JSON with the names of the Elastic Common Schema.
    Ecs,
    /// Zeek's conn.log, tab-separated.
    Zeek,
}

/// What happens to a frame after it was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum AfterCounting {
    /// Dropped on an interface without addresses (a mirror port), passed on otherwise.
    Auto,
    /// Dropped: for a port that only receives copies.
    Drop,
    /// Passed on to the system.
    Pass,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum AttachBy {
    /// In the driver where it can, else generic, with a warning.
    Auto,
    /// In the driver only.
    Native,
    /// In the network stack: works everywhere, slower.
    Generic,
}

/// What becomes of traffic within the organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InternalTraffic {
    /// It is kept at home, and counted.
    Keep,
    /// It is sent like any other.
    Send,
}

/// Ranges of addresses in one list.
const PREFIXES_MAX: usize = 4_096;

/// Longest configuration file that is read: hundreds of times what all keys need.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Longest wait between two drains, milliseconds.
pub type EpochMs = Bounded<10, 10_000>;
/// Processors that build flows, at most.
pub const CPUS_MAX: usize = 256;

/// A processor's number.
pub type Cpu = Bounded<0, 4_095>;

macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $Type:ty = $default:expr; )+
        }
    )+) => {
        /// The sensor's configuration file.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default, expecting = "sections")]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields, default, expecting = "a section with keys")]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $key: $Type, )+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )+ }
                }
            }
        )+

        impl Config {
            /// The configuration as a TOML file with its documentation.
            #[must_use]
            pub fn to_documented_toml(&self) -> String {
                let mut text = String::new();
                $(
                    comment(&mut text, &[$($section_doc),+]);
                    text.push_str(concat!("[", stringify!($section), "]\n"));
                    $(
                        comment(&mut text, &[$($doc),+]);
                        setting(&mut text, stringify!($key), &self.$section.$key);
                    )+
                    text.push('\n');
                )+
                text.truncate(text.trim_end().len());
                text.push('\n');
                text
            }
        }
    };
}

sections! {
    /// What is captured, and how the kernel's flow cache is emptied.
    capture: CaptureConfig {
        /// Interfaces to listen on; the two of an optical TAP are one sensor.
        interfaces: Vec<String> = Vec::new();
        /// What happens to a counted frame: "auto" (dropped on an interface without addresses,
        /// passed on otherwise), "drop" or "pass".
        after: AfterCounting = AfterCounting::Auto;
        /// How the program is attached: "auto", "native" or "generic".
        mode: AttachBy = AttachBy::Auto;
        /// Time between two drains of the kernel's cache, milliseconds: 10 to 10000. It is drained
        /// earlier when a log is half full.
        epoch_ms: EpochMs = Bounded::fixed::<250>();
        /// The same while hardly anything comes: 10 to 10000; no less than the setting
        /// above.
        epoch_ms_max: EpochMs = Bounded::fixed::<1_000>();
        /// Size of the kernel's flow cache, sets of two flows for each processor: a power of two, 1
        /// to 65536. 256 bytes each; 4096 fit into a second-level cache of 1 MiB.
        sets: PowerOfTwo<65_536> = PowerOfTwo::fixed::<4_096>();
        /// Room for flows that a full cache puts out before it is drained, for each processor: 1 to
        /// 1048576. 128 bytes each; 262144 hold 3 million new flows a second on one processor.
        /// Without room, packets are counted in totals by source prefix, destination and port.
        log_slots: Bounded<1, 1_048_576> = Bounded::fixed::<262_144>();
        /// Whether a packet that comes again within 20 ms is counted once: for a mirror that copies
        /// frames on their way in and out, or in several VLANs. docs/operating.md says what counts
        /// as the same packet. Also for capture files.
        deduplicate: bool = false;
        /// Processor that drains; unset: any.
        drain_cpu: Option<Cpu> = None;
    }
    /// How packets become flows.
    flows: FlowsConfig {
        /// A flow that lasts longer is reported in parts of this length, milliseconds: 1000 to
        /// 3600000.
        active_timeout_ms: Bounded<1_000, 3_600_000> = Bounded::fixed::<60_000>();
        /// A flow without a packet for this long has ended, milliseconds: 100 to 3600000.
        idle_timeout_ms: Bounded<100, 3_600_000> = Bounded::fixed::<15_000>();
        /// How long a closed TCP connection is kept for late packets, milliseconds: 0 to 60000.
        linger_ms: Bounded<0, 60_000> = Bounded::fixed::<2_000>();
        /// Flows held at once, about 220 bytes each: 1 to 100000000. The one nearest to its end
        /// goes when the table is full; it is reported, with that reason.
        flows_open_max: Bounded<1, 100_000_000> = Bounded::fixed::<1_000_000>();
        /// What of VLAN tags and tunnels keeps flows with equal addresses apart: "everything",
        /// "conversation" (not MPLS labels and GTP-U endpoints, which differ by direction) or
        /// "nothing" (for a mirror port that tags one direction only).
        apart_by: ApartBy = ApartBy::Conversation;
        /// Processors that build the flows, with one thread and one part of the table each (a number
        /// may stand here twice); empty: one thread, on any. At most 256.
        cpus: Vec<Cpu> = Vec::new();
    }
    /// Where the records go.
    output: OutputConfig {
        /// Any of "json", "csv", "parquet", "ipfix", "uplink", "null"; docs/outputs.md explains each.
        kinds: Vec<OutputKind> = vec![OutputKind::Json];
        /// File that "json" writes; unset: standard output.
        json_file: Option<PathBuf> = None;
        /// What its lines look like: "native" and "ecs" (Elastic Common Schema) are JSON, "zeek" is
        /// Zeek's conn.log.
        json_schema: Schema = Schema::Native;
        /// File that "csv" writes; unset: standard output.
        csv_file: Option<PathBuf> = None;
        /// File that "parquet" writes. Until it is complete it is called ".partial".
        parquet_file: Option<PathBuf> = None;
        /// Records of one row group: 1024 to 1048576. They are held in memory, about 200 bytes each,
        /// and written together.
        parquet_group_records: Bounded<1_024, 1_048_576> = Bounded::fixed::<65_536>();
        /// A file ends when it is so long, bytes: 4096 to 1099511627776; unset: never. With this or
        /// the next setting, "flows.json" is a series: "flows.20260528T202640Z.000001.json" and so on.
        rotate_bytes: Option<Bounded<4_096, 1_099_511_627_776>> = None;
        /// A file ends with its hour, day or other period of this length, milliseconds since the Unix
        /// epoch: 1000 to 604800000; unset: never.
        rotate_ms: Option<Bounded<1_000, 604_800_000>> = None;
        /// Complete files of a series that are kept: 1 to 1000000; the oldest are deleted. Unset: all.
        files_max: Option<Bounded<1, 1_000_000>> = None;
        /// Collector that "ipfix" exports to: `udp://HOST:PORT` or `tcp://HOST:PORT`.
        ipfix_collector: Option<Collector> = None;
        /// Observation domain in every message, which tells this sensor from others: 0 to 4294967295.
        ipfix_domain: Bounded<0, 4_294_967_295> = Bounded::fixed::<1>();
        /// Longest message, bytes: 512 to 65507. Over UDP it has to fit into a packet on the way there
        /// (1452 on an Ethernet over IPv6).
        ipfix_message_bytes_max: Bounded<512, 65_507> = Bounded::fixed::<1_400>();
        /// Over UDP, how often templates are sent again, milliseconds: 1000 to 3600000.
        ipfix_template_ms: Bounded<1_000, 3_600_000> = Bounded::fixed::<60_000>();
        /// Over UDP, messages after which templates are sent again: 1 to 1000000.
        ipfix_template_messages: Bounded<1, 1_000_000> = Bounded::fixed::<1_024>();
    }
    /// The link to the backend.
    uplink: UplinkConfig {
        /// Folder of the sensor's identity and of its spool, as `enroll` made it.
        state_dir: PathBuf = PathBuf::from("/var/lib/spanwatch-sensor");
        /// Size of the spool, bytes: 1048576 to 1099511627776. The oldest batch goes when it is
        /// full.
        spool_bytes_max: Bounded<1_048_576, 1_099_511_627_776> = Bounded::fixed::<1_073_741_824>();
        /// Disk for batches that the backend has, so that `sent` can show every byte that left, bytes: 0
        /// to 1099511627776. The oldest go when it is full; 0 keeps none.
        sent_bytes_max: Bounded<0, 1_099_511_627_776> = Bounded::fixed::<268_435_456>();
        /// Records of one batch: 1 to 65536.
        batch_records_max: Bounded<1, 65_536> = Bounded::fixed::<8_192>();
        /// Longest time before a batch is sealed, milliseconds: 10 to 60000.
        batch_interval_ms: Bounded<10, 60_000> = Bounded::fixed::<1_000>();
        /// Most bytes a second that the link takes of the line, on average: 16384 to 12500000000; unset:
        /// as many as there are. What is sent after an outage is held to it, too.
        bandwidth_bytes_per_second_max: Option<Bounded<16_384, 12_500_000_000>> = None;
        /// How long a stopping sensor waits for the backend's acknowledgements, milliseconds: 0 to
        /// 600000. What is not acknowledged by then stays in the spool for the next start.
        shutdown_grace_ms: Bounded<0, 600_000> = Bounded::fixed::<10_000>();
    }
    /// What goes to the backend, and what stays at home; docs/privacy.md explains it. Other outputs have
    /// everything as it was seen.
    privacy: PrivacyConfig {
        /// The organisation's own ranges of addresses, such as "192.0.2.0/24": its public ones belong
        /// here too, beside the private ones. Empty: everything is sent as it is.
        own_prefixes: Vec<Prefix> = Prefix::private();
        /// Addresses and ranges of them whose addresses are public anyway, as those of servers: they
        /// are sent as they are.
        public_servers: Vec<Prefix> = Vec::new();
        /// Flows with an end in these ranges are not sent.
        trusted_prefixes: Vec<Prefix> = Vec::new();
        /// Flows with both ends in own ranges, or one and a multicast or broadcast address: "keep" or
        /// "send".
        internal_traffic: InternalTraffic = InternalTraffic::Keep;
        /// Whether other own addresses are sent as pseudonyms. `spanwatch-sensor reveal` shows on this
        /// machine whose they are.
        pseudonymise: bool = true;
        /// Each key makes the pseudonyms for so many days: 1 to 3650.
        key_epoch_days: Bounded<1, 3_650> = Bounded::fixed::<30>();
        /// Days that a key is kept after that, so that its pseudonyms can be revealed: 1 to 3650.
        keys_kept_days: Bounded<1, 3_650> = Bounded::fixed::<400>();
    }
    /// Counters for Prometheus, at /metrics; docs/metrics.md explains each.
    metrics: MetricsConfig {
        /// Address and port to serve them on, such as "127.0.0.1:9464"; unset: they are not served.
        listen: Option<ListenAddress> = None;
        /// Whether that may be an address that other machines reach. There is no password and no
        /// encryption: whoever reaches it can read how much traffic the organisation has.
        allow_remote: bool = false;
    }
}

fn comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        text.push('#');
        text.push_str(line);
        text.push('\n');
    }
}

fn setting(text: &mut String, key: &str, value: &impl Serialize) {
    let written = match toml::Value::try_from(value) {
        Ok(value) => writeln!(text, "{key} = {value}"),
        // TOML has no word for "unset".
        Err(_unset) => writeln!(text, "#{key} ="),
    };
    written.expect("writing to a string cannot fail");
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file says something that is not allowed.
    #[error("{}, line {line}, {place}: {message}", file.display())]
    Value {
        /// Which file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Section and key, as far as they can be told.
        place: String,
        /// What is wrong, and what is allowed.
        message: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, or at its first unknown key or bad value.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Read { file: file.to_owned(), source };
        let mut bytes = Vec::new();
        let opened = File::open(file).map_err(unreadable)?;
        opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let told = format!("it has more than {FILE_BYTES_MAX} bytes");
            return Err(unreadable(io::Error::other(told)));
        }
        let text = str::from_utf8(&bytes).map_err(|error| {
            let (before, at) = bytes.split_at(error.valid_up_to());
            let line = before.split(|byte| *byte == b'\n').count() - 1;
            let message = format!("byte 0x{:02x} is not UTF-8 text", at.first().unwrap_or(&0));
            let place = place(&String::from_utf8_lossy(&bytes), line);
            ConfigError::Value { file: file.to_owned(), line: line + 1, place, message }
        })?;
        Self::parse(text, file)
    }

    /// Checks the text of a file; `file` is for the error.
    ///
    /// # Errors
    /// At the first unknown key or bad value.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let at = place_of_value(text, at, error.message()).unwrap_or(at);
            let before = text.get(..at).unwrap_or_default();
            let line = before.matches('\n').count();
            ConfigError::Value {
                file: file.to_owned(),
                line: line + 1,
                place: place(text, line),
                message: error.message().trim_end().to_owned(),
            }
        })?;
        config.check(text, file)?;
        Ok(config)
    }

    /// Refuses what has the right type and makes no sense.
    fn check(&self, text: &str, file: &Path) -> Result<(), ConfigError> {
        self.check_privacy(text, file)?;
        let remote = self.metrics.listen.is_some_and(|listen| !listen.is_local());
        for (key, is_wrong, allowed) in [
            (
                "kinds",
                self.output.kinds.is_empty(),
                "no output, expected at least one of `json`, `csv`, `parquet`, `ipfix`, `uplink`, `null`",
            ),
            (
                "cpus",
                self.flows.cpus.len() > CPUS_MAX,
                "more processors than 256, expected at most that many",
            ),
            (
                "state_dir",
                self.uplink.state_dir.as_os_str().is_empty(),
                "empty, expected the path of a folder",
            ),
            (
                "listen",
                remote && !self.metrics.allow_remote,
                "other machines reach this address, expected one of this machine only, such as \
                 \"127.0.0.1:9464\", or allow_remote = true",
            ),
        ] {
            if is_wrong {
                let names_it = |line: &str| {
                    line.split_once('=').is_some_and(|(name, _)| name.trim().ends_with(key))
                };
                let line = text.lines().position(names_it).unwrap_or(0);
                let (place, message) = (place(text, line), allowed.to_owned());
                return Err(ConfigError::Value {
                    file: file.to_owned(),
                    line: line + 1,
                    place,
                    message,
                });
            }
        }
        Ok(())
    }

    /// Refuses lists of ranges that are too long or do not go together.
    fn check_privacy(&self, text: &str, file: &Path) -> Result<(), ConfigError> {
        let privacy = &self.privacy;
        let lists = [
            ("own_prefixes", privacy.own_prefixes.len()),
            ("public_servers", privacy.public_servers.len()),
            ("trusted_prefixes", privacy.trusted_prefixes.len()),
        ];
        let wrong = |line: usize, key: &str, message: String| ConfigError::Value {
            file: file.to_owned(),
            line: line + 1,
            place: format!("key `privacy.{key}`"),
            message,
        };
        let line_of = |key: &str| {
            text.lines().position(|line| line.trim_start().starts_with(key)).unwrap_or(0)
        };
        if let Some((key, count)) = too_long(&lists) {
            let message = format!("{count} ranges, expected at most {PREFIXES_MAX}");
            return Err(wrong(line_of(key), key, message));
        }
        check_networks(&privacy.own_prefixes, &privacy.public_servers).map_err(|error| {
            let key = line_of("public_servers");
            // The line of the value, as it was written, where it can be told from those of other lists.
            let at = match error {
                NetworksError::NotOwn(prefix) => {
                    let range = prefix.to_string();
                    let bare = range.split('/').next().unwrap_or(&range);
                    let names_it = |line: &str| {
                        line.contains(&format!("\"{range}\""))
                            || line.contains(&format!("\"{bare}\""))
                    };
                    text.lines().skip(key).position(names_it).map_or(key, |after| key + after)
                }
                NetworksError::MostlyPublic(_) => key,
            };
            wrong(at, "public_servers", error.to_string())
        })
    }

    /// The kernel tables' part.
    #[must_use]
    pub fn table_sizes(&self) -> TableSizes {
        let within = "the range of the setting is that of the tables";
        TableSizes {
            sets: u32::try_from(self.capture.sets.get()).expect(within),
            log_slots: u32::try_from(self.capture.log_slots.get()).expect(within),
        }
    }

    /// The aggregator's part.
    #[must_use]
    pub fn aggregator(&self) -> AggregatorSettings {
        AggregatorSettings {
            active_timeout_ms: self.flows.active_timeout_ms.get(),
            idle_timeout_ms: self.flows.idle_timeout_ms.get(),
            linger_ms: self.flows.linger_ms.get(),
            flows_open_max: u32::try_from(self.flows.flows_open_max.get())
                .expect("the range of the setting ends at 100 million"),
            apart_by: self.flows.apart_by,
        }
    }
}

/// Where in a list that begins at `from` the value stands that a message begins with, such as "`10.0.0.1/8` has …".
fn place_of_value(text: &str, from: usize, message: &str) -> Option<usize> {
    let (value, _) = message.strip_prefix('`')?.split_once('`')?;
    let list = text.get(from..)?.strip_prefix('[')?;
    let within = list.split(']').next().unwrap_or(list);
    Some(from + 1 + within.find(&format!("\"{value}\""))?)
}

fn too_long<'a>(lists: &[(&'a str, usize)]) -> Option<(&'a str, usize)> {
    lists.iter().find(|(_, count)| *count > PREFIXES_MAX).copied()
}

/// Section and key of a line, for people.
fn place(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().take(line + 1).collect();
    let section = lines.iter().rev().find_map(|line| {
        line.trim().strip_prefix('[').map(|rest| rest.split(']').next().unwrap_or(rest).trim())
    });
    // A list may go over several lines: the key stands on the first of them.
    let is_key = |(key, _): &(&str, &str)| !key.trim().is_empty() && !key.trim().starts_with('#');
    let key = lines
        .iter()
        .enumerate()
        .rev()
        .take_while(|(_, line)| !line.trim().starts_with('['))
        .find_map(|(at, text)| text.split_once('=').filter(is_key).map(|pair| (at, pair)))
        .filter(|(at, (_, value))| *at == line || value.trim().starts_with('['))
        .map(|(_, (key, _))| key.trim());
    match (section, key) {
        (Some(section), Some(key)) => format!("key `{section}.{key}`"),
        (None, Some(key)) => format!("key `{key}`"),
        (Some(section), None) => format!("section `{section}`"),
        (None, None) => "at the top".to_owned(),
    }
}
