//! Errors of settings.

use thiserror::Error;

use crate::interfaces::{LoadStunError, LoadTurnError};
use crate::{ParseDhtError, RootsError};

/// Reason why a value of a setting is refused. It repeats no secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No setting has this name.
    #[error("there is no such setting")]
    Unknown,
    /// The value is of another type, or out of its range. The text says what is allowed.
    #[error("it is not {0}")]
    Value(String),
    /// A state directory and a seed are given.
    #[error("an identity is either in a state directory or a seed's")]
    TwoIdentities,
    /// The value names no roots.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The value names no TURN servers.
    #[error(transparent)]
    Turn(#[from] LoadTurnError),
    /// The value names no STUN servers.
    #[error(transparent)]
    Stun(#[from] LoadStunError),
    /// The value does not say how the DHT is used.
    #[error(transparent)]
    Dht(#[from] ParseDhtError),
}

/// Error of a setting that a program gives.
#[derive(Debug, Error)]
#[error("'{setting}': {reason}")]
pub struct SettingError {
    /// Name of the setting, as it was given.
    pub setting: String,
    /// Reason.
    #[source]
    pub reason: Refusal,
}

/// Error of a setting in the environment.
#[derive(Debug, Error)]
#[error("variable {variable} is not understood: {reason}")]
pub struct VariableError {
    /// Name of the variable.
    pub variable: &'static str,
    /// Reason.
    #[source]
    pub reason: Refusal,
}
