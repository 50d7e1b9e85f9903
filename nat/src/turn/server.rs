//! A TURN server as users write it.

use std::fmt;
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
/// In the user name and in the password, `%` and two digits stand for a character: `%3A` for a colon. The
/// port is 3478 if none is named. `?transport=udp`, which RFC 7065 has for URIs, may follow. The password
/// is not displayed, and wiped when this is dropped.
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
    /// It is not of the form that [`TurnServer`] has.
    #[error("a TURN server is written turn:USER:PASSWORD@HOST:PORT")]
    Form,
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
        if text.starts_with("turns:") {
            return Err(TurnServerError::Transport);
        }
        let rest = text.strip_prefix("turn:").ok_or(TurnServerError::Form)?;
        // The host has no `@`, a password may have one.
        let (credentials, place) = rest.rsplit_once('@').ok_or(TurnServerError::Form)?;
        let place = match place.split_once('?') {
            None | Some((_, "transport=udp")) => place.split('?').next().unwrap_or(place),
            Some((_, query)) if query.starts_with("transport=") => return Err(TurnServerError::Transport),
            Some(_) => return Err(TurnServerError::Form),
        };
        let has_port = place.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let target = match has_port {
            true => Target::parse(place, Transport::Udp),
            false => Target::parse(&format!("{place}:{PORT}"), Transport::Udp),
        };
        let (user, password) = credentials.split_once(':').ok_or(TurnServerError::Form)?;
        let decode = |text: &str| {
            let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
            (1..=MAX_LEN).contains(&text.len()).then_some(text)
        };
        let credentials = decode(user).zip(decode(password).map(Zeroizing::new));
        let (user, password) = credentials.ok_or(TurnServerError::Credentials)?;
        Ok(Self { user, password, target: target.ok_or(TurnServerError::Form)? })
    }
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
        for text in
            ["u:p@h", "turn:h", "turn:u@h", "turn:u:p@", "turn:u:p@h:0", "turn:u:p@h?x=y", "stun:u:p@h"]
        {
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
    fn a_password_is_not_shown() {
        let server: TurnServer = "turn:alice:sesame@h".parse().expect("it is one");
        assert_eq!(format!("{server} {server:?}").matches("sesame").count(), 0);
    }
}
