//! Takes text and certificates; gives names that are known to be well formed. Never decides who may do what: a
//! name is not a credential, only the key in a certificate is.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Longest member or sensor name, characters.
pub const ID_LENGTH_MAX: usize = 64;

/// Why a text is not a member or sensor name. Remedy: use the name that the backend printed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// Empty or too long.
    #[error("a name has 1 to {ID_LENGTH_MAX} characters, not {length}")]
    Length {
        /// Bytes of the text.
        length: usize,
    },
    /// A character outside the alphabet.
    #[error("character {character:?} at {offset}: a name has only a-z, 0-9 and '-'")]
    Character {
        /// The first such character.
        character: char,
        /// Its byte offset.
        offset: usize,
    },
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() || text.len() > ID_LENGTH_MAX {
        return Err(IdError::Length { length: text.len() });
    }
    match text.char_indices().find(|(_, c)| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        Some((offset, character)) => Err(IdError::Character { character, offset }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks length and alphabet (1 to 64 of a-z, 0-9 and '-').
            ///
            /// # Errors
            ///
            /// Says what is wrong with the text.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name! {
    /// The organisation whose traffic a sensor sees.
    MemberId
}

name! {
    /// One sensor; made by the backend at enrolment and unique there.
    SensorId
}

/// What tells one batch from every other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    /// Who sealed it.
    pub sensor: SensorId,
    /// How often that sensor's outbox had been opened, this time included.
    pub boot_epoch: u64,
    /// Position within the boot epoch; the first batch is 1.
    pub sequence: u64,
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.sensor, self.boot_epoch, self.sequence)
    }
}

/// Who is at the other end of a delivery connection, as its certificate says; made only from a certificate
/// that chains to the backend's own authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The member that the certificate names.
    pub member: MemberId,
    /// The sensor that the certificate names.
    pub sensor: SensorId,
    /// SHA-256 of the certificate's DER form.
    pub certificate_sha256: [u8; 32],
    /// The certificate's Ed25519 key; the sensor signs its batches with the same one.
    pub public_key: [u8; 32],
}
