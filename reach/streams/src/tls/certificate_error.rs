//! The reasons for having no certificate.

use std::path::PathBuf;

use thiserror::Error;

/// Reasons for having no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read or is not in PEM form, or the key does not belong to the certificate.
    #[error("{} cannot be used: {reason}; give a chain and its key in PEM form", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The fault in it.
        reason: String,
    },
    /// Making a certificate for the root's key failed.
    #[error("no certificate could be made: {0}")]
    SelfSigned(String),
    /// Neither a key nor files were given.
    #[error("TLS needs the root's key or the files of a certificate")]
    Nothing,
}
