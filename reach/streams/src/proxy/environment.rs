//! The proxies that the environment names.

use super::exceptions::Exceptions;
use super::{ParseProxyError, Proxy};

/// Variables that name the proxy; the first one that is set and not empty counts. Those for HTTPS come first,
/// because most connections are TLS.
const VARIABLES: [&str; 6] =
    ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"];

/// The proxy to use for each host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    proxy: Option<Proxy>,
    exceptions: Exceptions,
}

impl ProxySettings {
    /// Returns settings without a proxy, regardless of the environment.
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns settings that use this proxy for all hosts.
    pub fn all_by(proxy: Proxy) -> Self {
        Self { proxy: Some(proxy), exceptions: Exceptions::default() }
    }

    /// Reads the settings from the environment of the process; see [`ProxySettings::from_variables`].
    /// Fails if the variable that counts names no proxy.
    pub fn from_environment() -> Result<Self, ParseProxyError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads the settings from the given variables.
    ///
    /// The proxy is in `HTTPS_PROXY`, else in `ALL_PROXY`, else in `HTTP_PROXY`; the lower-case form of each
    /// comes first. `NO_PROXY` lists hosts to connect to directly, separated by commas or spaces. `*` matches
    /// everything. A domain matches itself and all names below it, with or without a leading dot. An IP
    /// address or a block like `10.0.0.0/8` matches hosts given as addresses. Each may have a port. The host
    /// `localhost` and loopback addresses never use the proxy.
    /// Fails if the variable that counts names no proxy.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ParseProxyError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        // In a CGI program, HTTP_PROXY holds the header "Proxy" that a client has sent.
        let is_cgi = set("REQUEST_METHOD").is_some();
        let proxy = VARIABLES
            .iter()
            .filter(|name| !(is_cgi && **name == "HTTP_PROXY"))
            .find_map(|name| Some((*name, set(name)?)))
            .map(|(name, value)| Proxy::parse(&value, name))
            .transpose()?;
        let exceptions = set("no_proxy").or_else(|| set("NO_PROXY")).unwrap_or_default();
        Ok(Self { proxy, exceptions: Exceptions::of_environment(&exceptions) })
    }

    /// Returns the proxy for this host; `None` if it is reached directly.
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| !self.exceptions.cover(host, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<ProxySettings, ParseProxyError> {
        ProxySettings::from_variables(|name| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        })
    }

    fn proxy(variables: &[(&str, &str)]) -> Option<String> {
        let settings = settings(variables).expect("good settings");
        settings.proxy_for("root.example.org", 443).map(ToString::to_string)
    }

    #[test]
    fn the_first_variable_that_is_set_counts() {
        let all =
            [("https_proxy", "a:1"), ("HTTPS_PROXY", "b:1"), ("ALL_PROXY", "c:1"), ("HTTP_PROXY", "d:1")];
        for (skipped, expected) in ["a", "b", "c", "d"].iter().enumerate() {
            assert_eq!(proxy(&all[skipped..]), Some(format!("http://{expected}:1")));
        }
        assert_eq!(
            proxy(&[("https_proxy", " "), ("ALL_PROXY", "socks5://c:1")]),
            Some("socks5://c:1".into())
        );
        assert_eq!(proxy(&[]), None);
    }

    #[test]
    fn a_cgi_program_does_not_trust_http_proxy() {
        let variables = [("HTTP_PROXY", "evil:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(proxy(&variables), None);
        assert_eq!(
            proxy(&[("http_proxy", "good:1"), ("REQUEST_METHOD", "GET")]),
            Some("http://good:1".into())
        );
    }

    #[test]
    fn a_wrong_variable_is_an_error_with_its_name() {
        let error = settings(&[("ALL_PROXY", "gopher://a")]).expect_err("no proxy");
        assert!(error.to_string().starts_with("ALL_PROXY "), "{error}");
    }

    #[test]
    fn exceptions_come_from_either_case() {
        for name in ["no_proxy", "NO_PROXY"] {
            assert_eq!(proxy(&[("ALL_PROXY", "a:1"), (name, "example.org")]), None);
        }
        let loopback = settings(&[("ALL_PROXY", "a:1")]).expect("good settings");
        assert_eq!(loopback.proxy_for("127.0.0.1", 443), None);
    }
}
