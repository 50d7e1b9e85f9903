//! TURN servers as users name them.

use std::env;
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;
use thiserror::Error;

use super::ServersError;
use crate::config::{Feature, MissingFeature};
use crate::driver;
use crate::state::{StateError, read_secret_file};
use crate::{TurnServer, TurnServerError, TurnTransport};

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

/// What came of asking one TURN server for an allocation.
///
/// ```
/// fn tell(check: &peersock::interfaces::TurnCheck) -> String {
///     match (check.relayed, &check.error) {
///         (Some(address), _) => format!("{} relays at {address}", check.server),
///         (None, error) => format!("{}: {}", check.server, error.as_deref().unwrap_or("no answer")),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TurnCheck {
    /// The server with its user name, as it was given, without the password.
    pub server: String,
    /// The proxy through which it was asked, if there is one.
    pub proxy: Option<String>,
    /// Whether it has answered anything that a TURN server answers.
    pub reached: bool,
    /// The shortest round trip of a request, milliseconds; none if nothing was answered.
    pub rtt_ms: Option<f64>,
    /// The address that it has given, which was given back.
    pub relayed: Option<SocketAddr>,
    /// Why it has given none.
    pub error: Option<String>,
    /// What to do about that.
    pub what_to_do: Option<String>,
}

/// Asks TURN servers for an allocation each, all at once, and gives the allocations back. An IPv4 address is
/// asked for, and an IPv6 one if the server has no others. Takes at most five seconds or little more.
///
/// With names of interfaces in `only`, the first one by which the server is reached is used. At most 16
/// servers are asked.
///
/// ```no_run
/// let servers = peersock::interfaces::turn_of_environment()?;
/// for check in peersock::interfaces::check_turn(&servers, &[]) {
///     println!("{}: {:?}", check.server, check.relayed);
/// }
/// # Ok::<(), peersock::interfaces::ServersError>(())
/// ```
///
/// Without the feature `turn` none is asked, which is each one's error.
pub fn check_turn(servers: &[TurnServer], only: &[String]) -> Vec<TurnCheck> {
    driver::check_turn(servers, only)
}

/// Fails if one of them needs what this build lacks.
pub(crate) fn require_for_turn(servers: &[TurnServer]) -> Result<(), MissingFeature> {
    for server in servers {
        let what = format_args!("the TURN server {server}");
        Feature::Turn.require(what)?;
        if server.transport() == TurnTransport::Tls {
            Feature::Tls.require(what)?;
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Vec<TurnServer>, TurnServerError> {
    text.split_whitespace().map(str::parse).collect()
}
