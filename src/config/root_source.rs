//! Sources of a node's roots: named one by one, listed in the DNS, or announced on the local network.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use super::{Feature, HostEndpoint, MissingFeature, ParseRootError, RootAddress, RootEndpoint};
use crate::state::{StateError, check_secret_file, check_trusted_file, read_text_file};

/// Source of roots for a node.
///
/// | text | roots |
/// |---|---|
/// | `KEY@ENDPOINT[,ENDPOINT..][?token=TEXT]` | this one, see [`RootAddress`] |
/// | `dns:DOMAIN` | those that TXT records of `_peersock.DOMAIN` name |
/// | `dns:DOMAIN@SERVER` | the same, asked of this nameserver instead of the system's |
/// | `lan` | those that announce themselves on the local networks (`peersock root --announce`), two at most |
///
/// The list of a domain is kept in the user's cache directory for when the DNS does not answer. An attacker
/// who can forge DNS answers, or who is on the local network, can make a node use the attacker's root. That
/// root sees what every root sees, and can refuse its service; `docs/reference/SECURITY.md` says more. A name
/// in the list of another source is not affected.
///
/// ```
/// use peersock::RootSource;
///
/// let source: RootSource = "dns:example.org".parse()?;
/// assert_eq!(source.to_string(), "dns:example.org");
/// assert_eq!("lan".parse(), Ok(RootSource::Lan));
/// # Ok::<(), peersock::ParseRootError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RootSource {
    /// Single root.
    Address(RootAddress),
    /// Roots that a domain's owner lists in the DNS.
    Dns(RootDomain),
    /// Roots that announce themselves on the local networks that the node uses.
    Lan,
}

/// Domain with a list of roots: TXT records of `_peersock.DOMAIN`, each with the text of one root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RootDomain {
    name: String,
    server: Option<SocketAddr>,
}

impl RootDomain {
    /// Returns the domain, in lower case, without a final dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the nameserver to ask, if it is not the system's.
    pub fn server(&self) -> Option<SocketAddr> {
        self.server
    }
}

impl fmt::Display for RootDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.server {
            Some(server) => write!(f, "{}@{server}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl FromStr for RootDomain {
    type Err = ParseRootError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseRootError::Domain(text.to_owned());
        let (name, server) = match text.split_once('@') {
            Some((name, server)) => (name, Some(parse_server(server).ok_or_else(wrong)?)),
            None => (text, None),
        };
        // The rules of host names apply; the port only makes it an endpoint.
        let host: HostEndpoint = format!("{name}:1").parse().map_err(|_| wrong())?;
        let name = host.host().trim_end_matches('.').to_owned();
        // With the label in front it must still be a valid name (RFC 1035, 2.3.4).
        if name.len() + LABEL.len() > 253 {
            return Err(wrong());
        }
        Ok(Self { name, server })
    }
}

/// Label in front of the domain (RFC 8552).
pub(crate) const LABEL: &str = "_peersock.";

fn parse_server(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = |ip: IpAddr| SocketAddr::new(ip, 53);
    bare.parse().map(with_port).or_else(|_| text.parse()).ok()
}

impl RootSource {
    /// Reads several sources, with white space between them.
    ///
    /// # Errors
    /// Returns the [`ParseRootError`] of the first wrong text.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ParseRootError> {
        text.split_whitespace().map(str::parse).collect()
    }

    /// Reads the value of `PEERSOCK_ROOTS` and `--root`: texts of sources, or `@` and the path of a file that
    /// has at least one. In a file, lines that begin with `#` are comments. A file with an access token must
    /// be private to its owner (mode 0600), and no file may be writable by everybody.
    /// Errors: see [`RootsError`].
    pub fn load(text: &str) -> Result<Vec<Self>, RootsError> {
        let Some(path) = text.trim().strip_prefix('@') else { return Ok(Self::parse_list(text)?) };
        let path = Path::new(path);
        let (text, metadata) = read_text_file(path)?;
        // A file that anybody can change could name an attacker's root.
        check_trusted_file(path, &metadata)?;
        let mut sources = Vec::new();
        for (line, content) in (1..).zip(text.lines()) {
            if !content.trim_start().starts_with('#') {
                let found = Self::parse_list(content);
                let wrong = |error| RootsError::File { path: path.into(), line, error };
                sources.extend(found.map_err(wrong)?);
            }
        }
        // A file without roots is probably a mistake.
        if sources.is_empty() {
            return Err(RootsError::EmptyFile { path: path.into() });
        }
        let has_token = |source: &Self| matches!(source, Self::Address(root) if root.token().is_some());
        // Only a token makes the file secret.
        if sources.iter().any(has_token) {
            check_secret_file(path, &metadata)?;
        }
        Ok(sources)
    }
}

impl From<RootAddress> for RootSource {
    fn from(root: RootAddress) -> Self {
        Self::Address(root)
    }
}

impl fmt::Display for RootSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(root) => root.fmt(f),
            Self::Dns(domain) => write!(f, "dns:{domain}"),
            Self::Lan => f.write_str("lan"),
        }
    }
}

impl FromStr for RootSource {
    type Err = ParseRootError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "lan" {
            return Ok(Self::Lan);
        }
        match text.strip_prefix("dns:") {
            Some(domain) => domain.parse().map(Self::Dns),
            None => text.parse().map(Self::Address),
        }
    }
}

/// Reason why the roots of a text or file could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RootsError {
    /// The file cannot be read, is writable by everybody, or holds an access token and is readable by other
    /// users.
    #[error(transparent)]
    State(#[from] StateError),
    /// A text in a file is no root.
    #[error("{}:{line}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Reason.
        error: ParseRootError,
    },
    /// The file has only white space and comments.
    #[error("{} names no root", path.display())]
    EmptyFile {
        /// Path of the file.
        path: PathBuf,
    },
    /// A text is no root.
    #[error(transparent)]
    Text(#[from] ParseRootError),
}

/// Fails if a named source needs a feature that this build lacks. Lists are written by others and read later,
/// so unsupported endpoints in them are skipped.
pub(crate) fn require_for_roots(sources: &[RootSource]) -> Result<(), MissingFeature> {
    for source in sources {
        match source {
            RootSource::Address(root) => {
                let missing = |endpoint: &RootEndpoint| match endpoint.transport.feature() {
                    None => Ok(()),
                    Some(feature) => feature.require(format_args!("the root endpoint {endpoint}")),
                };
                // Roots name endpoints for networks without UDP by default. A build without them does with
                // the others.
                let mut missing = root.endpoints().iter().map(missing);
                if let Some(Err(error)) = missing.next()
                    && !missing.any(|other| other.is_ok())
                {
                    return Err(error);
                }
            }
            RootSource::Dns(_) => Feature::Dns.require(format_args!("the list of roots {source}"))?,
            RootSource::Lan => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use peersock_overlay::Identity;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["lan", "dns:example.org", "dns:a.b@192.0.2.1:5353", "dns:a@[2001:db8::1]:53"] {
            let source: RootSource = text.parse().expect("a source");
            assert_eq!(source.to_string(), text);
        }
        let short: RootSource = "dns:Example.org.@2001:db8::1".parse().expect("a source");
        assert_eq!(short.to_string(), "dns:example.org@[2001:db8::1]:53");
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        let long =
            format!("dns:{}", ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(63)].join("."));
        for text in ["dns:", "dns:a b", "dns:a/../b", "dns:192.0.2.1", "dns:a@b", "dns:a@", &long] {
            assert!(matches!(text.parse::<RootSource>(), Err(ParseRootError::Domain(_))), "{text}");
        }
        assert_eq!("LAN".parse::<RootSource>(), Err(ParseRootError::NoKey));
    }

    #[test]
    fn a_file_with_a_token_must_be_private() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("roots");
        let key = Identity::from_seed(&[7; 32]).public().to_string();
        let load = |content: &str, mode| {
            fs::write(&path, content).expect("room");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            RootSource::load(&format!("@{}", path.display()))
        };
        let open = format!("# ours\n{key}@192.0.2.1:7420\nlan dns:example.org\n");
        assert_eq!(load(&open, 0o644).expect("three sources").len(), 3);
        for mode in [0o666, 0o602] {
            let error = load(&open, mode).expect_err("others can change it").to_string();
            assert!(error.contains("chmod o-w"), "{error}");
        }
        let secret = format!("{key}@192.0.2.1:7420?token=open%20sesame\n");
        assert!(matches!(load(&secret, 0o644), Err(RootsError::State(StateError::Exposed { .. }))));
        let sources = load(&secret, 0o600).expect("a source");
        let [RootSource::Address(root)] = sources.as_slice() else { panic!("one root: {sources:?}") };
        assert_eq!(root.token(), Some(&b"open sesame"[..]));
        let error = load("nonsense", 0o600).expect_err("no source").to_string();
        assert!(error.contains("roots:1: a root is written"), "{error}");
        let error = load("# ours\nlan\n\nlan nonsense", 0o600).expect_err("no source").to_string();
        assert!(error.contains("roots:4: a root is written"), "{error}");
        for empty in ["", "\n", "# lan\n  # lan\n"] {
            let error = load(empty, 0o600).expect_err("no source").to_string();
            assert!(error.contains("roots names no root"), "{error}");
        }
    }
}
