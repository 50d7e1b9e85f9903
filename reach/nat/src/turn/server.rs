//! The text that names a TURN server.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::netcheck::{Target, Transport};

/// The port of TURN over UDP and TCP, and the port over TLS (RFC 8656, 3.1).
const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;

/// Limit of the user name and of the password in bytes (RFC 8489, 14.3).
const MAX_LEN: usize = 508;

/// A TURN server with the credentials for it: `turn:USER:PASSWORD@HOST[:PORT]`.
///
/// In the user name and in the password, `%` and two hexadecimal digits stand for a character: `%3A` for a
/// colon, `%25` for `%` itself. HOST is a name, an IPv4 address, or an IPv6 address in brackets. The port
/// defaults to 3478. The password is not displayed, and is wiped when this is dropped.
///
/// The transport is written as in the URIs of RFC 7065. `turn:` is UDP, and `turn:` with `?transport=tcp` at
/// its end is TCP. `turns:` is TLS over TCP, with the default port 5349. A server whose certificate no
/// authority has signed has its SHA-256 at the end: `turns:…?sha256=HEX`.
///
/// ```
/// use peersock_nat::turn::TurnServer;
///
/// let server: TurnServer = "turn:alice:open%20sesame@turn.example.org".parse()?;
/// assert_eq!((server.user(), server.target().to_string()), ("alice", "turn.example.org:3478".to_owned()));
/// assert_eq!(server.to_string(), "turn:alice@turn.example.org:3478");
/// assert!("turn:turn.example.org".parse::<TurnServer>().is_err());
/// let server: TurnServer = "turns:alice:sesame@turn.example.org?transport=tcp".parse()?;
/// assert_eq!(server.to_string(), "turns:alice@turn.example.org:5349");
/// # Ok::<(), peersock_nat::turn::TurnServerError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TurnServer {
    user: String,
    password: Zeroizing<String>,
    target: Target,
    transport: TurnTransport,
    fingerprint: Option<[u8; 32]>,
}

/// The transport to a TURN server. The server relays UDP in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TurnTransport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

/// Faults in a text that should name a TURN server. The error does not repeat the text, which may contain a
/// password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TurnServerError {
    /// The text is empty.
    #[error("the text of a TURN server is empty; write turn:USER:PASSWORD@HOST:PORT")]
    Empty,
    /// The text does not have the form that [`TurnServer`] describes.
    #[error("a TURN server is written turn:USER:PASSWORD@HOST:PORT")]
    Form,
    /// The text contains `//`, as web addresses do.
    #[error("the text of a TURN server is without //; write turn:USER:PASSWORD@HOST:PORT")]
    Slashes,
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "a % in the text of a TURN server must have two hexadecimal digits behind it (%25 means % \
         itself); write turn:USER:PASSWORD@HOST:PORT"
    )]
    Escape,
    /// The port is not a number, 0, or too large.
    #[error("the port of a TURN server is a number from 1 to 65535; write turn:USER:PASSWORD@HOST:PORT")]
    Port,
    /// The host is neither a name nor an address.
    #[error(
        "there is no host behind the @ of a TURN server, which is a name, an IPv4 address or an IPv6 address \
         in brackets; write turn:USER:PASSWORD@HOST:PORT"
    )]
    Host,
    /// The user name or the password is empty, too long, or not UTF-8.
    #[error("the user name and the password of a TURN server must have 1 to 508 bytes of UTF-8")]
    Credentials,
    /// The text asks for TLS over UDP, or for a transport that TURN does not have.
    #[error(
        "TURN servers are reached by turn: over UDP, by turn: with ?transport=tcp over TCP, by turns: over TLS"
    )]
    Transport,
    /// The fingerprint is invalid, or the scheme is not `turns:`.
    #[error(
        "?sha256= behind turns:USER:PASSWORD@HOST has the 64 hexadecimal digits of the certificate's SHA-256"
    )]
    Fingerprint,
}

impl TurnServer {
    /// Returns the user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the server's host and port.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the transport to the server.
    pub fn transport(&self) -> TurnTransport {
        self.transport
    }

    /// Returns the SHA-256 of the only accepted certificate; `None` if names and authorities decide.
    pub fn fingerprint(&self) -> Option<&[u8; 32]> {
        self.fingerprint.as_ref()
    }

    /// Returns the text that names this server, with the password and the fingerprint.
    ///
    /// ```
    /// use peersock_nat::turn::TurnServer;
    ///
    /// let server: TurnServer = "turn:17%3Au:p:@@[2001:db8::1]?transport=tcp".parse()?;
    /// assert_eq!(*server.to_portable(), "turn:17%3au:p%3a%40@[2001:db8::1]:3478?transport=tcp");
    /// assert_eq!(server.to_portable().parse::<TurnServer>()?, server);
    /// # Ok::<(), peersock_nat::turn::TurnServerError>(())
    /// ```
    pub fn to_portable(&self) -> Zeroizing<String> {
        // With room for all of it, because growing would leave an unwiped copy behind.
        let mut text = Zeroizing::new(String::with_capacity(6 * MAX_LEN + 500));
        let escape = |text: &mut String, part: &str| {
            for byte in part.bytes() {
                match byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    true => text.push(char::from(byte)),
                    false => text.push_str(&format!("%{byte:02x}")),
                }
            }
        };
        let (scheme, query) = self.scheme();
        text.push_str(scheme);
        text.push(':');
        escape(&mut text, &self.user);
        text.push(':');
        escape(&mut text, &self.password);
        text.push_str(&format!("@{}{query}", self.target));
        if let Some(digest) = &self.fingerprint {
            text.push_str("?sha256=");
            digest.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        }
        text
    }

    /// Returns the scheme and the query of the text.
    fn scheme(&self) -> (&'static str, &'static str) {
        match self.transport {
            TurnTransport::Udp => ("turn", ""),
            TurnTransport::Tcp => ("turn", "?transport=tcp"),
            TurnTransport::Tls => ("turns", ""),
        }
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
        let (scheme, rest) = text.split_once(':').ok_or(TurnServerError::Form)?;
        let is_tls = match scheme {
            "turn" => false,
            "turns" => true,
            _ => return Err(TurnServerError::Form),
        };
        if rest.starts_with("//") {
            return Err(TurnServerError::Slashes);
        }
        // Split at the last `@`, because a password may contain one, and a host cannot.
        let (credentials, place) = rest.rsplit_once('@').ok_or(TurnServerError::Form)?;
        let (place, query) =
            place.split_once('?').map_or((place, None), |(place, query)| (place, Some(query)));
        let (transport, fingerprint) = parse_query(query, is_tls)?;
        let (host, port) = parse_place(place, if is_tls { TLS_PORT } else { PORT })?;
        let asked = if transport == TurnTransport::Udp { Transport::Udp } else { Transport::Tcp };
        let target = Target { host, port, transport: asked };
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
        Ok(Self { user, password, target, transport, fingerprint })
    }
}

/// Parses `HOST` or `HOST:PORT`. Returns an IPv6 address without its brackets.
fn parse_place(place: &str, usual: u16) -> Result<(String, u16), TurnServerError> {
    let port_at = place.rfind(':').filter(|at| !place[*at..].contains(']'));
    let (host, port) = match port_at {
        // Without brackets an IPv6 address cannot be distinguished from its port.
        Some(at) if place.starts_with('[') || !place[..at].contains(':') => {
            let port = place[at + 1..].parse().ok().filter(|port| *port != 0);
            (&place[..at], port.ok_or(TurnServerError::Port)?)
        }
        Some(_) => return Err(TurnServerError::Host),
        None => (place, usual),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().is_ok(),
        None => is_name_or_ipv4(host),
    };
    if !is_host {
        return Err(TurnServerError::Host);
    }
    Ok((bare.unwrap_or(host).to_owned(), port))
}

fn is_name_or_ipv4(host: &str) -> bool {
    let labels = || host.strip_suffix('.').unwrap_or(host).split('.');
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // A name whose last label is a number is a malformed IPv4 address (RFC 1123, 2.1).
    let is_number = labels().next_back().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if is_number { host.parse::<Ipv4Addr>().is_ok() } else { labels().all(is_label) }
}

/// Returns true if two hexadecimal digits follow each `%`, because the decoder would keep invalid escapes
/// unchanged.
fn has_whole_escapes(text: &str) -> bool {
    let is_escape = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_escape)
}

/// Parses the text after the place: RFC 7065's transport, and a fingerprint, in any order.
fn parse_query(
    query: Option<&str>,
    is_tls: bool,
) -> Result<(TurnTransport, Option<[u8; 32]>), TurnServerError> {
    let (mut transport, mut fingerprint) = (None, None);
    for part in query.into_iter().flat_map(|query| query.split('&')) {
        match part.split_once('=') {
            Some(("transport", value)) if transport.is_none() => {
                transport = Some(match (value, is_tls) {
                    ("udp", false) => TurnTransport::Udp,
                    ("tcp", false) => TurnTransport::Tcp,
                    ("tcp", true) => TurnTransport::Tls,
                    _ => return Err(TurnServerError::Transport),
                });
            }
            Some(("sha256", value)) if fingerprint.is_none() => {
                let digest = parse_digest(value).filter(|_| is_tls);
                fingerprint = Some(digest.ok_or(TurnServerError::Fingerprint)?);
            }
            _ => return Err(TurnServerError::Form),
        }
    }
    let usual = if is_tls { TurnTransport::Tls } else { TurnTransport::Udp };
    Ok((transport.unwrap_or(usual), fingerprint))
}

/// Parses 32 bytes in hexadecimal digits, with or without the colons that `openssl` prints between them.
fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().ok().filter(|_| digits.len() == 64)
}

impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, query) = self.scheme();
        write!(f, "{scheme}:{}@{}{query}", self.user, self.target)
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
            ("turn:u:p@h?transport=tcp", "u", "p", "turn:u@h:3478?transport=tcp"),
            ("turns:u:p@h", "u", "p", "turns:u@h:5349"),
            ("turns:u:p@h:443?transport=tcp", "u", "p", "turns:u@h:443"),
        ];
        for (text, user, password, shown) in good {
            assert_eq!(read(text), Ok((user.to_owned(), password.to_owned(), shown.to_owned())), "{text}");
        }
        for text in [
            "u:p@h",
            "turn:h",
            "turn:u@h",
            "turn:u:p@h?x=y",
            "turn:u:p@h?",
            "turn:u:p@h?transport=tcp&transport=tcp",
            "stun:u:p@h",
        ] {
            assert_eq!(read(text), Err(TurnServerError::Form), "{text}");
        }
        for text in ["turn::p@h", "turn:u:@h", "turn:u:%ff@h", &format!("turn:u:{}@h", "p".repeat(509))] {
            assert_eq!(read(text), Err(TurnServerError::Credentials), "{text}");
        }
        for text in ["turns:u:p@h?transport=udp", "turn:u:p@h?transport=sctp", "turn:u:p@h?transport="] {
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
    fn a_fingerprint_is_read_as_openssl_prints_it_and_belongs_to_tls() {
        let digest = "00:0F:f0".to_owned() + &":11".repeat(29);
        let read = |text: &str| text.parse::<TurnServer>().map(|one| one.fingerprint().copied());
        let mut expected = [0x11; 32];
        expected[..3].copy_from_slice(&[0, 0x0f, 0xf0]);
        assert_eq!(read(&format!("turns:u:p@h?sha256={digest}")), Ok(Some(expected)));
        let plain = digest.replace(':', "");
        assert_eq!(read(&format!("turns:u:p@h?transport=tcp&sha256={plain}")), Ok(Some(expected)));
        for text in [
            format!("turn:u:p@h?sha256={plain}"),
            format!("turns:u:p@h?sha256={}", &plain[1..]),
            format!("turns:u:p@h?sha256={plain}0"),
            format!("turns:u:p@h?sha256={}", plain.replace('f', "g")),
        ] {
            assert_eq!(read(&text), Err(TurnServerError::Fingerprint), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let server: TurnServer = "turn:alice:sesame@h".parse().expect("it is one");
        assert_eq!(format!("{server} {server:?}").matches("sesame").count(), 0);
    }
}
