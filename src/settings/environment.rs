//! Settings that a node reads from environment variables. A variable that is not set is the default.

use std::env;
use std::time::Duration;

use peersock_overlay::membership::{MemberName, ParseLabelError};

use super::{MAX_BUSY_POLL, Refusal, VariableError};
use crate::interfaces::{Target, load_stun_servers, load_turn_servers};
use crate::{Dht, RootSource, TurnServer};

/// Environment variable with roots, as [`RootSource::load`] reads them.
pub const ROOTS_VARIABLE: &str = "PEERSOCK_ROOTS";

/// Environment variable with the use of the DHT, as [`Dht`] reads it.
pub const DHT_VARIABLE: &str = "PEERSOCK_DHT";

/// Environment variable with TURN servers, as [`load_turn_servers`] reads them.
pub const TURN_VARIABLE: &str = "PEERSOCK_TURN";

/// Environment variable with STUN servers, as [`load_stun_servers`] reads them.
pub const STUN_VARIABLE: &str = "PEERSOCK_STUN";

/// Environment variable with the label of a program, see [`NodeBuilder::label`](crate::NodeBuilder::label).
pub const LABEL_VARIABLE: &str = "PEERSOCK_AS";

/// Environment variable with the busy-polling time in microseconds.
pub const BUSY_POLL_VARIABLE: &str = "PEERSOCK_BUSY_POLL";

/// Returns the roots in `PEERSOCK_ROOTS`.
///
/// # Errors
/// Fails if the variable is malformed, or if a file that it names cannot be read.
pub fn roots_of_environment() -> Result<Vec<RootSource>, VariableError> {
    read(ROOTS_VARIABLE, RootSource::load)
}

/// Returns the use of the DHT in `PEERSOCK_DHT`.
///
/// # Errors
/// Fails if the variable is malformed.
pub fn dht_of_environment() -> Result<Dht, VariableError> {
    read(DHT_VARIABLE, str::parse)
}

/// Returns the TURN servers in `PEERSOCK_TURN`.
///
/// # Errors
/// Fails if the variable is malformed, or if a file that it names cannot be read.
pub fn turn_of_environment() -> Result<Vec<TurnServer>, VariableError> {
    read(TURN_VARIABLE, load_turn_servers)
}

/// Returns the STUN servers in `PEERSOCK_STUN`.
///
/// # Errors
/// Fails if the variable is malformed.
pub fn stun_of_environment() -> Result<Vec<Target>, VariableError> {
    read(STUN_VARIABLE, load_stun_servers)
}

/// Returns the busy-polling time in `PEERSOCK_BUSY_POLL`.
///
/// # Errors
/// Fails if the variable is neither empty nor a number up to 10,000.
pub fn busy_poll_of_environment() -> Result<Option<Duration>, VariableError> {
    let allowed = || format!("a number of microseconds from 0 to {MAX_BUSY_POLL}, where 0 is never");
    read(BUSY_POLL_VARIABLE, |text| match (text.trim(), text.trim().parse::<u16>()) {
        ("", _) => Ok(None),
        (_, Ok(microseconds)) if microseconds <= MAX_BUSY_POLL => {
            Ok(Some(Duration::from_micros(microseconds.into())))
        }
        _ => Err(Refusal::Value(allowed())),
    })
}

/// Returns the label in `PEERSOCK_AS` under which a program with a node beside its machine's is reached.
///
/// # Errors
/// Fails if the variable is neither empty nor a name.
pub fn label_of_environment() -> Result<Option<MemberName>, VariableError> {
    read(LABEL_VARIABLE, |text| match text.trim() {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error: ParseLabelError| Refusal::Value(format!("a label: it {error}"))),
    })
}

fn read<T: Default, E: Into<Refusal>>(
    variable: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, VariableError> {
    let Some(text) = env::var_os(variable) else { return Ok(T::default()) };
    parse(&text.to_string_lossy()).map_err(|error| VariableError { variable, reason: error.into() })
}
