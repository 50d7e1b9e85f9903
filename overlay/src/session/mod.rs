//! Sessions: the result of a finished handshake, and the path of every data packet.

mod activity;
mod peer;
mod replay;
mod table;
#[cfg(test)]
mod tests;
mod volume;

pub(crate) use peer::Watched;
pub use peer::{Peer, Sender, Watch};
pub use table::SessionTable;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use thiserror::Error;

use peersock_primitives::Counter;

use crate::counters::Counters;
use crate::crypto::{AeadKey, Provider, Suite, TAG};
use crate::noise::SessionKeys;
use crate::reach::RecvMeta;
use crate::sync;
use crate::wire::{DATA_HEADER, DATA_OVERHEAD, Data, MessageType, SessionIndex};

use replay::{ReplayWindow, Stale};
use volume::{MESSAGE_LIMIT, Volume};

/// Returns the session that a datagram is for, or `None` if it is no data packet.
///
/// ```
/// use peersock_overlay::{SessionIndex, data_index};
///
/// let mut datagram = [0; 28];
/// datagram[..4].copy_from_slice(&[0xD4, 1, 2, 3]);
/// assert_eq!(data_index(&datagram), Some(SessionIndex::from_be_bytes([1, 2, 3])));
/// assert_eq!(data_index(&datagram[..27]), None);
/// ```
pub fn data_index(datagram: &[u8]) -> Option<SessionIndex> {
    match datagram {
        &[first, a, b, c, ..] if first == MessageType::Data as u8 && datagram.len() >= DATA_OVERHEAD => {
            Some(SessionIndex::from_be_bytes([a, b, c]))
        }
        _ => None,
    }
}

/// The two keys of one handshake, in use.
///
/// All packet operations take `&self`, from any thread. There is one lock per direction, held shared for the
/// time of one packet and exclusively only to erase the keys, and one around the replay window's update.
pub struct Session {
    index: SessionIndex,
    remote_index: SessionIndex,
    suite: Suite,
    initiator: bool,
    peer: Arc<Peer>,
    counters: Arc<Counters>,
    established: Instant,
    reject_after: Duration,
    confirmed: AtomicBool,
    /// Milliseconds since `established` at which control wants attention; see [`Session::set_attention`].
    attention: AtomicU64,
    sealing: Sealing,
    opening: Opening,
}

struct Sealing {
    /// `None` once erased.
    key: RwLock<Option<Box<dyn AeadKey>>>,
    volume: Volume,
}

struct Opening {
    /// `None` once erased.
    key: RwLock<Option<Box<dyn AeadKey>>>,
    received: Mutex<Received>,
}

struct Received {
    window: ReplayWindow,
    packets: u64,
    bytes: u64,
}

/// Traffic of a session so far. Bytes are of plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionStats {
    /// Number of packets sealed.
    pub sent_packets: u64,
    /// Number of bytes sealed.
    pub sent_bytes: u64,
    /// Number of packets opened and not seen before.
    pub received_packets: u64,
    /// Number of bytes in these packets.
    pub received_bytes: u64,
    /// Number of packets that the peer has sealed before others that came, and that have not come themselves:
    /// lost or late. Includes probes of datagram sizes that the path does not carry.
    pub lost_packets: u64,
}

impl SessionStats {
    /// Adds the traffic of another session, or of another peer.
    pub(crate) fn add(&mut self, other: &SessionStats) {
        self.sent_packets += other.sent_packets;
        self.sent_bytes += other.sent_bytes;
        self.received_packets += other.received_packets;
        self.received_bytes += other.received_bytes;
        // The count depends on the peer's counters, which may be any numbers.
        self.lost_packets = self.lost_packets.saturating_add(other.lost_packets);
    }
}

impl Session {
    /// Creates a session from the keys of a handshake. Returns `None` if the provider lacks their suite.
    ///
    /// The initiator's session is confirmed from the start, because the response proved that the peer has the
    /// keys. The responder's is confirmed by the first packet. After `reject_after` the session neither seals
    /// nor opens.
    pub(crate) fn new(
        keys: &SessionKeys,
        provider: &dyn Provider,
        peer: Arc<Peer>,
        counters: Arc<Counters>,
        reject_after: Duration,
        now: Instant,
    ) -> Option<Self> {
        Some(Self {
            index: keys.index,
            remote_index: keys.remote_index,
            suite: keys.suite,
            initiator: keys.initiator,
            peer,
            counters,
            established: now,
            reject_after,
            // The response has shown the initiator that the responder has the keys. A responder knows only
            // after the first packet.
            confirmed: AtomicBool::new(keys.initiator),
            attention: AtomicU64::new(NO_ATTENTION),
            sealing: Sealing {
                key: RwLock::new(Some(provider.key(keys.suite, &keys.send)?)),
                volume: Volume::new(keys.suite),
            },
            opening: Opening {
                key: RwLock::new(Some(provider.key(keys.suite, &keys.receive)?)),
                received: Mutex::new(Received { window: ReplayWindow::new(), packets: 0, bytes: 0 }),
            },
        })
    }

    /// Seals `plaintext`, an inner IP packet, into a whole datagram and returns its length, which is
    /// [`DATA_OVERHEAD`] bytes more.
    ///
    /// # Errors
    /// Returns [`SealError::Expired`] for an old session: ask [`Peer::sender`] again. Returns
    /// [`SealError::NoRoom`] if `out` is too short.
    pub fn seal(&self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let len = self.seal_unasked(plaintext, out)?;
        if !matches!(Opened::of(plaintext), Opened::Control(_)) {
            self.peer.activity().data_sealed();
        }
        Ok(len)
    }

    /// Like [`Session::seal`], for [`Sender::unasked`].
    pub(super) fn seal_unasked(&self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let len = plaintext.len() + DATA_OVERHEAD;
        let out = out.get_mut(..len).ok_or(SealError::NoRoom)?;
        // Held until the packet is sealed, so that `erase` ends after the last use of the key.
        let key = sync::read(&self.sealing.key);
        let key = key.as_ref().ok_or_else(|| self.seal_expired())?;
        let counter = self.sealing.volume.draw().ok_or_else(|| self.seal_expired())?;

        Data::write_header(out, self.remote_index, counter);
        key.seal(counter, plaintext, &mut out[DATA_HEADER..]);
        self.sealing.volume.add(plaintext.len());
        Ok(len)
    }

    /// Authenticates and decrypts a datagram that [`data_index`] assigns to this session. Returns the kind
    /// and length of the plaintext in `out`, which is [`DATA_OVERHEAD`] bytes shorter.
    ///
    /// A counter is marked as received only after its packet proved authentic. After an error the content of
    /// `out` is meaningless, and the packet has been counted.
    /// Errors: see [`OpenError`].
    pub fn open(&self, datagram: &[u8], out: &mut [u8]) -> Result<Opened, OpenError> {
        let mut result = self.try_open(datagram, out).map(|len| Opened::of(&out[..len]));
        if matches!(result, Ok(Opened::Packet(_) | Opened::Unknown(_))) && !self.peer.is_admitted() {
            // Here and not in drivers, so that none can forget it.
            result = Err(OpenError::NotAdmitted);
        }
        match result {
            Ok(Opened::Packet(_) | Opened::Unknown(_)) => self.peer.activity().data_opened(),
            Ok(Opened::Control(_)) | Err(OpenError::NoRoom) => {}
            Err(OpenError::Malformed) => self.counters.data_malformed.increment(),
            Err(OpenError::Unauthentic) => self.count_tried(&self.counters.data_unauthentic, datagram),
            Err(OpenError::Replayed) => self.count_tried(&self.counters.data_replayed, datagram),
            Err(OpenError::TooOld) => self.count_tried(&self.counters.data_too_old, datagram),
            Err(OpenError::Expired) => self.counters.data_expired.increment(),
            Err(OpenError::NotAdmitted) => self.counters.data_not_admitted.increment(),
        }
        result
    }

    /// Counts a packet that was decrypted and is dropped.
    fn count_tried(&self, why: &Counter, datagram: &[u8]) {
        why.increment();
        self.counters.bytes_tried.add(datagram.len() as u64);
    }

    fn try_open(&self, datagram: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
        let data = Data::parse(datagram).map_err(|_| OpenError::Malformed)?;
        // Authenticated data has no index of its sender, so the driver's choice of the session is checked
        // here.
        if data.receiver != self.index {
            return Err(OpenError::Malformed);
        }
        // Before the cipher: no peer that keeps the limit sends such a counter.
        if data.counter >= MESSAGE_LIMIT {
            return Err(OpenError::Expired);
        }
        let len = data.sealed.len() - TAG;
        let out = out.get_mut(..len).ok_or(OpenError::NoRoom)?;
        {
            let key = sync::read(&self.opening.key);
            let key = key.as_ref().ok_or(OpenError::Expired)?;
            key.open(data.counter, data.sealed, out).map_err(|_| OpenError::Unauthentic)?;
        }
        // Only now, because a forged counter must not move the window past packets that are still to come.
        let mut received = sync::lock(&self.opening.received);
        received.window.mark(data.counter).map_err(|stale| match stale {
            Stale::Replayed => OpenError::Replayed,
            Stale::TooOld => OpenError::TooOld,
        })?;
        received.packets += 1;
        received.bytes += len as u64;
        Ok(len)
    }

    /// Returns our index, which datagrams for this session carry.
    pub fn index(&self) -> SessionIndex {
        self.index
    }

    /// Returns the cipher of its packets.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Returns the peer at the other end.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Returns the traffic so far.
    pub fn stats(&self) -> SessionStats {
        let received = sync::lock(&self.opening.received);
        SessionStats {
            sent_packets: self.sent_packets(),
            sent_bytes: self.sealing.volume.bytes(),
            received_packets: received.packets,
            received_bytes: received.bytes,
            // Every counter up to the highest was sent, so those that did not come are lost or late.
            lost_packets: received.window.next().saturating_sub(received.packets),
        }
    }

    /// Reports that packets from `meta` were opened. Call this once per batch of one source.
    ///
    /// Returns true if the control half should be told (`Endpoint::session_attention`): the session was not
    /// confirmed yet, the source is not the peer's path, a timer must start, data had no answer for 500 ms or
    /// more, or the session has reached a relevant age.
    pub fn note_received(&self, now: Instant, meta: &RecvMeta) -> bool {
        let timer = self.peer.activity().note_received(now);
        // Not `||`, because `is_due` must run in any case: it ends an expired session.
        timer | self.is_due(now) | !self.is_confirmed() | self.peer.is_new_source(meta)
    }

    /// Reports that packets were sealed and sent. Call this once per batch.
    ///
    /// Returns true if the control half should be told, as for [`Self::note_received`].
    pub fn note_sent(&self, now: Instant) -> bool {
        self.peer.activity().note_sent(now) | self.is_due(now) | self.sealing.volume.take_worn()
    }

    /// Returns true if its key has sealed so much that it must be replaced.
    pub(crate) fn is_worn(&self) -> bool {
        self.sealing.volume.is_worn()
    }

    /// Returns the number of bytes of plaintext sealed so far.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sealing.volume.bytes()
    }

    /// Returns the number of packets sealed so far.
    pub(crate) fn sent_packets(&self) -> u64 {
        self.sealing.volume.packets()
    }

    /// Returns the peer's index, which our datagrams carry.
    pub(crate) fn remote_index(&self) -> SessionIndex {
        self.remote_index
    }

    /// Returns true if our side began the handshake, and so is responsible for the rekey.
    pub(crate) fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// Returns when the handshake was completed.
    pub(crate) fn established(&self) -> Instant {
        self.established
    }

    /// Returns true if the peer has proved that it has the keys.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Records that the peer has proved that it has the keys.
    pub(crate) fn confirm(&self) {
        self.confirmed.store(true, Ordering::Relaxed);
    }

    /// Makes the next packet sent or received from `at` on ask for control's attention, once. So a session is
    /// rekeyed on use, without a timer that runs while it is idle. `None` cancels that.
    pub(crate) fn set_attention(&self, at: Option<Instant>) {
        let millis = at.map_or(NO_ATTENTION, |at| self.age_millis(at));
        self.attention.store(millis, Ordering::Relaxed);
    }

    /// Erases both keys. From now on the session neither seals nor opens, even for other holders of it.
    pub(crate) fn erase(&self) {
        // The exclusive lock waits for packets in work, so no key is used after this call.
        *sync::write(&self.sealing.key) = None;
        *sync::write(&self.opening.key) = None;
    }

    /// Returns true if the keys are erased.
    pub(crate) fn is_erased(&self) -> bool {
        sync::read(&self.sealing.key).is_none()
    }

    /// Returns true once when control's attention time has come. Also ends a session past its lifetime, and
    /// returns true for that.
    fn is_due(&self, now: Instant) -> bool {
        let age = self.age_millis(now);
        if u128::from(age) >= self.reject_after.as_millis() {
            if self.is_erased() {
                return false;
            }
            // Here, because a machine that slept has no timer that could end the session in time.
            self.erase();
            return true;
        }
        // The load alone is the common case; only the swap writes the shared cache line.
        age >= self.attention.load(Ordering::Relaxed)
            && age >= self.attention.swap(NO_ATTENTION, Ordering::Relaxed)
    }

    fn age_millis(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.established).as_millis();
        // Never the mark itself, or an old session would look like one that needs nothing.
        u64::try_from(millis).unwrap_or(NO_ATTENTION - 1)
    }

    fn seal_expired(&self) -> SealError {
        self.counters.seal_expired.increment();
        SealError::Expired
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("index", &self.index)
            .field("suite", &self.suite)
            .field("peer", &self.peer)
            .field("keys", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// Attention time that no session reaches.
const NO_ATTENTION: u64 = u64::MAX;

/// Content of a datagram, by its first four bits, with the length of the plaintext in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// An IP packet of version 4 or 6. Nothing else of it was checked.
    Packet(usize),
    /// A control message, or a keepalive, which is empty: for `Endpoint::handle_control`.
    Control(usize),
    /// Content that a later version of the protocol may know.
    Unknown(usize),
}

impl Opened {
    fn of(plaintext: &[u8]) -> Self {
        let length = plaintext.len();
        match plaintext.first().map(|first| first >> 4) {
            Some(4 | 6) => Self::Packet(length),
            // No IP version is 0, so control messages need no header.
            None | Some(0) => Self::Control(length),
            Some(_) => Self::Unknown(length),
        }
    }

    /// Returns the length of the plaintext in bytes.
    pub fn len(self) -> usize {
        match self {
            Self::Packet(length) | Self::Control(length) | Self::Unknown(length) => length,
        }
    }

    /// Returns true for an empty keepalive.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Reason why a packet could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The session is past its lifetime, or control has erased it.
    #[error("the session has expired")]
    Expired,
    /// The buffer is too short for the datagram.
    #[error("the buffer is too short")]
    NoRoom,
}

/// Reason why a datagram could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The datagram is no data packet, or for another session.
    #[error("the datagram is malformed")]
    Malformed,
    /// The packet was not made by the peer, or was altered.
    #[error("the packet is not authentic")]
    Unauthentic,
    /// The packet is authentic, but was received before.
    #[error("the packet is a replay")]
    Replayed,
    /// The packet is authentic, but too far behind the newest to tell whether it is a replay.
    #[error("the packet is too old")]
    TooOld,
    /// The session is past its lifetime, or control has erased it.
    #[error("the session has expired")]
    Expired,
    /// The buffer is too short for the plaintext.
    #[error("the buffer is too short")]
    NoRoom,
    /// The peer has to show credentials before its packets pass.
    #[error("the peer is not admitted")]
    NotAdmitted,
}
