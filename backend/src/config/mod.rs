//! Takes `backend.toml`; gives checked settings, or an error that names file, line, key and what is allowed.

use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use toml::{Spanned, Value};

use crate::ingest;

/// Why there are no settings. Remedy: mend the line that the message names.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type; the text names line and key.
    #[error("{path}: {source}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value outside its range.
    #[error("{path}:{line}: {key} is {value}, allowed is {allowed}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Which key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        allowed: String,
    },
}

/// Longest host name there is.
const HOST_LENGTH_MAX: usize = 253;

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the link listens.
    pub listen: SocketAddr,
    /// What sensors are told to connect to, as `host:port`.
    pub address: String,
    /// When batches are committed.
    pub ingest: ingest::Settings,
    /// Memory of one query, bytes.
    pub query_memory_bytes_max: usize,
    /// Lifetime of sensors' certificates.
    pub certificate_lifetime: Duration,
    /// How long after its end a certificate can still be renewed.
    pub renewal_grace: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    listen: Spanned<String>,
    address: Spanned<String>,
    #[serde(default)]
    ingest: RawIngest,
    #[serde(default)]
    query: RawQuery,
    #[serde(default)]
    identity: RawIdentity,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIngest {
    group_wait_ms: Option<Spanned<Value>>,
    quiet_ms: Option<Spanned<Value>>,
    group_records_max: Option<Spanned<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIdentity {
    certificate_days: Option<Spanned<Value>>,
    renewal_grace_days: Option<Spanned<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuery {
    memory_bytes_max: Option<Spanned<Value>>,
}

/// The file that `init` writes: every key, its meaning, its default.
#[must_use]
pub fn default_file(listen: SocketAddr, address: &str) -> String {
    format!(
        "\
# Settings of spanwatch-backend. Lines with one # show the default.

# Where the link listens (UDP).
listen = \"{listen}\"
# What sensors connect to, as host:port; it is part of every one-time code.
address = \"{address}\"

[ingest]
# A group of batches is committed at the latest so long after its first one came (1 to 10000).
# group_wait_ms = 1000
# A group is committed when no batch came for so long (1 to 10000).
# quiet_ms = 100
# A group with this many records is committed at once (1 to 1048576).
# group_records_max = 262144

[query]
# Memory of one query in bytes (67108864 to 1099511627776); larger sorts spill to disk.
# memory_bytes_max = 1073741824

[identity]
# Sensors' certificates are valid for so long (1 to 397); sensors renew them when a third is left.
# certificate_days = 30
# A sensor that was off can renew a certificate that ended so long ago (0 to 3650); later it needs a code.
# renewal_grace_days = 90
"
    )
}

/// Whether a text is `host:port` with a port that can be connected to: a name, an IPv4 address, or an IPv6
/// address in brackets. Nothing else, because it becomes part of this file and of codes that people copy.
#[must_use]
pub fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => {
            (1..=HOST_LENGTH_MAX).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        }
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// Names the first thing that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let bad = |key, at: usize, value: String, allowed: &str| ConfigError::Value {
            path: path.to_owned(),
            line: text[..at].matches('\n').count() + 1,
            key,
            value,
            allowed: allowed.to_owned(),
        };
        let number =
            |key, value: Option<Spanned<Value>>, range: RangeInclusive<u64>, default: u64| {
                let Some(value) = value else { return Ok(default) };
                let number = value.get_ref().as_integer().and_then(|it| u64::try_from(it).ok());
                if let Some(number) = number.filter(|number| range.contains(number)) {
                    return Ok(number);
                }
                let allowed = format!("{} to {}", range.start(), range.end());
                Err(bad(key, value.span().start, value.get_ref().to_string(), &allowed))
            };
        let listen = raw.listen.get_ref().parse().map_err(|_syntax| {
            let value = format!("{:?}", raw.listen.get_ref());
            bad("listen", raw.listen.span().start, value, "an address and a port, as 0.0.0.0:7443")
        })?;
        if !is_host_and_port(raw.address.get_ref()) {
            let value = format!("{:?}", raw.address.get_ref());
            let at = raw.address.span().start;
            return Err(bad("address", at, value, "a host and a port, as police.example:7443"));
        }
        let wait = number("ingest.group_wait_ms", raw.ingest.group_wait_ms, 1..=10_000, 1_000)?;
        let quiet = number("ingest.quiet_ms", raw.ingest.quiet_ms, 1..=10_000, 100)?;
        let records = raw.ingest.group_records_max;
        let records = number("ingest.group_records_max", records, 1..=1_048_576, 262_144)?;
        let memory = number(
            "query.memory_bytes_max",
            raw.query.memory_bytes_max,
            67_108_864..=1_099_511_627_776,
            1_073_741_824,
        )?;
        let days = raw.identity.certificate_days;
        let days = number("identity.certificate_days", days, 1..=397, 30)?;
        let grace = raw.identity.renewal_grace_days;
        let grace = number("identity.renewal_grace_days", grace, 0..=3650, 90)?;
        Ok(Self {
            listen,
            address: raw.address.into_inner(),
            ingest: ingest::Settings {
                group_wait: Duration::from_millis(wait),
                quiet: Duration::from_millis(quiet),
                group_records_max: usize::try_from(records).unwrap_or(usize::MAX),
            },
            query_memory_bytes_max: usize::try_from(memory).unwrap_or(usize::MAX),
            certificate_lifetime: Duration::from_hours(24 * days),
            renewal_grace: Duration::from_hours(24 * grace),
        })
    }
}

#[cfg(test)]
mod tests;
