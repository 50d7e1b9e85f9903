//! Questions of nodes to a controller, and its answers. They pass in the session between the two.

use std::net::IpAddr;

use super::certificate::{counted, text};
use super::{Credentials, Grant, MemberName, ProcessCertificate, Spare, UnixTime, label};
use crate::id::PublicIdentity;
use crate::wire::{ParseError, Reader, mapped};

const CERTIFY: u8 = 1;
const FIND_NAME: u8 = 2;
const FIND_ADDRESS: u8 = 3;
const FIND_PROGRAM: u8 = 4;

const CERTIFIED: u8 = 0x81;
const PENDING: u8 = 0x82;
const DENIED: u8 = 0x83;
const FOUND: u8 = 0x84;
const ABSENT: u8 = 0x85;
const PROGRAM: u8 = 0x86;
const CERTIFIED_SPARE: u8 = 0x87;

/// Question of a node to a controller, or about a machine's program to the machine.
///
/// ```text
/// certify        01 | run 8 | starts 8 | length 1, token | length 1, name | length 1, description
/// find a name    02 | length 1, name
/// find by address 03 | address 16 (IPv4-mapped if IPv4)
/// find a program 04 | length 1, label | length 1, name of the machine
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// "Give me a certificate": a first one, or a later one. The session shows whose.
    Certify(CertifyRequest),
    /// "Which member has this name?" Members answer this and the next one, too, of others that they know.
    FindName(MemberName),
    /// "Which member has this address?"
    FindAddress(IpAddr),
    /// "Which program has this label at the machine with this name?" The machine answers it, too.
    FindProgram(MemberName, MemberName),
}

/// Request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertifyRequest {
    /// Random number of this run of the node. Two runs of one identity at the same time have different ones.
    pub run: u64,
    /// Number of runs of this identity so far, kept in its state directory. A copied directory repeats one.
    pub starts: u64,
    /// Token of an invite. It is a secret.
    pub token: Option<Token>,
    /// Wished name; the controller decides.
    pub name: Option<MemberName>,
    /// Description of the machine for the person who approves: at most [`Self::MAX_DESCRIPTION`] bytes of
    /// printable text.
    pub description: String,
}

impl CertifyRequest {
    /// Maximum length of the description in bytes.
    pub const MAX_DESCRIPTION: usize = 64;
}

/// Secret of an invite: 12 random bytes. It is erased on drop, never printed, and compared in constant time.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Token([u8; 12]);

impl Token {
    /// Length in bytes.
    pub const LEN: usize = 12;

    /// Creates a token from its random bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Returns the secret bytes.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Returns the hash under which a controller stores the token, so that a stolen store admits no node.
    /// The token is random, so no salt is needed.
    pub fn hash(&self) -> [u8; 32] {
        crate::crypto::hash::hash(&[b"peersock invite token v1", &self.0])
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Token {}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// Answer of a controller, or of a machine about its program.
///
/// ```text
/// certified 81 | time 8 | renew after 4 (seconds) | credentials
/// pending   82 | time 8 | ask again after 4 (seconds) | code 6
/// denied    83 | time 8 | reason 1
/// found     84 | identity 64 | credentials
/// absent    85
/// program   86 | identity 64 | process certificate
/// certified 87 | time 8 | renew after 4 (seconds) | right to renew 149 | credentials
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The node is a member.
    Certified {
        /// Clock of the controller.
        time: UnixTime,
        /// Number of seconds after which the node should ask again.
        renew_after: u32,
        /// Credentials of the node.
        credentials: Box<Credentials>,
        /// Right of the node to renew others' certificates, if it has that.
        spare: Option<Box<Spare>>,
    },
    /// A person has to decide first.
    Pending {
        /// Clock of the controller.
        time: UnixTime,
        /// Number of seconds after which the node should ask again.
        retry_after: u32,
        /// Code that the node and the person who decides both see.
        code: Code,
    },
    /// The node gets no certificate.
    Denied {
        /// Clock of the controller.
        time: UnixTime,
        /// Reason.
        reason: Denial,
    },
    /// This member was asked for. The asking node checks the credentials as in a session.
    Found {
        /// Keys of the node that holds the credentials.
        identity: PublicIdentity,
        /// Its credentials.
        credentials: Box<Credentials>,
    },
    /// This program of a listed member was asked for. The asking node checks the certificate.
    Program {
        /// Keys of the program's node.
        identity: PublicIdentity,
        /// Its certificate.
        certificate: Box<ProcessCertificate>,
    },
    /// No member or program has that name or address.
    Absent,
}

/// Code by which a person recognises a machine that wants to join: six characters of Crockford's base32,
/// shown as `K7M-2QX`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code([u8; 6]);

const CODE_DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Code {
    /// Returns the code with the lowest 30 bits of a random number.
    pub fn from_bits(bits: u32) -> Self {
        Self(std::array::from_fn(|at| CODE_DIGITS[(bits >> (5 * at) & 31) as usize]))
    }

    fn from_wire(bytes: &[u8; 6]) -> Option<Self> {
        bytes.iter().all(|digit| CODE_DIGITS.contains(digit)).then_some(Self(*bytes))
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: String = self.0.iter().map(|digit| char::from(*digit)).collect();
        f.pad(&format!("{}-{}", &text[..3], &text[3..]))
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Code({self})")
    }
}

impl std::str::FromStr for Code {
    type Err = ParseError;

    /// Reads a code as people type it: in any case, with or without the hyphen, `O` for 0, `I` and `L` for 1.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim().chars().filter(|c| *c != '-').map(|c| match c.to_ascii_uppercase() {
            'O' => b'0',
            'I' | 'L' => b'1',
            // Other characters are no digits of a code, and 0 is none either.
            c => u8::try_from(c).unwrap_or(0),
        });
        let digits: Vec<u8> = digits.take(7).collect();
        let digits = digits.try_into().map_err(|_| ParseError::Length)?;
        Self::from_wire(&digits).ok_or(ParseError::Value)
    }
}

/// Reason why a controller gives a node no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// The node was revoked.
    #[error("the network's controller has removed this machine")]
    Removed,
    /// No invite has this token.
    #[error("the invite is unknown to the network's controller")]
    UnknownInvite,
    /// The invite has ended.
    #[error("the invite has ended")]
    ExpiredInvite,
    /// The invite was for fewer machines.
    #[error("the invite has been used as often as it may be")]
    UsedInvite,
    /// The pool has no free address.
    #[error("the network has no free address")]
    NoAddress,
    /// Another member has the name that the invite fixes.
    #[error("another member has the name of the invite")]
    NameTaken,
    /// Too many machines wait for approval.
    #[error("too many machines wait for approval")]
    TooMany,
    /// A program of the operator has refused the machine.
    #[error("the network's approval program has refused this machine")]
    Refused,
    /// The controller cannot decide now: its store fails, or the approval program has not answered yet.
    #[error("the network's controller cannot decide now")]
    Unavailable,
    /// Another run of the same identity is active.
    #[error("another machine runs with this machine's identity")]
    Cloned,
    /// A person has refused the request of this node, which has not been a member.
    #[error("the network's controller has denied this machine's request")]
    Declined,
    /// The approval program of the operator fails, so no certificate is renewed now.
    #[error("the approval program of the network's controller does not answer")]
    Undecided,
    /// The invite replaces a member by a machine with a new key, and the network knows the key of this node.
    #[error("the invite is for a new key, and the network knows the key of this machine")]
    KnownKey,
}

/// Denials by their number on the wire, from 1 on.
const DENIALS: [Denial; 13] = [
    Denial::Removed,
    Denial::UnknownInvite,
    Denial::ExpiredInvite,
    Denial::UsedInvite,
    Denial::NoAddress,
    Denial::NameTaken,
    Denial::TooMany,
    Denial::Refused,
    Denial::Unavailable,
    Denial::Cloned,
    Denial::Declined,
    Denial::Undecided,
    Denial::KnownKey,
];

impl Denial {
    /// Returns the number on the wire, from 1 on.
    pub fn code(self) -> u8 {
        DENIALS.iter().position(|denial| *denial == self).map_or(0, |at| at as u8 + 1)
    }

    /// Returns the denial with this number; `None` for 0, and for numbers of later versions.
    pub fn from_code(code: u8) -> Option<Self> {
        DENIALS.get(usize::from(code).checked_sub(1)?).copied()
    }
}

impl Question {
    /// Returns true if this looks for the member that a certificate is about.
    pub(crate) fn is_about(&self, grant: &Grant) -> bool {
        match self {
            Self::FindName(name) => grant.name == *name,
            Self::FindAddress(address) => grant.addresses().any(|one| one == *address),
            Self::Certify(_) | Self::FindProgram(..) => false,
        }
    }

    /// Returns the bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Certify(request) => {
                out.push(CERTIFY);
                out.extend_from_slice(&request.run.to_be_bytes());
                out.extend_from_slice(&request.starts.to_be_bytes());
                let token = request.token.as_ref().map_or(&[][..], |token| &token.0[..]);
                out.push(token.len() as u8);
                out.extend_from_slice(token);
                label::emit(request.name.as_ref().map_or("", MemberName::as_str), &mut out);
                label::emit(cut(&request.description), &mut out);
            }
            Self::FindName(name) => {
                out.push(FIND_NAME);
                label::emit(name.as_str(), &mut out);
            }
            Self::FindAddress(address) => {
                out.push(FIND_ADDRESS);
                out.extend_from_slice(&mapped(*address).octets());
            }
            Self::FindProgram(label, machine) => {
                out.push(FIND_PROGRAM);
                label::emit(label.as_str(), &mut out);
                label::emit(machine.as_str(), &mut out);
            }
        }
        out
    }

    /// Parses the bytes.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if they are no question.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        let question = match reader.u8()? {
            CERTIFY => {
                let (run, starts) = (reader.u64()?, reader.u64()?);
                let token = match counted(&mut reader)? {
                    [] => None,
                    token => Some(Token(token.try_into().map_err(|_| ParseError::Value)?)),
                };
                let name = match reader.0.first() {
                    Some(0) => reader.u8().map(|_| None)?,
                    _ => Some(text(&mut reader)?),
                };
                let description =
                    std::str::from_utf8(counted(&mut reader)?).map_err(|_| ParseError::Value)?;
                // People see it, so it must not steer their terminals.
                if description.chars().any(char::is_control) || cut(description) != description {
                    return Err(ParseError::Value);
                }
                let description = description.to_owned();
                Self::Certify(CertifyRequest { run, starts, token, name, description })
            }
            FIND_NAME => Self::FindName(text(&mut reader)?),
            FIND_ADDRESS => Self::FindAddress(std::net::Ipv6Addr::from(*reader.array()?).to_canonical()),
            FIND_PROGRAM => Self::FindProgram(text(&mut reader)?, text(&mut reader)?),
            _ => return Err(ParseError::Type),
        };
        reader.end()?;
        Ok(question)
    }
}

/// Returns the beginning of a description that fits.
fn cut(description: &str) -> &str {
    &description[..description.floor_char_boundary(CertifyRequest::MAX_DESCRIPTION)]
}

impl Answer {
    /// Returns the controller's time; `None` for answers to look-ups.
    pub fn time(&self) -> Option<UnixTime> {
        match self {
            Self::Certified { time, .. } | Self::Pending { time, .. } | Self::Denied { time, .. } => {
                Some(*time)
            }
            Self::Found { .. } | Self::Program { .. } | Self::Absent => None,
        }
    }

    /// Returns the bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Certified { time, renew_after, credentials, spare } => {
                out.push(if spare.is_some() { CERTIFIED_SPARE } else { CERTIFIED });
                out.extend_from_slice(&time.as_millis().to_be_bytes());
                out.extend_from_slice(&renew_after.to_be_bytes());
                if let Some(spare) = spare {
                    spare.emit(&mut out);
                }
                out.extend_from_slice(&credentials.to_bytes());
            }
            Self::Pending { time, retry_after, code } => {
                out.push(PENDING);
                out.extend_from_slice(&time.as_millis().to_be_bytes());
                out.extend_from_slice(&retry_after.to_be_bytes());
                out.extend_from_slice(&code.0);
            }
            Self::Denied { time, reason } => {
                out.push(DENIED);
                out.extend_from_slice(&time.as_millis().to_be_bytes());
                out.push(reason.code());
            }
            Self::Found { identity, credentials } => {
                out.push(FOUND);
                out.extend_from_slice(&identity.to_bytes());
                out.extend_from_slice(&credentials.to_bytes());
            }
            Self::Program { identity, certificate } => {
                out.push(PROGRAM);
                out.extend_from_slice(&identity.to_bytes());
                out.extend_from_slice(&certificate.to_bytes());
            }
            Self::Absent => out.push(ABSENT),
        }
        out
    }

    /// Parses the bytes. The credentials in it are not checked.
    ///
    /// # Errors
    /// Returns a [`ParseError`] if they are no answer. A reason of a later version reads as
    /// [`Denial::Refused`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(bytes);
        let kind = reader.u8()?;
        let answer = match kind {
            CERTIFIED | CERTIFIED_SPARE => {
                let (time, renew_after) = (UnixTime::from_millis(reader.u64()?), reader.u32()?);
                let is_spare = kind == CERTIFIED_SPARE;
                let spare = is_spare.then(|| Spare::read(&mut reader)).transpose()?.map(Box::new);
                let credentials = Box::new(Credentials::parse(reader.0)?);
                return Ok(Self::Certified { time, renew_after, credentials, spare });
            }
            PENDING => Self::Pending {
                time: UnixTime::from_millis(reader.u64()?),
                retry_after: reader.u32()?,
                code: Code::from_wire(reader.array()?).ok_or(ParseError::Value)?,
            },
            DENIED => {
                let time = UnixTime::from_millis(reader.u64()?);
                let reason = match reader.u8()? {
                    0 => return Err(ParseError::Value),
                    code => Denial::from_code(code).unwrap_or(Denial::Refused),
                };
                Self::Denied { time, reason }
            }
            FOUND => {
                let identity = PublicIdentity::from_bytes(reader.array()?).map_err(|_| ParseError::Value)?;
                let credentials = Box::new(Credentials::parse(reader.0)?);
                return Ok(Self::Found { identity, credentials });
            }
            PROGRAM => {
                let identity = PublicIdentity::from_bytes(reader.array()?).map_err(|_| ParseError::Value)?;
                let certificate = Box::new(ProcessCertificate::parse(reader.0)?);
                return Ok(Self::Program { identity, certificate });
            }
            ABSENT => Self::Absent,
            _ => return Err(ParseError::Type),
        };
        reader.end()?;
        Ok(answer)
    }
}
