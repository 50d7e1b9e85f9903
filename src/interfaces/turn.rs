//! TURN servers as users name them.

use std::env;
use std::path::Path;

use thiserror::Error;

use super::ServersError;
pub use crate::driver::{TurnCheck, check_turn};
use crate::state::{StateError, read_secret_file};
use crate::{TurnServer, TurnServerError};

/// TURN servers as [`TurnServer`](crate::TurnServer) reads them, with white space between them.
pub const TURN_VARIABLE: &str = "PEERSOCK_TURN";

/// Why texts that should name TURN servers are not taken. It does not repeat them, for they have passwords.
///
/// ```
/// use peersock::interfaces::{LoadTurnError, load_turn_servers};
///
/// assert!(matches!(load_turn_servers("nonsense"), Err(LoadTurnError::Server(_))));
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadTurnError {
    /// The file cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] StateError),
    /// A text does not name a TURN server.
    #[error(transparent)]
    Server(#[from] TurnServerError),
    /// A text in a file does not.
    #[error("{path}:{line}: {error}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with the text.
        error: TurnServerError,
    },
    /// This file has no text.
    #[error("{0} names no TURN server")]
    Nothing(String),
}

/// Reads TURN servers: texts with white space between them, or `@` and the path of a file of mode 0600 with
/// such texts, whose lines that begin with `#` are comments.
///
/// ```
/// let servers = peersock::interfaces::load_turn_servers("turn:u:p@192.0.2.1 turns:u:p@192.0.2.1")?;
/// assert_eq!(servers.len(), 2);
/// # Ok::<(), peersock::interfaces::LoadTurnError>(())
/// ```
///
/// # Errors
/// The file cannot be read or names none, or a text does not name a TURN server.
pub fn load_turn_servers(text: &str) -> Result<Vec<TurnServer>, LoadTurnError> {
    match text.trim().strip_prefix('@') {
        Some(path) => load_file(path),
        None => Ok(parse(text)?),
    }
}

fn load_file(path: &str) -> Result<Vec<TurnServer>, LoadTurnError> {
    let text = read_secret_file(Path::new(path))?;
    let mut servers = Vec::new();
    for (line, texts) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with('#')) {
        let wrong = |error| LoadTurnError::Line { path: path.to_owned(), line, error };
        servers.extend(parse(texts).map_err(wrong)?);
    }
    if servers.is_empty() { Err(LoadTurnError::Nothing(path.to_owned())) } else { Ok(servers) }
}

/// The TURN servers that the environment's `PEERSOCK_TURN` names.
///
/// # Errors
/// The variable cannot be read.
pub fn turn_of_environment() -> Result<Vec<TurnServer>, ServersError> {
    // The words are not repeated in errors: they have passwords.
    let wrong = |error: TurnServerError| ServersError { variable: TURN_VARIABLE, reason: error.to_string() };
    parse(&env::var(TURN_VARIABLE).unwrap_or_default()).map_err(wrong)
}

fn parse(text: &str) -> Result<Vec<TurnServer>, TurnServerError> {
    text.split_whitespace().map(str::parse).collect()
}
