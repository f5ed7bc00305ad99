//! Takes the sensor's state folder; gives its parts: lock, identity, boot epoch. Never talks to anybody.
//!
//! ```text
//! STATE/lock              held while a sensor or an enrolment uses the folder
//! STATE/enrolling.key     the key of an enrolment that got no answer yet
//! STATE/identity/         identity.json, sensor.key, sensor.pem, authority.pem; appears at once, as a whole
//! STATE/boot_epoch        a decimal number
//! STATE/spool/            sealed batches that the backend does not have yet
//! STATE/sent/             sealed batches that the backend has, as far as the bound allows
//! STATE/superseded/       batches of an earlier identity of this box
//! STATE/quarantine/       spool files that were damaged here
//! STATE/rejected/         batches that the backend refused
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::certificate::{CertificateError, Validity};
use crate::private::{self, FileError};
use crate::spool::{Disk, RealDisk};
use crate::{MemberId, SensorId, SigningKey};

/// The folder that an enrolment makes within the state folder.
const IDENTITY: &str = "identity";

/// Why a state folder cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// A file of it is missing, damaged or not private. Remedy: see [`FileError`].
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process uses it. Remedy: stop that one, or give this sensor a folder of its own.
    #[error("the state folder {} is in use by process {process}", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The other process, as it noted itself.
        process: String,
    },
    /// There is no identity in it. Remedy: `enroll CODE --state-dir …`.
    #[error("{} holds no identity: this sensor is not enrolled; use `enroll` with a one-time code first", folder.display())]
    NotEnrolled {
        /// The folder.
        folder: PathBuf,
    },
}

/// Who this sensor is, as the backend named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Whose network.
    pub member: MemberId,
    /// Its name.
    pub sensor: SensorId,
    /// Where the backend is, `host:port`.
    pub backend: String,
}

/// The identity with what proves it.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) identity: Identity,
    pub(crate) key: SigningKey,
    pub(crate) certificate: Arc<CurrentCertificate>,
    pub(crate) authority: CertificateDer<'static>,
}

/// The certificate that the next connection shows; a renewal puts another one here.
#[derive(Debug)]
pub(crate) struct CurrentCertificate(RwLock<(CertificateDer<'static>, Validity)>);

impl CurrentCertificate {
    pub(crate) fn new(certificate: CertificateDer<'static>) -> Result<Self, CertificateError> {
        let validity = crate::certificate::peer(&certificate)?.validity;
        Ok(Self(RwLock::new((certificate, validity))))
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub(crate) fn validity(&self) -> Validity {
        self.0.read().unwrap_or_else(PoisonError::into_inner).1
    }

    pub(crate) fn replace(&self, certificate: CertificateDer<'static>, validity: Validity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = (certificate, validity);
    }
}

/// A state folder that this process alone uses.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    /// Unlocked when it is closed.
    _lock: File,
}

impl StateFolder {
    /// Makes the folder where there is none, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        private::make_folder(path)?;
        private::check_folder(path)?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(FileError::io("open", &lock_path))?;
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if let Err(error) = rustix::fs::flock(&lock, exclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(FileError::io("lock", &lock_path)(error.into()).into());
            }
            let mut process = String::new();
            let folder = path.to_path_buf();
            let read = Read::by_ref(&mut lock).take(32).read_to_string(&mut process);
            let noted = process.trim();
            let is_known = read.is_ok() && !noted.is_empty();
            let process = if is_known { noted } else { "unknown" }.to_owned();
            return Err(StateError::Locked { folder, process });
        }
        // Only a note for people, on a disk that may be full: the lock itself is held already.
        let note = format!("{}\n", std::process::id());
        let noted = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(note.as_bytes()));
        if let Err(error) = noted {
            tracing::debug!(file = %lock_path.display(), %error, "the lock has no note of its holder");
        }
        let state = Self { path: path.to_path_buf(), _lock: lock };
        // A crash at the end of an enrolment leaves the key in both places; a later enrolment needs a new one.
        if state.enrolled() {
            private::remove_if_there(&state.enrolling_key_path())?;
        }
        Ok(state)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Counts one more opening of the outbox, durably, before any batch can carry the number.
    ///
    /// At least the clock's seconds: when an old copy of the folder is restored, the sequences that it would
    /// otherwise use again are known to the backend, and new batches would pass for duplicates.
    pub(crate) fn next_boot_epoch(&self, now_ms: u64) -> Result<u64, StateError> {
        let path = self.path.join("boot_epoch");
        let last = if path.exists() {
            let text = private::read_text(&path)?;
            text.trim().parse::<u64>().map_err(FileError::content(&path))?
        } else {
            0
        };
        let next = epoch_after(last, now_ms)
            .ok_or_else(|| FileError::content(&path)("the largest number"))?;
        private::replace(&path, format!("{next}\n").as_bytes())?;
        Ok(next)
    }

    /// Whether an enrolment has ended well here.
    pub(crate) fn enrolled(&self) -> bool {
        self.identity_folder().exists()
    }

    /// Reads the identity and checks that its parts belong together.
    pub(crate) fn credentials(&self) -> Result<Credentials, StateError> {
        credentials(&self.path)
    }

    /// The key of this enrolment: a new one, or that of an attempt whose answer was lost.
    pub(crate) fn enrolling_key(&self) -> Result<SigningKey, StateError> {
        let path = self.enrolling_key_path();
        if !path.exists() {
            let key = SigningKey::generate().map_err(FileError::content(&path))?;
            private::replace(&path, key_pem(&key, &path)?.as_bytes())?;
        }
        Ok(read_key(&path)?)
    }

    /// Puts a new identity in place: all of it, or nothing.
    pub(crate) fn store_identity(
        &self,
        identity: &Identity,
        key: &SigningKey,
        certificate_pem: &str,
        authority_pem: &str,
    ) -> Result<(), StateError> {
        self.store_identity_on(&RealDisk, identity, key, [certificate_pem, authority_pem])
    }

    fn store_identity_on(
        &self,
        disk: &dyn Disk,
        identity: &Identity,
        key: &SigningKey,
        [certificate_pem, authority_pem]: [&str; 2],
    ) -> Result<(), StateError> {
        let folder = self.identity_folder();
        let new = self.path.join("identity.new");
        if new.exists() {
            std::fs::remove_dir_all(&new).map_err(FileError::io("remove", &new))?;
        }
        private::make_folder(&new)?;
        let json = serde_json::to_vec_pretty(identity).map_err(FileError::content(&new))?;
        let key_pem = key_pem(key, &new)?;
        for (name, bytes) in [
            ("identity.json", json.as_slice()),
            ("sensor.key", key_pem.as_bytes()),
            ("sensor.pem", certificate_pem.as_bytes()),
            ("authority.pem", authority_pem.as_bytes()),
        ] {
            let path = new.join(name);
            disk.write_new(&path, bytes).map_err(FileError::io("write", &path))?;
        }
        disk.sync_folder(&new).map_err(FileError::io("sync", &new))?;
        disk.rename(&new, &folder).map_err(FileError::io("rename a new folder to", &folder))?;
        disk.sync_folder(&self.path).map_err(FileError::io("sync", &self.path))?;
        let used = self.enrolling_key_path();
        if used.exists() {
            disk.remove(&used).map_err(FileError::io("remove", &used))?;
        }
        Ok(())
    }

    /// Puts another certificate for the same key in the place of the one that is there: at any moment of a crash, one
    /// of the two is there as a whole.
    pub(crate) fn store_certificate(&self, certificate_pem: &str) -> Result<(), StateError> {
        self.store_certificate_on(&RealDisk, certificate_pem)
    }

    fn store_certificate_on(&self, disk: &dyn Disk, pem: &str) -> Result<(), StateError> {
        let path = self.identity_folder().join("sensor.pem");
        Ok(private::replace_on(disk, &path, pem.as_bytes())?)
    }

    /// Notes another address of the same backend.
    pub(crate) fn store_names(&self, identity: &Identity) -> Result<(), StateError> {
        let path = self.identity_folder().join("identity.json");
        let json = serde_json::to_vec_pretty(identity).map_err(FileError::content(&path))?;
        Ok(private::replace(&path, &json)?)
    }

    fn identity_folder(&self) -> PathBuf {
        self.path.join(IDENTITY)
    }

    fn enrolling_key_path(&self) -> PathBuf {
        self.path.join("enrolling.key")
    }
}

/// Reads the identity of a state folder, which may be in use, and checks that its parts belong together.
pub(crate) fn credentials(state: &Path) -> Result<Credentials, StateError> {
    let folder = state.join(IDENTITY);
    if !folder.exists() {
        return Err(StateError::NotEnrolled { folder: state.to_path_buf() });
    }
    // Whoever may write a folder may put another key into it.
    private::check_folder(state)?;
    private::check_folder(&folder)?;
    let identity_path = folder.join("identity.json");
    let identity: Identity = serde_json::from_slice(&private::read(&identity_path)?)
        .map_err(FileError::content(&identity_path))?;
    let key = read_key(&folder.join("sensor.key"))?;
    let certificate = read_certificate(&folder.join("sensor.pem"))?;
    let authority = read_certificate(&folder.join("authority.pem"))?;
    let certificate_path = folder.join("sensor.pem");
    let peer =
        crate::certificate::peer(&certificate).map_err(FileError::content(&certificate_path))?.peer;
    if peer.public_key != key.public_key()
        || peer.member != identity.member
        || peer.sensor != identity.sensor
    {
        let reason = "it is not for the key and the names beside it";
        return Err(FileError::content(&certificate_path)(reason).into());
    }
    let certificate =
        CurrentCertificate::new(certificate).map_err(FileError::content(&certificate_path))?;
    Ok(Credentials { identity, key, certificate: Arc::new(certificate), authority })
}

/// The boot epoch after the last one, whatever the clock does.
pub(crate) fn epoch_after(last: u64, now_ms: u64) -> Option<u64> {
    Some(last.checked_add(1)?.max(now_ms / 1000))
}

fn key_pem(key: &SigningKey, path: &Path) -> Result<zeroize::Zeroizing<String>, FileError> {
    let pair = rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.pkcs8()))
        .map_err(FileError::content(path))?;
    Ok(zeroize::Zeroizing::new(pair.serialize_pem()))
}

fn read_key(path: &Path) -> Result<SigningKey, FileError> {
    let pem = private::read(path)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(FileError::content(path))?;
    SigningKey::from_pkcs8(der.secret_pkcs8_der()).map_err(FileError::content(path))
}

pub(crate) fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, FileError> {
    CertificateDer::from_pem_slice(&private::read(path)?).map_err(FileError::content(path))
}

#[cfg(test)]
mod tests;
