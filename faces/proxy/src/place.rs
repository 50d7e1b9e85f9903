//! Texts of the places at which a forward listens and to which it leads.

use std::fmt;
use std::path::PathBuf;

use crate::target::{Host, Target, parse_port};

/// Longest path of a Unix domain socket in bytes (unix(7)).
const LONGEST_PATH: usize = 107;

/// The protocol of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// A place to listen at or to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An address of the overlay; without a host, all of the node's addresses.
    Overlay {
        /// An address of the overlay or a member's name.
        host: Option<Host>,
        /// The port; for listening, 0 lets the node choose.
        port: u16,
    },
    /// An address of the system's network; without a host, all of the machine's addresses.
    System {
        /// An address or a name.
        host: Option<Host>,
        /// The port; for listening, 0 lets the system choose.
        port: u16,
    },
    /// A Unix domain socket for streams.
    Unix(PathBuf),
    /// A socket passed at the program's start (systemd's socket activation): its name, or its number counted
    /// from 0.
    Activated(String),
}

/// Error: a text is no place, or two places make no forward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The text is no place.
    #[error("`{0}` is no place: write [HOST:]PORT, overlay:[ADDRESS:]PORT, unix:PATH or systemd:NAME")]
    Malformed(String),
    /// The port is larger than ports are.
    #[error("`{0}` has no port: ports end at 65535")]
    Port(String),
    /// The path is not possible for a Unix domain socket.
    #[error("the path of a Unix domain socket has 1 to {LONGEST_PATH} bytes")]
    Path,
    /// One place is for connections and the other for datagrams.
    #[error("`{0}` and `{1}` are for different protocols")]
    Protocols(String, String),
    /// Both places are on the overlay, or neither is.
    #[error("one of `{0}` and `{1}` must be on the overlay, and the other one not")]
    Sides(String, String),
    /// The place can only be listened at, and is no destination.
    #[error("`{0}` leads nowhere: it needs a host and a port")]
    NoTarget(String),
    /// Datagrams are not supported at Unix domain sockets.
    #[error("Unix domain sockets carry connections, and no datagrams")]
    UnixDatagrams,
}

impl std::str::FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Place, PlaceError> {
        let malformed = || match is_port_too_large(text) {
            true => PlaceError::Port(text.to_owned()),
            false => PlaceError::Malformed(text.to_owned()),
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let is_path = (1..=LONGEST_PATH).contains(&path.len()) && !path.contains('\0');
            return is_path.then(|| Place::Unix(path.into())).ok_or(PlaceError::Path);
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            let is_name = !name.is_empty() && name.len() <= 255 && !name.contains([':', '\0']);
            return is_name.then(|| Place::Activated(name.to_owned())).ok_or_else(malformed);
        }
        if let Some(rest) = text.strip_prefix("overlay:") {
            let (host, port) = host_and_port(rest).ok_or_else(malformed)?;
            return Ok(Place::Overlay { host, port });
        }
        match parse_port(text) {
            Some(port) => Ok(Place::System { host: Host::parse("127.0.0.1"), port }),
            None => {
                let (host, port) = host_and_port(text).ok_or_else(malformed)?;
                Ok(Place::System { host, port })
            }
        }
    }
}

/// Parses `PORT`, `*:PORT` and `HOST:PORT`; `None` for anything else.
fn host_and_port(text: &str) -> Option<(Option<Host>, u16)> {
    let port_alone = text.strip_prefix("*:").unwrap_or(text);
    if let Some(port) = parse_port(port_alone) {
        return Some((None, port));
    }
    let target = Target::parse(text)?;
    Some((Some(target.host), target.port))
}

/// Returns true if a number that is no port stands in the place of one.
fn is_port_too_large(text: &str) -> bool {
    let port = text.rsplit(':').next().unwrap_or_default();
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && parse_port(port).is_none()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |host: &Option<Host>| host.as_ref().map_or("*".to_owned(), Host::to_string);
        match self {
            Place::Overlay { host: at, port } => write!(f, "overlay:{}:{port}", host(at)),
            Place::System { host: at, port } => write!(f, "{}:{port}", host(at)),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Activated(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// One forward: clients of `local` are connected to `remote`. Exactly one of the places is on the overlay.
///
/// ```
/// use peersock_proxy::{Forward, Protocol};
///
/// let forward = Forward::parse("8080", "[fd00::1]:80")?;
/// assert_eq!(forward.to_string(), "tcp:127.0.0.1:8080 tcp:overlay:[fd00::1]:80");
/// let forward = Forward::parse("udp:overlay:53", "127.0.0.1:53")?;
/// assert_eq!(forward.protocol, Protocol::Udp);
/// # Ok::<(), peersock_proxy::PlaceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The protocol.
    pub protocol: Protocol,
    /// The place to listen at.
    pub local: Place,
    /// The destination.
    pub remote: Place,
}

impl Forward {
    /// Parses two places, each with an optional prefix `tcp:` or `udp:`. If the local one is not on the
    /// overlay, the remote one is, even without the prefix `overlay:`.
    ///
    /// # Errors
    /// The fault.
    pub fn parse(local: &str, remote: &str) -> Result<Forward, PlaceError> {
        let (local_protocol, local_at) = protocol_of(local);
        let (remote_protocol, remote_at) = protocol_of(remote);
        let protocol = match (local_protocol, remote_protocol) {
            (Some(one), Some(other)) if one != other => {
                return Err(PlaceError::Protocols(local.to_owned(), remote.to_owned()));
            }
            (one, other) => one.or(other).unwrap_or_default(),
        };
        let (local_at, remote_at): (Place, Place) = (local_at.parse()?, remote_at.parse()?);
        let sides = || PlaceError::Sides(local.to_owned(), remote.to_owned());
        let remote_at = match (&local_at, remote_at) {
            (Place::Overlay { .. }, Place::Overlay { .. }) => return Err(sides()),
            (Place::Overlay { .. }, remote_at) => remote_at,
            (_, Place::System { .. }) if parse_port(protocol_of(remote).1).is_some() => {
                return Err(PlaceError::NoTarget(remote.to_owned()));
            }
            (_, Place::System { host, port } | Place::Overlay { host, port }) => {
                Place::Overlay { host, port }
            }
            (_, Place::Activated(_)) => return Err(PlaceError::NoTarget(remote.to_owned())),
            (_, Place::Unix(_)) => return Err(sides()),
        };
        let leads = match &remote_at {
            Place::Overlay { host, port } | Place::System { host, port } => host.is_some() && *port != 0,
            Place::Unix(_) => true,
            Place::Activated(_) => false,
        };
        if !leads {
            return Err(PlaceError::NoTarget(remote.to_owned()));
        }
        let has_path = [&local_at, &remote_at].iter().any(|place| matches!(place, Place::Unix(_)));
        if protocol == Protocol::Udp && has_path {
            return Err(PlaceError::UnixDatagrams);
        }
        Ok(Forward { protocol, local: local_at, remote: remote_at })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            with_protocol(self.protocol, &self.local),
            with_protocol(self.protocol, &self.remote)
        )
    }
}

/// Returns the text of a place in a forward, with its protocol.
pub(crate) fn with_protocol(protocol: Protocol, place: &Place) -> String {
    match place {
        Place::Unix(_) => place.to_string(),
        _ => format!("{protocol}:{place}"),
    }
}

/// Splits the text into the protocol prefix, if any, and the place.
fn protocol_of(text: &str) -> (Option<Protocol>, &str) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        if let Some(rest) = text.strip_prefix(&format!("{protocol}:")) {
            return (Some(protocol), rest);
        }
    }
    (None, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forwards_are_understood() {
        for (local, remote, text) in [
            ("127.0.0.1:8080", "[fd00::1]:80", "tcp:127.0.0.1:8080 tcp:overlay:[fd00::1]:80"),
            ("0", "alpha:80", "tcp:127.0.0.1:0 tcp:overlay:alpha:80"),
            ("*:80", "overlay:alpha:80", "tcp:*:80 tcp:overlay:alpha:80"),
            ("overlay:80", "80", "tcp:overlay:*:80 tcp:127.0.0.1:80"),
            ("overlay:[fd00::1]:80", "unix:/a b", "tcp:overlay:[fd00::1]:80 unix:/a b"),
            ("unix:/x", "tcp:alpha:1", "unix:/x tcp:overlay:alpha:1"),
            ("systemd:web", "alpha:1", "tcp:systemd:web tcp:overlay:alpha:1"),
            ("udp:[::1]:53", "alpha:53", "udp:[::1]:53 udp:overlay:alpha:53"),
            ("overlay:53", "udp:localhost:53", "udp:overlay:*:53 udp:localhost:53"),
        ] {
            let forward = Forward::parse(local, remote).unwrap_or_else(|error| panic!("{local}: {error}"));
            assert_eq!(forward.to_string(), text);
            let (first, second) = text.split_once(' ').unwrap();
            assert_eq!(Forward::parse(first, second), Ok(forward), "its text leads back to it");
        }
    }

    #[test]
    fn what_is_no_forward_is_refused() {
        let long = format!("unix:{}", "x".repeat(108));
        for (local, remote, said) in [
            ("overlay:80", "overlay:81", "must be on the overlay"),
            ("8080", "unix:/x", "must be on the overlay"),
            ("8080", "80", "leads nowhere"),
            ("8080", "overlay:80", "leads nowhere"),
            ("8080", "alpha:0", "leads nowhere"),
            ("8080", "*:80", "leads nowhere"),
            ("overlay:80", "systemd:web", "leads nowhere"),
            ("8080", "systemd:web", "leads nowhere"),
            ("tcp:1", "udp:alpha:1", "different protocols"),
            ("udp:overlay:1", "unix:/x", "no datagrams"),
            ("", "alpha:1", "is no place"),
            ("65536", "alpha:1", "`65536` has no port: ports end at 65535"),
            ("8080", "alpha:99999", "`alpha:99999` has no port"),
            ("overlay:123456789", "80", "`overlay:123456789` has no port"),
            ("alpha", "alpha:1", "is no place"),
            ("fd00::1:80", "alpha:1", "is no place"),
            ("overlay:", "1", "is no place"),
            ("systemd:", "alpha:1", "is no place"),
            ("unix:", "alpha:1", "1 to 107 bytes"),
            (&long, "alpha:1", "1 to 107 bytes"),
        ] {
            let error = Forward::parse(local, remote).expect_err(local).to_string();
            assert!(error.contains(said), "{local} {remote}: {error}");
        }
    }

    proptest! {
        #[test]
        fn the_text_of_a_place_leads_back_to_it(text in "(overlay:|unix:|systemd:)?[\\[\\]:a-f0-9.*]{0,20}") {
            if let Ok(place) = text.parse::<Place>() {
                prop_assert_eq!(place.to_string().parse(), Ok(place));
            }
        }

        #[test]
        fn no_text_is_too_strange(one in "\\PC{0,40}", other in ".{0,40}") {
            let _ = Forward::parse(&one, &other);
        }
    }
}
