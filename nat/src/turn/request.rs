//! Requests to the server, and what its refusals mean.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock_primitives::is_deceptive;
use stun_types::attribute::{AlternateServer, ErrorCode};
use stun_types::message::{Message, MessageWriteVec};

use super::Failure;
use super::message::{self as wire, ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, PEER_ADDRESS, REFRESH};
use super::peers::Ask;
use crate::stun::canonical;

/// RFC 8489 (6.2.1): the first repetition of a request; the wait doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// So often a request is sent; it is given up after 15.5 s. RFC 8489 has seven and 39.5 s, which is longer
/// than anybody waits for a path.
const TIMES: u32 = 5;

/// How long an answer is waited for over TCP, which repeats what is lost itself: as long as over UDP in all.
const STREAM_WAIT: Duration = Duration::from_millis(15_500);

/// The lifetime that is asked for, seconds: RFC 8656's default.
const LIFETIME: u32 = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Allocate,
    Refresh,
    Ask(Ask),
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) purpose: Purpose,
    pub(super) data: Vec<u8>,
    pub(super) next: Instant,
    wait: Duration,
    left: u32,
    /// How often it was signed anew at once.
    pub(super) signed: u32,
    pub(super) is_signed: bool,
    /// Whether its next repetition is to be signed anew.
    pub(super) is_stale: bool,
    /// What an answer without a signature says, which holds if no better one comes.
    pub(super) doubtful: Option<Failure>,
}

impl Request {
    /// One that is sent now.
    pub(super) fn new(purpose: Purpose, data: Vec<u8>, signed: u32, is_signed: bool, now: Instant) -> Self {
        let (next, wait, left) = (now + FIRST_WAIT, FIRST_WAIT, TIMES - 1);
        Self { purpose, data, next, wait, left, signed, is_signed, is_stale: false, doubtful: None }
    }

    /// Has it sent once only, because what carries it repeats it (RFC 8489, 6.2.2).
    pub(super) fn once(mut self, now: Instant) -> Self {
        (self.next, self.left) = (now + STREAM_WAIT, 0);
        self
    }

    /// Notes that it is sent again; false if it was sent often enough.
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
    /// The request, without a signature.
    pub(super) fn message(self, is_ipv4: bool, id: u128) -> MessageWriteVec {
        match self {
            Self::Allocate => {
                let mut message = wire::request(ALLOCATE, id);
                wire::add_transport(&mut message);
                wire::add_lifetime(&mut message, LIFETIME);
                // RFC 8656 (7.1): without it the server gives an IPv4 address.
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

/// The error code of a refusal, 0 if it has none, and what it means.
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
            // It is shown to people, and the server chooses it.
            let text = error.reason().chars().filter(|c| !is_deceptive(*c)).take(100).collect();
            Failure::Refused(code, text)
        }
    };
    (error.code(), why)
}
