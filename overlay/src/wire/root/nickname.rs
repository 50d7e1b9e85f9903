//! Nicknames: claims, which nodes sign, and look-ups.

use super::NotFound;
use crate::id::{Identity, Nickname, NodeId, PublicIdentity};
use crate::wire::{ParseError, Reader};

const LABEL: &[u8] = b"peersock nickname v1";

const CLAIM: u8 = 9;
const CLAIMED: u8 = 10;
const FIND: u8 = 11;
const FOUND: u8 = 12;

/// A node's signed statement that a nickname belongs to it at a root, for a limited time. A root can neither
/// make one, nor use one that was made for another root or nickname.
///
/// The signature is over `"peersock nickname v1" || node ID of the root || node ID of the owner || sequence
/// || lifetime || port || nickname`. The owner's ID is included because other keys with the same signing key
/// are another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NicknameClaim {
    /// Number that orders the claims of one node, where larger ones count: milliseconds since the Unix epoch
    /// at signing, or one more than the last.
    pub sequence: u64,
    /// Lifetime in seconds from then. 0 gives the nickname back.
    pub lifetime: u32,
    /// Overlay port at which the node takes connections of nodes that use the nickname; 0 if it names none.
    pub port: u16,
    /// Signature of the node.
    pub signature: [u8; 64],
}

impl NicknameClaim {
    /// Signs a claim of this node at a root.
    pub fn sign(
        node: &Identity,
        root: &NodeId,
        nickname: &Nickname,
        sequence: u64,
        lifetime: u32,
        port: u16,
    ) -> Self {
        let owner = node.public().node_id();
        let signature = node.sign(&signed(root, &owner, nickname, sequence, lifetime, port));
        Self { sequence, lifetime, port, signature }
    }

    /// Returns true if that node has signed the claim for that root and nickname.
    pub fn verify(&self, node: &PublicIdentity, root: &NodeId, nickname: &Nickname) -> bool {
        let text = signed(root, &node.node_id(), nickname, self.sequence, self.lifetime, self.port);
        node.verify(&text, &self.signature)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self {
            sequence: reader.u64()?,
            lifetime: reader.u32()?,
            port: reader.u16()?,
            signature: *reader.array()?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.lifetime.to_be_bytes());
        out.extend_from_slice(&self.port.to_be_bytes());
        out.extend_from_slice(&self.signature);
    }
}

fn signed(
    root: &NodeId,
    owner: &NodeId,
    nickname: &Nickname,
    sequence: u64,
    lifetime: u32,
    port: u16,
) -> Vec<u8> {
    let (sequence, lifetime, port) = (sequence.to_be_bytes(), lifetime.to_be_bytes(), port.to_be_bytes());
    let name = nickname.as_str().as_bytes();
    // All parts but the last have a fixed length, so two claims never have the same text.
    [LABEL, root.as_bytes(), owner.as_bytes(), &sequence, &lifetime, &port, name].concat()
}

/// Owner of a nickname. The asking node checks the signature, because a root may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NicknameOwner {
    /// Keys of the node.
    pub identity: PublicIdentity,
    /// Claim that it has signed for the root that was asked.
    pub claim: NicknameClaim,
}

/// Reason why a node does not get a nickname.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ClaimRefusal {
    /// Another node has the nickname.
    Taken = 1,
    /// This node, its source prefix, or all nodes together have too many.
    Full = 2,
    /// The node is not registered, or the claim is not signed or its lifetime is too short.
    Refused = 3,
}

/// Message between a node and a root about nicknames.
///
/// ```text
/// Claim    0x08 |  9 | sequence 8 | lifetime 4 | port 2 | signature 64 | length 1 | nickname
/// Claimed  0x08 | 10 | sequence 8 | 0 | lifetime 4
///          0x08 | 10 | sequence 8 | status 1
/// Find     0x08 | 11 | id 4 | length 1 | nickname
/// Found    0x08 | 12 | id 4 | 0 | identity 64 | sequence 8 | lifetime 4 | port 2 | signature 64
///          0x08 | 12 | id 4 | status 1
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NicknameMessage {
    /// A registered node claims a nickname, renews it, or gives it back.
    Claim {
        /// Nickname that it concerns.
        nickname: Nickname,
        /// Claim signed by the node.
        claim: NicknameClaim,
    },
    /// Answer to [`Self::Claim`].
    Claimed {
        /// Sequence of the claim.
        sequence: u64,
        /// Granted lifetime in seconds, or the reason of a refusal. 0 if the nickname was given back.
        result: Result<u32, ClaimRefusal>,
    },
    /// Question for the owner of a nickname.
    Find {
        /// Id chosen by the sender, repeated in the answer.
        id: u32,
        /// Nickname that is looked up.
        nickname: Nickname,
    },
    /// Answer to [`Self::Find`].
    Found {
        /// Id of the question.
        id: u32,
        /// Node that has it, or the reason why there is none. Never [`NotFound::Partial`].
        result: Result<NicknameOwner, NotFound>,
    },
}

impl NicknameMessage {
    /// Parses what follows the second byte, which is `kind`.
    pub(super) fn read(kind: u8, reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(match kind {
            CLAIM => {
                let claim = NicknameClaim::read(reader)?;
                Self::Claim { nickname: read_nickname(reader)?, claim }
            }
            CLAIMED => {
                let sequence = reader.u64()?;
                let result = match reader.u8()? {
                    0 => Ok(reader.u32()?),
                    1 => Err(ClaimRefusal::Taken),
                    2 => Err(ClaimRefusal::Full),
                    3 => Err(ClaimRefusal::Refused),
                    _ => return Err(ParseError::Value),
                };
                Self::Claimed { sequence, result }
            }
            FIND => Self::Find { id: reader.u32()?, nickname: read_nickname(reader)? },
            FOUND => {
                let id = reader.u32()?;
                let result = match reader.u8()? {
                    0 => Ok(NicknameOwner {
                        identity: PublicIdentity::from_bytes(reader.array()?)
                            .map_err(|_| ParseError::Value)?,
                        claim: NicknameClaim::read(reader)?,
                    }),
                    1 => Err(NotFound::Unknown),
                    2 => Err(NotFound::Limited),
                    _ => return Err(ParseError::Value),
                };
                Self::Found { id, result }
            }
            _ => return Err(ParseError::Type),
        })
    }

    /// Appends the message, from the second byte on.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Claim { nickname, claim } => {
                out.push(CLAIM);
                claim.write(out);
                write_nickname(nickname, out);
            }
            Self::Claimed { sequence, result } => {
                out.push(CLAIMED);
                out.extend_from_slice(&sequence.to_be_bytes());
                match result {
                    Ok(lifetime) => {
                        out.push(0);
                        out.extend_from_slice(&lifetime.to_be_bytes());
                    }
                    Err(why) => out.push(*why as u8),
                }
            }
            Self::Find { id, nickname } => {
                out.push(FIND);
                out.extend_from_slice(&id.to_be_bytes());
                write_nickname(nickname, out);
            }
            Self::Found { id, result } => {
                out.push(FOUND);
                out.extend_from_slice(&id.to_be_bytes());
                match result {
                    Ok(NicknameOwner { identity, claim }) => {
                        out.push(0);
                        out.extend_from_slice(&identity.to_bytes());
                        claim.write(out);
                    }
                    // Roots of a set do not share nicknames, so there is no partial answer.
                    Err(NotFound::Limited) => out.push(NotFound::Limited as u8),
                    Err(_) => out.push(NotFound::Unknown as u8),
                }
            }
        }
    }
}

fn read_nickname(reader: &mut Reader<'_>) -> Result<Nickname, ParseError> {
    let len = usize::from(reader.u8()?);
    let (text, rest) = reader.0.split_at_checked(len).ok_or(ParseError::Length)?;
    reader.0 = rest;
    Nickname::from_wire(text).ok_or(ParseError::Value)
}

fn write_nickname(nickname: &Nickname, out: &mut Vec<u8>) {
    // A nickname has at most 32 bytes.
    out.push(nickname.as_str().len() as u8);
    out.extend_from_slice(nickname.as_str().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::RootMessage;
    use super::*;

    #[test]
    fn messages_round_trip_and_no_part_of_one_is_one() {
        let (node, root) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]).node_id());
        let nickname: Nickname = "alice".parse().unwrap();
        let claim = NicknameClaim::sign(&node, &root, &nickname, 1_800_000_000_000, 3600, 10001);
        let owner = NicknameOwner { identity: *node.public(), claim };
        for message in [
            NicknameMessage::Claim { nickname: nickname.clone(), claim },
            NicknameMessage::Claimed { sequence: 7, result: Ok(3600) },
            NicknameMessage::Claimed { sequence: 7, result: Err(ClaimRefusal::Taken) },
            NicknameMessage::Claimed { sequence: 7, result: Err(ClaimRefusal::Full) },
            NicknameMessage::Claimed { sequence: 7, result: Err(ClaimRefusal::Refused) },
            NicknameMessage::Find { id: 9, nickname },
            NicknameMessage::Found { id: 9, result: Ok(owner) },
            NicknameMessage::Found { id: 9, result: Err(NotFound::Unknown) },
            NicknameMessage::Found { id: 9, result: Err(NotFound::Limited) },
        ] {
            let (message, mut plaintext) = (RootMessage::Nickname(message), Vec::new());
            message.emit(&mut plaintext);
            assert_eq!(RootMessage::parse(&plaintext).as_ref(), Ok(&message));
            for len in 0..plaintext.len() {
                assert!(RootMessage::parse(&plaintext[..len]).is_err(), "{message:?} cut at {len}");
            }
        }
    }

    #[test]
    fn a_claim_is_for_one_node_root_and_nickname_as_it_was_signed() {
        let [node, other] = [1, 3].map(|seed| Identity::from_seed(&[seed; 32]));
        let root = Identity::from_seed(&[2; 32]).node_id();
        let [alice, bob]: [Nickname; 2] = ["alice", "bob"].map(|text| text.parse().unwrap());
        let good = NicknameClaim::sign(&node, &root, &alice, 7, 3600, 10001);
        assert!(good.verify(node.public(), &root, &alice));
        assert!(!good.verify(other.public(), &root, &alice));
        assert!(!good.verify(node.public(), &other.node_id(), &alice));
        assert!(!good.verify(node.public(), &root, &bob));
        for altered in [
            NicknameClaim { sequence: 8, ..good },
            NicknameClaim { lifetime: 7200, ..good },
            NicknameClaim { port: 1, ..good },
        ] {
            assert!(!altered.verify(node.public(), &root, &alice));
        }
    }
}
