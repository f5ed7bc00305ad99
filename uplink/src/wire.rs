//! Takes the messages of enrolment and delivery; gives their bytes, and the way back. Never does I/O.
//!
//! One message a direction on each bidirectional QUIC stream; the stream's end is the message's end. All numbers
//! are little-endian.
//!
//! ```text
//! kind  message          stream            bytes after the kind (u8)
//!  1    enrol            enrolment, first  secret 16 │ request: u16 length, DER
//!  2    enrolled         its answer        member: u8 length, text │ sensor: u8 length, text
//!                                          │ certificate: u16 length, PEM │ authority: u16 length, PEM
//!  3    not enrolled     its answer        status u8 │ reason: u16 length, text
//!  4    hello            delivery, first   count u8 │ boot epoch u64, count times
//!  5    held             its answer        count u8 │ last sequence u64 (0 = none), count times
//!  6    batch            delivery, others  boot epoch u64 │ sequence u64 │ batch: u32 length, bytes
//!  7    ack              its answer        boot epoch u64 │ sequence u64 │ outcome u8 │ reason: u16 length, text
//! 24 to 26               renewal           see `renew::messages`
//! ```

use std::fmt;

use crate::batch::BATCH_BYTES_MAX;
use crate::health;
use crate::reader::{DecodeError, Reader};
use crate::spool::Key;
use crate::{IdError, MemberId, SensorId};

/// Application protocol of an enrolment connection.
pub(crate) const ALPN_ENROLMENT: &[u8] = b"spanwatch-enrolment/1";
/// Application protocol of a connection that asks for a new certificate.
pub(crate) const ALPN_RENEWAL: &[u8] = b"spanwatch-renewal/1";
/// Application protocol of a delivery connection.
pub(crate) const ALPN_DELIVERY: &[u8] = b"spanwatch-delivery/1";

/// Longest certificate signing request; one with an Ed25519 key has about 200 bytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 2048;
/// Longest enrolment message in either direction: two PEM certificates and names.
pub(crate) const ENROLMENT_BYTES_MAX: usize = 16 << 10;
/// Most boot epochs in a hello; the oldest come first, later ones are recognised batch by batch.
pub(crate) const EPOCHS_MAX: usize = 64;
/// Longest hello or answer to it.
pub(crate) const HELLO_BYTES_MAX: usize = 2 + EPOCHS_MAX * 8;
/// Kind, key and length of a batch message.
pub(crate) const BATCH_PREFIX: usize = 21;
/// Longest reason, bytes.
const REASON_BYTES_MAX: usize = 512;
/// Longest ack.
pub(crate) const ACK_BYTES_MAX: usize = 20 + REASON_BYTES_MAX;

/// Why a backend gives a sensor no identity, as a number for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Unknown, used or expired: which of these is nobody's business but the log's.
    Code = 1,
    TooManyTries = 4,
    BadRequest = 5,
    Internal = 6,
}

/// What became of a batch, for the sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Durable at the backend now.
    Stored,
    /// Had been durable there before.
    Duplicate,
    /// Will never be stored, and why.
    Rejected(String),
    /// Cannot be stored now, and why.
    Retry(String),
}

/// Numbers with which either side ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    Done = 0,
    NotAdmitted = 1,
    Protocol = 2,
    Retry = 3,
    NoCertificate = 4,
    Replaced = 5,
    Shutdown = 6,
    Expired = 7,
}

impl Close {
    pub(crate) const fn code(self) -> quinn::VarInt {
        quinn::VarInt::from_u32(self as u32)
    }

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotAdmitted => "this sensor is not admitted: it was revoked or is unknown",
            Self::Protocol => "protocol error",
            Self::Retry => "batches cannot be stored now",
            Self::NoCertificate => "delivery needs a client certificate",
            Self::Replaced => "this sensor opened another connection",
            Self::Shutdown => "the backend is shutting down",
            Self::Expired => "this sensor's certificate has expired",
        }
    }

    pub(crate) fn close(self, connection: &quinn::Connection) {
        connection.close(self.code(), self.reason().as_bytes());
    }
}

pub(crate) fn enrol(secret: &[u8; 16], request_der: &[u8]) -> Vec<u8> {
    let mut out = vec![1];
    out.extend_from_slice(secret);
    write_u16(&mut out, request_der);
    out
}

pub(crate) struct Enrol<'a> {
    pub(crate) secret: [u8; 16],
    pub(crate) request_der: &'a [u8],
}

pub(crate) fn read_enrol(bytes: &[u8]) -> Result<Enrol<'_>, DecodeError> {
    let mut reader = Reader::new("enrol message", bytes);
    kind(&mut reader, 1, "1")?;
    let secret = reader.array("secret")?;
    let offset = reader.offset();
    let length = reader.u16("request length")?;
    if usize::from(length) > REQUEST_BYTES_MAX {
        return Err(reader.value_at("request length", offset, length.into(), "at most 2048"));
    }
    let request_der = reader.take("request", usize::from(length))?;
    reader.end()?;
    Ok(Enrol { secret, request_der })
}

/// What an enrolled sensor gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) member: MemberId,
    pub(crate) sensor: SensorId,
    pub(crate) certificate_pem: String,
    pub(crate) authority_pem: String,
}

pub(crate) type EnrolAnswer = Result<Issued, (u8, String)>;

pub(crate) fn enrol_answer(answer: &Result<Issued, (Refusal, String)>) -> Vec<u8> {
    match answer {
        Ok(issued) => {
            let mut out = vec![2];
            for name in [issued.member.as_str(), issued.sensor.as_str()] {
                out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(name.as_bytes());
            }
            write_u16(&mut out, issued.certificate_pem.as_bytes());
            write_u16(&mut out, issued.authority_pem.as_bytes());
            out
        }
        Err((refusal, reason)) => {
            let mut out = vec![3, *refusal as u8];
            write_u16(&mut out, cut(reason).as_bytes());
            out
        }
    }
}

pub(crate) fn read_enrol_answer(bytes: &[u8]) -> Result<EnrolAnswer, DecodeError> {
    let mut reader = Reader::new("enrolment answer", bytes);
    let answer = match reader.u8("kind")? {
        2 => Ok(Issued {
            member: name(&mut reader, "member")?,
            sensor: name(&mut reader, "sensor")?,
            certificate_pem: reader.text_u16("certificate")?.to_owned(),
            authority_pem: reader.text_u16("authority")?.to_owned(),
        }),
        3 => Err((reader.u8("status")?, reader.text_u16("reason")?.to_owned())),
        other => return Err(reader.value_at("kind", 0, u64::from(other), "2 or 3")),
    };
    reader.end()?;
    Ok(answer)
}

pub(crate) fn hello(epochs: &[u64]) -> Vec<u8> {
    numbers(4, epochs)
}

pub(crate) fn read_hello(bytes: &[u8]) -> Result<Vec<u64>, DecodeError> {
    read_numbers("hello message", 4, "4", bytes)
}

pub(crate) fn held(sequences: &[u64]) -> Vec<u8> {
    numbers(5, sequences)
}

pub(crate) fn read_held(bytes: &[u8]) -> Result<Vec<u64>, DecodeError> {
    read_numbers("held message", 5, "5", bytes)
}

fn numbers(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let numbers = &numbers[..numbers.len().min(EPOCHS_MAX)];
    let mut out = vec![kind, u8::try_from(numbers.len()).unwrap_or(0)];
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    out
}

fn read_numbers(
    place: &'static str,
    wanted: u8,
    wanted_text: &'static str,
    bytes: &[u8],
) -> Result<Vec<u64>, DecodeError> {
    let mut reader = Reader::new(place, bytes);
    kind(&mut reader, wanted, wanted_text)?;
    let count = reader.u8("count")?;
    if usize::from(count) > EPOCHS_MAX {
        return Err(reader.value_at("count", 1, u64::from(count), "at most 64"));
    }
    let numbers = (0..count).map(|_| reader.u64("number")).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(numbers)
}

/// What comes before the batch's bytes; `length` is at most [`BATCH_BYTES_MAX`].
pub(crate) fn batch_prefix(key: Key, length: usize) -> Vec<u8> {
    let mut out = vec![6];
    out.extend_from_slice(&key.boot_epoch.to_le_bytes());
    out.extend_from_slice(&key.sequence.to_le_bytes());
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    out
}

pub(crate) fn read_batch_prefix(bytes: &[u8]) -> Result<(Key, usize), DecodeError> {
    let mut reader = Reader::new("batch message", bytes);
    kind(&mut reader, 6, "6")?;
    let key = Key { boot_epoch: reader.u64("boot epoch")?, sequence: reader.u64("sequence")? };
    let length = reader.length_u32("length", BATCH_BYTES_MAX, "at most 16777216")?;
    reader.end()?;
    Ok((key, length))
}

pub(crate) fn ack(key: Key, outcome: &Outcome) -> Vec<u8> {
    let mut out = vec![7];
    out.extend_from_slice(&key.boot_epoch.to_le_bytes());
    out.extend_from_slice(&key.sequence.to_le_bytes());
    let (number, reason) = match outcome {
        Outcome::Stored => (1, ""),
        Outcome::Duplicate => (2, ""),
        Outcome::Rejected(reason) => (3, reason.as_str()),
        Outcome::Retry(reason) => (4, reason.as_str()),
    };
    out.push(number);
    write_u16(&mut out, cut(reason).as_bytes());
    out
}

pub(crate) fn read_ack(bytes: &[u8]) -> Result<(Key, Outcome), DecodeError> {
    let mut reader = Reader::new("ack message", bytes);
    kind(&mut reader, 7, "7")?;
    let key = Key { boot_epoch: reader.u64("boot epoch")?, sequence: reader.u64("sequence")? };
    let offset = reader.offset();
    let number = reader.u8("outcome")?;
    let reason = reader.text_u16("reason")?.to_owned();
    let outcome = match number {
        1 => Outcome::Stored,
        2 => Outcome::Duplicate,
        3 => Outcome::Rejected(reason),
        4 => Outcome::Retry(reason),
        other => return Err(reader.value_at("outcome", offset, u64::from(other), "1 to 4")),
    };
    reader.end()?;
    Ok((key, outcome))
}

/// Reads any message of the link but a batch's bytes, as whoever it is for would, and writes it again: for tools that
/// look at recorded bytes, and for fuzzing.
///
/// # Errors
///
/// When it is no message.
pub fn rewrite_message(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Ok(match bytes.first() {
        Some(1) => {
            let Enrol { secret, request_der } = read_enrol(bytes)?;
            enrol(&secret, request_der)
        }
        Some(2) => match read_enrol_answer(bytes)? {
            Ok(issued) => enrol_answer(&Ok(issued)),
            Err(_) => bytes.to_vec(),
        },
        // A status that this version does not know is read, and not written.
        Some(3) => read_enrol_answer(bytes).map(|_answer| bytes.to_vec())?,
        Some(4) => hello(&read_hello(bytes)?),
        Some(5) => held(&read_held(bytes)?),
        Some(6) => {
            let (key, length) = read_batch_prefix(bytes)?;
            batch_prefix(key, length)
        }
        Some(16) => health::write(&health::read(bytes)?),
        _ => {
            let (key, outcome) = read_ack(bytes)?;
            ack(key, &outcome)
        }
    })
}

pub(crate) fn kind(
    reader: &mut Reader<'_>,
    wanted: u8,
    wanted_text: &'static str,
) -> Result<(), DecodeError> {
    let kind = reader.u8("kind")?;
    if kind == wanted {
        Ok(())
    } else {
        Err(reader.value_at("kind", 0, u64::from(kind), wanted_text))
    }
}

fn name<T: std::str::FromStr<Err = IdError>>(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<T, DecodeError> {
    let offset = reader.offset();
    let text = reader.text_u8(field)?;
    text.parse().map_err(|error: IdError| reader.malformed_at(field, offset, error.to_string()))
}

/// Appends bytes behind their 16-bit length; what is longer than that was bounded by the caller.
pub(crate) fn write_u16(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&bytes[..usize::from(length)]);
}

/// The part of a reason that fits a message.
pub(crate) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Duplicate => f.write_str("duplicate"),
            Self::Rejected(reason) => write!(f, "rejected: {reason}"),
            Self::Retry(reason) => write!(f, "not stored now: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_read_back() {
        let key = Key { boot_epoch: u64::MAX, sequence: 3 };
        let long = "ä".repeat(400);
        for outcome in [
            Outcome::Stored,
            Outcome::Duplicate,
            Outcome::Rejected("why".to_owned()),
            Outcome::Retry(String::new()),
        ] {
            assert_eq!(read_ack(&ack(key, &outcome)), Ok((key, outcome)));
        }
        let bytes = ack(key, &Outcome::Retry(long.clone()));
        assert!(bytes.len() <= ACK_BYTES_MAX);
        assert_eq!(read_ack(&bytes), Ok((key, Outcome::Retry("ä".repeat(256)))));
        assert_eq!(read_hello(&hello(&[1, 2, u64::MAX])), Ok(vec![1, 2, u64::MAX]));
        assert_eq!(read_held(&held(&[0; 100])), Ok(vec![0; EPOCHS_MAX]));
        assert_eq!(read_batch_prefix(&batch_prefix(key, 9)), Ok((key, 9)));
        assert_eq!(batch_prefix(key, 9).len(), BATCH_PREFIX);
        let bytes = enrol(&[5; 16], b"request");
        let read = read_enrol(&bytes).expect("just written");
        assert_eq!((read.secret, read.request_der), ([5; 16], b"request".as_slice()));
        let issued = Issued {
            member: "m".parse().expect("a name"),
            sensor: "m-1".parse().expect("a name"),
            certificate_pem: "c".to_owned(),
            authority_pem: "a".to_owned(),
        };
        assert_eq!(read_enrol_answer(&enrol_answer(&Ok(issued.clone()))), Ok(Ok(issued)));
        let refused = enrol_answer(&Err((Refusal::Code, "no".to_owned())));
        assert_eq!(read_enrol_answer(&refused), Ok(Err((1, "no".to_owned()))));
    }

    #[test]
    fn no_message_decoder_panics() {
        let key = Key { boot_epoch: 1, sequence: 2 };
        let seeds: [Vec<u8>; 6] = [
            ack(key, &Outcome::Rejected("why".to_owned())),
            hello(&[1, 2]),
            held(&[1]),
            batch_prefix(key, 9),
            enrol(&[5; 16], b"request"),
            enrol_answer(&Err((Refusal::Code, "no".to_owned()))),
        ];
        for seed in seeds {
            for cut in 0..seed.len() {
                for value in 0..=u8::MAX {
                    let mut bytes = seed[..=cut].to_vec();
                    bytes[cut] = value;
                    decode_with_all(&bytes);
                    bytes.extend_from_slice(&seed[cut + 1..]);
                    decode_with_all(&bytes);
                }
            }
        }
    }

    fn decode_with_all(bytes: &[u8]) {
        drop((read_ack(bytes), read_hello(bytes), read_held(bytes), read_batch_prefix(bytes)));
        drop(read_enrol_answer(bytes));
        assert!(
            read_enrol(bytes).is_ok_and(|enrol| enrol.request_der.len() < bytes.len())
                || read_enrol(bytes).is_err()
        );
    }
}
