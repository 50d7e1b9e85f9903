//! Invites: short texts by which a machine joins a managed network.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use peersock_overlay::membership::{CertifyRequest, MemberName, NetworkKey, Token};
use peersock_overlay::{ManagedNetwork, NetworkId, NodeId};
use thiserror::Error;
use zeroize::Zeroizing;

use super::packed::{byte, emit_name, emit_short_root, parse_name, parse_short_root, take};
use super::{Network, RootSource};

/// Beginning of every invite. A ticket begins with the same, but has no slash after it.
const PREFIX: &str = "peersock://";

/// In the upper four bits of the first byte. Then follow [`NAMED`], and the number of roots in three bits.
const VERSION: u8 = 1;

/// Bit of the first byte of an invite that has a name.
const NAMED: u8 = 8;

/// Bytes of a node ID that are part of the node's address.
const NODE: usize = 10;

/// Everything that a machine needs to join a managed network: the network's full key, a token, where its
/// controller is found, and the network's name.
///
/// The text is `peersock://ID/` and base64url of: version and number of roots (1), network key (32), token
/// (12), the first bytes of the controller's node ID (10), the roots, and the name. The token is a secret. It
/// is erased on drop, and `Debug` does not print it.
#[derive(Clone, PartialEq)]
pub struct Invite {
    id: NetworkId,
    key: NetworkKey,
    token: Token,
    controller: [u8; NODE],
    roots: Vec<RootSource>,
    name: Option<MemberName>,
}

impl Invite {
    /// Limit of the length of an invite in characters.
    pub const MAX_LEN: usize = 4096;

    /// Limit of the number of roots in an invite.
    pub const MAX_ROOTS: usize = 7;

    /// Length in characters that a name does not make an invite exceed.
    const SHORT: usize = 200;

    /// Creates an invite without a name. `id` is the key's ([`network_id`](super::network_id)). Texts with
    /// more than [`MAX_ROOTS`](Self::MAX_ROOTS) roots cannot be read.
    pub fn new(
        id: NetworkId,
        key: NetworkKey,
        token: Token,
        controller: &NodeId,
        roots: Vec<RootSource>,
    ) -> Invite {
        let mut prefix = [0; NODE];
        prefix.copy_from_slice(&controller.as_bytes()[..NODE]);
        Invite { id, key, token, controller: prefix, roots, name: None }
    }

    /// Adds the name of the network at its controller, a suggestion for the machine that joins. An invite of
    /// at most 200 characters goes without a name that would make it longer.
    #[must_use]
    pub fn with_name(self, name: MemberName) -> Invite {
        let length = self.to_text().len();
        let named = Invite { name: Some(name), ..self };
        match length <= Self::SHORT && named.to_text().len() > Self::SHORT {
            true => Invite { name: None, ..named },
            false => named,
        }
    }

    /// Returns true if a text claims to be an invite.
    pub fn is_claimed_by(text: &str) -> bool {
        text.trim_start().strip_prefix(PREFIX).is_some_and(|rest| rest.contains('/'))
    }

    /// Returns the network's ID.
    pub fn id(&self) -> NetworkId {
        self.id
    }

    /// Returns the network's full key.
    pub fn key(&self) -> &NetworkKey {
        &self.key
    }

    /// Returns the token that the controller has made for the invite.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Returns the roots at which the controller is found.
    pub fn roots(&self) -> &[RootSource] {
        &self.roots
    }

    /// Returns the name of the network at its controller. Nothing proves it.
    pub fn name(&self) -> Option<&MemberName> {
        self.name.as_ref()
    }

    /// Returns the address of the controller in the network.
    pub fn controller_address(&self) -> std::net::Ipv6Addr {
        let mut node = [0; 32];
        node[..NODE].copy_from_slice(&self.controller);
        self.id.address_of(&NodeId::from_bytes(node))
    }

    /// Returns the network, whose join presents the token. This does not compare the network's key with its
    /// ID.
    pub fn network(&self) -> Network {
        let request = CertifyRequest { token: Some(self.token.clone()), ..CertifyRequest::default() };
        let network = ManagedNetwork { key: Some(self.key), request, ..ManagedNetwork::new(self.id) };
        let text = Some(Arc::new(self.to_text()));
        let guide = Some(self.controller_address());
        Network { roots: self.roots.clone(), text, guide, ..Network::managed(network) }
    }

    /// Returns the text.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Reserved in one piece, because a growing buffer would leave copies of the token behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::MAX_LEN));
        let count = self.roots.len().min(Self::MAX_ROOTS) as u8;
        bytes.push(VERSION << 4 | self.name.as_ref().map_or(0, |_| NAMED) | count);
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(self.token.as_bytes());
        bytes.extend_from_slice(&self.controller);
        for root in &self.roots {
            emit_short_root(root, &mut bytes);
        }
        self.name.iter().for_each(|name| emit_name(name, &mut bytes));
        let mut text = Zeroizing::new(String::with_capacity(2 * Self::MAX_LEN));
        text.push_str(PREFIX);
        text.push_str(&self.id.to_string());
        text.push('/');
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        text
    }
}

impl FromStr for Invite {
    type Err = ParseInviteError;

    fn from_str(text: &str) -> Result<Invite, ParseInviteError> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(ParseInviteError::NoInvite)?;
        let (id, digits) = rest.split_once('/').ok_or(ParseInviteError::NoInvite)?;
        if text.len() > Self::MAX_LEN {
            return Err(ParseInviteError::Length);
        }
        let id: NetworkId = id.parse().map_err(|_| ParseInviteError::Typo)?;
        if !id.is_managed() {
            return Err(ParseInviteError::Kind(id));
        }
        let bytes =
            Zeroizing::new(BASE64URL_NOPAD.decode(digits.as_bytes()).map_err(|_| ParseInviteError::Typo)?);
        match bytes.first().map(|first| first >> 4) {
            Some(VERSION) => {}
            Some(other) => return Err(ParseInviteError::Version(other)),
            None => return Err(ParseInviteError::Typo),
        }
        let invite = parse(id, &bytes).ok_or(ParseInviteError::Typo)?;
        // Each invite has one text, so a mistyped one is not another invite.
        if *invite.to_text() == text { Ok(invite) } else { Err(ParseInviteError::Typo) }
    }
}

fn parse(id: NetworkId, mut bytes: &[u8]) -> Option<Invite> {
    let bytes = &mut bytes;
    let first = byte(bytes)?;
    let key = NetworkKey::from_bytes(*take(bytes)?).ok()?;
    let token = Token::from_bytes(*take(bytes)?);
    let controller = *take(bytes)?;
    let roots = (0..first % NAMED).map(|_| parse_short_root(bytes)).collect::<Option<_>>()?;
    let name = match first & NAMED {
        0 if bytes.is_empty() => None,
        0 => return None,
        _ => Some(parse_name(bytes)?),
    };
    Some(Invite { id, key, token, controller, roots, name })
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invite({}, [redacted])", self.id)
    }
}

/// Reason why a text is no invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseInviteError {
    /// The text does not have the form of an invite.
    #[error("an invite begins with {PREFIX}, an ID and a slash")]
    NoInvite,
    /// The text is too long.
    #[error("an invite has at most {max} characters", max = Invite::MAX_LEN)]
    Length,
    /// The ID is of a network that has no controller.
    #[error("the invite names {0}, which is no managed network")]
    Kind(NetworkId),
    /// A later version has made it.
    #[error("the invite is of version {0}, which this program does not know")]
    Version(u8),
    /// Characters are missing or wrong.
    #[error("the invite is damaged: characters are missing or wrong")]
    Typo,
}

#[cfg(test)]
mod tests {
    use peersock_overlay::Identity;
    use peersock_overlay::membership::NetworkSecret;

    use super::*;

    fn invite(roots: &[&str]) -> Invite {
        let key = NetworkSecret::from_seed(&[1; 32]).public();
        let controller = Identity::from_seed(&[2; 32]).node_id();
        let root = Identity::from_seed(&[3; 32]).public().to_string();
        let roots = roots.iter().map(|at| format!("{root}@{at}").parse().expect("a root")).collect();
        let id = "e18a4c0277d19b3f".parse().expect("an ID");
        Invite::new(id, key, Token::from_bytes([7; Token::LEN]), &controller, roots)
    }

    fn name(text: &str) -> MemberName {
        text.parse().expect("a name")
    }

    #[test]
    fn an_invite_with_a_root_and_a_name_has_at_most_200_characters() {
        let lengths = |roots: &[&str], network: &str| {
            let invite = invite(roots).with_name(name(network));
            let text = invite.to_text();
            assert_eq!(text.parse(), Ok(invite.clone()));
            assert_eq!(format!(" {}\n", *text).parse(), Ok(invite.clone()));
            (text.len(), invite.name() == Some(&name(network)))
        };
        assert_eq!(lengths(&[], "team"), (106, true));
        assert_eq!(lengths(&["192.0.2.1:7420"], "team"), (198, true));
        assert_eq!(lengths(&["192.0.2.1:7420"], "off-1ce"), (200, true));
        assert_eq!(lengths(&["192.0.2.1:443"], "team"), (200, true));
        // The name is the least that a machine needs.
        assert_eq!(lengths(&["192.0.2.1:7420"], "head-office"), (194, false));
        assert_eq!(lengths(&["192.0.2.1:7420", "192.0.2.2:7420"], "team"), (290, true));
        assert!(lengths(&["192.0.2.1:1,tcp:192.0.2.1:2", "[2001:db8::1]:7420"], "head-office").1);
    }

    #[test]
    fn names_have_one_form() {
        for text in ["a", "ab", "abc", "abcd", "a99999", "0-9", "z9", &"9".repeat(63).replacen('9', "x", 1)] {
            let mut bytes = Vec::new();
            emit_name(&name(text), &mut bytes);
            assert!(3 * bytes.len() <= 2 * text.len() + 3);
            assert_eq!(parse_name(&bytes), Some(name(text)));
        }
        for bad in [&[0][..], &[214], &[253], &[0, 0], &[0xff, 0xff], &[0, 37]] {
            assert_eq!(parse_name(bad), None, "{bad:?}");
        }
        // `ab` behind an empty digit reads as `ab`, whose bytes are others.
        let text = invite(&[]).with_name(name("ab")).to_text();
        let mut bytes = BASE64URL_NOPAD.decode(&text.as_bytes()[28..]).expect("its digits");
        let at = bytes.len() - 2;
        bytes[at..].copy_from_slice(&[0, 40]);
        let other = format!("{}{}", &text[..28], BASE64URL_NOPAD.encode(&bytes));
        assert_eq!(other.parse::<Invite>(), Err(ParseInviteError::Typo));
    }

    #[test]
    fn other_texts_are_refused_and_nothing_shows_the_token() {
        let invite = invite(&["root.example:443", "[2001:db8::1]:7420"]);
        let text = invite.to_text();
        for network in ["a", "ab", "abc", "teama", "teamab", "teamabc", "team99", "x99-a1"] {
            let named = invite.clone().with_name(name(network)).to_text();
            for text in [&text, &named] {
                for cut in 0..text.len() {
                    assert!(text[..cut].parse::<Invite>().is_err(), "{network} {cut}");
                }
            }
        }
        assert_eq!("peersock://AAAA".parse::<Invite>(), Err(ParseInviteError::NoInvite));
        let other = text.replace("e18a4c0277d19b3f", "ff00500050000000");
        assert!(matches!(other.parse::<Invite>(), Err(ParseInviteError::Kind(_))));
        assert!(Invite::is_claimed_by(&text) && !Invite::is_claimed_by("peersock://AAAA"));
        assert!(!format!("{invite:?}").contains('7') || !format!("{invite:?}").contains("07"));
    }
}
