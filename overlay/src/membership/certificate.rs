use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use thiserror::Error;

use super::key::signed_bytes;
use super::{MemberName, Refusal, Serial, Tag, UnixTime, label};
use crate::id::{Identity, NetworkId, NodeId, PublicIdentity};
use crate::network::Prefix;
use crate::wire::{ParseError, Reader};

const LABEL: &[u8] = b"peersock certificate v1";

/// Right of a member to administer the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// Uses the network.
    #[default]
    Member,
    /// Also reads what the controller knows.
    Viewer,
    /// Also admits and revokes members.
    Operator,
    /// Also changes rules, keys and roles.
    Admin,
}

const ROLES: [Role; 4] = [Role::Member, Role::Viewer, Role::Operator, Role::Admin];

/// Content of a certificate, besides its times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Node that is the member.
    pub node: NodeId,
    /// Name of the member in the network.
    pub name: MemberName,
    /// Right to administer the network.
    pub role: Role,
    /// True if the member is forgotten soon after it was last heard.
    pub is_ephemeral: bool,
    /// IPv4 address besides the self-certifying IPv6 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Length in bits of the prefix that has all members' IPv4 addresses; 8 to 32, and 32 without an address.
    pub ipv4_length: u8,
    /// IPv6 address besides the self-certifying one.
    pub ipv6: Option<Ipv6Addr>,
    /// Length in bits of the prefix that has all members' IPv6 addresses; 16 to 128, and 128 without an
    /// address.
    pub ipv6_length: u8,
    /// Tags, in ascending order, without repetition; at most [`Grant::MAX_TAGS_LEN`] bytes with their
    /// lengths.
    pub tags: Vec<Tag>,
    /// Bytes for programs, which peersock does not read; at most [`Grant::MAX_CLAIMS_LEN`].
    pub claims: Vec<u8>,
}

impl Grant {
    /// Maximum length of all tags together, each with one byte for its length.
    pub const MAX_TAGS_LEN: usize = 128;

    /// Maximum length of the claims in bytes.
    pub const MAX_CLAIMS_LEN: usize = 128;

    /// Returns an ordinary member without tags, claims or further addresses.
    pub fn new(node: NodeId, name: MemberName) -> Self {
        Self {
            node,
            name,
            role: Role::Member,
            is_ephemeral: false,
            ipv4: None,
            ipv4_length: 32,
            ipv6: None,
            ipv6_length: 128,
            tags: Vec::new(),
            claims: Vec::new(),
        }
    }

    /// Checks the rules that the types alone cannot enforce.
    ///
    /// # Errors
    /// Returns the rule that is broken.
    pub fn validate(&self) -> Result<(), InvalidGrant> {
        let tags_len: usize = self.tags.iter().map(|tag| tag.as_str().len() + 1).sum();
        if tags_len > Self::MAX_TAGS_LEN {
            return Err(InvalidGrant::TagsLength(tags_len));
        }
        if !self.tags.is_sorted_by(|before, after| before < after) {
            return Err(InvalidGrant::TagsOrder);
        }
        if self.claims.len() > Self::MAX_CLAIMS_LEN {
            return Err(InvalidGrant::ClaimsLength(self.claims.len()));
        }
        let is_usable = |address: IpAddr| {
            !address.is_unspecified()
                && !address.is_loopback()
                && !address.is_multicast()
                && address != Ipv4Addr::BROADCAST
        };
        let is_mapped = self.ipv6.is_some_and(|address| address.to_ipv4_mapped().is_some());
        let wrong = self.addresses().find(|address| !is_usable(*address) || (address.is_ipv6() && is_mapped));
        if let Some(wrong) = wrong {
            return Err(InvalidGrant::Address(wrong));
        }
        let is_length = |has: bool, length: u8, least: u8, all: u8| match has {
            true => (least..=all).contains(&length),
            false => length == all,
        };
        for (has, length, least, all) in
            [(self.ipv4.is_some(), self.ipv4_length, 8, 32), (self.ipv6.is_some(), self.ipv6_length, 16, 128)]
        {
            if !is_length(has, length, least, all) {
                return Err(InvalidGrant::PrefixLength(length));
            }
        }
        Ok(())
    }

    /// Returns the prefixes that have all members' addresses besides the self-certifying ones.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        let ipv4 = self.ipv4.and_then(|address| Prefix::new(address.into(), self.ipv4_length));
        let ipv6 = self.ipv6.and_then(|address| Prefix::new(address.into(), self.ipv6_length));
        ipv4.into_iter().chain(ipv6)
    }

    /// Returns the addresses besides the self-certifying one.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// Reason why no certificate can say this.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidGrant {
    /// The tags are too long together.
    #[error("the tags have {0} bytes with their lengths; {max} are allowed", max = Grant::MAX_TAGS_LEN)]
    TagsLength(usize),
    /// The tags are not in order, or one is given twice.
    #[error("the tags are not in ascending order")]
    TagsOrder,
    /// The claims are too long.
    #[error("the claims have {0} bytes; {max} are allowed", max = Grant::MAX_CLAIMS_LEN)]
    ClaimsLength(usize),
    /// The prefix of all members' addresses is too large, or longer than an address.
    #[error("a prefix of {0} bits cannot have all members' addresses")]
    PrefixLength(u8),
    /// No member can have the address.
    #[error("address {0} cannot belong to a member")]
    Address(IpAddr),
}

/// Statement of an issuer that a node is a member.
///
/// ```text
/// node ID 32 | serial 8 | end 8 | flags 1 | length 1, name
///   | IPv4 4, length of its prefix 1, if any | IPv6 16, length of its prefix 1, if any
///   | length 1, tags, each behind its length 1 | length 1, claims | signature 64
/// ```
///
/// Bit 0 of the flags says that the member is ephemeral, bit 1 that it has an IPv4 address, bit 2 an IPv6
/// address; bits 4 and 5 are the [`Role`]; the others are zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Certificate {
    grant: Grant,
    serial: Serial,
    end: UnixTime,
    signature: [u8; 64],
}

impl Certificate {
    /// Maximum length in bytes.
    pub const MAX_LEN: usize = 32
        + 8
        + 8
        + 1
        + (1 + MemberName::MAX_LEN)
        + (4 + 1)
        + (16 + 1)
        + (1 + Grant::MAX_TAGS_LEN)
        + (1 + Grant::MAX_CLAIMS_LEN)
        + 64;

    /// Signs a certificate that lasts for `lifetime` from its serial on.
    ///
    /// # Errors
    /// Returns the rule that the grant breaks.
    pub fn sign(
        issuer: &Identity,
        network: NetworkId,
        grant: Grant,
        serial: Serial,
        lifetime: Duration,
    ) -> Result<Self, InvalidGrant> {
        grant.validate()?;
        let mut certificate = Self { grant, serial, end: serial.time().plus(lifetime), signature: [0; 64] };
        certificate.signature = issuer.sign(&signed_bytes(LABEL, network, &certificate.body()));
        Ok(certificate)
    }

    /// Returns the content.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Returns the serial.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Returns when the certificate ends.
    pub fn end(&self) -> UnixTime {
        self.end
    }

    pub(super) fn verify(&self, issuer: &PublicIdentity, network: NetworkId) -> Result<(), Refusal> {
        let message = signed_bytes(LABEL, network, &self.body());
        if issuer.verify(&message, &self.signature) { Ok(()) } else { Err(Refusal::Unauthentic) }
    }

    pub(super) fn check_time(&self, now: UnixTime) -> Result<(), Refusal> {
        if !self.serial.has_begun(now) {
            return Err(Refusal::NotYetValid);
        }
        if now < self.end { Ok(()) } else { Err(Refusal::Expired) }
    }

    fn body(&self) -> Vec<u8> {
        let grant = &self.grant;
        let mut body = Vec::with_capacity(Self::MAX_LEN);
        body.extend_from_slice(grant.node.as_bytes());
        body.extend_from_slice(&self.serial.as_u64().to_be_bytes());
        body.extend_from_slice(&self.end.as_millis().to_be_bytes());
        body.push(
            u8::from(grant.is_ephemeral)
                | u8::from(grant.ipv4.is_some()) << 1
                | u8::from(grant.ipv6.is_some()) << 2
                | (grant.role as u8) << 4,
        );
        label::emit(grant.name.as_str(), &mut body);
        if let Some(address) = grant.ipv4 {
            body.extend_from_slice(&address.octets());
            body.push(grant.ipv4_length);
        }
        if let Some(address) = grant.ipv6 {
            body.extend_from_slice(&address.octets());
            body.push(grant.ipv6_length);
        }
        let tags_at = body.len();
        body.push(0);
        grant.tags.iter().for_each(|tag| label::emit(tag.as_str(), &mut body));
        body[tags_at] = (body.len() - tags_at - 1) as u8;
        body.push(grant.claims.len() as u8);
        body.extend_from_slice(&grant.claims);
        body
    }

    /// Appends the certificate to `out`.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.body());
        out.extend_from_slice(&self.signature);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let node = NodeId::from_bytes(*reader.array()?);
        let serial = Serial::from_u64(reader.u64()?);
        let end = UnixTime::from_millis(reader.u64()?);
        let flags = reader.u8()?;
        if flags & !0b0011_0111 != 0 {
            return Err(ParseError::Value);
        }
        let name = text(reader)?;
        let (ipv4, ipv4_length) = match flags & 2 != 0 {
            true => (Some(Ipv4Addr::from(*reader.array()?)), reader.u8()?),
            false => (None, 32),
        };
        let (ipv6, ipv6_length) = match flags & 4 != 0 {
            true => (Some(Ipv6Addr::from(*reader.array()?)), reader.u8()?),
            false => (None, 128),
        };
        let mut tags = Vec::new();
        let mut rest = Reader(counted(reader)?);
        while !rest.is_empty() {
            tags.push(text(&mut rest)?);
        }
        let grant = Grant {
            node,
            name,
            role: ROLES[usize::from(flags >> 4)],
            is_ephemeral: flags & 1 != 0,
            ipv4,
            ipv4_length,
            ipv6,
            ipv6_length,
            tags,
            claims: counted(reader)?.to_vec(),
        };
        // Each statement has exactly one form, so what is read is what was signed.
        grant.validate().map_err(|_| ParseError::Value)?;
        Ok(Self { grant, serial, end, signature: *reader.array()? })
    }
}

/// Returns the bytes behind their length.
pub(super) fn counted<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], ParseError> {
    let len = reader.u8()?;
    reader.bytes(len.into())
}

/// Returns a name or tag, which must be in its only form.
pub(super) fn text<T: std::str::FromStr + std::fmt::Display>(
    reader: &mut Reader<'_>,
) -> Result<T, ParseError> {
    let text = std::str::from_utf8(counted(reader)?).map_err(|_| ParseError::Value)?;
    text.parse().ok().filter(|parsed: &T| parsed.to_string() == text).ok_or(ParseError::Value)
}
