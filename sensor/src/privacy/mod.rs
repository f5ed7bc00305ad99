//! Takes records on their way to the backend; keeps at home what is nobody else's business, and gives the rest with
//! pseudonyms in the place of the organisation's own clients. Outputs at the site never come by here.
//!
//! | file | what is in it |
//! |---|---|
//! | `prefix`, `ranges` | ranges of addresses: one as text, and many to look into |
//! | `networks` | whose an address is; its pseudonym, and back |
//! | `crypto_pan`, `cache` | the cipher of pseudonyms, and those made of late |
//! | `keys` | a key for each key epoch, on the disk |
//! | `reveal` | the way back, for the member |
//!
//! `docs/privacy.md` says what this hides and what not; ADR 10 why it is as it is.

mod cache;
mod crypto_pan;
mod keys;
mod networks;
mod prefix;
mod ranges;
mod reveal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use flow::{Books, Record};
use jiff::Timestamp;
use thiserror::Error;

pub use keys::{KeyEpoch, KeyError};
pub(crate) use networks::check as check_networks;
pub use networks::{NetworksError, NoPseudonym};
pub use prefix::{Prefix, PrefixError};
pub use reveal::{RevealError, RevealOptions, Revealed, Revealer, parse_moment, reveal};

use crate::config::{InternalTraffic, PrivacyConfig};
use cache::Cache;
use keys::{KeySettings, KeyStore};
use networks::{AS_SEEN, Networks, Owner};
use ranges::{Bits, Ranges};

const MS_A_DAY: u64 = 86_400_000;

/// Why records cannot be made ready for the backend. Nothing is sent then.
#[derive(Debug, Error)]
pub enum PrivacyError {
    /// There is no key. Remedy: see [`KeyError`].
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The lists of ranges do not go together. Remedy: see [`NetworksError`].
    #[error("privacy.public_servers: {0}")]
    Networks(#[from] NetworksError),
    /// An address has no pseudonym. Remedy: name fewer public servers.
    #[error(transparent)]
    NoPseudonym(#[from] NoPseudonym),
}

/// What was kept at home for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Records.
    pub records: u64,
    /// Packets in them.
    pub packets: u64,
    /// Layer-2 bytes in them.
    pub bytes: u64,
}

impl Kept {
    fn add(&mut self, record: &Record) {
        self.records += 1;
        self.packets += record.from_initiator.packets + record.from_responder.packets;
        self.bytes = self
            .bytes
            .saturating_add(record.from_initiator.bytes)
            .saturating_add(record.from_responder.bytes);
    }
}

/// What was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrivacyTotals {
    /// Both ends are the organisation's.
    pub internal: Kept,
    /// An end is in a range that was named as trusted.
    pub trusted: Kept,
    /// Addresses that were given a pseudonym.
    pub pseudonyms_given: u64,
    /// Those of them that had one in memory.
    pub pseudonyms_cached: u64,
    /// The number of the key epoch; `None` where there are no pseudonyms.
    pub key_epoch: Option<u32>,
    /// Keys on the disk.
    pub keys_kept: u64,
    /// Keys that were removed since the start, because they were old.
    pub keys_removed: u64,
}

impl PrivacyTotals {
    /// The books with what was kept.
    #[must_use]
    pub const fn books(&self, books: Books) -> Books {
        Books {
            records_kept_internal: self.internal.records,
            records_kept_trusted: self.trusted.records,
            packets_kept_internal: self.internal.packets,
            packets_kept_trusted: self.trusted.packets,
            ..books
        }
    }
}

/// What decides about each record before it is sealed.
pub struct Privacy {
    networks: Networks,
    trusted: Ranges,
    keeps_internal: bool,
    /// Without it there are no pseudonyms.
    keys: Option<KeyStore>,
    cache: Cache,
    totals: PrivacyTotals,
}

impl fmt::Debug for Privacy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Privacy").field("totals", &self.totals).finish_non_exhaustive()
    }
}

impl Privacy {
    /// What the configuration asks for, with the keys in a state folder whose lock this process holds.
    ///
    /// # Errors
    /// When there should be pseudonyms, and there is no key to make them with.
    pub fn open(
        config: &PrivacyConfig,
        state_dir: &Path,
        now_ms: u64,
    ) -> Result<Self, PrivacyError> {
        check_networks(&config.own_prefixes, &config.public_servers)?;
        let networks = Networks::new(&config.own_prefixes, &config.public_servers);
        let keys = if config.pseudonymise && !networks.is_empty() {
            let settings = KeySettings {
                own_prefixes: config.own_prefixes.clone(),
                public_servers: config.public_servers.clone(),
                epoch_ms: config.key_epoch_days.get() * MS_A_DAY,
                kept_ms: config.keys_kept_days.get() * MS_A_DAY,
            };
            Some(KeyStore::open(state_dir, settings, now_ms)?)
        } else {
            None
        };
        let mut privacy = Self {
            networks,
            trusted: Ranges::new(&config.trusted_prefixes),
            keeps_internal: config.internal_traffic == InternalTraffic::Keep,
            keys,
            cache: Cache::default(),
            totals: PrivacyTotals::default(),
        };
        privacy.count_keys();
        Ok(privacy)
    }

    /// Whether a record stays at home; it is counted then.
    pub fn keeps(&mut self, record: &Record) -> bool {
        let kept = if self.keeps_internal && self.networks.is_internal(record) {
            &mut self.totals.internal
        } else if !self.trusted.is_empty()
            && networks::holds_ends(&self.trusted, record).contains(&true)
        {
            &mut self.totals.trusted
        } else {
            return false;
        };
        kept.add(record);
        true
    }

    /// Makes ready what one batch will hold; gives the key epoch of its pseudonyms. Those of one batch are of one key.
    ///
    /// # Errors
    /// When there is no key, or an address has no pseudonym; the records must not be sent then.
    pub fn prepare(
        &mut self,
        records: &mut [Record],
        now_ms: u64,
    ) -> Result<Option<u32>, PrivacyError> {
        let Self { networks, keys: Some(keys), cache, totals, .. } = self else {
            return Ok(None);
        };
        if keys.advance(now_ms)? {
            cache.clear();
        }
        let mut pseudonym = |address: IpAddr| -> Result<Option<IpAddr>, NoPseudonym> {
            let Owner::Client { length } = networks.owner(address) else { return Ok(None) };
            if length == Bits::of(address).width {
                // A range of one address: there is no other to stand for it.
                return Ok(None);
            }
            totals.pseudonyms_given += 1;
            if let Some(known) = cache.get(address) {
                totals.pseudonyms_cached += 1;
                return Ok(Some(known));
            }
            let made = networks.pseudonym(keys.cipher(), address, length)?;
            cache.insert(address, made);
            Ok(Some(made))
        };
        for record in records.iter_mut() {
            let initiator = if record.folded {
                networks.folded_pseudonym(keys.cipher(), record.initiator)
            } else {
                pseudonym(record.initiator)?
            };
            let responder = pseudonym(record.responder)?;
            record.pseudonyms = AS_SEEN;
            if let Some(initiator) = initiator {
                (record.initiator, record.pseudonyms.initiator) = (initiator, true);
            }
            if let Some(responder) = responder {
                (record.responder, record.pseudonyms.responder) = (responder, true);
            }
        }
        self.count_keys();
        Ok(self.totals.key_epoch)
    }

    /// What was done since the start.
    #[must_use]
    pub const fn totals(&self) -> PrivacyTotals {
        self.totals
    }

    fn count_keys(&mut self) {
        let Some(keys) = &self.keys else { return };
        self.totals.key_epoch = keys.epoch().map(|epoch| epoch.number);
        self.totals.keys_kept = keys.kept();
        self.totals.keys_removed = keys.removed();
    }
}

/// What people are told at the start about where addresses go, one line each; the second part says whether it is a
/// warning.
#[must_use]
pub(crate) fn announcement(config: &PrivacyConfig) -> Vec<(String, bool)> {
    let mut lines = Vec::new();
    if config.own_prefixes.is_empty() {
        let told = "privacy at the site is off (own_prefixes is empty): addresses of own clients and traffic inside \
                    the own network are sent to the backend as they are";
        return vec![(told.to_owned(), true)];
    }
    if config.own_prefixes == Prefix::private() {
        let told = "privacy.own_prefixes has the private ranges only: name the organisation's public ranges there, \
                    if clients have addresses of them";
        lines.push((told.to_owned(), false));
    }
    if !config.pseudonymise {
        let told = "privacy.pseudonymise is false: addresses of own clients are sent to the backend as they are";
        lines.push((told.to_owned(), true));
    }
    if config.internal_traffic == InternalTraffic::Send {
        let told = "privacy.internal_traffic is \"send\": traffic inside the own network is sent to the backend";
        lines.push((told.to_owned(), true));
    }
    let is_left_out = |private: &Prefix| {
        let ends = |own: &Prefix| own.contains(*private) || private.contains(*own);
        !config.own_prefixes.iter().any(ends)
    };
    let left_out: Vec<String> =
        Prefix::private().iter().filter(|p| is_left_out(p)).map(ToString::to_string).collect();
    if !left_out.is_empty() {
        let list = left_out.join(", ");
        lines.push((
            format!("privacy.own_prefixes leaves out {list}: addresses there are sent as they are"),
            true,
        ));
    }
    for single in config
        .own_prefixes
        .iter()
        .filter(|own| own.get().prefix_len() == own.get().max_prefix_len())
    {
        if !config.public_servers.contains(single) {
            let told = format!(
                "privacy.own_prefixes: {single} is one address, for which there is no pseudonym"
            );
            lines.push((told, true));
        }
    }
    lines
}

/// A time to the second, for people; the number where no calendar has it.
fn moment(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms"), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
