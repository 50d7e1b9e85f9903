//! Byte streams in which each byte can be checked against its position.

use peersock_overlay::NetworkId;

/// A pseudo-random stream that is unique to one direction of one conversation in one network.
///
/// A reader can check each byte against its place in the stream. It detects bytes that are lost, doubled,
/// reordered, altered, or from another stream or network.
///
/// ```
/// use peersock_sim::Content;
///
/// let content = Content::new("ff00010002000000".parse()?, 7, 0);
/// let mut part = [0; 100];
/// content.write(1000, &mut part);
/// assert!(content.check(1000, &part).is_ok());
/// assert!(content.check(1001, &part).is_err());
/// # Ok::<(), peersock_overlay::ParseNetworkIdError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    key: u64,
}

impl Content {
    /// Returns the stream of this direction of this conversation.
    pub fn new(network: NetworkId, conversation: u64, direction: u64) -> Self {
        let key = mix(mix(network.as_u64()) ^ mix(conversation ^ direction << 63));
        Self { key }
    }

    /// Writes the stream's bytes starting at `offset`.
    pub fn write(&self, offset: u64, part: &mut [u8]) {
        self.walk(offset, part.len(), |at, bytes| part[at..at + bytes.len()].copy_from_slice(bytes));
    }

    /// Checks bytes that were read at `offset`. The error is the position of the first wrong byte.
    pub fn check(&self, offset: u64, part: &[u8]) -> Result<(), u64> {
        let mut wrong = None;
        self.walk(offset, part.len(), |at, bytes| {
            if wrong.is_none() && part[at..at + bytes.len()] != *bytes {
                let differs = part[at..].iter().zip(bytes).position(|(a, b)| a != b).unwrap_or_default();
                wrong = Some(offset + (at + differs) as u64);
            }
        });
        wrong.map_or(Ok(()), Err)
    }

    /// Visits the bytes from `offset` on in pieces, each with its position relative to `offset`.
    fn walk(&self, offset: u64, len: usize, mut visit: impl FnMut(usize, &[u8])) {
        let mut at = 0;
        while at < len {
            let place = offset + at as u64;
            let word = mix(self.key.wrapping_add(place / 8)).to_le_bytes();
            let skip = (place % 8) as usize;
            let piece = &word[skip..8.min(skip + len - at)];
            visit(at, piece);
            at += piece.len();
        }
    }
}

/// Applies one step of splitmix64 with its finaliser.
fn mix(number: u64) -> u64 {
    let mut hash = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(direction: u64) -> Content {
        Content::new("ff00010002000000".parse().expect("an ID"), 7, direction)
    }

    #[test]
    fn any_cut_of_the_stream_is_the_same_stream() {
        let mut whole = [0; 200];
        content(0).write(0, &mut whole);
        for start in 0..20 {
            for end in [start, start + 1, start + 7, start + 8, start + 9, 200] {
                assert_eq!(content(0).check(start as u64, &whole[start..end]), Ok(()));
            }
        }
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        let mut part = [0; 50];
        content(0).write(10, &mut part);
        part[33] ^= 1;
        assert_eq!(content(0).check(10, &part), Err(43));
        assert!(content(1).check(10, &part[..30]).is_err(), "the directions differ");
    }
}
