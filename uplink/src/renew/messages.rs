//! Takes the messages of a renewal; gives their bytes, and the way back. Never does I/O.
//!
//! ```text
//! kind  message          stream           bytes after the kind (u8)
//!  24   renew            renewal, first   the sensor's clock u64, seconds since 1970
//!  25   renewed          its answer       the backend's clock u64 │ certificate: u16 length, PEM
//!  26   not renewed      its answer       the backend's clock u64 │ status u8 │ reason: u16 length, text
//! ```
//!
//! Which sensor, and which key: the certificate of the connection says it, nothing else.

use crate::reader::{DecodeError, Reader};
use crate::wire::{cut, kind, write_u16};

/// Bytes of the request.
pub(crate) const RENEW_BYTES: usize = 9;

/// Why a backend issues no certificate, as a number for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRenewal {
    /// More than half of the certificate's life is left, by the backend's clock.
    NotDue = 1,
    /// It ended too long ago.
    TooOld = 2,
    /// The sensor was revoked, or is unknown.
    NotAdmitted = 3,
    /// Not now; its log has the cause.
    Internal = 4,
}

impl NoRenewal {
    fn from_number(number: u8) -> Option<Self> {
        [Self::NotDue, Self::TooOld, Self::NotAdmitted, Self::Internal]
            .into_iter()
            .find(|status| *status as u8 == number)
    }
}

/// What the backend answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The backend's clock, seconds since 1970.
    pub(crate) clock_unix_s: u64,
    /// The new certificate, PEM; or why there is none.
    pub(crate) result: Result<String, (NoRenewal, String)>,
}

pub(crate) fn renew(clock_unix_s: u64) -> Vec<u8> {
    [&[24], clock_unix_s.to_le_bytes().as_slice()].concat()
}

pub(crate) fn read_renew(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new("renew message", bytes);
    kind(&mut reader, 24, "24")?;
    let clock_unix_s = reader.u64("clock")?;
    reader.end()?;
    Ok(clock_unix_s)
}

pub(crate) fn answer(answer: &Answer) -> Vec<u8> {
    let mut out = vec![if answer.result.is_ok() { 25 } else { 26 }];
    out.extend_from_slice(&answer.clock_unix_s.to_le_bytes());
    match &answer.result {
        Ok(certificate_pem) => write_u16(&mut out, certificate_pem.as_bytes()),
        Err((status, reason)) => {
            out.push(*status as u8);
            write_u16(&mut out, cut(reason).as_bytes());
        }
    }
    out
}

pub(crate) fn read_answer(bytes: &[u8]) -> Result<Answer, DecodeError> {
    let mut reader = Reader::new("renewal answer", bytes);
    let kind = reader.u8("kind")?;
    let clock_unix_s = reader.u64("clock")?;
    let result = match kind {
        25 => Ok(reader.text_u16("certificate")?.to_owned()),
        26 => {
            let number = reader.u8("status")?;
            let Some(status) = NoRenewal::from_number(number) else {
                return Err(reader.value_at("status", 9, number.into(), "1 to 4"));
            };
            Err((status, reader.text_u16("reason")?.to_owned()))
        }
        other => return Err(reader.value_at("kind", 0, other.into(), "25 or 26")),
    };
    reader.end()?;
    Ok(Answer { clock_unix_s, result })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Vec<Answer> {
        let refused =
            [NoRenewal::NotDue, NoRenewal::TooOld, NoRenewal::NotAdmitted, NoRenewal::Internal]
                .map(|status| Err((status, "why".to_owned())));
        [Ok("a certificate".to_owned())]
            .into_iter()
            .chain(refused)
            .map(|result| Answer { clock_unix_s: u64::MAX, result })
            .collect()
    }

    #[test]
    fn every_message_is_read_back() {
        for sent in answers() {
            assert_eq!(read_answer(&answer(&sent)), Ok(sent));
        }
        assert_eq!(read_renew(&renew(7)), Ok(7));
        assert_eq!(renew(7).len(), RENEW_BYTES);
    }

    #[test]
    fn no_decoder_panics_and_what_is_cut_or_too_long_is_refused() {
        for seed in answers().iter().map(answer).chain([renew(7)]) {
            for cut in 0..seed.len() {
                assert!(read_answer(&seed[..cut]).is_err() && read_renew(&seed[..cut]).is_err());
                for value in 0..=u8::MAX {
                    let mut bytes = seed.clone();
                    bytes[cut] = value;
                    drop((read_answer(&bytes), read_renew(&bytes)));
                }
            }
            let longer = [seed.as_slice(), &[0]].concat();
            assert!(read_answer(&longer).is_err() && read_renew(&longer).is_err());
        }
    }
}
