use std::fmt;

use thiserror::Error;
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::ik::{self, FirstReceived, FirstSent};
use super::symmetric::{Split, Unauthentic};
use super::{InitiationPayload, ResponsePayload, Timestamp, stale};
use crate::crypto::Suite;
use crate::id::{Identity, NodeId, Psk, PublicIdentity};
use crate::wire::SessionIndex;
use crate::wire::{Initiation, ParseError, Response, StaleReply};

const PROLOGUE_LABEL: &[u8] = b"peersock handshake v1";

/// Initiator's side, between its initiation and the response.
///
/// ```
/// use std::time::Duration;
/// use peersock_overlay::noise::{Initiator, InitiationPayload, Received, ResponsePayload, Timestamp};
/// use peersock_overlay::{Identity, NetworkId, Psk, SessionIndex, Suite, SuiteSet};
///
/// let (alice, bob) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
/// let (index, psk) = (SessionIndex::from_be_bytes([0, 0, 1]), Psk::open());
/// let payload = InitiationPayload {
///     network: NetworkId::ad_hoc(80..=80).expect("one port"),
///     timestamp: Timestamp::from_unix(Duration::from_secs(1_700_000_000)),
///     instance: 1,
///     receive_buffer: 1 << 20,
///     suites: SuiteSet::CHACHA20_POLY1305,
///     introduction: Vec::new(),
///     room: 0,
/// };
///
/// let mut initiation = Vec::new();
/// let pending = Initiator::start(&alice, bob.public(), [3; 32], index, &payload, &mut initiation)?;
/// initiation.extend([0; 32]); // the MACs
///
/// let received = Received::read(&bob, &initiation)?;
/// assert_eq!(received.initiator(), alice.public());
/// let mut response = Vec::new();
/// let answer = ResponsePayload { instance: 2, receive_buffer: 1 << 20, question: None };
/// let theirs = received.respond(&psk, [4; 32], index, Suite::ChaCha20Poly1305, &answer, &mut response)?;
/// response.extend([0; 32]);
///
/// let (ours, said) = pending.read_response(&alice, &psk, &response)?;
/// assert_eq!(said, answer);
/// assert_eq!(ours.send, theirs.receive);
/// # Ok::<(), peersock_overlay::noise::HandshakeError>(())
/// ```
#[derive(Debug)]
pub struct Initiator {
    state: FirstSent,
    index: SessionIndex,
}

impl Initiator {
    /// Appends an initiation to `out`, except for the MACs, which [`MacWriter`](super::MacWriter) adds.
    ///
    /// `ephemeral` is 32 random bytes, never used again; `index` is the one that reaches this side.
    /// Returns [`HandshakeError::Unauthentic`] if the responder's public key is of low order.
    pub fn start(
        identity: &Identity,
        responder: &PublicIdentity,
        mut ephemeral: [u8; 32],
        index: SessionIndex,
        payload: &InitiationPayload,
        out: &mut Vec<u8>,
    ) -> Result<Self, HandshakeError> {
        let header = Initiation::header(index);
        // The header is part of the transcript, so an altered index or version is noticed.
        let prologue = prologue(&header, &responder.node_id());
        let start = out.len();
        out.extend_from_slice(&header);
        let secret = StaticSecret::from(ephemeral);
        ephemeral.zeroize();
        // `ephemeral` is erased above because `StaticSecret` holds a copy, which erases itself.
        let state = ik::write_first(
            &prologue,
            identity.x25519(),
            responder.x25519(),
            secret,
            &payload.emit(identity.public().ed25519()),
            out,
        )
        .inspect_err(|_| out.truncate(start))?;
        Ok(Self { state, index })
    }

    /// Returns the index in the initiation.
    pub fn index(&self) -> SessionIndex {
        self.index
    }

    /// Reads a response. A forged one is an error that changes nothing, because the true one may still come.
    /// Returns a [`HandshakeError`].
    pub fn read_response(
        &self,
        identity: &Identity,
        psk: &Psk,
        datagram: &[u8],
    ) -> Result<(SessionKeys, ResponsePayload), HandshakeError> {
        let response = Response::parse(datagram)?;
        // The index is in the transcript, so this response cannot be authentic; the check saves two X25519
        // operations.
        if response.receiver != self.index {
            return Err(HandshakeError::Unauthentic);
        }
        let (split, payload) =
            self.state.read_second(response.header, identity.x25519(), psk.as_bytes(), response.noise)?;
        let payload = ResponsePayload::parse(&payload).ok_or(HandshakeError::Payload)?;
        let keys = SessionKeys::new(&split, true, response.suite, self.index, response.sender);
        Ok((keys, payload))
    }

    /// Returns the newest timestamp of ours that the responder has read, if `reply` is its answer to this
    /// very initiation.
    pub fn read_stale_reply(&self, reply: &StaleReply) -> Option<Timestamp> {
        if reply.receiver != self.index {
            return None;
        }
        stale::open(self.state.symmetric(), reply)
    }
}

/// Responder's side: an initiation that proved to come from the key that it names.
#[derive(Debug)]
pub struct Received {
    state: FirstReceived,
    initiator: PublicIdentity,
    sender: SessionIndex,
    payload: InitiationPayload,
}

impl Received {
    /// Reads an initiation, at the cost of two X25519 operations. The caller has checked its MACs.
    /// Returns a [`HandshakeError`].
    pub fn read(identity: &Identity, datagram: &[u8]) -> Result<Self, HandshakeError> {
        let initiation = Initiation::parse(datagram)?;
        let prologue = prologue(initiation.header, &identity.node_id());
        let (state, payload) = ik::read_first(&prologue, identity.x25519(), initiation.noise)?;
        let (payload, ed25519) = InitiationPayload::parse(&payload).ok_or(HandshakeError::Payload)?;
        let initiator =
            PublicIdentity::from_keys(*state.initiator(), ed25519).map_err(|_| HandshakeError::Payload)?;
        Ok(Self { state, initiator, sender: initiation.sender, payload })
    }

    /// Returns the initiator. Its X25519 key is proved; the Ed25519 key is only that key holder's claim.
    pub fn initiator(&self) -> &PublicIdentity {
        &self.initiator
    }

    /// Returns the initiator's index for the session.
    pub fn sender(&self) -> SessionIndex {
        self.sender
    }

    /// Returns the payload.
    pub fn payload(&self) -> &InitiationPayload {
        &self.payload
    }

    /// Returns the answer to an initiation that is not newer than `newest`, which its sender has used before.
    /// `nonce` is random.
    ///
    /// Only the sender of this very initiation can read the answer, and only its receiver can make it.
    pub fn stale_reply(&self, newest: Timestamp, nonce: [u8; 24]) -> StaleReply {
        stale::seal(self.state.symmetric(), self.sender, newest, nonce)
    }

    /// Appends a response to `out`, except for the MACs, at the cost of two X25519 operations.
    ///
    /// `ephemeral` is 32 random bytes, never used again; `index` is the one that reaches this side.
    /// Returns [`HandshakeError::Unauthentic`] if a key of the initiator is of low order.
    pub fn respond(
        self,
        psk: &Psk,
        mut ephemeral: [u8; 32],
        index: SessionIndex,
        suite: Suite,
        payload: &ResponsePayload,
        out: &mut Vec<u8>,
    ) -> Result<SessionKeys, HandshakeError> {
        // The header enters the transcript, so the suite cannot be replaced by a weaker one on the way.
        let header = Response::header(suite, self.sender, index);
        let start = out.len();
        out.extend_from_slice(&header);
        let secret = StaticSecret::from(ephemeral);
        ephemeral.zeroize();
        let split = self
            .state
            .write_second(&header, psk.as_bytes(), &secret, &payload.emit(), out)
            .inspect_err(|_| out.truncate(start))?;
        Ok(SessionKeys::new(&split, false, suite, index, self.sender))
    }
}

/// Result of a handshake. Erased on drop, never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SessionKeys {
    /// Key for packets that this side sends.
    pub send: [u8; 32],
    /// Key for packets that this side receives.
    pub receive: [u8; 32],
    /// Handshake hash: the same on both sides, and unique to this handshake.
    pub hash: [u8; 32],
    /// Suite of both keys.
    #[zeroize(skip)]
    pub suite: Suite,
    /// True if this side began.
    #[zeroize(skip)]
    pub initiator: bool,
    /// Index of this side.
    #[zeroize(skip)]
    pub index: SessionIndex,
    /// Index of the other side.
    #[zeroize(skip)]
    pub remote_index: SessionIndex,
}

impl SessionKeys {
    fn new(
        split: &Split,
        initiator: bool,
        suite: Suite,
        index: SessionIndex,
        remote_index: SessionIndex,
    ) -> Self {
        let (send, receive) =
            if initiator { (split.initiator, split.responder) } else { (split.responder, split.initiator) };
        Self { send, receive, hash: split.hash, suite, initiator, index, remote_index }
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKeys")
            .field("suite", &self.suite)
            .field("initiator", &self.initiator)
            .field("index", &self.index)
            .field("remote_index", &self.remote_index)
            .field("keys", &"[redacted]")
            .finish()
    }
}

/// Returns the first input of both sides' transcripts. The node ID brings in the responder's Ed25519 key.
fn prologue(header: &[u8], responder: &NodeId) -> Vec<u8> {
    [PROLOGUE_LABEL, header, responder.as_bytes()].concat()
}

/// Reason why a handshake message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The datagram does not have the message's form.
    #[error("malformed handshake message: {0}")]
    Malformed(#[from] ParseError),
    /// The message is for another node, altered, or made with another network key.
    #[error("the handshake message is not authentic")]
    Unauthentic,
    /// The message is authentic, but its content is invalid.
    #[error("the handshake message has an invalid payload")]
    Payload,
}

impl From<Unauthentic> for HandshakeError {
    fn from(_: Unauthentic) -> Self {
        Self::Unauthentic
    }
}
