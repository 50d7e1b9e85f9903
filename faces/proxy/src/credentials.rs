//! User names and passwords of a proxy's clients.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// Longest user name and longest password in bytes (RFC 1929).
const MAX_FIELD_BYTES: usize = 255;

/// Limit of the users of one proxy.
const MAX_USERS: usize = 1000;

/// The users of a proxy. Only hashes are kept, and they are compared in constant time.
///
/// ```
/// use peersock_proxy::Credentials;
///
/// let credentials = Credentials::parse("anna:correct horse\nbert:battery staple\n")?;
/// assert!(credentials.admit(b"anna", b"correct horse"));
/// assert!(!credentials.admit(b"anna", b"battery staple"));
/// # Ok::<(), peersock_proxy::CredentialsError>(())
/// ```
#[derive(Clone)]
pub struct Credentials(Vec<Digest>);

/// The hash of a user and a password.
#[derive(Clone)]
pub(crate) struct Digest([u8; 32]);

/// Error: a text with users and passwords cannot be parsed. The error repeats nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The text names no user.
    #[error("no user is named")]
    Empty,
    /// The text names more than 1000 users.
    #[error("more than {MAX_USERS} users are named")]
    TooMany,
    /// A line is not `USER:PASSWORD`.
    #[error("line {0} is not USER:PASSWORD with 1 to {MAX_FIELD_BYTES} bytes each")]
    Line(usize),
}

impl Credentials {
    /// Parses lines of `USER:PASSWORD`, 1 to 255 bytes each; empty lines are ignored. A password may contain
    /// colons.
    ///
    /// # Errors
    /// The fault, with the line.
    pub fn parse(text: &str) -> Result<Credentials, CredentialsError> {
        let mut known = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let wrong = CredentialsError::Line(number + 1);
            let (user, password) = line.split_once(':').ok_or(wrong)?;
            if [user, password].iter().any(|part| part.is_empty() || part.len() > MAX_FIELD_BYTES) {
                return Err(wrong);
            }
            known.push(Digest::of(user.as_bytes(), password.as_bytes()));
        }
        match known.len() {
            0 => Err(CredentialsError::Empty),
            1..=MAX_USERS => Ok(Credentials(known)),
            _ => Err(CredentialsError::TooMany),
        }
    }

    /// Returns true if the user exists with this password. Takes the same time for all failures.
    pub fn admit(&self, user: &[u8], password: &[u8]) -> bool {
        self.has(&Digest::of(user, password))
    }

    /// Returns true if one of the users has this hash.
    pub(crate) fn has(&self, shown: &Digest) -> bool {
        let compare = |found: Choice, known: &Digest| found | known.0.ct_eq(&shown.0);
        self.0.iter().fold(Choice::from(0), compare).into()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([redacted])")
    }
}

impl Digest {
    /// Hashes a user and a password. The length separates the two parts.
    pub(crate) fn of(user: &[u8], password: &[u8]) -> Digest {
        let mut hash = Sha256::new();
        hash.update((user.len() as u64).to_be_bytes());
        hash.update(user);
        hash.update(password);
        Digest(hash.finalize().into())
    }

    /// Returns true if both hashes are equal, in constant time.
    pub(crate) fn is(&self, other: &Digest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_admitted_with_their_own_password_only() {
        let credentials = Credentials::parse("a:b:c\n\nab:c\r\n").unwrap();
        for (user, password, admitted) in [
            ("a", "b:c", true),
            ("ab", "c", true),
            ("a", "bc", false),
            ("ab", "b:c", false),
            ("", "", false),
            ("a", "", false),
            ("b", "c", false),
        ] {
            assert_eq!(
                credentials.admit(user.as_bytes(), password.as_bytes()),
                admitted,
                "{user} {password}"
            );
        }
        assert_eq!(format!("{credentials:?}"), "Credentials([redacted])");
    }

    #[test]
    fn what_names_nobody_is_refused() {
        let long = format!("a:{}", "x".repeat(256));
        for (text, error) in [
            ("", CredentialsError::Empty),
            ("\n\n", CredentialsError::Empty),
            ("a:b\nc", CredentialsError::Line(2)),
            (":b", CredentialsError::Line(1)),
            ("a:", CredentialsError::Line(1)),
            (&long, CredentialsError::Line(1)),
        ] {
            assert_eq!(Credentials::parse(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(Credentials::parse(&"a:b\n".repeat(1001)).unwrap_err(), CredentialsError::TooMany);
    }
}
