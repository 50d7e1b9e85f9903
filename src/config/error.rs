use super::MissingFeature;
use crate::state::StateError;

/// Why a description of a network was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read, or holds a secret that other users could read.
    #[error(transparent)]
    File(#[from] StateError),

    /// This build of the library reads no such text.
    #[error(transparent)]
    MissingFeature(#[from] MissingFeature),

    /// The text is not a valid description of a static network.
    #[error("line {line}: {what}")]
    Invalid {
        /// Where, counted from 1.
        line: usize,
        /// What is wrong and, where that is not obvious, what would be right.
        what: String,
    },

    /// As [`ConfigError::Invalid`], for a text that came from a file.
    #[error("{}:{line}: {what}", path.display())]
    InvalidFile {
        /// The file.
        path: std::path::PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What is wrong and, where that is not obvious, what would be right.
        what: String,
    },
}

impl From<ConfigError> for std::io::Error {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::File(error) => error.into(),
            ConfigError::MissingFeature(error) => error.into(),
            other => std::io::Error::new(std::io::ErrorKind::InvalidInput, other),
        }
    }
}
