//! Takes PKCS #8 bytes; gives an Ed25519 key that signs. Never writes a key anywhere.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of an Ed25519 public key (RFC 8032 §5.1.5).
pub const PUBLIC_KEY_LENGTH: usize = 32;
/// Bytes of an Ed25519 signature (RFC 8032 §5.1.6).
pub const SIGNATURE_LENGTH: usize = 64;

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The system's random source failed. Remedy: none here; look at the kernel's log.
    #[error("an Ed25519 key could not be made")]
    Generate,
    /// Not an Ed25519 key. Remedy: enrol again.
    #[error("not an Ed25519 key in PKCS #8 form: {0}")]
    Parse(String),
}

/// An Ed25519 key pair: proves who the sensor is in TLS, and signs its batches.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    public: [u8; PUBLIC_KEY_LENGTH],
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key from the system's random source.
    ///
    /// # Errors
    ///
    /// When that source fails.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_unspecified| KeyError::Generate)?;
        let document = pair.to_pkcs8().map_err(|_unspecified| KeyError::Generate)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// A key from its PKCS #8 form (RFC 8410), with or without the public key in it.
    ///
    /// # Errors
    ///
    /// When the bytes are no such key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
            .map_err(|rejected| KeyError::Parse(rejected.to_string()))?;
        let public = <[u8; PUBLIC_KEY_LENGTH]>::try_from(pair.public_key().as_ref())
            .map_err(|wrong| KeyError::Parse(format!("public key: {wrong}")))?;
        Ok(Self { pair, pkcs8: Zeroizing::new(pkcs8.to_vec()), public })
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH] {
        self.public
    }

    /// The PKCS #8 form; secret.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Signs; deterministic, as Ed25519 is.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        let signature = self.pair.sign(message);
        let mut bytes = [0; SIGNATURE_LENGTH];
        bytes.copy_from_slice(signature.as_ref());
        bytes
    }
}

/// Whether `signature` over `message` was made with the private half of `public_key`.
pub(crate) fn signed_by(
    public_key: &[u8; PUBLIC_KEY_LENGTH],
    message: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
}
