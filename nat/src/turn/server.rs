//! A TURN server as users write it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::netcheck::{Target, Transport};

/// The port of TURN over UDP (RFC 8656, 3.1).
const PORT: u16 = 3478;

/// The most characters of a user name and of a password (RFC 8489, 14.3: 508 bytes).
const MAX_LEN: usize = 508;

/// A TURN server with the credentials for it: `turn:USER:PASSWORD@HOST[:PORT]`.
///
/// In the user name and in the password, `%` and two hexadecimal digits stand for a character: `%3A` for a
/// colon, `%25` for `%` itself. HOST is a name, an IPv4 address, or an IPv6 address in brackets. The port is
/// 3478 if none is named. `?transport=udp`, which RFC 7065 has for URIs, may follow. The password is not
/// displayed, and wiped when this is dropped.
///
/// ```
/// use peersock_nat::turn::TurnServer;
///
/// let server: TurnServer = "turn:alice:open%20sesame@turn.example.org".parse()?;
/// assert_eq!((server.user(), server.target().to_string()), ("alice", "turn.example.org:3478".to_owned()));
/// assert_eq!(server.to_string(), "turn:alice@turn.example.org:3478");
/// assert!("turn:turn.example.org".parse::<TurnServer>().is_err());
/// # Ok::<(), peersock_nat::turn::TurnServerError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TurnServer {
    user: String,
    password: Zeroizing<String>,
    target: Target,
}

/// What is wrong with a text that should name a TURN server. It does not repeat the text, which may have a
/// password.
///
/// ```
/// use peersock_nat::turn::{TurnServer, TurnServerError};
///
/// assert_eq!("turns:a:b@host".parse::<TurnServer>(), Err(TurnServerError::Transport));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TurnServerError {
    /// There is no text.
    #[error("the text of a TURN server is empty; write turn:USER:PASSWORD@HOST:PORT")]
    Empty,
    /// It is not of the form that [`TurnServer`] has.
    #[error("a TURN server is written turn:USER:PASSWORD@HOST:PORT")]
    Form,
    /// It has `//` as the addresses of web pages do.
    #[error("the text of a TURN server is without //; write turn:USER:PASSWORD@HOST:PORT")]
    Slashes,
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "a % in the text of a TURN server must have two hexadecimal digits behind it (%25 stands for % \
         itself); write turn:USER:PASSWORD@HOST:PORT"
    )]
    Escape,
    /// The port is no number, 0, or too large.
    #[error("the port of a TURN server is a number from 1 to 65535; write turn:USER:PASSWORD@HOST:PORT")]
    Port,
    /// What stands in the host's place is neither a name nor an address.
    #[error(
        "there is no host behind the @ of a TURN server, which is a name, an IPv4 address or an IPv6 address \
         in brackets; write turn:USER:PASSWORD@HOST:PORT"
    )]
    Host,
    /// The user name or the password is empty, too long, or not UTF-8.
    #[error("the user name and the password of a TURN server must have 1 to 508 bytes of UTF-8")]
    Credentials,
    /// It asks for TCP or TLS.
    #[error("TURN servers are reached over UDP only: leave out ?transport=, and write turn: for turns:")]
    Transport,
}

impl TurnServer {
    /// The user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Where the server is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }
}

impl FromStr for TurnServer {
    type Err = TurnServerError;

    fn from_str(text: &str) -> Result<Self, TurnServerError> {
        if text.trim().is_empty() {
            return Err(TurnServerError::Empty);
        }
        if text.starts_with("turns:") {
            return Err(TurnServerError::Transport);
        }
        let rest = text.strip_prefix("turn:").ok_or(TurnServerError::Form)?;
        if rest.starts_with("//") {
            return Err(TurnServerError::Slashes);
        }
        // The host has no `@`, a password may have one.
        let (credentials, place) = rest.rsplit_once('@').ok_or(TurnServerError::Form)?;
        let place = match place.split_once('?') {
            None | Some((_, "transport=udp")) => place.split('?').next().unwrap_or(place),
            Some((_, query)) if query.starts_with("transport=") => return Err(TurnServerError::Transport),
            Some(_) => return Err(TurnServerError::Form),
        };
        let target = parse_place(place)?;
        let (user, password) = credentials.split_once(':').ok_or(TurnServerError::Form)?;
        if [user, password].iter().any(|part| !has_whole_escapes(part)) {
            return Err(TurnServerError::Escape);
        }
        let decode = |text: &str| {
            let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
            (1..=MAX_LEN).contains(&text.len()).then_some(text)
        };
        let credentials = decode(user).zip(decode(password).map(Zeroizing::new));
        let (user, password) = credentials.ok_or(TurnServerError::Credentials)?;
        Ok(Self { user, password, target })
    }
}

/// Reads `HOST` or `HOST:PORT`.
fn parse_place(place: &str) -> Result<Target, TurnServerError> {
    let port_at = place.rfind(':').filter(|at| !place[*at..].contains(']'));
    let (host, port) = match port_at {
        // Without brackets nobody can tell an IPv6 address from its port.
        Some(at) if place.starts_with('[') || !place[..at].contains(':') => {
            let port = place[at + 1..].parse().ok().filter(|port| *port != 0);
            (&place[..at], port.ok_or(TurnServerError::Port)?)
        }
        Some(_) => return Err(TurnServerError::Host),
        None => (place, PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().is_ok(),
        None => is_name_or_ipv4(host),
    };
    if !is_host {
        return Err(TurnServerError::Host);
    }
    Ok(Target { host: bare.unwrap_or(host).to_owned(), port, transport: Transport::Udp })
}

fn is_name_or_ipv4(host: &str) -> bool {
    let labels = || host.strip_suffix('.').unwrap_or(host).split('.');
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // A name whose last label is a number is an IPv4 address with a mistake in it (RFC 1123, 2.1).
    let is_number = labels().next_back().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if is_number { host.parse::<Ipv4Addr>().is_ok() } else { labels().all(is_label) }
}

/// Whether two hexadecimal digits follow each `%`: the decoder would let other ones stand as they are.
fn has_whole_escapes(text: &str) -> bool {
    let is_escape = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_escape)
}

impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn:{}@{}", self.user, self.target)
    }
}

impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TurnServer({self}, password [redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_refused() {
        let read = |text: &str| {
            text.parse::<TurnServer>()
                .map(|one| (one.user.clone(), one.password.to_string(), one.to_string()))
        };
        let good = [
            ("turn:u:p@h", "u", "p", "turn:u@h:3478"),
            ("turn:u:p@h:99?transport=udp", "u", "p", "turn:u@h:99"),
            ("turn:17%3Au:p:@@[2001:db8::1]", "17:u", "p:@", "turn:17:u@[2001:db8::1]:3478"),
            ("turn:u:p@[::1]:5", "u", "p", "turn:u@[::1]:5"),
        ];
        for (text, user, password, shown) in good {
            assert_eq!(read(text), Ok((user.to_owned(), password.to_owned(), shown.to_owned())), "{text}");
        }
        for text in ["u:p@h", "turn:h", "turn:u@h", "turn:u:p@h?x=y", "stun:u:p@h"] {
            assert_eq!(read(text), Err(TurnServerError::Form), "{text}");
        }
        for text in ["turn::p@h", "turn:u:@h", "turn:u:%ff@h", &format!("turn:u:{}@h", "p".repeat(509))] {
            assert_eq!(read(text), Err(TurnServerError::Credentials), "{text}");
        }
        for text in ["turns:u:p@h", "turn:u:p@h?transport=tcp"] {
            assert_eq!(read(text), Err(TurnServerError::Transport), "{text}");
        }
    }

    #[test]
    fn what_is_half_right_is_refused_with_what_is_wrong() {
        let said = |text: &str| text.parse::<TurnServer>().expect_err(text).to_string();
        for (text, words) in [
            ("", "is empty"),
            ("  ", "is empty"),
            ("turn://u:p@h:1", "without //"),
            ("turn:u:%zz@h", "%25"),
            ("turn:u:p%4@h", "%25"),
            ("turn:%:p@h", "%25"),
            ("turn:u:p@h:0", "1 to 65535"),
            ("turn:u:p@h:65536", "1 to 65535"),
            ("turn:u:p@h:", "1 to 65535"),
            ("turn:u:p@h:x", "1 to 65535"),
            ("turn:u:p@h/x", "no host"),
            ("turn:u:p@-h", "no host"),
            ("turn:u:p@a..b:1", "no host"),
            ("turn:u:p@192.0.2.256", "no host"),
            ("turn:u:p@[2001:db8::x]:1", "no host"),
            ("turn:u:p@2001:db8::1", "no host"),
            ("turn:u:p@:1", "no host"),
            ("turn:u:p@", "no host"),
        ] {
            let said = said(text);
            assert!(said.contains(words), "{text}: {said}");
            assert!(said.contains("turn:USER:PASSWORD@HOST:PORT"), "{text}: {said}");
        }
        for text in ["turn:u:p@h.example.:1", "turn:u:p@192.0.2.1", "turn:u:100%25@a_b-c.example"] {
            assert!(text.parse::<TurnServer>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let server: TurnServer = "turn:alice:sesame@h".parse().expect("it is one");
        assert_eq!(format!("{server} {server:?}").matches("sesame").count(), 0);
    }
}
