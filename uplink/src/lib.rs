//! Records become batches, batches wait in a spool and cross a QUIC link, and the other end has them stored.
//!
//! In: records and books from the sensor. Out, at the other end: whole, signed batches of a known sensor, each at
//! most once. This crate never looks into records beyond encoding them, and never stores anything at the backend.
//!
//! # The life of a batch
//!
//! 1. [`enroll`] has given the sensor a key, made on the box, and a certificate for it. The one-time
//!    [`EnrolmentCode`] pins the backend's key, so that the secret in it goes to nobody else.
//! 2. [`Outbox::seal`] encodes records as columns, compresses and checksums them, chains the batch to the one before
//!    it, signs it ([`seal`]) and puts it into the spool: written, synced, renamed, the folder synced.
//! 3. [`deliver()`] connects with mutual TLS 1.3 over QUIC, asks what the backend holds, and sends the rest, oldest
//!    first, several in flight. What the backend says was stored is removed; what it refuses is set aside; anything
//!    else is tried again, after a wait. When the spool is full the oldest batch is evicted, and counted.
//! 4. [`serve()`] takes the batch at the other end, checks checksum, signature and that its header names the sensor of
//!    the certificate ([`verify`], [`open`]), and hands it to an [`Intake`], which stores it or knows it already.
//! 5. The ack goes back only then: **acknowledged means durable**.
//!
//! The certificate lives for weeks; [`deliver()`] renews it on the way, for the same key.
//!
//! The bytes of batches, files and messages are drawn in `docs/format.md`.
#![forbid(unsafe_code)]

mod authority;
mod batch;
mod card;
mod certificate;
mod code;
mod deliver;
mod enrol;
mod exchange;
mod exercise;
mod health;
mod identity;
mod intake;
mod keys;
mod ledger;
mod outbox;
mod private;
mod reader;
mod renew;
mod serve;
mod session;
#[cfg(test)]
mod simulation;
mod spool;
mod state;
#[cfg(test)]
mod test_records;
mod tls;
mod wire;

pub use authority::{AuthorityError, CertificateAuthority, IssuedCertificate};
pub use batch::{
    BATCH_BYTES_MAX, Batch, BatchHeader, OpenError, RECORDS_MAX, SENSOR_VERSION_LENGTH_MAX,
    SealError, Sealer, batch_blake3, open, open_header, open_signed, seal, time_range, verify,
};
pub use card::{IdentityCard, identity_card};
pub use certificate::Validity;
pub use code::{CodeError, EnrolmentCode};
pub use deliver::{DeliverError, DeliverOptions, DeliveryEvent, DeliveryTotals, Shutdown, deliver};
pub use enrol::{EnrollError, Enrolled, enroll, enroll_abandoning};
pub use exercise::exercise_enrolment;
pub use health::{Health, HealthReport};
pub use identity::{BatchId, ID_LENGTH_MAX, IdError, MemberId, Peer, SensorId};
pub use intake::{Certified, Commit, CommitError, Intake, IntakeError, RedeemError};
pub use keys::{KeyError, PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, SigningKey};
pub use ledger::{Judgement, Ledger, Session};
pub use outbox::{Outbox, OutboxError, OutboxOptions, OutboxTotals, SealedInfo, SpoolHandle};
pub use private::{
    FileError, check_folder as check_private_folder, check_own, make_folder as make_private_folder,
    read as read_private, remove_if_there as remove_private, replace as replace_private,
};
pub use reader::DecodeError;
pub use renew::renew_if_due;
pub use serve::{ServeError, ServeOptions, ServeTotals, serve};
pub use spool::{KeptBatch, KeptBatches, Recovery, SpoolError, Whereabouts};
pub use state::{Identity, StateError};
pub use tls::TlsError;
pub use wire::rewrite_message;
