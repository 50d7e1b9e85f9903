use super::{MessageType, ParseError, Reader, VERSION};

type Tag = [u8; Beacon::TAG];

/// Multicast question: "who else is on one of these networks?"
///
/// ```text
/// offset  0     1        2         18
///        +----+---------+---------+---------+---------+-- -+---------+
///        |0xD5| version | salt 16 | tag 16  | tag 16  | .. | tag 16  |   16 tags
///        +----+---------+---------+---------+---------+-- -+---------+
/// ```
///
/// A tag is a hash of the salt under a network's discovery key, so a beacon shows neither the network nor the
/// node. Random tags fill the list, and it is sorted, so it shows neither the number of networks nor which
/// tag came first. Its length also pays for the [`Hello`](super::Hello) that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon<'a> {
    /// Random input of the tags' hashes.
    pub salt: [u8; 16],
    tags: &'a [Tag],
}

impl<'a> Beacon<'a> {
    /// Length of one tag, in bytes.
    pub const TAG: usize = 16;
    /// Maximum number of networks that one beacon names. A node with more takes turns.
    pub const MAX_TAGS: usize = 16;

    /// Length on the wire, in bytes.
    pub const LEN: usize = 1 + 1 + 16 + Self::MAX_TAGS * Self::TAG;

    /// Parses a datagram.
    /// Returns an error for another message, another version, or a list without exactly 16 tags.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::of(datagram, MessageType::Beacon)?;
        reader.version()?;
        let salt = *reader.array()?;
        // Always sixteen, so that the length does not show the number of networks.
        match reader.0.as_chunks() {
            (tags, []) if tags.len() == Self::MAX_TAGS => Ok(Self { salt, tags }),
            _ => Err(ParseError::Length),
        }
    }

    /// Returns true if one of the tags is `tag`. Tags are public, so this need not take constant time.
    pub fn contains(&self, tag: &Tag) -> bool {
        self.tags.contains(tag)
    }

    /// Returns all tags, in ascending order if the sender follows the protocol.
    pub fn tags(&self) -> &'a [Tag] {
        self.tags
    }

    /// Appends a beacon with the given tags to `out`; `random` fills the remaining places.
    ///
    /// # Panics
    /// Panics with more than [`Self::MAX_TAGS`] tags.
    pub fn emit(salt: [u8; 16], tags: &[Tag], mut random: impl FnMut(&mut [u8]), out: &mut Vec<u8>) {
        let mut list = [[0; Self::TAG]; Self::MAX_TAGS];
        list[..tags.len()].copy_from_slice(tags);
        random(list[tags.len()..].as_flattened_mut());
        // In no order of the networks, so that an observer cannot tell tags from fillers by their places.
        list.sort_unstable();

        out.extend_from_slice(&[MessageType::Beacon as u8, VERSION]);
        out.extend_from_slice(&salt);
        out.extend_from_slice(list.as_flattened());
    }
}
