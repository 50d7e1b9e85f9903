//! A certificate and its key in files, which are read again when they have changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fs, io};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::certificate_error::CertificateError;
use super::provider;

/// A certificate in PEM files, as ACME clients write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and the certificates of the authorities between it and a known one.
    pub chain: PathBuf,
    /// The secret key, in PKCS#8, SEC1 or PKCS#1 form.
    pub key: PathBuf,
}

/// File times and lengths, which change with a file.
pub(super) type Stamp = Option<[(SystemTime, u64); 2]>;

impl CertificateFiles {
    /// Reads both files. The key must belong to the certificate.
    pub(super) fn load(&self) -> Result<CertifiedKey, CertificateError> {
        let unreadable = |file: &Path, error: &dyn ToString| CertificateError::File {
            file: file.to_owned(),
            reason: error.to_string(),
        };
        let chain = CertificateDer::pem_file_iter(&self.chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(&self.chain, &error))?;
        if chain.is_empty() {
            return Err(unreadable(&self.chain, &"it has no certificate"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable(&self.key, &error))?;
        let both = CertifiedKey::from_der(chain, key, &provider());
        both.map_err(|error| unreadable(&self.key, &error))
    }

    /// Returns times and lengths of the files. Follows symbolic links, because ACME clients replace these.
    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |file: &Path| -> io::Result<_> {
            let metadata = fs::metadata(file)?;
            Ok((metadata.modified()?, metadata.len()))
        };
        Some([stamp(&self.chain).ok()?, stamp(&self.key).ok()?])
    }
}

/// A certificate in use, and the stamp of its files when it was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) certificate: Arc<CertifiedKey>,
    pub(super) stamp: Stamp,
}
