use super::{ParseError, Reader, Voucher};
use crate::contact::Contact;
use crate::id::NodeId;

const CANDIDATES: u8 = 0x09;
const TCP_CANDIDATES: u8 = 0x0B;

/// Flag of a message that wants an answer.
const ANSWER_WANTED_FLAG: u8 = 1;

/// Sender's addresses, with the roots' vouchers; sent in a session between two nodes.
///
/// ```text
/// offset  0      1       2      6            8         n       n+1
///        +------+-------+------+------------+---------+-------+--------------------------------+
///        | 0x09 | flags | id 4 | round trip | contact | count | (root 8, voucher 90) each ..   |
///        |      | 1     |      | 2          | 5+19c   | 1     |                                |
///        +------+-------+------+------------+---------+-------+--------------------------------+
/// ```
///
/// The same with first byte 0x0B has the sender's addresses for TCP. An answer without any address refuses.
///
/// Bytes behind these fields are ignored, so that later versions can add some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// True if the addresses are for TCP, so that both nodes connect at once; false for UDP.
    pub of_tcp: bool,
    /// True if the receiver should answer by the same message with the same id; false for that answer.
    pub is_question: bool,
    /// Id chosen by the asking node.
    pub id: u32,
    /// Round-trip time between the two as the sender knows it, in milliseconds; 0 if unknown.
    pub round_trip: u16,
    /// Addresses where the sender can be reached.
    pub contact: Contact,
    /// Vouchers of roots for these addresses; at most [`Self::MAX_VOUCHERS`] are written and read.
    pub vouchers: Vec<RootVoucher>,
}

/// Voucher with the root that has issued it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootVoucher {
    /// First 8 bytes of the root's node ID, which select one of the receiver's roots. The signature shows
    /// whether it is the right one.
    pub root: [u8; 8],
    /// Voucher of the root.
    pub voucher: Voucher,
}

impl RootVoucher {
    /// Creates the entry for a voucher from the root with this node ID.
    pub fn new(root: &NodeId, voucher: Voucher) -> Self {
        Self { root: Self::name_of(root), voucher }
    }

    /// Returns the name of a root in a voucher entry.
    pub fn name_of(root: &NodeId) -> [u8; 8] {
        let mut name = [0; 8];
        // Enough to find the root among eight; the signature decides.
        name.copy_from_slice(&root.as_bytes()[..8]);
        name
    }
}

impl Candidates {
    /// Maximum number of vouchers in one message.
    pub const MAX_VOUCHERS: usize = 4;

    /// Returns true if a plaintext is this message, by its first byte.
    pub fn is_one(plaintext: &[u8]) -> bool {
        matches!(plaintext.first(), Some(&(CANDIDATES | TCP_CANDIDATES)))
    }

    /// Parses a plaintext.
    ///
    /// # Errors
    /// Returns [`ParseError::Type`] for another message, and [`ParseError::Length`] if it is cut off, or has
    /// too many candidates or vouchers.
    pub fn parse(plaintext: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader(plaintext);
        let of_tcp = match reader.u8()? {
            CANDIDATES => false,
            TCP_CANDIDATES => true,
            _ => return Err(ParseError::Type),
        };
        let is_question = reader.u8()? & ANSWER_WANTED_FLAG != 0;
        let (id, round_trip) = (reader.u32()?, reader.u16()?);
        let (contact, rest) = Contact::parse(reader.0).ok_or(ParseError::Length)?;
        reader = Reader(rest);
        let count = usize::from(reader.u8()?);
        // Each costs a signature check.
        if count > Self::MAX_VOUCHERS {
            return Err(ParseError::Length);
        }
        let mut vouchers = Vec::new();
        for _ in 0..count {
            let root = *reader.array()?;
            vouchers.push(RootVoucher { root, voucher: Voucher::read(&mut reader)? });
        }
        Ok(Self { of_tcp, is_question, id, round_trip, contact, vouchers })
    }

    /// Returns the length of the plaintext, in bytes.
    pub(crate) fn len(&self) -> usize {
        let mut plaintext = Vec::new();
        self.emit(&mut plaintext);
        plaintext.len()
    }

    /// Appends the plaintext to `out`.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let vouchers = &self.vouchers[..self.vouchers.len().min(Self::MAX_VOUCHERS)];
        out.push(if self.of_tcp { TCP_CANDIDATES } else { CANDIDATES });
        out.push(if self.is_question { ANSWER_WANTED_FLAG } else { 0 });
        out.extend(self.id.to_be_bytes());
        out.extend(self.round_trip.to_be_bytes());
        self.contact.emit(out);
        out.push(vouchers.len() as u8);
        for RootVoucher { root, voucher } in vouchers {
            out.extend(root);
            voucher.write(out);
        }
    }
}
