//! Takes a state folder; gives who its sensor is and how long its certificate is valid, for people to look at. Never
//! locks the folder, so that it can be asked while a sensor runs, and never gives the key.

use std::path::Path;

use serde::Serialize;

use crate::certificate::{Validity, now_unix_s, utc};
use crate::code::sha256;
use crate::state::{StateError, credentials};
use crate::{MemberId, SensorId};

/// Who a sensor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IdentityCard {
    /// Whose network.
    pub member: MemberId,
    /// Its name.
    pub sensor: SensorId,
    /// Where the backend is, `host:port`.
    pub backend: String,
    /// Its Ed25519 key, the public half, in hexadecimal digits.
    pub public_key: String,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub certificate_sha256: String,
    /// First second of the certificate, since the Unix epoch.
    pub begins_unix_s: u64,
    /// Last second of the certificate, since the Unix epoch.
    pub ends_unix_s: u64,
    /// When the sensor begins to ask for another one.
    pub renewal_from_unix_s: u64,
    /// By this machine's clock: `valid`, `due for renewal`, `expired`, or `not valid yet`.
    pub state: &'static str,
}

impl IdentityCard {
    /// Whether the sensor can deliver with it now.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        matches!(self.state, VALID | DUE)
    }

    /// A few lines for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let advice = match self.state {
            DUE => "; a running sensor, or `deliver`, renews it",
            EXPIRED => {
                "; `deliver` renews it if the backend still does, else `enroll CODE` keeps name, key and spool"
            }
            EARLY => "; this machine's clock is wrong, or the backend's was",
            _ => "",
        };
        let Self { member, sensor, backend, public_key, certificate_sha256, .. } = self;
        let (begins, ends) = (utc(self.begins_unix_s), utc(self.ends_unix_s));
        let from = utc(self.renewal_from_unix_s);
        let state = self.state;
        format!(
            "sensor       {sensor}\nmember       {member}\nbackend      {backend}\npublic key   {public_key}\n\
             certificate  SHA-256 {certificate_sha256}\nvalid        {begins} to {ends}\nrenewal from {from}\n\
             state        {state}{advice}\n"
        )
    }
}

const VALID: &str = "valid";
const DUE: &str = "due for renewal";
const EXPIRED: &str = "expired";
const EARLY: &str = "not valid yet";

fn state(validity: Validity, now_unix_s: u64) -> &'static str {
    match now_unix_s {
        now if now < validity.begins_unix_s => EARLY,
        now if validity.is_over(now) => EXPIRED,
        now if now >= validity.renewal_from_unix_s() => DUE,
        _ => VALID,
    }
}

/// Reads the identity of a state folder.
///
/// # Errors
///
/// When there is none, it is damaged, or others may use its files.
pub fn identity_card(state_dir: &Path) -> Result<IdentityCard, StateError> {
    let credentials = credentials(state_dir)?;
    let certificate = &credentials.certificate;
    let validity = certificate.validity();
    Ok(IdentityCard {
        member: credentials.identity.member,
        sensor: credentials.identity.sensor,
        backend: credentials.identity.backend,
        public_key: hex(&credentials.key.public_key()),
        certificate_sha256: hex(&sha256(&[&certificate.der()])),
        begins_unix_s: validity.begins_unix_s,
        ends_unix_s: validity.ends_unix_s,
        renewal_from_unix_s: validity.renewal_from_unix_s(),
        state: state(validity, now_unix_s()),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_the_clock() {
        let validity = Validity { begins_unix_s: 1000, ends_unix_s: 1300 };
        let states = [999, 1000, 1199, 1200, 1300, 1301].map(|now| state(validity, now));
        assert_eq!(states, [EARLY, VALID, VALID, DUE, DUE, EXPIRED]);
    }
}
