//! Endpoints of members: socket addresses, and host names that the node resolves.

use std::fmt;
use std::str::FromStr;

/// Limits of the length of a host name, and of a label in one (RFC 1035, 2.3.4).
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// Host name and UDP port at which a member of a static network may be found, as `HOST:PORT`.
///
/// The node resolves the name when it joins the network, in both address families, and again while it has no
/// session with the member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostEndpoint {
    host: String,
    port: u16,
}

impl HostEndpoint {
    /// Returns the name, in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the UDP port, which is not 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for HostEndpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(ParseEndpointError)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ParseEndpointError)?;
        let host = host.to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A final dot marks an absolute name (RFC 1034, section 3.1).
        let labels = host.strip_suffix('.').unwrap_or(&host);
        // A name whose last label is a number is probably a mistyped IPv4 address (RFC 1123, 2.1).
        let is_number =
            labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if host.len() > MAX_HOST || is_number || !labels.split('.').all(is_label) {
            return Err(ParseEndpointError);
        }
        Ok(HostEndpoint { host, port })
    }
}

/// Error for a text that is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an endpoint; write HOST:PORT, IPV4:PORT or [IPV6]:PORT")]
pub struct ParseEndpointError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_told_from_addresses_and_mistakes() {
        for (text, host) in [
            ("localhost:1", "localhost"),
            ("Alpha.Example.ORG:7420", "alpha.example.org"),
            ("a-b._udp.example.:65535", "a-b._udp.example."),
            ("xn--bcher-kva.example:9", "xn--bcher-kva.example"),
            ("7b.example:9", "7b.example"),
        ] {
            let endpoint: HostEndpoint = text.parse().expect(text);
            assert_eq!(endpoint.host(), host);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint), "{text}");
        }
        let long = format!("{}:1", ["a"; 128].join("."));
        let label = format!("{}.example:1", "a".repeat(64));
        for text in [
            "",
            ":",
            "host",
            "host:",
            ":1",
            "host:0",
            "host:65536",
            "host:x",
            "192.0.2.256:1",
            "192.0.2:1",
            "1:1",
            "a b:1",
            "-a:1",
            "a-:1",
            "a..b:1",
            ".:1",
            "bücher.example:1",
            "fd00::1:1",
            "[fd00::1]:1",
            "http://a:1",
            &long,
            &label,
        ] {
            assert_eq!(text.parse::<HostEndpoint>(), Err(ParseEndpointError), "{text}");
        }
    }
}
