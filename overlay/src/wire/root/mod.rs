//! Messages between a node and a root inside their session.

mod nickname;
mod referral;
mod signed;
#[cfg(test)]
mod tests;

pub use nickname::{ClaimRefusal, NicknameClaim, NicknameMessage, NicknameOwner};
pub use referral::{Referral, RootRecord, StreamKind, StreamWay, access_pass};
pub use signed::{Registration, Voucher};

use super::{Channel, ParseError, Reader, RelayToken};
use crate::id::{NodeId, PublicIdentity};

/// First byte of a plaintext with such a message.
const ROOT: u8 = 0x08;

const REGISTER: u8 = 1;
const REGISTERED: u8 = 2;
const LOOK_UP: u8 = 3;
const FOUND: u8 = 4;
const NOTICE: u8 = 5;
const REFERRED: u8 = 6;
const VOUCH: u8 = 7;
const VOUCHED: u8 = 8;

const BY_PREFIX: u8 = 1;
const BY_ID: u8 = 2;

/// Flag of a root that relays datagrams between nodes that know each other's channel.
const RELAYS: u8 = 1;
/// Flag of a root that will end soon, so that the node should go to another one.
const DRAINING_FLAG: u8 = 2;
/// Flag of a message in which a voucher for the node's TCP connection follows.
const TCP: u8 = 4;

/// Message between a node and a root, inside their session: a data packet whose plaintext begins with 8.
///
/// ```text
/// Register    0x08 | 1 | sequence 8 | lifetime 4 | signature 64 | token length 1 | token
/// Registered  0x08 | 2 | sequence 8 | lifetime 4 | flags 1 | relay token 3 | channel 8 | bytes per second 4
///                  | time 8 | port 2 | address 16 | signature 64, and the same four of TCP with flag 4
/// LookUp      0x08 | 3 | id 4 | 1 | first 10 bytes of a node ID
///             0x08 | 3 | id 4 | 2 | node ID 32
/// Found       0x08 | 4 | id 4 | 0 | identity 64 | channel 8 | sequence 8 | lifetime 4 | signature 64
///             0x08 | 4 | id 4 | status 1
/// Notice      0x08 | 5 | code 1 | channel 8
/// Referred    0x08 | 6 | id 4 | pass 32 | identity 64 | sequence 8 | lifetime 4 | signature 64
///                  | root's identity 64 | time 8 | length 2 | endpoints | root's signature 64
/// Vouch       0x08 | 7 | 90 bytes of any value: the answer is no longer than the question
/// Vouched     0x08 | 8 | time 8 | port 2 | address 16 | signature 64
/// ```
///
/// Kinds 9 to 12 belong to [`NicknameMessage`].
///
/// Bytes behind these fields are ignored, so that later versions can add some.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootMessage {
    /// A node wants to be found at this root.
    Register {
        /// Registration signed by the node.
        registration: Registration,
        /// Access token of the root's operator for nodes that may register, if required; at most 255 bytes.
        access: Vec<u8>,
    },
    /// The node can be found; the content says how the root sees it.
    Registered(Registered),
    /// Question for a node and its place.
    LookUp {
        /// Id chosen by the sender, repeated in the answer.
        id: u32,
        /// Key that identifies the node.
        key: LookUpKey,
    },
    /// Answer to [`Self::LookUp`].
    Found {
        /// Id of the question.
        id: u32,
        /// Node that was found, or the reason why there is none.
        result: Result<Entry, NotFound>,
    },
    /// Message to the node that it has not asked for.
    Notice {
        /// Content of the notice.
        code: NoticeCode,
        /// Channel of the other node that it concerns, or 0.
        channel: Channel,
    },
    /// Answer in place of [`Self::Found`]: the node is at another root.
    Referred {
        /// Id of the question.
        id: u32,
        /// Pass that the asking node may show there for access; see [`access_pass`]. Zero if none is needed.
        pass: [u8; 32],
        /// Node and root.
        referral: Box<Referral>,
    },
    /// Question of a registered node for a voucher for the source address of this message, which may differ
    /// from where the root knows the node.
    Vouch,
    /// Answer to [`Self::Vouch`], sent to that address and nowhere else.
    Vouched(Voucher),
    /// Message about nicknames.
    Nickname(NicknameMessage),
}

/// Confirmation of a registration. A root repeats it when it sees the node elsewhere or will end soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// Sequence of the registration.
    pub sequence: u64,
    /// Lifetime in seconds; not longer than requested.
    pub lifetime: u32,
    /// True if the root relays more than a handshake and a few messages for this node.
    pub relays: bool,
    /// True if the root will end soon.
    pub drains: bool,
    /// Token in each relayed frame between this node and the root.
    pub token: RelayToken,
    /// Channel of the node, its name for others.
    pub channel: Channel,
    /// Relay rate for this node, in bytes per second; 0 for no limit.
    pub rate: u32,
    /// Address at which the root has seen the node receive.
    pub voucher: Voucher,
    /// Other end of the TCP connection by which the root reaches the node, if any. Signed by
    /// [`Voucher::sign_tcp`].
    pub tcp: Option<Voucher>,
}

impl Registered {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let (sequence, lifetime, flags) = (reader.u64()?, reader.u32()?, reader.u8()?);
        Ok(Self {
            sequence,
            lifetime,
            relays: flags & RELAYS != 0,
            drains: flags & DRAINING_FLAG != 0,
            token: RelayToken::from_be_bytes(*reader.array()?),
            channel: Channel(reader.u64()?),
            rate: reader.u32()?,
            voucher: Voucher::read(reader)?,
            tcp: if flags & TCP != 0 { Some(Voucher::read(reader)?) } else { None },
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.lifetime.to_be_bytes());
        let tcp = u8::from(self.tcp.is_some()) * TCP;
        out.push((u8::from(self.relays) * RELAYS) | (u8::from(self.drains) * DRAINING_FLAG) | tcp);
        out.extend_from_slice(&self.token.to_be_bytes());
        out.extend_from_slice(&self.channel.0.to_be_bytes());
        out.extend_from_slice(&self.rate.to_be_bytes());
        self.voucher.write(out);
        if let Some(tcp) = &self.tcp {
            tcp.write(out);
        }
    }
}

/// Key of a look-up. A self-certifying address ends in the first 10 bytes of its owner's node ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LookUpKey {
    /// First 10 bytes of the node ID.
    Prefix([u8; 10]),
    /// Whole node ID.
    Id(NodeId),
}

impl LookUpKey {
    /// Returns true if it is a key of this node.
    pub fn matches(&self, node: &NodeId) -> bool {
        match self {
            Self::Prefix(prefix) => node.as_bytes().starts_with(prefix),
            Self::Id(id) => id == node,
        }
    }
}

/// Node that was found. The asking node checks the signature, because a root may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Keys of the node.
    pub identity: PublicIdentity,
    /// Channel of the node at the root that was asked.
    pub channel: Channel,
    /// Registration that the node has signed for the root where it is registered.
    pub registration: Registration,
}

/// Reason why no node was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NotFound {
    /// No such node is registered.
    Unknown = 1,
    /// There are too many questions; ask again later.
    Limited = 2,
    /// The directory shared with other roots does not answer; the root knows only its own nodes.
    Partial = 3,
}

/// Content of a root's notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NoticeCode {
    /// The root will end soon: register elsewhere.
    Drains = 1,
    /// No node has that channel any more: look the node up again.
    NoChannel = 2,
    /// The node's share of the relay is used up; the excess is dropped.
    OverRate = 3,
    /// The node is not registered, or not at the address that it sent from.
    NotRegistered = 4,
    /// The registration is refused: it is not signed, older than another one, or lacks the operator's token.
    Refused = 5,
}

impl NoticeCode {
    fn from_wire(byte: u8) -> Option<Self> {
        let all = [Self::Drains, Self::NoChannel, Self::OverRate, Self::NotRegistered, Self::Refused];
        all.into_iter().find(|code| *code as u8 == byte)
    }
}

impl RootMessage {
    /// Returns true if a plaintext is such a message, complete or not.
    pub fn is_one(plaintext: &[u8]) -> bool {
        plaintext.first() == Some(&ROOT)
    }

    /// Parses a plaintext.
    ///
    /// # Errors
    /// Returns [`ParseError::Type`] for an unknown message, [`ParseError::Length`] if it is cut off, and
    /// [`ParseError::Value`] for keys, statuses and codes that do not exist.
    pub fn parse(plaintext: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(plaintext);
        if reader.u8()? != ROOT {
            return Err(ParseError::Type);
        }
        Ok(match reader.u8()? {
            REGISTER => {
                let registration = Registration::read(&mut reader)?;
                let len = usize::from(reader.u8()?);
                let access = reader.0.get(..len).ok_or(ParseError::Length)?.to_vec();
                Self::Register { registration, access }
            }
            REGISTERED => Self::Registered(Registered::read(&mut reader)?),
            LOOK_UP => {
                let id = reader.u32()?;
                let key = match reader.u8()? {
                    BY_PREFIX => LookUpKey::Prefix(*reader.array()?),
                    BY_ID => LookUpKey::Id(NodeId::from_bytes(*reader.array()?)),
                    _ => return Err(ParseError::Value),
                };
                Self::LookUp { id, key }
            }
            FOUND => {
                let id = reader.u32()?;
                let result = match reader.u8()? {
                    0 => Ok(Entry {
                        identity: PublicIdentity::from_bytes(reader.array()?)
                            .map_err(|_| ParseError::Value)?,
                        channel: Channel(reader.u64()?),
                        registration: Registration::read(&mut reader)?,
                    }),
                    1 => Err(NotFound::Unknown),
                    2 => Err(NotFound::Limited),
                    3 => Err(NotFound::Partial),
                    _ => return Err(ParseError::Value),
                };
                Self::Found { id, result }
            }
            NOTICE => {
                let code = NoticeCode::from_wire(reader.u8()?).ok_or(ParseError::Value)?;
                Self::Notice { code, channel: Channel(reader.u64()?) }
            }
            REFERRED => Self::Referred {
                id: reader.u32()?,
                pass: *reader.array()?,
                referral: Box::new(Referral::read(&mut reader)?),
            },
            VOUCH => {
                // The question is as long as its answer, because its source is not proven.
                reader.array::<{ Voucher::LEN }>()?;
                Self::Vouch
            }
            VOUCHED => Self::Vouched(Voucher::read(&mut reader)?),
            kind => Self::Nickname(NicknameMessage::read(kind, &mut reader)?),
        })
    }

    /// Appends the plaintext to `out`. An access text is cut at 255 bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(ROOT);
        match self {
            Self::Register { registration, access } => {
                out.push(REGISTER);
                registration.write(out);
                let access = &access[..access.len().min(255)];
                out.push(access.len() as u8);
                out.extend_from_slice(access);
            }
            Self::Registered(registered) => {
                out.push(REGISTERED);
                registered.write(out);
            }
            Self::LookUp { id, key } => {
                out.push(LOOK_UP);
                out.extend_from_slice(&id.to_be_bytes());
                match key {
                    LookUpKey::Prefix(prefix) => {
                        out.push(BY_PREFIX);
                        out.extend_from_slice(prefix);
                    }
                    LookUpKey::Id(node) => {
                        out.push(BY_ID);
                        out.extend_from_slice(node.as_bytes());
                    }
                }
            }
            Self::Found { id, result } => {
                out.push(FOUND);
                out.extend_from_slice(&id.to_be_bytes());
                match result {
                    Ok(Entry { identity, channel, registration }) => {
                        out.push(0);
                        out.extend_from_slice(&identity.to_bytes());
                        out.extend_from_slice(&channel.0.to_be_bytes());
                        registration.write(out);
                    }
                    Err(why) => out.push(*why as u8),
                }
            }
            Self::Notice { code, channel } => {
                out.extend_from_slice(&[NOTICE, *code as u8]);
                out.extend_from_slice(&channel.0.to_be_bytes());
            }
            Self::Referred { id, pass, referral } => {
                out.push(REFERRED);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(pass);
                referral.write(out);
            }
            Self::Vouch => {
                out.push(VOUCH);
                out.extend_from_slice(&[0; Voucher::LEN]);
            }
            Self::Vouched(voucher) => {
                out.push(VOUCHED);
                voucher.write(out);
            }
            Self::Nickname(message) => message.write(out),
        }
    }
}
