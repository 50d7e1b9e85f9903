use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::{TAG, hash};
use crate::id::NodeId;
use crate::wire::SessionIndex;
use crate::wire::{Channel, CookieReply};

const MAC1_LABEL: &[u8] = b"peersock mac1 v1";
const COOKIE_LABEL: &[u8] = b"peersock cookie v1";

/// Length of each MAC and of a cookie, in bytes.
const MAC: usize = 16;
/// Time for which a cookie's receiver uses it; its maker accepts it for at least that long, and at most
/// twice.
const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

/// Source of a handshake message, as cookies and limits distinguish them: an address, or a node behind a
/// relaying root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Source address: the root's, if one relays.
    pub remote: SocketAddr,
    /// Channel of the sender, by the root's word alone; `None` if no root relays.
    pub channel: Option<Channel>,
}

impl From<SocketAddr> for Origin {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, channel: None }
    }
}

/// Maker of the MACs of handshake messages to one peer, with the cookie that the peer gave us.
pub struct MacWriter {
    keys: Keys,
    /// MAC1 of the last message, to which a cookie reply refers.
    last_mac1: Option<[u8; MAC]>,
    cookie: Option<Cookie>,
}

struct Cookie {
    value: [u8; MAC],
    received: Instant,
}

impl MacWriter {
    /// Creates the MACs' maker for messages to `remote`.
    pub fn new(remote: &NodeId) -> Self {
        Self { keys: Keys::of(remote), last_mac1: None, cookie: None }
    }

    /// Appends MAC1 and MAC2 to a message that is otherwise complete and begins at the start of the vector.
    ///
    /// MAC2 is zero unless the peer gave us a cookie in the last 120 seconds.
    pub fn append(&mut self, now: Instant, message: &mut Vec<u8>) {
        let mac1 = hash::mac16(&self.keys.mac1, &[message]);
        message.extend_from_slice(&mac1);
        self.last_mac1 = Some(mac1);

        // An old cookie would fail, and the peer would send another one for it.
        self.cookie.take_if(|c| now.saturating_duration_since(c.received) >= COOKIE_LIFETIME);
        let mac2 = self.cookie.as_ref().map_or([0; MAC], |c| hash::mac16(&c.value, &[message]));
        message.extend_from_slice(&mac2);
    }

    /// Takes the cookie out of a reply to the last message. Returns `false` if it is no such reply.
    ///
    /// Only one reply per message is accepted, so that a flood of forged ones costs little.
    pub fn receive_cookie(&mut self, now: Instant, reply: &CookieReply) -> bool {
        let Some(mac1) = self.last_mac1 else { return false };
        let (mut value, tag) = split(&reply.sealed);
        let opened = XChaCha20Poly1305::new((&self.keys.cookie).into()).decrypt_inout_detached(
            &reply.nonce.into(),
            &mac1,
            (&mut value[..]).into(),
            &tag.into(),
        );
        if opened.is_err() {
            return false;
        }
        self.last_mac1 = None;
        self.cookie = Some(Cookie { value, received: now });
        true
    }
}

impl fmt::Debug for MacWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacWriter").field("has_cookie", &self.cookie.is_some()).finish_non_exhaustive()
    }
}

/// Checker of the MACs of handshake messages to this node, and maker of cookies. It keeps no state per
/// sender.
///
/// A cookie is a keyed hash of the sender's address and port under a secret that changes every 120 seconds.
pub struct CookieJar {
    keys: Keys,
    seed: [u8; 32],
    base: Instant,
}

impl CookieJar {
    /// Creates a jar for messages to `local`. `seed` is random and used for nothing else.
    pub fn new(local: &NodeId, seed: [u8; 32], now: Instant) -> Self {
        Self { keys: Keys::of(local), seed, base: now }
    }

    /// Returns true if the sender knows this node's ID. It costs one hash, so it is checked first.
    pub fn check_mac1(&self, datagram: &[u8]) -> bool {
        let Some((body, mac1, _)) = split_macs(datagram) else { return false };
        hash::mac16(&self.keys.mac1, &[body]).ct_eq(mac1).into()
    }

    /// Returns true if the sender has a cookie for `origin`, and so receives there.
    pub fn check_mac2(&self, now: Instant, origin: impl Into<Origin>, datagram: &[u8]) -> bool {
        let origin = origin.into();
        let Some((_, _, mac2)) = split_macs(datagram) else { return false };
        let body = &datagram[..datagram.len() - MAC];
        let epoch = self.epoch(now);
        // The previous secret counts too, because a cookie made just before the change would otherwise be
        // useless.
        [Some(epoch), epoch.checked_sub(1)].into_iter().flatten().any(|epoch| {
            let cookie = self.cookie(epoch, origin);
            // In constant time, because a forger could otherwise find a valid MAC byte by byte.
            bool::from(hash::mac16(&cookie, &[body]).ct_eq(mac2))
        })
    }

    /// Returns the reply to a handshake message with a good MAC1, or `None` if the message is too short.
    ///
    /// `sender` is the message's sender index, and `nonce` is random.
    pub fn reply(
        &self,
        now: Instant,
        origin: impl Into<Origin>,
        datagram: &[u8],
        sender: SessionIndex,
        nonce: [u8; 24],
    ) -> Option<CookieReply> {
        let (_, mac1, _) = split_macs(datagram)?;
        let mut sealed = [0; MAC + TAG];
        sealed[..MAC].copy_from_slice(&self.cookie(self.epoch(now), origin.into()));
        let (value, tag) = sealed.split_at_mut(MAC);
        // MAC1 as associated data binds the reply to one message, so that it cannot be replayed for another.
        let made = XChaCha20Poly1305::new((&self.keys.cookie).into())
            .encrypt_inout_detached(&nonce.into(), mac1, value.into())
            .expect("sealing fails only beyond 256 GiB");
        tag.copy_from_slice(&made);
        Some(CookieReply { receiver: sender, nonce, sealed })
    }

    fn epoch(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.base).as_secs() / COOKIE_LIFETIME.as_secs()
    }

    fn cookie(&self, epoch: u64, Origin { remote, channel }: Origin) -> [u8; MAC] {
        let secret = hash::keyed(&self.seed, &[&epoch.to_be_bytes()]);
        let port = remote.port().to_be_bytes();
        // No two origins have the same input, because with and without a channel the lengths differ.
        let channel = channel.map(|channel| channel.0.to_be_bytes());
        let channel = channel.as_ref().map_or(&[][..], |bytes| bytes);
        // An IPv4 address must be the same whether its socket is IPv4 or dual-stack.
        match remote.ip().to_canonical() {
            IpAddr::V4(ip) => hash::mac16(&secret, &[&ip.octets(), &port, channel]),
            IpAddr::V6(ip) => hash::mac16(&secret, &[&ip.octets(), &port, channel]),
        }
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieJar([redacted])")
    }
}

impl Drop for CookieJar {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

/// Keys of the MAC1 and cookies for one node. Any node that knows its ID can derive them.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Keys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl Keys {
    fn of(node: &NodeId) -> Self {
        Self {
            mac1: hash::hash(&[MAC1_LABEL, node.as_bytes()]),
            cookie: hash::hash(&[COOKIE_LABEL, node.as_bytes()]),
        }
    }
}

/// Returns body, MAC1 and MAC2.
fn split_macs(datagram: &[u8]) -> Option<(&[u8], &[u8; MAC], &[u8; MAC])> {
    let (rest, mac2) = datagram.split_last_chunk()?;
    let (body, mac1) = rest.split_last_chunk()?;
    Some((body, mac1, mac2))
}

/// Returns the sealed cookie and the tag.
fn split(sealed: &[u8; MAC + TAG]) -> ([u8; MAC], [u8; TAG]) {
    let (value, tag) = sealed.split_at(MAC);
    (value.try_into().expect("the first half"), tag.try_into().expect("the second half"))
}
