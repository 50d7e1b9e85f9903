//! TURN servers in the form that users write.

use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;
use thiserror::Error;

use crate::config::{Feature, MissingFeature};
use crate::driver;
use crate::state::{StateError, read_secret_file};
use crate::{TurnServer, TurnServerError, TurnTransport};

/// Reason why texts of TURN servers were refused. It does not quote them, because they have passwords.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadTurnError {
    /// The file cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] StateError),
    /// A text is no TURN server.
    #[error(transparent)]
    Server(#[from] TurnServerError),
    /// A text in a file is no TURN server.
    #[error("{path}:{line}: {error}")]
    Line {
        /// Path of the file.
        path: String,
        /// Line, counted from 1.
        line: usize,
        /// Error in the text.
        error: TurnServerError,
    },
    /// The file has no text.
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
/// Fails if the file cannot be read or is empty, or if a text is no TURN server.
pub fn load_turn_servers(text: &str) -> Result<Vec<TurnServer>, LoadTurnError> {
    match text.trim().strip_prefix('@') {
        Some(path) => load_file(path),
        None => Ok(parse(text)?),
    }
}

fn load_file(path: &str) -> Result<Vec<TurnServer>, LoadTurnError> {
    // The texts have passwords.
    let text = read_secret_file(Path::new(path))?;
    let mut servers = Vec::new();
    for (line, texts) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with('#')) {
        let wrong = |error| LoadTurnError::Line { path: path.to_owned(), line, error };
        servers.extend(parse(texts).map_err(wrong)?);
    }
    if servers.is_empty() { Err(LoadTurnError::Nothing(path.to_owned())) } else { Ok(servers) }
}

/// Result of requesting an allocation from one TURN server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TurnCheck {
    /// Server with its user name, as it was given, without the password.
    pub server: String,
    /// Proxy through which it was asked, if any.
    pub proxy: Option<String>,
    /// True if it has sent any answer of a TURN server.
    pub reached: bool,
    /// Shortest round-trip time of a request, milliseconds; none without an answer.
    pub rtt_ms: Option<f64>,
    /// Address that it has granted, which was released again.
    pub relayed: Option<SocketAddr>,
    /// Reason why it has granted none.
    pub error: Option<String>,
    /// Advice for that error.
    pub what_to_do: Option<String>,
}

/// Requests an allocation from each TURN server, all at once, and releases it. Asks for an IPv4 address, and
/// for an IPv6 one if the server has no others. Takes five seconds or slightly more.
///
/// If `only` names interfaces, uses the first one by which the server is reached. Asks at most 16 servers.
///
/// ```no_run
/// let servers = peersock::settings::turn_of_environment()?;
/// for check in peersock::interfaces::check_turn(&servers, &[]) {
///     println!("{}: {:?}", check.server, check.relayed);
/// }
/// # Ok::<(), peersock::settings::VariableError>(())
/// ```
///
/// Without the feature `turn` no server is asked, and each one gets that error.
pub fn check_turn(servers: &[TurnServer], only: &[String]) -> Vec<TurnCheck> {
    driver::check_turn(servers, only)
}

/// Fails if one of the servers needs a feature that this build lacks.
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
