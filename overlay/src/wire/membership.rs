use super::{ParseError, Reader};
use crate::membership::RulesRank;

const SHOWN: u8 = 0x0C;
const VERDICT: u8 = 0x0D;
const REVOCATIONS: u8 = 0x0E;
const REQUEST: u8 = 0x0F;

const HEAD: u8 = 0;
const HAVE: u8 = 1;
const WANT: u8 = 2;
const PART: u8 = 3;
const HAVE_RULES: u8 = 4;
const WANT_RULES: u8 = 5;
const RULES_PART: u8 = 6;

const QUESTION: u8 = 0;
const ANSWER: u8 = 1;

/// Message between two nodes in a session of a managed network. Those about credentials pass before anything
/// else does.
///
/// ```text
/// Shown     0x0C | credentials
/// Verdict   0x0D | digest of the credentials 8 | reason 1: 0 accepted, else why not
/// Head      0x0E 0x00 | signed head
/// Have      0x0E 0x01 | issuer 8 | epoch 8 | digest of the set 8
/// Want      0x0E 0x02 | digest of the set 8 | offset 4
/// Part      0x0E 0x03 | digest of the set 8 | offset 4 | bytes of the set
/// HaveRules 0x0E 0x04 | issuer 8 | version 8 | time 8 | digest of the rules 16
/// WantRules 0x0E 0x05 | issuer 8 | digest of the rules 16 | offset 4
/// RulesPart 0x0E 0x06 | digest of the rules 16 | offset 4 | bytes of the statement and its rules
/// Question  0x0F 0x00 | id 4 | question to a controller
/// Answer    0x0F 0x01 | id 4 | answer of a controller
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipMessage<'a> {
    /// Credentials of the sender.
    Shown(&'a [u8]),
    /// Judgement about credentials that the receiver has shown.
    Verdict {
        /// Digest of the credentials.
        digest: [u8; 8],
        /// 0 if they are accepted, else the [`Refusal`](crate::membership::Refusal)'s number.
        reason: u8,
    },
    /// Newest signed head of an issuer that the sender has, with its set.
    Head(&'a [u8]),
    /// The same in short.
    Have {
        /// First bytes of the issuer's node ID; zeros if the sender has no head at all.
        issuer: [u8; 8],
        /// Epoch of the head; 0 without one.
        epoch: u64,
        /// Digest of its set; zeros without one.
        digest: [u8; 8],
    },
    /// Question for a part of a set.
    Want {
        /// Digest of the set.
        digest: [u8; 8],
        /// Offset of the part in bytes.
        offset: u32,
    },
    /// Part of a set, at most [`Self::MAX_PART`] bytes.
    Part {
        /// Digest of the set.
        digest: [u8; 8],
        /// Offset of the part in bytes.
        offset: u32,
        /// Bytes of the part.
        bytes: &'a [u8],
    },
    /// Newest statement of an issuer about access rules that the sender has, in short.
    HaveRules {
        /// First bytes of the issuer's node ID; zeros if the sender has none at all.
        issuer: [u8; 8],
        /// Place of the statement among others; zeros without one.
        rank: RulesRank,
    },
    /// Question for a part of a statement with its rules.
    WantRules {
        /// First bytes of the issuer's node ID.
        issuer: [u8; 8],
        /// Digest of the rules.
        digest: [u8; 16],
        /// Offset of the part in bytes.
        offset: u32,
    },
    /// Part of a statement with its rules, at most [`Self::MAX_PART`] bytes.
    RulesPart {
        /// Digest of the rules.
        digest: [u8; 16],
        /// Offset of the part in bytes.
        offset: u32,
        /// Bytes of the part.
        bytes: &'a [u8],
    },
    /// Question to a controller.
    Question {
        /// Id chosen by the sender, which the answer repeats.
        id: u32,
        /// The question.
        bytes: &'a [u8],
    },
    /// Answer of a controller.
    Answer {
        /// Id of the question.
        id: u32,
        /// The answer.
        bytes: &'a [u8],
    },
}

impl<'a> MembershipMessage<'a> {
    /// Maximum length of a part of a set, in bytes: 21 entries.
    pub const MAX_PART: usize = 21 * 48;

    /// Returns true if a plaintext begins as such a message does.
    pub fn is_one(plaintext: &[u8]) -> bool {
        matches!(plaintext.first(), Some(SHOWN..=REQUEST))
    }

    /// Parses a plaintext.
    ///
    /// # Errors
    /// Returns [`ParseError::Type`] for another message, and [`ParseError::Length`] if it is cut off.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(plaintext);
        Ok(match reader.u8()? {
            SHOWN => Self::Shown(reader.0),
            VERDICT => Self::Verdict { digest: *reader.array()?, reason: reader.u8()? },
            REVOCATIONS => match reader.u8()? {
                HEAD => Self::Head(reader.0),
                HAVE => {
                    Self::Have { issuer: *reader.array()?, epoch: reader.u64()?, digest: *reader.array()? }
                }
                WANT => Self::Want { digest: *reader.array()?, offset: reader.u32()? },
                PART => {
                    let (digest, offset) = (*reader.array()?, reader.u32()?);
                    if reader.0.len() > Self::MAX_PART {
                        return Err(ParseError::Length);
                    }
                    Self::Part { digest, offset, bytes: reader.0 }
                }
                HAVE_RULES => {
                    Self::HaveRules { issuer: *reader.array()?, rank: RulesRank::read(&mut reader)? }
                }
                WANT_RULES => {
                    let (issuer, digest) = (*reader.array()?, *reader.array()?);
                    Self::WantRules { issuer, digest, offset: reader.u32()? }
                }
                RULES_PART => {
                    let (digest, offset) = (*reader.array()?, reader.u32()?);
                    if reader.0.len() > Self::MAX_PART {
                        return Err(ParseError::Length);
                    }
                    Self::RulesPart { digest, offset, bytes: reader.0 }
                }
                _ => return Err(ParseError::Type),
            },
            REQUEST => match reader.u8()? {
                QUESTION => Self::Question { id: reader.u32()?, bytes: reader.0 },
                ANSWER => Self::Answer { id: reader.u32()?, bytes: reader.0 },
                _ => return Err(ParseError::Type),
            },
            _ => return Err(ParseError::Type),
        })
    }

    /// Returns the plaintext.
    pub fn to_bytes(&self) -> Vec<u8> {
        match *self {
            Self::Shown(credentials) => [&[SHOWN], credentials].concat(),
            Self::Verdict { digest, reason } => [&[VERDICT][..], &digest, &[reason]].concat(),
            Self::Head(head) => [&[REVOCATIONS, HEAD], head].concat(),
            Self::Have { issuer, epoch, digest } => {
                [&[REVOCATIONS, HAVE][..], &issuer, &epoch.to_be_bytes(), &digest].concat()
            }
            Self::Want { digest, offset } => {
                [&[REVOCATIONS, WANT][..], &digest, &offset.to_be_bytes()].concat()
            }
            Self::Part { digest, offset, bytes } => {
                [&[REVOCATIONS, PART][..], &digest, &offset.to_be_bytes(), bytes].concat()
            }
            Self::HaveRules { issuer, rank } => {
                let mut bytes = [&[REVOCATIONS, HAVE_RULES][..], &issuer].concat();
                rank.emit(&mut bytes);
                bytes
            }
            Self::WantRules { issuer, digest, offset } => {
                [&[REVOCATIONS, WANT_RULES][..], &issuer, &digest, &offset.to_be_bytes()].concat()
            }
            Self::RulesPart { digest, offset, bytes } => {
                [&[REVOCATIONS, RULES_PART][..], &digest, &offset.to_be_bytes(), bytes].concat()
            }
            Self::Question { id, bytes } => [&[REQUEST, QUESTION][..], &id.to_be_bytes(), bytes].concat(),
            Self::Answer { id, bytes } => [&[REQUEST, ANSWER][..], &id.to_be_bytes(), bytes].concat(),
        }
    }
}
