//! Hosts that are reached without the proxy (`NO_PROXY`).

use std::net::IpAddr;

use super::host_and_port;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Exceptions {
    patterns: Vec<(Pattern, Option<u16>)>,
    /// True if loopback is reached without the proxy.
    loopback: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    All,
    /// A domain and all names below it, in lower case, without leading and trailing dots.
    Domain(String),
    /// A block of addresses: an address and the length of its prefix.
    Block(IpAddr, u8),
}

impl Exceptions {
    /// Parses `NO_PROXY`, and adds loopback. Parts that cannot be parsed are ignored, as in other programs.
    pub(crate) fn of_environment(text: &str) -> Self {
        let parts = text.split([',', ' ', '\t']).filter(|part| !part.is_empty());
        Self { patterns: parts.filter_map(parse).collect(), loopback: true }
    }

    /// Returns true if this host is reached without the proxy.
    pub(crate) fn cover(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let is_loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        if self.loopback && is_loopback {
            return true;
        }
        self.patterns.iter().any(|(pattern, only)| {
            only.is_none_or(|only| only == port)
                && match (pattern, address) {
                    (Pattern::All, _) => true,
                    (Pattern::Block(block, bits), Some(address)) => contains(*block, *bits, address),
                    (Pattern::Domain(domain), None) => host
                        .strip_suffix(domain.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
                    (Pattern::Block(..), None) | (Pattern::Domain(_), Some(_)) => false,
                }
        })
    }
}

fn parse(part: &str) -> Option<(Pattern, Option<u16>)> {
    if let Some((block, bits)) = part.split_once('/') {
        let (block, bits): (IpAddr, u8) = (block.parse().ok()?, bits.parse().ok()?);
        let most = if block.is_ipv4() { 32 } else { 128 };
        return (bits <= most).then_some((Pattern::Block(block, bits), None));
    }
    let (host, port) = host_and_port(part)?;
    let pattern = match host.parse::<IpAddr>() {
        _ if host == "*" => Pattern::All,
        Ok(address) => Pattern::Block(address, if address.is_ipv4() { 32 } else { 128 }),
        Err(_) => {
            let domain = host.strip_prefix("*.").unwrap_or(host).trim_matches('.');
            if domain.is_empty() {
                return None;
            }
            Pattern::Domain(domain.to_ascii_lowercase())
        }
    };
    Some((pattern, port))
}

fn contains(block: IpAddr, bits: u8, address: IpAddr) -> bool {
    match (block, address) {
        (IpAddr::V4(block), IpAddr::V4(address)) => {
            let differing = block.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(bits)
        }
        (IpAddr::V6(block), IpAddr::V6(address)) => {
            let differing = block.to_bits() ^ address.to_bits();
            differing.leading_zeros() >= u32::from(bits)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_covered_as_in_other_programs() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("", &["localhost", "127.9.9.9", "::1"], &["a.b", "10.0.0.1"]),
            ("*", &["a.b", "10.0.0.1", "::2"], &[]),
            ("a.b", &["a.b", "A.B.", "x.a.b"], &["xa.b", "b", "a.b.c"]),
            (".a.b", &["a.b", "x.a.b"], &["xa.b"]),
            ("*.a.b", &["x.a.b"], &["xa.b"]),
            ("10.0.0.0/8, ::/64", &["10.255.0.1", "::5"], &["11.0.0.1", "0:0:0:1::1", "10.a.b"]),
            ("192.0.2.1 [2001:db8::1]", &["192.0.2.1", "2001:db8::1"], &["192.0.2.2"]),
            ("a.b:443", &["a.b"], &["c.d"]),
            ("a.b:80,c.d", &["c.d"], &["a.b"]),
            ("10.0.0.0/33,/8,.,a:b", &[], &["10.0.0.1", "a"]),
        ];
        for (text, covered, others) in cases {
            let exceptions = Exceptions::of_environment(text);
            covered.iter().for_each(|host| assert!(exceptions.cover(host, 443), "{text:?} covers {host}"));
            others.iter().for_each(|host| assert!(!exceptions.cover(host, 443), "{text:?} leaves {host}"));
        }
    }

    #[test]
    fn a_proxy_for_everything_has_no_exceptions() {
        assert!(!Exceptions::default().cover("localhost", 443));
    }
}
