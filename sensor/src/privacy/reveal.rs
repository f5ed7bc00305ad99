//! Takes pseudonyms and the state folder with the keys; gives the addresses that they stand for, and the other way. It
//! only reads, and needs neither a running sensor nor a backend; one may run meanwhile.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use flow::Record;
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use super::crypto_pan::CryptoPan;
use super::keys::{self, KeyEpoch, KeyError};
use super::moment;
use super::networks::{Networks, NoPseudonym, Owner};
use super::ranges::Bits;

/// Why an address is not shown.
#[derive(Debug, Error)]
pub enum RevealError {
    /// Name the sensor's state folder.
    #[error("{} has no keys of pseudonyms: none was ever sent from here; name the sensor's folder with --state-dir", .0.display())]
    NoKeys(PathBuf),
    /// There never was such a key epoch here.
    #[error("there is no key epoch {number} here; there are: {known}")]
    NoEpoch {
        /// Which one was asked for.
        number: u32,
        /// The others.
        known: String,
    },
    /// No key was in use then.
    #[error("no key was in use at {0} (UTC)")]
    NoneAt(String),
    /// A key or the list of keys cannot be used. Remedy: the text says it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It was sent as it is, or comes from another sensor.
    #[error(
        "{address} is in no own prefix of key epoch {number}: it is no pseudonym of this sensor"
    )]
    NotOwn {
        /// Which address.
        address: IpAddr,
        /// Which key epoch.
        number: u32,
    },
    /// It was sent as it is.
    #[error("{address} is a public server in key epoch {number}: it was sent as it is")]
    Public {
        /// Which address.
        address: IpAddr,
        /// Which key epoch.
        number: u32,
    },
    /// A range of one address has no pseudonyms.
    #[error("{address} is an own prefix by itself in key epoch {number}: it was sent as it is")]
    Single {
        /// Which address.
        address: IpAddr,
        /// Which key epoch.
        number: u32,
    },
    /// See there.
    #[error(transparent)]
    NoPseudonym(#[from] NoPseudonym),
    /// Whoever reads has gone.
    #[error("cannot write")]
    Write(#[from] io::Error),
}

/// Which way an address is mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Back,
    There,
}

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct RevealOptions {
    /// Only this key epoch.
    pub epoch: Option<u32>,
    /// Only the key epoch of this moment, milliseconds since the Unix epoch.
    pub at_ms: Option<u64>,
    /// The pseudonyms of addresses, in place of the addresses of pseudonyms.
    pub pseudonyms: bool,
    /// A JSON object a line in place of a table.
    pub json: bool,
}

/// One address in one key epoch, as a JSON line.
#[derive(Debug, Serialize)]
pub struct Revealed {
    /// Number of the key epoch.
    pub key_epoch: u32,
    /// When it began, milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// When it ended; `null` while it lasts.
    pub until_ms: Option<u64>,
    /// What the backend has.
    pub pseudonym: Option<IpAddr>,
    /// What it stands for.
    pub address: Option<IpAddr>,
    /// Why one of them is not known.
    pub error: Option<String>,
}

/// The keys of a state folder, as far as they were asked for.
pub struct Revealer {
    state_dir: PathBuf,
    epochs: Vec<KeyEpoch>,
    opened: BTreeMap<u32, (Networks, CryptoPan)>,
}

impl Revealer {
    /// Reads which keys there are.
    ///
    /// # Errors
    /// When there are none, or the list cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, RevealError> {
        let epochs = keys::key_epochs(state_dir)?;
        if epochs.is_empty() {
            return Err(RevealError::NoKeys(state_dir.to_owned()));
        }
        Ok(Self { state_dir: state_dir.to_owned(), epochs, opened: BTreeMap::new() })
    }

    /// The key epochs, oldest first, those whose keys were removed too.
    #[must_use]
    pub fn epochs(&self) -> &[KeyEpoch] {
        &self.epochs
    }

    /// The address that has this pseudonym in a key epoch.
    ///
    /// # Errors
    /// When the key is not there any more, or it is no pseudonym of it.
    pub fn address(&mut self, number: u32, pseudonym: IpAddr) -> Result<IpAddr, RevealError> {
        self.map(number, pseudonym, Way::Back)
    }

    /// The pseudonym that an address has in a key epoch.
    ///
    /// # Errors
    /// When the key is not there any more, or the address has none.
    pub fn pseudonym(&mut self, number: u32, address: IpAddr) -> Result<IpAddr, RevealError> {
        self.map(number, address, Way::There)
    }

    /// Puts the addresses in the place of the pseudonyms of a record that was sent.
    ///
    /// # Errors
    /// When the key is not there any more.
    pub fn reveal(&mut self, number: u32, record: &mut Record) -> Result<(), RevealError> {
        if record.pseudonyms.initiator {
            record.initiator = if record.folded {
                let (networks, pan) = self.key(number)?;
                let prefix = networks.folded_original(pan, record.initiator);
                prefix.ok_or(RevealError::NotOwn { address: record.initiator, number })?
            } else {
                self.address(number, record.initiator)?
            };
            record.pseudonyms.initiator = false;
        }
        if record.pseudonyms.responder {
            record.responder = self.address(number, record.responder)?;
            record.pseudonyms.responder = false;
        }
        Ok(())
    }

    fn map(&mut self, number: u32, address: IpAddr, way: Way) -> Result<IpAddr, RevealError> {
        let (networks, pan) = self.key(number)?;
        match networks.owner(address) {
            Owner::Other => Err(RevealError::NotOwn { address, number }),
            Owner::Public => Err(RevealError::Public { address, number }),
            Owner::Client { length } if length == Bits::of(address).width => {
                Err(RevealError::Single { address, number })
            }
            Owner::Client { length } => Ok(match way {
                Way::Back => networks.original(pan, address, length)?,
                Way::There => networks.pseudonym(pan, address, length)?,
            }),
        }
    }

    fn key(&mut self, number: u32) -> Result<&(Networks, CryptoPan), RevealError> {
        if !self.opened.contains_key(&number) {
            let epoch = self.epoch(number)?;
            let networks = Networks::new(&epoch.own_prefixes, &epoch.public_servers);
            let pan = keys::cipher(&self.state_dir, epoch)?;
            self.opened.insert(number, (networks, pan));
        }
        self.opened.get(&number).ok_or_else(|| self.no_epoch(number))
    }

    fn epoch(&self, number: u32) -> Result<&KeyEpoch, RevealError> {
        let found = self.epochs.iter().find(|epoch| epoch.number == number);
        found.ok_or_else(|| self.no_epoch(number))
    }

    fn no_epoch(&self, number: u32) -> RevealError {
        let known: Vec<String> = self.epochs.iter().map(|epoch| epoch.number.to_string()).collect();
        RevealError::NoEpoch { number, known: known.join(", ") }
    }

    /// The key epochs that were asked for.
    fn asked(&self, options: &RevealOptions) -> Result<Vec<KeyEpoch>, RevealError> {
        if let Some(number) = options.epoch {
            return Ok(vec![self.epoch(number)?.clone()]);
        }
        if let Some(at_ms) = options.at_ms {
            let was = |epoch: &&KeyEpoch| {
                epoch.from_ms <= at_ms && epoch.until_ms.is_none_or(|until_ms| at_ms < until_ms)
            };
            let found = self.epochs.iter().find(was);
            return Ok(vec![found.ok_or_else(|| RevealError::NoneAt(moment(at_ms)))?.clone()]);
        }
        let is_kept = |epoch: &&KeyEpoch| epoch.removed_ms.is_none();
        Ok(self.epochs.iter().filter(is_kept).cloned().collect())
    }
}

/// Writes what addresses stand for; gives how many of them could not be shown in any of the key epochs.
///
/// # Errors
/// When there are no keys, not the one that was asked for, or nobody reads what is written.
pub fn reveal(
    state_dir: &Path,
    addresses: &[IpAddr],
    options: &RevealOptions,
    out: &mut impl Write,
) -> Result<usize, RevealError> {
    let mut revealer = Revealer::open(state_dir)?;
    let epochs = revealer.asked(options)?;
    let way = if options.pseudonyms { Way::There } else { Way::Back };
    if !options.json {
        let (from, to) = match way {
            Way::Back => ("PSEUDONYM", "ADDRESS"),
            Way::There => ("ADDRESS", "PSEUDONYM"),
        };
        let head = format!("{:<9}  {:<19}  {:<19}", "KEY EPOCH", "FROM (UTC)", "UNTIL");
        writeln!(out, "{head}  {from:<39}  {to}")?;
    }
    let mut hidden = 0;
    for &given in addresses {
        let mut shown = 0;
        for epoch in &epochs {
            let found = revealer.map(epoch.number, given, way);
            shown += usize::from(found.is_ok());
            if options.json {
                serde_json::to_writer(&mut *out, &line(epoch, given, &found, way))
                    .map_err(io::Error::from)?;
                out.write_all(b"\n")?;
                continue;
            }
            let until = epoch.until_ms.map_or_else(|| "now".to_owned(), moment);
            let told = match &found {
                Ok(address) => address.to_string(),
                Err(error) => format!("? {error}"),
            };
            let (number, from) = (epoch.number, moment(epoch.from_ms));
            writeln!(
                out,
                "{number:<9}  {from:<19}  {until:<19}  {:<39}  {told}",
                given.to_string()
            )?;
        }
        hidden += usize::from(shown == 0);
    }
    out.flush()?;
    Ok(hidden)
}

fn line(
    epoch: &KeyEpoch,
    given: IpAddr,
    found: &Result<IpAddr, RevealError>,
    way: Way,
) -> Revealed {
    let other = found.as_ref().ok().copied();
    let (pseudonym, address) = match way {
        Way::Back => (Some(given), other),
        Way::There => (other, Some(given)),
    };
    Revealed {
        key_epoch: epoch.number,
        from_ms: epoch.from_ms,
        until_ms: epoch.until_ms,
        pseudonym,
        address,
        error: found.as_ref().err().map(ToString::to_string),
    }
}

/// A moment as people write it: RFC 3339, a day, or milliseconds since the Unix epoch.
///
/// # Errors
/// When it is none of them.
pub fn parse_moment(text: &str) -> Result<u64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let day = || format!("{text}T00:00:00Z").parse::<Timestamp>().ok();
    let time = text.parse::<Timestamp>().ok().or_else(day);
    time.and_then(|time| u64::try_from(time.as_millisecond()).ok()).ok_or_else(|| {
        format!("`{text}` is no time, expected such as 2026-11-21T10:00:00Z, 2026-11-21, or milliseconds since 1970")
    })
}
