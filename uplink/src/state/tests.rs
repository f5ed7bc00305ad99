//! A crash at each step of putting an identity or a certificate in place: what is there afterwards can be used, as a
//! whole, and the step can be done again.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{Identity, StateFolder};
use crate::certificate::now_unix_s;
use crate::spool::{Disk, Listing, RealDisk};
use crate::{CertificateAuthority, FileError, SigningKey, Validity};

/// A disk whose power goes at one step: nothing happens after it, and what was being written is there by half.
#[derive(Debug)]
struct Crashing {
    steps_left: AtomicU32,
}

impl Crashing {
    fn after(steps: u32) -> Self {
        Self { steps_left: AtomicU32::new(steps) }
    }

    fn step(&self, half: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let count_down = |left: u32| left.checked_sub(1);
        if self.steps_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_down).is_ok() {
            return Ok(());
        }
        half()?;
        Err(io::Error::other("the power is gone"))
    }
}

impl Disk for Crashing {
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Before the sync, any part of the file may be on the disk; then all of it, with its entry or without.
        self.step(|| RealDisk.write_new(path, &bytes[..bytes.len() / 2]))?;
        RealDisk.write_new(path, bytes)?;
        self.step(|| Ok(()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|| Ok(()))?;
        RealDisk.rename(from, to)?;
        self.step(|| Ok(()))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step(|| Ok(()))?;
        RealDisk.sync_folder(path)
    }

    fn make_folder(&self, path: &Path) -> Result<(), FileError> {
        RealDisk.make_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Listing<'_>> {
        RealDisk.list(folder)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }

    fn is_scarce(&self, folder: &Path) -> bool {
        RealDisk.is_scarce(folder)
    }

    fn disk_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.disk_bytes(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|| Ok(()))?;
        RealDisk.remove(path)
    }
}

/// What an enrolment has got: the names, the key, and two certificates for it.
struct Got {
    identity: Identity,
    key: SigningKey,
    certificates: [String; 2],
    authority: String,
}

fn got(dir: &Path) -> Got {
    let authority = CertificateAuthority::create(&dir.join("ca")).expect("writable");
    let identity = Identity {
        member: "acme".parse().expect("a name"),
        sensor: "acme-1".parse().expect("a name"),
        backend: "127.0.0.1:1".to_owned(),
    };
    let key = SigningKey::generate().expect("random");
    let now = now_unix_s();
    let certificates = [1000, 2000].map(|left_s| {
        let validity = Validity { begins_unix_s: now - 1000, ends_unix_s: now + left_s };
        let Identity { member, sensor, .. } = &identity;
        authority.certify(&key.public_key(), member, sensor, validity).expect("it can sign").pem
    });
    let authority = authority.authority_pem().to_owned();
    Got { identity, key, certificates, authority }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("just made")
}

#[test]
fn a_crash_at_any_step_of_a_renewal_leaves_one_of_the_two_certificates() {
    let dir = tempfile::tempdir().expect("writable");
    let got = got(dir.path());
    let [old, new] = &got.certificates;
    let (mut kept, mut renewed, mut crashes) = (0, 0, 0);
    for steps in 0.. {
        let path = dir.path().join(format!("state-{steps}"));
        let state = StateFolder::open(&path).expect("new");
        state.store_identity(&got.identity, &got.key, old, &got.authority).expect("room");
        let stored = state.store_certificate_on(&Crashing::after(steps), new);
        drop(state);
        let state = StateFolder::open(&path).expect("the lock went with the process");
        let shown = state.credentials().expect("a whole identity").certificate.der();
        kept += u32::from(shown == der(old));
        renewed += u32::from(shown == der(new));
        assert_eq!(kept + renewed, steps + 1, "one of the two, after {steps} steps");
        assert!(stored.is_err() || shown == der(new), "what was said to be stored is there");
        // The next attempt is not in the way of what the last one has left.
        state.store_certificate(new).expect("room");
        assert_eq!(state.credentials().expect("whole").certificate.der(), der(new));
        if stored.is_ok() {
            break;
        }
        crashes += 1;
    }
    assert!(crashes >= 5 && kept >= 3 && renewed >= 2, "{crashes} {kept} {renewed}");
}

#[test]
fn a_crash_at_any_step_of_an_enrolment_leaves_the_key_and_a_whole_identity_or_none() {
    let dir = tempfile::tempdir().expect("writable");
    let got = got(dir.path());
    let pems = [got.certificates[0].as_str(), got.authority.as_str()];
    for steps in 0.. {
        let path = dir.path().join(format!("state-{steps}"));
        let state = StateFolder::open(&path).expect("new");
        // The key of this enrolment is on the disk before the backend is asked.
        let pkcs8 = PrivatePkcs8KeyDer::from(got.key.pkcs8());
        let pem = rcgen::KeyPair::try_from(&pkcs8).expect("a key").serialize_pem();
        RealDisk.write_new(&path.join("enrolling.key"), pem.as_bytes()).expect("room");
        let stored =
            state.store_identity_on(&Crashing::after(steps), &got.identity, &got.key, pems);
        drop(state);
        let state = StateFolder::open(&path).expect("the lock went with the process");
        if state.enrolled() {
            let credentials = state.credentials().expect("an identity is whole");
            assert_eq!(credentials.key.public_key(), got.key.public_key());
            assert!(!path.join("enrolling.key").exists(), "a later enrolment makes its own");
        } else {
            // The code can be used again with the same key.
            let key = state.enrolling_key().expect("still there");
            assert_eq!(key.public_key(), got.key.public_key(), "after {steps} steps");
            assert!(stored.is_err());
            state.store_identity(&got.identity, &got.key, pems[0], pems[1]).expect("room");
            state.credentials().expect("whole");
        }
        if stored.is_ok() {
            assert!(steps >= 12, "{steps} steps");
            break;
        }
    }
}
