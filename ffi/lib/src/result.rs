//! Results of node calls.

use std::io;

use libc::c_int;
use peersock::settings::SettingError;
use peersock::state::StateError;
use peersock::{ConfigError, JoinError, NetworkIdError, StartError};
use peersock_attach::{AttachError, JoinFailure, NodeError};

/// Result of a node call: 0, or one of the `PEERSOCK_E_` constants.
///
/// `peersock_last_error()` has the details of a failure.
pub type peersock_result = c_int;

/// Success.
pub const PEERSOCK_OK: peersock_result = 0;
/// A pointer is null, or a number, a length or a text is invalid.
pub const PEERSOCK_E_INVALID: peersock_result = 1;
/// No such node exists, it was stopped, or this process is a forked child of the one that has it.
pub const PEERSOCK_E_DOWN: peersock_result = 2;
/// A default node exists already, or the network is joined already with the same secret and members. If the
/// secret or members differ, the result is PEERSOCK_E_INVALID.
pub const PEERSOCK_E_EXISTS: peersock_result = 3;
/// The network is not joined, the peer is unknown, or no member can have the address.
pub const PEERSOCK_E_NOT_FOUND: peersock_result = 4;
/// The timeout has passed.
pub const PEERSOCK_E_TIMEOUT: peersock_result = 5;
/// The buffer is too small.
pub const PEERSOCK_E_SPACE: peersock_result = 6;
/// The state directory, the identity file or the network's file cannot be used.
pub const PEERSOCK_E_FILE: peersock_result = 7;
/// The UDP port is taken.
pub const PEERSOCK_E_PORT: peersock_result = 8;
/// The system refused the operation; `errno` has the reason.
pub const PEERSOCK_E_SYSTEM: peersock_result = 9;
/// A bug in the library. Please report it.
pub const PEERSOCK_E_BUG: peersock_result = 10;

/// Result of a node call inside the library.
pub(crate) type Answer<T = ()> = Result<T, Failure>;

/// Cause of a node call's failure.
pub(crate) struct Failure {
    pub(crate) result: peersock_result,
    pub(crate) text: String,
    pub(crate) errno: Option<c_int>,
}

impl Failure {
    pub(crate) fn new(result: peersock_result, text: impl Into<String>) -> Failure {
        Failure { result, text: text.into(), errno: None }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Failure {
        Failure::new(PEERSOCK_E_INVALID, text)
    }

    pub(crate) fn down() -> Failure {
        let text = "no node runs here: it was stopped, not started, or belongs to the parent process";
        Failure { errno: Some(libc::ENETDOWN), ..Failure::new(PEERSOCK_E_DOWN, text) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let result = match error.kind() {
            io::ErrorKind::TimedOut => PEERSOCK_E_TIMEOUT,
            io::ErrorKind::AddrNotAvailable => PEERSOCK_E_NOT_FOUND,
            io::ErrorKind::NetworkDown => PEERSOCK_E_DOWN,
            _ => PEERSOCK_E_SYSTEM,
        };
        let usual = match error.kind() {
            io::ErrorKind::NetworkDown => Some(libc::ENETDOWN),
            io::ErrorKind::PermissionDenied => Some(libc::EACCES),
            _ => None,
        };
        Failure { errno: error.raw_os_error().or(usual), ..Failure::new(result, error.to_string()) }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Failure {
        Failure::new(PEERSOCK_E_FILE, error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        match error {
            StartError::State(error) => error.into(),
            StartError::Io(error) => error.into(),
            StartError::PortTaken { .. } | StartError::PortForbidden { .. } => {
                Failure::new(PEERSOCK_E_PORT, error.to_string())
            }
            StartError::AlreadyInstalled => Failure::new(PEERSOCK_E_EXISTS, error.to_string()),
            _ => Failure::invalid(error.to_string()),
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Failure {
        match error {
            NodeError::Start(error) => error.into(),
            NodeError::Attach(AttachError::Start(error)) => error.into(),
            NodeError::Attach(AttachError::InUse { .. } | AttachError::Silent { .. }) => {
                Failure::new(PEERSOCK_E_FILE, error.to_string())
            }
            error => Failure::invalid(error.to_string()),
        }
    }
}

impl From<JoinFailure> for Failure {
    fn from(failure: JoinFailure) -> Failure {
        match failure {
            JoinFailure::Join(error) => error.into(),
            JoinFailure::Io(error) => error.into(),
            failure => Failure::invalid(failure.to_string()),
        }
    }
}

impl From<SettingError> for Failure {
    fn from(error: SettingError) -> Failure {
        Failure::invalid(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        match error {
            ConfigError::Passphrase(error) => error.into(),
            error => Failure::new(PEERSOCK_E_FILE, error.to_string()),
        }
    }
}

impl From<NetworkIdError> for Failure {
    fn from(error: NetworkIdError) -> Failure {
        Failure::invalid(error.to_string())
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Failure {
        let result = match error {
            JoinError::AlreadyJoined(_) => PEERSOCK_E_EXISTS,
            // Another process has the state directory.
            JoinError::Beside { .. } => PEERSOCK_E_FILE,
            // A program that continues after this would be in another network than it assumes.
            JoinError::JoinedOtherwise(_) => PEERSOCK_E_INVALID,
            _ => PEERSOCK_E_INVALID,
        };
        Failure::new(result, error.to_string())
    }
}
