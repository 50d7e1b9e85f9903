use super::MissingFeature;
use crate::state::StateError;

/// Reason why a description of a network was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read, or holds a secret that other users could read.
    #[error(transparent)]
    File(#[from] StateError),

    /// This build of the library cannot read static networks.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),

    /// The passphrase cannot be stretched, because there is no memory.
    #[error(transparent)]
    Passphrase(#[from] std::io::Error),

    /// The text is not a valid description of a static network.
    #[error("line {line}: {what}")]
    Invalid {
        /// Line, counted from 1.
        line: usize,
        /// Error and, where that is not obvious, the correct form.
        what: String,
    },

    /// The text of a file is not a valid description of a static network.
    #[error("{}:{line}: {what}", path.display())]
    InvalidFile {
        /// Path of the file.
        path: std::path::PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Error and, where that is not obvious, the correct form.
        what: String,
    },
}

impl From<ConfigError> for std::io::Error {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::File(error) => error.into(),
            ConfigError::Passphrase(error) => error,
            ConfigError::MissingFeature(error) => error.into(),
            other => std::io::Error::new(std::io::ErrorKind::InvalidInput, other),
        }
    }
}
