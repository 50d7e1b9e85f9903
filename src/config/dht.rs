//! Setting of the BitTorrent DHT: whether a node uses it, and how it enters it.

use std::fmt;
use std::net::SocketAddrV4;
use std::str::FromStr;

use thiserror::Error;

/// Use of the BitTorrent DHT, by which a node can be found, and finds others, without any root.
///
/// As text: `off`, `public`, or addresses and UDP ports of nodes of the DHT, with commas or white space
/// between them. An empty text is `off`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Dht {
    /// No use of the DHT.
    #[default]
    Off,
    /// Public DHT, entered by its well-known nodes.
    Public,
    /// DHT that these nodes belong to; no other node is asked first. At least one.
    Nodes(Vec<SocketAddrV4>),
}

/// Error for a text that is no DHT setting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is neither `public`, `off`, nor IPV4:PORT of a node of the DHT")]
pub struct ParseDhtError(String);

impl Dht {
    /// Returns true if the DHT is used.
    pub fn is_on(&self) -> bool {
        *self != Dht::Off
    }
}

impl FromStr for Dht {
    type Err = ParseDhtError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "" | "off" => return Ok(Dht::Off),
            "public" => return Ok(Dht::Public),
            _ => {}
        }
        let words = text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
        let node = |word: &str| {
            let address: Option<SocketAddrV4> = word.parse().ok();
            let address = address.filter(|address| address.port() != 0 && !address.ip().is_unspecified());
            address.ok_or_else(|| ParseDhtError(word.to_owned()))
        };
        let nodes: Vec<_> = words.map(node).collect::<Result<_, _>>()?;
        if nodes.is_empty() { Err(ParseDhtError(text.to_owned())) } else { Ok(Dht::Nodes(nodes)) }
    }
}

impl fmt::Display for Dht {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dht::Off => f.write_str("off"),
            Dht::Public => f.write_str("public"),
            Dht::Nodes(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                f.write_str(&nodes.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["off", "public", "192.0.2.1:6881", "192.0.2.1:6881,198.51.100.2:1"] {
            let dht: Dht = text.parse().expect(text);
            assert_eq!(dht.to_string(), text);
        }
        assert_eq!(
            " 192.0.2.1:6881\n192.0.2.2:7, ".parse::<Dht>().expect("two").to_string(),
            "192.0.2.1:6881,192.0.2.2:7"
        );
    }

    #[test]
    fn what_is_no_node_is_named() {
        for text in ["Public", "192.0.2.1", "192.0.2.1:0", "0.0.0.0:5", "[2001:db8::1]:5", ",", "host:5"] {
            let words = format!("192.0.2.1:6881 {text}");
            assert!(text.parse::<Dht>().is_err(), "{text}");
            if text != "," {
                assert_eq!(words.parse::<Dht>(), Err(ParseDhtError(text.to_owned())));
            }
        }
    }
}
