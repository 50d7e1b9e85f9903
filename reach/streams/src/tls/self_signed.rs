//! Certificates that a root makes for itself, with the Ed25519 key of its identity.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, PKCS_ED25519, PublicKeyData};
use rustls::SignatureAlgorithm;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};

use super::certificate_error::CertificateError;

/// The Ed25519 half of a root's identity, as TLS needs it: the public key, and a function that signs.
///
/// ```
/// use peersock_overlay::Identity;
/// use peersock_streams::RootKey;
///
/// let identity = Identity::from_seed(&[7; 32]);
/// let public = *identity.public().ed25519();
/// let key = RootKey::new(public, move |message: &[u8]| identity.sign(message));
/// assert_eq!(key.public(), &public);
/// ```
#[derive(Clone)]
pub struct RootKey {
    public: [u8; 32],
    sign: Arc<Sign>,
}

/// A function that makes an Ed25519 signature of a message.
type Sign = dyn Fn(&[u8]) -> [u8; 64] + Send + Sync;

impl RootKey {
    /// Makes a key from its public half, and a function that signs (Ed25519, RFC 8032) with the secret half.
    pub fn new(public: [u8; 32], sign: impl Fn(&[u8]) -> [u8; 64] + Send + Sync + 'static) -> Self {
        Self { public, sign: Arc::new(sign) }
    }

    /// Returns the public key, which clients know from the root's text.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Makes a certificate for this key, without meaningful names and valid forever, because clients compare
    /// only the key.
    pub(super) fn certificate(&self) -> Result<CertifiedKey, CertificateError> {
        let made = CertificateParams::new(Vec::new()).and_then(|params| params.self_signed(self));
        let certificate = made.map_err(|error| CertificateError::SelfSigned(error.to_string()))?;
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        Ok(CertifiedKey::new(chain, Arc::new(self.clone())))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootKey").finish_non_exhaustive()
    }
}

impl PublicKeyData for RootKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for RootKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok((self.sign)(message).to_vec())
    }
}

impl SigningKey for RootKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for RootKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok((self.sign)(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
