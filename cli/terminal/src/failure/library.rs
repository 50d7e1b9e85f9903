//! Hints for errors of the library and of the system.
//!
//! Many texts of the library already say what to do; those need no hint.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use peersock::interfaces::LoadTurnError;
use peersock::management::ManagementError;
use peersock::overlay::{JoinError, NetworkConfigError, NetworkId};
use peersock::settings::{Refusal, VariableError};
use peersock::state::StateError;
use peersock::{ConfigError, NetworkIdError, RootsError, StartError};

use super::Failure;

/// Hint for a text that names no root.
pub const ROOT_HINT: &str = "give what `peersock root` prints, dns:DOMAIN, lan, or @FILE with such texts";

/// Hint on running a node without the default state directory.
const ANOTHER_STATE: &str = "give --state DIR or --ephemeral";

impl Failure {
    /// Converts an error of the library. `hint` is `None` if the error's text says what to do.
    fn from_library(error: impl Display, hint: Option<&str>) -> Failure {
        Failure { status: 1, message: error.to_string(), hint: hint.map(str::to_owned) }
    }

    /// Converts an error of wrong usage; see [`Failure::from_library`].
    fn usage_of_library(error: impl Display, hint: &str) -> Failure {
        Failure { status: 2, ..Failure::from_library(error, Some(hint)) }
    }

    /// Converts the error of a file named on the command line; `hint` is for a missing file.
    pub fn file(error: StateError, hint: impl Display) -> Failure {
        match &error {
            StateError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                Failure::new(error, hint)
            }
            StateError::Io { source, .. } => Failure::from_library(&error, Some(system_hint(source.kind()))),
            _ => Failure::from_library(error, None),
        }
    }

    /// Returns the failure of a node that the network's file does not list. `key` is its public key.
    pub fn not_a_member(network: impl Display, file: &str, key: impl Display) -> Failure {
        Failure::new(
            format_args!("this node is not a member of network {network}"),
            format_args!(
                "add it with `peersock network add {file} {key} --name NAME`, and give all members the new file, \
                 or name a member's directory with --state"
            ),
        )
    }

    /// Converts the error of a file at `path` that does not describe a network.
    pub fn network_file(path: &str, error: ConfigError) -> Failure {
        match error {
            ConfigError::File(_) if path.parse::<NetworkId>().is_ok() => Failure::usage(
                format_args!("{path} is the ID of a network, and not a file"),
                "give the path of a static network's file; one of an ID alone has none, and `peersock members` \
                 asks who is there",
            ),
            ConfigError::File(error) => {
                let quoted = if path.contains([' ', '\'']) { "FILE" } else { path };
                Failure::file(
                    error,
                    format_args!(
                        "make the file with `peersock network new {quoted}`; docs/use/NETWORKS.md describes it"
                    ),
                )
            }
            error => Failure::from(error),
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Failure {
        let hint = match &error {
            StateError::InUse { .. } | StateError::NoDefaultPath => Some(ANOTHER_STATE),
            StateError::Io { source, .. } => Some(match source.kind() {
                ErrorKind::PermissionDenied
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::NotADirectory
                | ErrorKind::InvalidFilename
                | ErrorKind::NotFound
                | ErrorKind::Unsupported => ANOTHER_STATE,
                kind => system_hint(kind),
            }),
            StateError::NameTaken { .. } => {
                Some("choose another name, or leave that network with `peersock leave`")
            }
            _ => None,
        };
        Failure::from_library(error, hint)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        match error {
            ConfigError::File(error) => Failure::file(
                error,
                "make the file with `peersock network new`; docs/use/NETWORKS.md describes it",
            ),
            ConfigError::Passphrase(error) => error.into(),
            error => Failure::from_library(
                error,
                Some("correct the file; docs/use/NETWORKS.md describes it, and `peersock network` edits it"),
            ),
        }
    }
}

impl From<VariableError> for Failure {
    fn from(error: VariableError) -> Failure {
        let VariableError { variable, reason } = error;
        match reason {
            Refusal::Roots(error @ RootsError::State(_)) => roots_failure(variable, error),
            Refusal::Turn(LoadTurnError::File(error)) => {
                Failure::file(error, "write the texts into a file of mode 0600, and give its path")
            }
            reason => {
                let is_of_roots = matches!(reason, Refusal::Roots(_));
                let hint = if is_of_roots { ROOT_HINT } else { "correct the variable, or unset it" };
                Failure::usage_of_library(VariableError { variable, reason }, hint)
            }
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        match error {
            StartError::State(error) => error.into(),
            StartError::Io(source) if source.kind() == ErrorKind::NotFound => Failure::from_library(
                source,
                Some("give --interface NAME with one that is up (`ip link` lists them), or bring one up"),
            ),
            StartError::Io(source) if source.kind() == ErrorKind::AddrNotAvailable => Failure::from_library(
                StartError::Io(source),
                Some(
                    "look with `ip address` whether the interface has its IPv4 address (lo: 127.0.0.1), or give \
                     another one with --interface",
                ),
            ),
            StartError::Io(source) => {
                let hint = system_hint(source.kind());
                Failure::from_library(StartError::Io(source), Some(hint))
            }
            StartError::Variable(error) => error.into(),
            error @ StartError::TooManyTurnServers { .. } => {
                Failure::usage_of_library(error, "name fewer with --turn or in PEERSOCK_TURN; one is enough")
            }
            StartError::Dht(source) => {
                let hint = system_hint(source.kind());
                Failure::from_library(StartError::Dht(source), Some(hint))
            }
            StartError::PortTaken { port } => Failure::new(
                format_args!("UDP port {port} is taken by another program"),
                "give another one with --overlay-port, or 0 to let the system choose",
            ),
            StartError::PortForbidden { port } => Failure::new(
                format_args!("UDP port {port} may not be used by this user"),
                "give one from 1024 on with --overlay-port, or 0 to let the system choose",
            ),
            // The other errors say what to do.
            error => Failure::from_library(error, None),
        }
    }
}

impl From<NetworkIdError> for Failure {
    fn from(error: NetworkIdError) -> Failure {
        let hint = match &error {
            NetworkIdError::NeedsFile(_) => "give the path of that file; `peersock network new` makes one",
            _ => "use an ad-hoc network (ff…) or the TOML file of a static one",
        };
        Failure::usage(error, hint)
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Failure {
        let hint = match &error {
            JoinError::NotAMember { network, key } => return Failure::not_a_member(network, "FILE", key),
            JoinError::AlreadyJoined(_) => "name each network once",
            JoinError::JoinedOtherwise(_) => "give the network once, with its secret and its members",
            JoinError::TooMany(_) => "name fewer networks, or start several nodes",
            JoinError::Beside { .. } => "share the machine's node: leave out what gives this program its own",
            JoinError::MachineNotAMember(_) => "run `peersock join` to make this machine a member first",
            JoinError::OtherKey(_) => "ask who runs the network; `peersock leave` forgets the first key",
            JoinError::WrongKey(_) => "ask who runs the network for another invite",
            JoinError::Config(NetworkConfigError::NoSecret(_)) => {
                "leave the secret out: a managed network has none"
            }
            JoinError::Credentials { .. } => "run `peersock join` to join the network again",
            _ => "correct the network's file; docs/use/NETWORKS.md describes it",
        };
        Failure::from_library(&error, Some(hint))
    }
}

impl From<ManagementError> for Failure {
    fn from(error: ManagementError) -> Failure {
        let said;
        let hint = match &error {
            ManagementError::NotRunning { .. } => {
                "give the --state DIR of a node that runs; one with --ephemeral cannot be asked"
            }
            ManagementError::ForeignOwner { .. } => {
                "ask as that user, or give the --state DIR of a node of yours"
            }
            ManagementError::Silent { process: Some(process), is_stopped: true } => {
                said = format!("run `kill -CONT {process}`, or end it (`kill -KILL {process}`)");
                &said
            }
            ManagementError::Silent { .. } => "try again in a while: it has not answered in time",
            ManagementError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                "ask as the user who runs the node, or give the --state DIR of a node of yours"
            }
            error if has_ended(error) => "it has just ended: start it again, and ask again",
            ManagementError::Refused { .. } => "restart it with the version of this program, and try again",
            _ => "try again, and if it stays so restart the node",
        };
        Failure::from_library(&error, Some(hint))
    }
}

/// Converts a system error without further context. Code that knows more writes a specific text.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let hint = system_hint(error.kind());
        Failure::from_library(error, Some(hint))
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Failure {
        io::Error::from(error).into()
    }
}

/// Converts the error of unreadable roots. An unusable file is reported like any file. A text that names no
/// root is wrong usage; `place` is its option or variable.
pub fn roots_failure(place: &str, error: RootsError) -> Failure {
    match error {
        RootsError::State(error) => {
            Failure::file(error, format_args!("correct {place}, or make the file; {ROOT_HINT}"))
        }
        error => Failure::usage(format_args!("{place}: {error}"), ROOT_HINT),
    }
}

/// Returns true if the node ends, or has ended, rather than being too slow to answer.
pub fn has_ended(error: &ManagementError) -> bool {
    match error {
        ManagementError::NotRunning { .. } => true,
        // The node has ended before it could answer.
        ManagementError::Refused { error, .. } => error == "the node has stopped",
        ManagementError::Io { source, .. } => matches!(
            source.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        _ => false,
    }
}

/// Returns advice for a system error.
fn system_hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "check that it exists and is spelled like this",
        ErrorKind::PermissionDenied => "check who owns it and its mode, or run as another user",
        ErrorKind::ReadOnlyFilesystem => "choose a place that can be written to",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on the disk",
        ErrorKind::InvalidData | ErrorKind::FileTooLarge => "check that it is the right file",
        ErrorKind::InvalidFilename => "choose a shorter name",
        ErrorKind::IsADirectory => "name a file instead",
        ErrorKind::OutOfMemory => "free memory, or raise its limit (`ulimit -v`)",
        ErrorKind::NotConnected | ErrorKind::NetworkDown => "start the command again: the node has ended",
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            "look whether the other program still runs, and start again"
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "look whether the other program still runs and the network works; -v shows what was tried"
        }
        ErrorKind::Unsupported => {
            "allow it in the profile of the sandbox or container (Docker: --security-opt seccomp=unconfined), or use \
             a newer kernel"
        }
        // The system has no room for a thread or a process.
        ErrorKind::WouldBlock => {
            "end other programs of this user, or raise the limits on processes and memory (`ulimit -u -v`)"
        }
        ErrorKind::AddrInUse => "choose another port, or 0 for a free one",
        _ => "run it again with -vv to see what led to this; check the limits of this process (`ulimit -a`)",
    }
}

#[cfg(test)]
pub(super) mod samples {
    use std::path::PathBuf;

    use peersock::overlay::Identity;

    use super::*;

    /// Returns a failure for each variant of each library error, and each kind of system error with a hint.
    pub(in crate::failure) fn all() -> Vec<Failure> {
        let path = || PathBuf::from("/somewhere/peersock");
        let mut all =
            vec![Failure::no_randomness("not here"), Failure::output(ErrorKind::StorageFull.into())];
        let system = || {
            // ENOENT, EACCES, EROFS, ENOSPC, EFBIG, EISDIR, ENOMEM, ENOTCONN, ECONNRESET, ETIMEDOUT,
            // EADDRINUSE, EMFILE, ENOSYS, EAGAIN
            [2, 13, 30, 28, 27, 21, 12, 107, 104, 110, 98, 24, 38, 11].map(io::Error::from_raw_os_error)
        };
        all.extend(system().map(Failure::from));
        all.extend(system().map(|error| Failure::from(StartError::Io(error))));
        let io_error = |source| StateError::Io { action: "create", path: path(), source };
        all.extend(system().map(|error| Failure::from(io_error(error))));
        all.extend(
            system().map(|error| Failure::network_file("office.toml", ConfigError::File(io_error(error)))),
        );
        let states = || {
            [
                StateError::NoDefaultPath,
                StateError::InUse { path: path(), holder: Some(7) },
                StateError::InUse { path: path(), holder: None },
                StateError::Exposed { path: path(), mode: 0o644 },
                StateError::Changeable { path: path(), mode: 0o666 },
                StateError::WritableByOthers { path: path(), mode: 0o777 },
                StateError::ForeignOwner { path: path(), owner: 1, user: 0 },
                StateError::WrongKind { path: path(), expected: "regular file" },
                StateError::Malformed { path: path(), what: "it is empty" },
                StateError::MalformedRecord { path: path() },
                StateError::TooNew { path: path() },
            ]
        };
        all.extend(states().map(Failure::from));
        // No file, and no start of a node, gives a network a name.
        all.push(StateError::NameTaken { name: "team".parse().expect("a name"), network: None }.into());
        all.extend(states().map(|error| Failure::from(ConfigError::File(error))));
        all.extend(states().map(|error| Failure::from(StartError::State(error))));
        let what = || "the network has no [[member]]".to_owned();
        all.extend(system().map(|error| Failure::from(ConfigError::Passphrase(error))));
        all.push(ConfigError::Invalid { line: 1, what: what() }.into());
        all.push(ConfigError::InvalidFile { path: path(), line: 1, what: what() }.into());
        all.push(StartError::PortTaken { port: 7 }.into());
        all.push(StartError::PortForbidden { port: 7 }.into());
        all.push(StartError::AlreadyInstalled.into());
        let roots = peersock::RootSource::load("nonsense").expect_err("it names no root");
        let wrong = |variable, reason| StartError::Variable(VariableError { variable, reason });
        all.push(wrong("PEERSOCK_ROOTS", roots.into()).into());
        let roots = peersock::RootSource::load("@/no/such/file").expect_err("there is none");
        all.push(wrong("PEERSOCK_ROOTS", roots.into()).into());
        all.push(StartError::TooManyTurnServers { named: 5 }.into());
        all.push(StartError::NoSuite(peersock::overlay::Suite::Aes256Gcm).into());
        let stun = peersock::interfaces::load_stun_servers("x").expect_err("no server");
        all.push(wrong("PEERSOCK_STUN", stun.into()).into());
        for text in ["x", "@/no/such/file"] {
            let turn = peersock::interfaces::load_turn_servers(text).expect_err("no server");
            all.push(wrong("PEERSOCK_TURN", turn.into()).into());
        }
        all.push(wrong("PEERSOCK_AS", Refusal::Value("a label".into())).into());
        all.push(wrong("PEERSOCK_BUSY_POLL", Refusal::Value("a number".into())).into());
        all.push(wrong("PEERSOCK_DHT", "x".parse::<peersock::Dht>().expect_err("no DHT").into()).into());
        all.extend(system().map(|error| Failure::from(StartError::Dht(error))));
        let id = "ff0001ffff000000".parse().expect("a network's ID");
        let node = peersock::overlay::NodeId::from_bytes([1; 32]);
        all.extend([NetworkIdError::NeedsFile(id), NetworkIdError::Reserved(id)].map(Failure::from));
        all.push(JoinError::AlreadyJoined(id).into());
        all.push(JoinError::NotAMember { network: id, key: *Identity::from_seed(&[1; 32]).public() }.into());
        all.push(JoinError::JoinedOtherwise(id).into());
        all.push(JoinError::TooMany(64).into());
        all.push(JoinError::Beside { network: id, reason: "it has a label".into() }.into());
        all.push(JoinError::MachineNotAMember(id).into());
        all.push(JoinError::OtherKey(id).into());
        all.push(JoinError::WrongKey(id).into());
        let refusal = peersock::overlay::membership::Refusal::Holder;
        all.push(JoinError::Credentials { network: id, refusal }.into());
        all.extend(config_errors(id, node).map(|error| Failure::from(JoinError::Config(error))));
        all.push(ManagementError::NotRunning { path: path() }.into());
        all.push(ManagementError::ForeignOwner { path: path(), owner: 1 }.into());
        let silent = |(process, is_stopped)| ManagementError::Silent { process, is_stopped }.into();
        all.extend([(None, false), (Some(7), false), (Some(7), true)].map(silent));
        let refused = |version| ManagementError::Refused { error: "unknown request".into(), version };
        all.extend([None, Some("0.1.0".into())].map(|version| Failure::from(refused(version))));
        all.extend(system().map(|source| Failure::from(ManagementError::Io { path: path(), source })));
        all
    }

    fn config_errors(id: NetworkId, node: peersock::NodeId) -> [NetworkConfigError; 14] {
        use peersock::overlay::NetworkConfigError as Error;
        let address: std::net::IpAddr = "10.0.0.1".parse().expect("an address");
        [
            Error::Kind(id),
            Error::OpenKey,
            Error::DuplicateMember(node),
            Error::DuplicateName("alpha".into()),
            Error::DuplicateAddress(address),
            Error::UnusableAddress(address),
            Error::CertifiedAddress(address),
            Error::UnusableRoute(address.into()),
            Error::CertifiedRoute(address.into()),
            Error::DuplicateRoute(address.into()),
            Error::NoExits(id),
            Error::NoSecret(id),
            Error::NotAnExit(node),
            Error::UnusableEndpoint((address, 0).into()),
        ]
    }
}
