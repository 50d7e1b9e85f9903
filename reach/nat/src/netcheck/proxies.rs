//! Proxies that the environment names, parsed as curl does.

use std::env;

use serde::Serialize;

use super::{Target, Transport, as_text};

/// Variables in the order in which they count for HTTPS. `HTTP_PROXY` in capitals is not read, because in a
/// CGI program a client sets it.
const VARIABLES: [&str; 5] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy"];

/// A proxy of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Proxy {
    /// The variable that names it.
    pub variable: &'static str,
    /// Its scheme, such as `http` or `socks5`.
    pub scheme: String,
    /// The proxy's address, without user name and password; `None` if the variable cannot be parsed.
    #[serde(serialize_with = "maybe_text")]
    pub target: Option<Target>,
}

pub(super) fn from_environment() -> Vec<Proxy> {
    let named = VARIABLES.into_iter().filter_map(|name| Some((name, env::var(name).ok()?)));
    named.filter(|(_, value)| !value.is_empty()).map(|(variable, value)| read(variable, &value)).collect()
}

fn read(variable: &'static str, value: &str) -> Proxy {
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let place = rest.split('/').next().unwrap_or_default();
    // Drop user name and password, because users share reports.
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    // curl's default port.
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let place = if has_port { place.to_owned() } else { format!("{place}:1080") };
    Proxy { variable, scheme: scheme.to_ascii_lowercase(), target: Target::parse(&place, Transport::Tcp) }
}

fn maybe_text<S: serde::Serializer>(value: &Option<Target>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(target) => as_text(target, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_without_their_passwords() {
        for (value, scheme, target) in [
            ("http://proxy.example:3128", "http", Some("proxy.example:3128")),
            ("socks5h://me:secret@192.0.2.1:1080/", "socks5h", Some("192.0.2.1:1080")),
            ("proxy", "http", Some("proxy:1080")),
            ("https://[2001:db8::1]:8080", "https", Some("[2001:db8::1]:8080")),
            ("http://", "http", None),
        ] {
            let proxy = read("https_proxy", value);
            let read = proxy.target.as_ref().map(Target::to_string);
            assert_eq!((proxy.scheme.as_str(), read.as_deref()), (scheme, target), "{value}");
            assert!(!serde_json::to_string(&proxy).expect("it can be written").contains("secret"));
        }
    }
}
