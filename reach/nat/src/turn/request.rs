//! Requests to the server, and the meaning of its refusals.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock_primitives::is_deceptive;
use stun_types::attribute::{AlternateServer, ErrorCode};
use stun_types::message::{Message, MessageWriteVec};

use super::Failure;
use super::message::{self as wire, ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, PEER_ADDRESS, REFRESH};
use super::peers::Ask;
use crate::stun::canonical;

/// Wait until the first retransmission of a request; it doubles (RFC 8489, 6.2.1).
const FIRST_RETRANSMISSION_WAIT: Duration = Duration::from_millis(500);

/// Number of transmissions; the request times out after 15.5 s. RFC 8489 has seven and 39.5 s, which is too
/// long to wait for a path.
const MAX_TRANSMISSIONS: u32 = 5;

/// Timeout over TCP, which retransmits by itself: the same total as over UDP.
const STREAM_WAIT: Duration = Duration::from_millis(15_500);

/// The requested lifetime in seconds: RFC 8656's default.
const LIFETIME: u32 = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Allocate,
    Refresh,
    Ask(Ask),
}

/// A pending request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) purpose: Purpose,
    pub(super) data: Vec<u8>,
    pub(super) next: Instant,
    wait: Duration,
    left: u32,
    /// Number of immediate retries with a new signature.
    pub(super) signed: u32,
    pub(super) is_signed: bool,
    /// True if its next retransmission needs a new signature.
    pub(super) is_stale: bool,
    /// The failure in an unsigned answer, which applies if no better answer arrives.
    pub(super) doubtful: Option<Failure>,
}

impl Request {
    /// Makes a request that is sent now.
    pub(super) fn new(purpose: Purpose, data: Vec<u8>, signed: u32, is_signed: bool, now: Instant) -> Self {
        let (next, wait, left) =
            (now + FIRST_RETRANSMISSION_WAIT, FIRST_RETRANSMISSION_WAIT, MAX_TRANSMISSIONS - 1);
        Self { purpose, data, next, wait, left, signed, is_signed, is_stale: false, doubtful: None }
    }

    /// Limits the request to one transmission, because the stream retransmits it (RFC 8489, 6.2.2).
    pub(super) fn once(mut self, now: Instant) -> Self {
        (self.next, self.left) = (now + STREAM_WAIT, 0);
        self
    }

    /// Counts a retransmission; returns false if the limit is reached.
    pub(super) fn repeat(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.wait *= 2;
        self.next = now + self.wait;
        true
    }
}

impl Purpose {
    /// Encodes the request, without a signature.
    pub(super) fn message(self, is_ipv4: bool, id: u128) -> MessageWriteVec {
        match self {
            Self::Allocate => {
                let mut message = wire::request(ALLOCATE, id);
                wire::add_transport(&mut message);
                wire::add_lifetime(&mut message, LIFETIME);
                // RFC 8656 (7.1): without this attribute the server allocates an IPv4 address.
                if !is_ipv4 {
                    wire::add_ipv6(&mut message);
                }
                message
            }
            Self::Refresh => {
                let mut message = wire::request(REFRESH, id);
                wire::add_lifetime(&mut message, LIFETIME);
                message
            }
            Self::Ask(Ask::Permission(ip)) => {
                let mut message = wire::request(CREATE_PERMISSION, id);
                wire::add_address(&mut message, PEER_ADDRESS, SocketAddr::new(ip, 0), id);
                message
            }
            Self::Ask(Ask::Channel(peer, number)) => {
                let mut message = wire::request(CHANNEL_BIND, id);
                wire::add_channel(&mut message, number);
                wire::add_address(&mut message, PEER_ADDRESS, peer, id);
                message
            }
        }
    }
}

/// Returns the error code of a refusal (0 if it has none) and its meaning.
pub(super) fn refusal(response: &Message<'_>) -> (u16, Failure) {
    let Ok(error) = response.attribute::<ErrorCode>() else { return (0, Failure::Nonsense) };
    let why = match error.code() {
        ErrorCode::UNAUTHORIZED | ErrorCode::WRONG_CREDENTIALS => Failure::Unauthorized,
        ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED => Failure::NoFamily,
        ErrorCode::TRY_ALTERNATE => {
            let other = response.attribute::<AlternateServer>().map(|other| canonical(other.server()));
            other.map_or(Failure::Nonsense, Failure::Elsewhere)
        }
        code => {
            // Filter the text, because people see it and the server chooses it.
            let text = error.reason().chars().filter(|c| !is_deceptive(*c)).take(100).collect();
            Failure::Refused(code, text)
        }
    };
    (error.code(), why)
}
