//! Format and encryption of the limit's datagrams.
//!
//! ```text
//!  0        1                8                    n - 16        n
//!  | kind   | sequence 56    | ciphertext         | tag 16      |
//! ```

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Size in bytes of a full datagram, which fits into an IPv4 packet of 1500.
pub(super) const SIZE: usize = 1472;
/// Size in bytes of kind and sequence number.
pub(super) const HEADER: usize = 8;
/// Size in bytes of the AEAD's tag.
pub(super) const TAG: usize = 16;
/// Payload in bytes of a full datagram.
pub(super) const MAX_PAYLOAD: usize = SIZE - HEADER - TAG;

/// Purpose of a datagram. It also separates the nonces, because every kind has its own sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Bulk payload; sequence 0 starts a transfer.
    Data = 0,
    /// The highest sequence received.
    Ack = 1,
    /// Asks for an echo.
    Ping = 2,
    /// Asks for the count.
    Result = 3,
    /// Answers `Ping` or `Result`.
    Reply = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Data, Kind::Ack, Kind::Ping, Kind::Result, Kind::Reply].get(usize::from(byte)).copied()
    }
}

/// AES-256-GCM under a publicly known key, because this only measures and does not protect.
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    pub(super) fn new() -> Cipher {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("the key has the cipher's length");
        Cipher(LessSafeKey::new(key))
    }

    /// Writes header and tag around a payload that is already in its place in `datagram`.
    pub(super) fn seal_in_place(&self, kind: Kind, sequence: u64, datagram: &mut [u8]) {
        let (header, sealed) = datagram.split_at_mut(HEADER);
        header.copy_from_slice(&sequence.to_be_bytes());
        header[0] = kind as u8;
        let nonce = nonce(header);
        let (payload, tag) = sealed.split_at_mut(sealed.len() - TAG);
        let sum = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), payload);
        tag.copy_from_slice(sum.expect("a datagram is far below the cipher's limit").as_ref());
    }

    /// Makes a whole datagram in `out`.
    pub(super) fn seal(&self, kind: Kind, sequence: u64, payload: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.resize(HEADER + payload.len() + TAG, 0);
        out[HEADER..HEADER + payload.len()].copy_from_slice(payload);
        self.seal_in_place(kind, sequence, out);
    }

    /// Opens a datagram in place. Returns None if it is not one of ours.
    pub(super) fn open<'a>(&self, datagram: &'a mut [u8]) -> Option<(Kind, u64, &'a mut [u8])> {
        let (header, sealed) = datagram.split_at_mut_checked(HEADER)?;
        let kind = Kind::from_byte(header[0])?;
        let payload = self.0.open_in_place(nonce(header), Aad::empty(), sealed).ok()?;
        header[0] = 0;
        let mut sequence = [0; HEADER];
        sequence.copy_from_slice(header);
        Some((kind, u64::from_be_bytes(sequence), payload))
    }
}

fn nonce(header: &[u8]) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(header);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_datagrams_open_and_changed_ones_do_not() {
        let cipher = Cipher::new();
        let mut datagram = Vec::new();
        cipher.seal(Kind::Ping, 77, b"payload", &mut datagram);
        let mut changed = datagram.clone();
        changed[HEADER] ^= 1;
        assert_eq!(cipher.open(&mut datagram), Some((Kind::Ping, 77, &mut b"payload".to_vec()[..])));
        assert_eq!(cipher.open(&mut changed), None);
        assert_eq!(cipher.open(&mut [0; 3]), None);
    }
}
