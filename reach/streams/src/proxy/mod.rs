//! Proxies: which proxy serves which host, and how a client asks it to connect.

mod environment;
mod exceptions;
pub(crate) mod http_connect;
pub(crate) mod socks5;

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use peersock_primitives::is_deceptive;
use percent_encoding::percent_decode_str;
use thiserror::Error;

pub use environment::ProxySettings;
pub use http_connect::ConnectAnswer;

use crate::target::authority;

/// A proxy: its protocol, its address, and the credentials.
///
/// The form is the same as in other programs: `http://USER:PASSWORD@HOST:PORT`, with `https:` for TLS to the
/// proxy, and `socks5:` or `socks5h:` for SOCKS (RFC 1928). Without a scheme it is HTTP. In both forms of
/// SOCKS the proxy resolves the names. The default ports are 80, 443 and 1080. Special characters of the user
/// name and of the password are percent-encoded. `Display` and `Debug` never show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(crate) scheme: Scheme,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<Credentials>,
    /// The setting that named the proxy, for messages.
    pub(crate) setting: String,
}

/// The protocol of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// HTTP CONNECT (RFC 9110, 9.3.6).
    Http,
    /// The same inside TLS.
    Https,
    /// SOCKS 5 (RFC 1928).
    Socks5,
}

/// The user name and password for a proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Error: a text names no proxy.
///
/// ```
/// use peersock_streams::Proxy;
///
/// let error = "socks4://192.0.2.1".parse::<Proxy>().expect_err("an old protocol");
/// assert!(error.to_string().contains("http, https, socks5 and socks5h"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{setting} names no proxy: {reason}; write it as http://HOST:PORT or socks5://HOST:PORT, or unset it"
)]
pub struct ParseProxyError {
    /// The variable, or "the proxy's address".
    setting: String,
    reason: String,
}

/// Name that messages use for a proxy that came from no variable.
const NO_VARIABLE: &str = "the proxy's address";

impl Proxy {
    fn parse(text: &str, setting: &str) -> Result<Self, ParseProxyError> {
        let wrong = |reason: String| ParseProxyError { setting: setting.to_owned(), reason };
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "socks5" | "socks5h" | "socks" => Scheme::Socks5,
            other => {
                let reason = format!("`{other}` is not supported, but http, https, socks5 and socks5h are");
                return Err(wrong(reason));
            }
        };
        let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (credentials, place) = match place.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, place),
        };
        let credentials = credentials.map(|text| Credentials::parse(text).map_err(wrong)).transpose()?;
        let (host, port) =
            host_and_port(place).ok_or_else(|| wrong("it has no host, or a wrong port".into()))?;
        let port = port.unwrap_or(match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
            Scheme::Socks5 => 1080,
        });
        Ok(Self { scheme, host: host.to_owned(), port, credentials, setting: setting.to_owned() })
    }

    /// Returns `HOST:PORT`, with brackets around IPv6 addresses.
    pub(crate) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Returns the text of the proxy with placeholders for user name and password.
    pub(crate) fn with_credentials(&self) -> String {
        format!("{}://USER:PASSWORD@{}", self.scheme.name(), self.authority())
    }
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }
}

impl Credentials {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
            // These characters would end the header line.
            Ok(text) if !text.contains(['\r', '\n', '\0']) => Ok(text.into_owned()),
            _ => Err("its user name or password is no text".to_owned()),
        };
        Ok(Self { user: decode(user)?, password: decode(password)? })
    }
}

impl FromStr for Proxy {
    type Err = ParseProxyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, NO_VARIABLE)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.authority())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.credentials.as_ref().map(|_| "[redacted]");
        f.debug_struct("Proxy")
            .field("at", &self.to_string())
            .field("credentials", &credentials)
            .finish_non_exhaustive()
    }
}

/// Splits a text into a host, which is not empty, and the port after it. Removes brackets around IPv6
/// addresses.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let is_ipv6 = |host: &str| host.parse::<Ipv6Addr>().is_ok();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').filter(|(host, _)| is_ipv6(host))?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (host, port)
        }
        // An IPv6 address without brackets has no port.
        None if is_ipv6(text) => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
    };
    let printable = host.chars().all(|c| c.is_ascii_graphic() || !c.is_ascii() && !is_deceptive(c));
    (!host.is_empty() && printable).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_as_other_programs_do() {
        let cases = [
            ("http://a:3128", Scheme::Http, "a", 3128, None),
            ("a:3128/", Scheme::Http, "a", 3128, None),
            ("HTTP://a", Scheme::Http, "a", 80, None),
            ("https://a", Scheme::Https, "a", 443, None),
            ("socks5h://a", Scheme::Socks5, "a", 1080, None),
            ("socks5://u:p@[::1]:9", Scheme::Socks5, "::1", 9, Some(("u", "p"))),
            ("http://us%3Aer:p%40s@s@a:1", Scheme::Http, "a", 1, Some(("us:er", "p@s@s"))),
            ("http://user@a", Scheme::Http, "a", 80, Some(("user", ""))),
        ];
        for (text, scheme, host, port, credentials) in cases {
            let proxy: Proxy = text.parse().expect(text);
            let found = proxy.credentials.as_ref().map(|c| (c.user.as_str(), c.password.as_str()));
            assert_eq!(
                (proxy.scheme, &*proxy.host, proxy.port, found),
                (scheme, host, port, credentials),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_the_variable_named() {
        for text in [
            "",
            "http://",
            "http://a:0",
            "http://a:70000",
            "socks4://a",
            "http://[::1",
            "http://a b",
            "http://[a.b]:1",
            "http://a:b:1",
            "http://u%0a:p@a",
        ] {
            let error = Proxy::parse(text, "HTTPS_PROXY").expect_err(text);
            assert!(error.to_string().starts_with("HTTPS_PROXY names no proxy"), "{error}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let proxy: Proxy = "http://user:secret@a:1".parse().expect("a proxy");
        for text in [proxy.to_string(), format!("{proxy:?}"), proxy.with_credentials()] {
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
