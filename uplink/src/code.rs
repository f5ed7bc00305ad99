//! Takes the text that a person copies from the backend to a sensor; gives where to connect, whom to expect
//! there, and the secret that proves the invitation. Never keeps the secret in a printable form.
//!
//! ```text
//! SW1-xxxxx-xxxxx-…   Crockford base 32 of:
//! ┌───────────┬────────────────────┬──────────────────────┬────────────────┐
//! │ secret 16 │ pin 32             │ address, 3 to 255    │ check 4        │
//! │           │ SHA-256 of SPKI    │ host:port            │ BLAKE3, cut    │
//! └───────────┴────────────────────┴──────────────────────┴────────────────┘
//! ```

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use thiserror::Error;
use zeroize::Zeroizing;

/// Without I, L, O and U, which are mistaken for 1, 0 and V.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const PREFIX: &str = "SW1";
const GROUP: usize = 5;
/// 128 bits: guessing it is hopeless even without the rate limit.
const SECRET: usize = 16;
const PIN: usize = 32;
const CHECK: usize = 4;
const ADDRESS_MAX: usize = 255;
const BYTES_MIN: usize = SECRET + PIN + CHECK;
const BYTES_MAX: usize = BYTES_MIN + ADDRESS_MAX;
const CHECK_CONTEXT: &[u8] = b"spanwatch enrolment code v1\0";
const HASH_CONTEXT: &[u8] = b"spanwatch enrolment secret v1\0";

/// Why a text is not an enrolment code. Remedy: copy it again, as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodeError {
    /// It starts with something else.
    #[error("an enrolment code starts with {PREFIX}-")]
    Prefix,
    /// A character that no code has.
    #[error("character {character:?} at position {position} does not occur in an enrolment code")]
    Character {
        /// The first such character.
        character: char,
        /// Its position in the text, from 1.
        position: usize,
    },
    /// Parts are missing, or too much was copied.
    #[error("the enrolment code is incomplete or too long ({0} characters)")]
    Length(usize),
    /// The characters do not fit together.
    #[error("the enrolment code was mistyped: its check characters do not match the rest")]
    Check,
    /// The address in it is not `host:port`.
    #[error("{address:?} is not an address of the form host:port")]
    Address {
        /// What is there instead.
        address: String,
    },
    /// The system's random source failed.
    #[error("no random secret could be made")]
    Random,
}

/// A one-time code: shown once by the backend, typed in once at the sensor.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentCode {
    secret: Zeroizing<[u8; SECRET]>,
    pin: [u8; PIN],
    address: String,
}

impl EnrolmentCode {
    /// A code with a fresh secret. `address` is where sensors reach the backend, `host:port`; `pin` is
    /// [`crate::CertificateAuthority::pin`].
    ///
    /// # Errors
    ///
    /// When the address has another form, or the random source fails.
    pub fn new(address: &str, pin: [u8; 32]) -> Result<Self, CodeError> {
        check_address(address)?;
        let mut secret = Zeroizing::new([0; SECRET]);
        aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_unspecified| CodeError::Random)?;
        Ok(Self { secret, pin, address: address.to_owned() })
    }

    /// Where the backend is, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// SHA-256 of the backend's public key (`SubjectPublicKeyInfo`).
    #[must_use]
    pub const fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// What the backend stores in place of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        secret_hash(&self.secret)
    }

    pub(crate) fn secret(&self) -> &[u8; SECRET] {
        &self.secret
    }
}

/// A plain hash is enough: the secret has 128 random bits, so there is nothing to guess.
pub(crate) fn secret_hash(secret: &[u8; SECRET]) -> [u8; 32] {
    sha256(&[HASH_CONTEXT, secret])
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Whether a text has the form `host:port`, an IPv6 host in brackets.
pub(crate) fn check_address(address: &str) -> Result<(), CodeError> {
    let wrong = || CodeError::Address { address: address.chars().take(ADDRESS_MAX).collect() };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let host_fits = !host.is_empty()
        && (bracketed || !host.contains(':'))
        && host.bytes().all(|byte| byte.is_ascii_graphic());
    if host_fits && address.len() <= ADDRESS_MAX && port.parse::<u16>().is_ok_and(|p| p > 0) {
        Ok(())
    } else {
        Err(wrong())
    }
}

fn check_bytes(payload: &[u8]) -> [u8; CHECK] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(CHECK_CONTEXT).update(payload);
    let mut check = [0; CHECK];
    hasher.finalize_xof().fill(&mut check);
    check
}

impl fmt::Debug for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolmentCode").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Display for EnrolmentCode {
    /// Writes the whole code, secret included: this is what the member gets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut payload = Zeroizing::new(Vec::with_capacity(BYTES_MAX));
        payload.extend_from_slice(self.secret.as_slice());
        payload.extend_from_slice(&self.pin);
        payload.extend_from_slice(self.address.as_bytes());
        write_text(&payload, f)
    }
}

/// Writes the text of a payload, whatever it is, with the check bytes that belong to it.
pub(crate) fn write_text(payload: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    let bytes = Zeroizing::new([payload, &check_bytes(payload)].concat());
    out.write_str(PREFIX)?;
    for (position, digit) in digits(&bytes).enumerate() {
        if position % GROUP == 0 {
            out.write_str("-")?;
        }
        write!(out, "{}", char::from(ALPHABET[usize::from(digit)]))?;
    }
    Ok(())
}

/// Five bits at a time, the last digit filled up with zero bits.
fn digits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    (0..bytes.len() * 8).step_by(5).map(move |at| (at..at + 5).fold(0, |d, at| d << 1 | bit(at)))
}

impl FromStr for EnrolmentCode {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        // Upper or lower case, with or without hyphens and blanks: people copy codes in many ways.
        let mut symbols = (1..)
            .zip(text.chars())
            .filter(|(_, c)| !(c.is_whitespace() || *c == '-'))
            .map(|(position, c)| (position, c.to_ascii_uppercase()));
        if !PREFIX.chars().all(|wanted| symbols.next().is_some_and(|(_, c)| c == wanted)) {
            return Err(CodeError::Prefix);
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX));
        let (mut buffer, mut bits) = (0_u32, 0_u32);
        for (count, (position, character)) in symbols.enumerate() {
            if count > BYTES_MAX * 8 / 5 {
                return Err(CodeError::Length(text.chars().count()));
            }
            let digit = value_of(character).ok_or(CodeError::Character { character, position })?;
            buffer = buffer << 5 | digit;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes.push((buffer >> bits & 0xff) as u8);
                buffer &= (1 << bits) - 1;
            }
        }
        if bytes.len() < BYTES_MIN {
            return Err(CodeError::Length(text.chars().count()));
        }
        let (payload, check) = bytes.split_at(bytes.len() - CHECK);
        if bits >= 5 || buffer != 0 || check != check_bytes(payload) {
            return Err(CodeError::Check);
        }
        let (secret_and_pin, address) = payload.split_at(SECRET + PIN);
        let mut secret = Zeroizing::new([0; SECRET]);
        let mut pin = [0; PIN];
        secret.copy_from_slice(&secret_and_pin[..SECRET]);
        pin.copy_from_slice(&secret_and_pin[SECRET..]);
        let address = String::from_utf8_lossy(address).into_owned();
        check_address(&address)?;
        Ok(Self { secret, pin, address })
    }
}

fn value_of(character: char) -> Option<u32> {
    let canonical = match character {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let position = ALPHABET.iter().position(|symbol| char::from(*symbol) == canonical)?;
    u32::try_from(position).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_back_however_it_is_copied() {
        for address in ["127.0.0.1:4433", "[2001:db8::1]:443", "backend.example.org:1"] {
            let code = EnrolmentCode::new(address, [7; 32]).expect("the address is valid");
            let text = code.to_string();
            let forms =
                [text.clone(), text.to_lowercase(), text.replace('-', " "), text.replace('0', "o")];
            for form in forms {
                assert_eq!(form.parse::<EnrolmentCode>().as_ref(), Ok(&code), "{form}");
            }
            assert!(!format!("{code:?}").contains("secret"));
        }
    }

    #[test]
    fn every_single_mistyped_character_is_noticed() {
        let text = EnrolmentCode::new("127.0.0.1:4433", [9; 32]).expect("valid").to_string();
        for position in PREFIX.len()..text.len() {
            if &text[position..=position] == "-" {
                continue;
            }
            let other = if &text[position..=position] == "A" { "B" } else { "A" };
            let mut typo = text.clone();
            typo.replace_range(position..=position, other);
            assert_eq!(typo.parse::<EnrolmentCode>(), Err(CodeError::Check), "{position}");
        }
    }

    #[test]
    fn what_is_not_a_code_is_told_apart() {
        let text = EnrolmentCode::new("127.0.0.1:4433", [9; 32]).expect("valid").to_string();
        let parse = |text: &str| text.parse::<EnrolmentCode>().expect_err("not a code");
        assert_eq!(parse("hello"), CodeError::Prefix);
        assert_eq!(parse(""), CodeError::Prefix);
        assert_eq!(parse("SW1-0000"), CodeError::Length(8));
        assert_eq!(parse(&text[..text.len() - 6]), CodeError::Check);
        assert_eq!(parse("SW1-AB!"), CodeError::Character { character: '!', position: 7 });
        assert_eq!(parse(&format!("SW1-{}", "0".repeat(600))), CodeError::Length(604));
        for address in ["", "host", "host:0", "host:65536", ":1", "a b:1", "::1:80"] {
            let error = EnrolmentCode::new(address, [0; 32]).expect_err("not an address");
            assert_eq!(error, CodeError::Address { address: address.to_owned() });
        }
    }
}
