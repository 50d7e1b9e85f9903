use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::crypto::Suite;

/// Maximum number of packets that a session seals or opens per direction.
pub(crate) const MESSAGE_LIMIT: u64 = 1 << 60;

/// Maximum number of 16-byte blocks sealed by one AES-GCM key: RFC 9001 section 6.6 and appendix B.1, for an
/// attacker's advantage of at most 2^-57. ChaCha20-Poly1305 has no such limit within [`MESSAGE_LIMIT`].
const GCM_BLOCKS: u64 = 1 << 35;
/// Number of packets and of bytes after which the session is replaced at the latest.
const GCM_REKEY_PACKETS: u64 = 1 << 22;
const GCM_REKEY_BYTES: u64 = 1 << 38;

/// Counters of one sealing key: nonces, which are never used twice, and its remaining use.
#[derive(Debug)]
pub(super) struct Volume {
    next: AtomicU64,
    bytes: AtomicU64,
    is_announced: AtomicBool,
    is_gcm: bool,
}

impl Volume {
    pub(super) fn new(suite: Suite) -> Self {
        let is_gcm = suite == Suite::Aes256Gcm;
        Self {
            next: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            is_announced: AtomicBool::new(false),
            is_gcm,
        }
    }

    /// Returns the counter of the next packet; `None` if the key has reached its limit.
    pub(super) fn draw(&self) -> Option<u64> {
        // A drawn counter is used up, even past the limit, so it cannot wrap around to zero.
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        let used_up = || {
            // Each packet uses one block for its tag's mask, and its last block may be short.
            let blocks = self.bytes() / 16 + counter.saturating_mul(2);
            blocks >= GCM_BLOCKS
        };
        (counter < MESSAGE_LIMIT && !(self.is_gcm && used_up())).then_some(counter)
    }

    /// Records the number of bytes sealed under the last counter.
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the number of packets sealed so far.
    pub(super) fn packets(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(MESSAGE_LIMIT)
    }

    /// Returns the number of bytes of their plaintexts.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns true if the key must be replaced.
    pub(super) fn is_worn(&self) -> bool {
        self.is_gcm && (self.packets() >= GCM_REKEY_PACKETS || self.bytes() >= GCM_REKEY_BYTES)
    }

    /// Like [`Self::is_worn`], but returns true only once.
    pub(super) fn take_worn(&self) -> bool {
        self.is_worn()
            // Reading first avoids an exclusive access for every further packet under a worn key.
            && !self.is_announced.load(Ordering::Relaxed)
            && !self.is_announced.swap(true, Ordering::Relaxed)
    }

    /// Pretends that the key has sealed this much.
    #[cfg(test)]
    pub(super) fn pretend(&self, packets: u64, bytes: u64) {
        self.next.store(packets, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gcm_key_is_worn_after_many_packets_or_bytes_and_told_once() {
        for (packets, bytes, worn) in [
            (GCM_REKEY_PACKETS - 1, GCM_REKEY_BYTES - 1, false),
            (GCM_REKEY_PACKETS, 0, true),
            (1, GCM_REKEY_BYTES, true),
        ] {
            let volume = Volume::new(Suite::Aes256Gcm);
            volume.pretend(packets, bytes);
            assert_eq!((volume.is_worn(), volume.take_worn(), volume.take_worn()), (worn, worn, false));
            let other = Volume::new(Suite::ChaCha20Poly1305);
            other.pretend(packets, bytes);
            assert!(!other.is_worn());
        }
    }

    #[test]
    fn a_gcm_key_seals_no_more_blocks_than_it_may() {
        let volume = Volume::new(Suite::Aes256Gcm);
        volume.pretend(7, GCM_BLOCKS * 16 - 16 * 15);
        assert_eq!(volume.draw(), Some(7));
        assert_eq!(volume.draw(), None);
        volume.pretend(GCM_BLOCKS / 2 - 1, 0);
        assert!(volume.draw().is_some() && volume.draw().is_none());
        let other = Volume::new(Suite::ChaCha20Poly1305);
        other.pretend(MESSAGE_LIMIT - 1, u64::MAX / 2);
        assert!(other.draw().is_some() && other.draw().is_none() && other.draw().is_none());
        assert_eq!(other.packets(), MESSAGE_LIMIT);
    }
}
