//! Tickets: short texts that lead to one service of one program.
//!
//! A ticket has its own secret network, which allows one port and contains the program that issued the
//! ticket. So the holders of a ticket reach this service, and nothing else of its user.
//!
//! ```text
//! peersock://BASE64URL
//!
//! version   1 byte    1
//! secret   16 bytes   random; the network's key is SHA-256("peersock ticket v1" || secret)
//! node     10 bytes   end of the issuer's address, which follows from its key
//! DHT       1 byte    0: off, 1: public, 1 + n: n nodes of another DHT follow, an IPv4 address and a port each
//! roots     1 byte    number of roots; each is
//!                       0, 64 bytes of keys, number of endpoints, endpoints, length of the token, token
//!                       1, length, text of a domain
//!                       2 for roots of the local network
//!                     an endpoint is a byte (4 * transport + form), an address and a port; forms are
//!                       0: IPv4, 1: IPv6, 2: length and host name
//! sum       4 bytes   beginning of SHA-256 of all that precedes it
//! ```
//!
//! Numbers are in network order. Each ticket has exactly one text, so a parsed text is what
//! [`Ticket::to_text`] returns.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use peersock::overlay::{NetworkId, Psk};
use peersock::packed::{byte, emit_root, length, parse_root, port, several, take};
use peersock::{Dht, Network, RootSource, Seed};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Beginning of every ticket.
const PREFIX: &str = "peersock://";

const VERSION: u8 = 1;
const SECRET: usize = 16;
/// Bytes of an address that follow from the keys of its node.
const NODE: usize = 10;
const SUM: usize = 4;

/// Limits of counts, which their bytes could exceed.
const MAX_ROOTS: usize = 16;
const MAX_DHT_NODES: usize = 16;

/// Description of one service: the secret of its network, the node that has it, and the roots by which that
/// node is found.
///
/// The ticket is a secret. Its network's secret is erased on drop, and `Debug` never prints it.
///
/// ```
/// use peersock::Dht;
/// use peersock_proxy::Ticket;
///
/// let (ticket, seed) = Ticket::issue(Vec::new(), Dht::Off)?;
/// let text = ticket.to_text();
/// assert!(text.starts_with("peersock://") && text.len() < 60);
/// let parsed: Ticket = text.parse()?;
/// let addresses = parsed.network().addresses_of(&seed.public_identity()).expect("an ad-hoc network");
/// assert!(addresses.contains(&parsed.address().ip()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Ticket {
    secret: Zeroizing<[u8; SECRET]>,
    node: [u8; NODE],
    dht: Dht,
    roots: Vec<RootSource>,
}

impl Ticket {
    /// The port of the service in the ticket's network, and the only one that the network allows.
    pub const PORT: u16 = 7422;

    /// Beginning of every ticket.
    pub const PREFIX: &str = PREFIX;

    /// Limit of the length of a ticket in characters.
    pub const MAX_LEN: usize = 4096;

    /// Makes a new ticket, and the seed of the node that it leads to. Holders use the roots and the DHT.
    ///
    /// # Errors
    /// `InvalidInput` if the roots and nodes are too many for a ticket; otherwise the system has no
    /// randomness.
    pub fn issue(mut roots: Vec<RootSource>, dht: Dht) -> io::Result<(Ticket, Seed)> {
        let mut secret = Zeroizing::new([0; SECRET]);
        getrandom::fill(secret.as_mut_slice()).map_err(io::Error::other)?;
        let seed = Seed::generate()?;
        let node = node_of(&seed);
        let mut seen = HashSet::new();
        roots.retain(|root| seen.insert(root.clone()));
        let ticket = Ticket { secret, node, dht, roots };
        let parsed = ticket.to_text().parse::<Ticket>();
        match parsed.is_ok_and(|parsed| (&parsed.roots, &parsed.dht) == (&ticket.roots, &ticket.dht)) {
            true => Ok((ticket, seed)),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the roots and the nodes of the DHT do not fit into a ticket",
            )),
        }
    }

    /// Returns the ticket that both ends derive from something else than its text. It has no roots and no
    /// DHT, so each end names those itself. `seed` is of the node that the ticket leads to.
    pub fn derived(secret: Zeroizing<[u8; SECRET]>, seed: &Seed) -> Ticket {
        Ticket { secret, node: node_of(seed), dht: Dht::Off, roots: Vec::new() }
    }

    /// Returns true if a text claims to be a ticket.
    pub fn is_claimed_by(text: &str) -> bool {
        text.trim_start().starts_with(PREFIX)
    }

    /// Returns the ticket's network, with its key.
    pub fn network(&self) -> Network {
        let hash = Sha256::new().chain_update(b"peersock ticket v1").chain_update(self.secret.as_slice());
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&hash.finalize());
        Network::ad_hoc(network_id()).with_psk(Psk::new(*key))
    }

    /// Returns the address of the service.
    pub fn address(&self) -> SocketAddr {
        let mut address = [0; 16];
        address[..16 - NODE].copy_from_slice(&network_id().prefix());
        address[16 - NODE..].copy_from_slice(&self.node);
        SocketAddr::new(Ipv6Addr::from(address).into(), Self::PORT)
    }

    /// Returns the roots at which the issuer is found.
    pub fn roots(&self) -> &[RootSource] {
        &self.roots
    }

    /// Returns the DHT in which the issuer is found.
    pub fn dht(&self) -> &Dht {
        &self.dht
    }

    /// Returns true if the ticket contains the access token of a root.
    pub fn has_token(&self) -> bool {
        self.roots.iter().any(|root| matches!(root, RootSource::Address(root) if root.token().is_some()))
    }

    /// Returns the text.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = Self::with_sum(&self.emit());
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + bytes.len().div_ceil(3) * 4));
        text.push_str(PREFIX);
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        text
    }

    /// Returns content with its sum, for tests of the parser.
    #[doc(hidden)]
    pub fn with_sum(content: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(content.len() + SUM));
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(&sum(content));
        bytes
    }

    /// Returns the bytes without their sum.
    fn emit(&self) -> Zeroizing<Vec<u8>> {
        // Reserved in one piece, because a growing vector would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * Self::MAX_LEN));
        bytes.push(VERSION);
        bytes.extend_from_slice(self.secret.as_slice());
        bytes.extend_from_slice(&self.node);
        match &self.dht {
            Dht::Public => bytes.push(1),
            Dht::Nodes(nodes) => {
                bytes.push(1 + length(nodes.len()));
                for node in nodes {
                    bytes.extend_from_slice(&node.ip().octets());
                    bytes.extend_from_slice(&node.port().to_be_bytes());
                }
            }
            _ => bytes.push(0),
        }
        bytes.push(length(self.roots.len()));
        for root in &self.roots {
            emit_root(root, &mut bytes);
        }
        bytes
    }
}

fn network_id() -> NetworkId {
    NetworkId::ad_hoc(Ticket::PORT..=Ticket::PORT).expect("a range of one port")
}

/// Returns the end of a node's address.
fn node_of(seed: &Seed) -> [u8; NODE] {
    let address = network_id().address_of(&seed.public_identity().node_id());
    let mut node = [0; NODE];
    node.copy_from_slice(&address.octets()[16 - NODE..]);
    node
}

fn sum(bytes: &[u8]) -> [u8; SUM] {
    let hash = Sha256::digest(bytes);
    std::array::from_fn(|at| hash[at])
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Parses a ticket. White space around it is ignored.
    fn from_str(text: &str) -> Result<Ticket, TicketError> {
        let text = text.trim();
        let digits = text.strip_prefix(PREFIX).ok_or(TicketError::NoTicket)?;
        if text.len() > Self::MAX_LEN {
            return Err(TicketError::Length);
        }
        let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(digits.as_bytes()).map_err(|_| TicketError::Typo)?);
        let (content, its_sum) = bytes.split_last_chunk::<SUM>().ok_or(TicketError::Typo)?;
        if sum(content) != *its_sum {
            return Err(TicketError::Typo);
        }
        match content.first() {
            Some(&VERSION) => {}
            other => return Err(TicketError::Version(other.copied().unwrap_or_default())),
        }
        let ticket = parse(&content[1..]).ok_or(TicketError::Malformed)?;
        // Excludes what a second text would describe, such as host names in capitals.
        match ticket.emit().as_slice() == content {
            true => Ok(ticket),
            false => Err(TicketError::Malformed),
        }
    }
}

/// Parses what follows the version; returns `None` if it is malformed.
fn parse(mut bytes: &[u8]) -> Option<Ticket> {
    let bytes = &mut bytes;
    let secret = Zeroizing::new(*take(bytes)?);
    let node = *take(bytes)?;
    let dht = match byte(bytes)? {
        0 => Dht::Off,
        1 => Dht::Public,
        more => {
            let nodes = several(bytes, more - 1, MAX_DHT_NODES, |bytes| {
                Some(SocketAddrV4::new(Ipv4Addr::from(*take::<4>(bytes)?), port(bytes)?))
            })?;
            // By its text, because some addresses cannot be used.
            Dht::Nodes(nodes).to_string().parse().ok()?
        }
    };
    let count = byte(bytes)?;
    let roots = several(bytes, count, MAX_ROOTS, parse_root)?;
    bytes.is_empty().then_some(Ticket { secret, node, dht, roots })
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket([redacted])")
    }
}

/// Error of a text that is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The text begins with something else.
    #[error("a ticket begins with {PREFIX}")]
    NoTicket,
    /// The text is too long.
    #[error("a ticket has at most {} characters", Ticket::MAX_LEN)]
    Length,
    /// A character is wrong, or some are missing.
    #[error("the ticket has a typing error, or a part of it is missing")]
    Typo,
    /// The ticket is of a later version.
    #[error("the ticket is of version {0}, and this program knows version {VERSION}")]
    Version(u8),
    /// The ticket is complete, and describes nothing.
    #[error("the ticket describes no service: the program that made it is faulty")]
    Malformed,
}

#[cfg(test)]
mod tests {
    use peersock::overlay::Identity;
    use proptest::prelude::*;

    use super::*;

    fn root(endpoints: &str) -> RootSource {
        format!("{}@{endpoints}", Identity::from_seed(&[7; 32]).public()).parse().expect("a root")
    }

    fn with_sum(content: &[u8]) -> String {
        PREFIX.to_owned() + &BASE64URL_NOPAD.encode(&Ticket::with_sum(content))
    }

    #[test]
    fn what_is_written_is_read() {
        let every = root("192.0.2.1:7420,[2001:db8::1]:7420,tcp:a.b:80,tls:[2001:db8::2]:443,wss:c.d:443");
        let RootSource::Address(address) = every.clone() else { unreachable!() };
        let token = address.with_token(*b"open sesame").expect("a token");
        for roots in [
            vec![],
            vec![RootSource::Lan],
            vec!["dns:example.org".parse().unwrap(), RootSource::Lan, every.clone()],
            vec![token.into(), "dns:a.b@192.0.2.1:5353".parse().unwrap()],
        ] {
            for dht in ["off", "public", "192.0.2.1:6881,192.0.2.2:1"] {
                let (ticket, seed) = Ticket::issue(roots.clone(), dht.parse().unwrap()).expect("it fits");
                let parsed: Ticket = format!(" {}\n", *ticket.to_text()).parse().expect("a ticket");
                assert_eq!(parsed.roots(), roots);
                assert_eq!(parsed.dht().to_string(), dht);
                assert_eq!(*parsed.to_text(), *ticket.to_text());
                assert!(parsed.network() == ticket.network() && parsed.network().is_secret());
                let own = parsed.network().addresses_of(&seed.public_identity()).expect("a member");
                assert_eq!(parsed.address(), SocketAddr::new(own[0], Ticket::PORT));
            }
        }
        let has_token = |roots: &[RootSource]| Ticket::issue(roots.to_vec(), Dht::Off).unwrap().0.has_token();
        assert!(!has_token(&[every]));
    }

    #[test]
    fn tickets_are_short() {
        let length =
            |roots: &[RootSource]| Ticket::issue(roots.to_vec(), Dht::Off).unwrap().0.to_text().len();
        assert_eq!(length(&[]), 55);
        let one = root("203.0.113.10:7420,[2001:db8:0:1::10]:7420");
        assert!(length(&[one.clone(), one.clone()]) <= 190, "{}", length(&[one.clone(), one]));
        let streams = "203.0.113.10:7420,tcp:203.0.113.10:443,tls:203.0.113.10:443,wss:203.0.113.10:443";
        assert!(length(&[root(streams)]) <= 300);
    }

    #[test]
    fn each_ticket_has_a_network_of_its_own() {
        let [(one, _), (other, _)] = [(); 2].map(|()| Ticket::issue(vec![], Dht::Off).unwrap());
        assert!(one.network() != other.network() && one.address() != other.address());
        assert_eq!(one.network().summary().ports, Ticket::PORT..=Ticket::PORT);
    }

    #[test]
    fn more_than_a_ticket_holds_is_refused() {
        let names: Vec<_> = (0..30).map(|number| format!("wss:{}{number}.b:443", "a".repeat(60))).collect();
        let much: Vec<_> = (0..6).map(|one| root(&names[one..one + 16].join(","))).collect();
        assert_eq!(Ticket::issue(much, Dht::Off).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let many = (0..300).map(|number| format!("dns:a{number}.b").parse().unwrap()).collect();
        assert!(Ticket::issue(many, Dht::Off).is_err());
        let nodes = (1..300).map(|port| SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), port)).collect();
        assert!(Ticket::issue(vec![], Dht::Nodes(nodes)).is_err());
    }

    #[test]
    fn every_typing_error_is_found() {
        let text = Ticket::issue(vec![root("192.0.2.1:7420")], Dht::Public).unwrap().0.to_text();
        let digits = &text[PREFIX.len()..];
        for place in 0..digits.len() {
            let cut = [&digits[..place], &digits[place + 1..]].concat();
            let other = if digits.as_bytes()[place] == b'x' { "y" } else { "x" };
            let wrong = [&digits[..place], other, &digits[place + 1..]].concat();
            for changed in [&cut, &wrong, &digits[..place]] {
                let parsed = format!("{PREFIX}{changed}").parse::<Ticket>();
                assert_eq!(parsed.unwrap_err(), TicketError::Typo, "{changed}");
            }
        }
        let error = |text: &str| text.parse::<Ticket>().unwrap_err();
        assert_eq!(error(digits), TicketError::NoTicket);
        assert_eq!(error(""), TicketError::NoTicket);
        assert_eq!(error(&format!("{PREFIX}{}", "A".repeat(5000))), TicketError::Length);
        assert_eq!(error(&with_sum(&[2, 3, 4])), TicketError::Version(2));
        assert_eq!(error(&with_sum(&[VERSION])), TicketError::Malformed);
    }

    #[test]
    fn a_ticket_is_not_printed() {
        let ticket = Ticket::issue(vec![], Dht::Off).unwrap().0;
        assert_eq!(format!("{ticket:?}"), "Ticket([redacted])");
    }

    proptest! {
        #[test]
        fn any_text_is_a_ticket_with_this_text_or_an_error(text in "\\PC{0,200}") {
            prop_assert!(text.parse::<Ticket>().is_err());
            let with_prefix = PREFIX.to_owned() + &text;
            prop_assert!(with_prefix.parse::<Ticket>().is_err());
        }

        #[test]
        fn any_bytes_with_a_sum_are_a_ticket_with_this_text_or_malformed(
            end in prop::collection::vec(any::<u8>(), 0..300),
            zeros in 0..40usize,
        ) {
            let mut content = vec![VERSION; 1 + SECRET + NODE];
            content.extend(vec![0; zeros]);
            content.extend(end);
            let text = with_sum(&content);
            match text.parse::<Ticket>() {
                Ok(ticket) => prop_assert_eq!(&*ticket.to_text(), &text),
                Err(error) => prop_assert_eq!(error, TicketError::Malformed),
            }
        }
    }
}
