//! Where a peer may be: candidate endpoints, and how much may be sent to those that nobody vouched for.
//!
//! A candidate is *proven* once a packet from it showed that its owner receives there: a handshake completed, a hello
//! that repeats our nonce, or it was configured. To any other address at most as many bytes are sent as came from it
//! (the amplification limit of RFC 9000 section 8, at factor 1), so that a forged source address makes no traffic
//! for its victim that the forger did not pay for himself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use super::peers::PeerKey;
use crate::session::{RecvMeta, SocketIndex};

/// Most candidates kept per peer. The one heard from least recently makes room, unproven ones first; configured
/// endpoints stay.
pub(super) const MAX_CANDIDATES: usize = 8;

/// One UDP socket of the driver, as the endpoint must know it.
///
/// ```
/// use peersock_overlay::{SocketIndex, SocketInfo};
///
/// let socket = SocketInfo {
///     index: SocketIndex(0),
///     ipv4: true,
///     loopback: false,
///     max_datagram: 8972,
///     beacon_targets: vec!["239.255.77.77:7777".parse()?],
/// };
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketInfo {
    /// The driver's name for the socket.
    pub index: SocketIndex,
    /// Sends to and receives from IPv4 addresses; otherwise IPv6.
    pub ipv4: bool,
    /// Reaches this machine only.
    pub loopback: bool,
    /// Largest UDP payload the socket can send without fragmentation, in bytes. The driver sets "don't fragment";
    /// without it path MTU discovery finds too large sizes.
    pub max_datagram: usize,
    /// Multicast groups and broadcast addresses to send beacons to; empty turns local discovery off here.
    pub beacon_targets: Vec<SocketAddr>,
}

/// Finds the socket that can reach `remote`: the one named by `hint` if it fits, else the first that does, and for a
/// loopback address one that is bound to loopback before others.
pub(super) fn socket_for<'a>(
    sockets: &'a [SocketInfo],
    hint: Option<SocketIndex>,
    remote: &SocketAddr,
) -> Option<&'a SocketInfo> {
    let local = remote.ip().is_loopback();
    let fits = |socket: &&SocketInfo| socket.ipv4 == remote.is_ipv4() && (local || !socket.loopback);
    sockets
        .iter()
        .filter(fits)
        .find(|socket| Some(socket.index) == hint)
        .or_else(|| sockets.iter().filter(fits).find(|socket| socket.loopback == local))
        .or_else(|| sockets.iter().find(fits))
}

/// Where peers are reached now, or were until their last session ended. One address may be that of several: of one node
/// in several networks.
#[derive(Debug, Default)]
pub(super) struct LivePaths(BTreeSet<(SocketAddr, PeerKey)>);

impl LivePaths {
    pub(super) fn add(&mut self, remote: SocketAddr, peer: PeerKey) {
        self.0.insert((remote, peer));
    }

    pub(super) fn remove(&mut self, remote: SocketAddr, peer: PeerKey) {
        self.0.remove(&(remote, peer));
    }

    pub(super) fn contains(&self, remote: &SocketAddr) -> bool {
        self.0.range((*remote, PeerKey::FIRST)..).next().is_some_and(|(found, _)| found == remote)
    }
}

/// The places at which one peer may be reached.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
}

#[derive(Debug, Clone)]
struct Candidate {
    remote: SocketAddr,
    /// The socket it was heard on; none for a configured endpoint that never answered.
    socket: Option<SocketIndex>,
    configured: bool,
    proven: bool,
    /// Bytes that may still be sent while it is not proven.
    credit: usize,
    heard: Option<Instant>,
}

impl Candidate {
    /// Takes `bytes` from what may be sent here, if that is allowed.
    fn spend(&mut self, bytes: usize) -> bool {
        if self.proven || self.configured {
            return true;
        }
        match self.credit.checked_sub(bytes) {
            Some(rest) => self.credit = rest,
            None => return false,
        }
        true
    }
}

impl Candidates {
    /// Adds an endpoint that the user configured.
    pub(super) fn add_configured(&mut self, remote: SocketAddr) {
        if let Some(candidate) = self.list.iter_mut().find(|candidate| candidate.remote == remote) {
            candidate.configured = true;
        } else if self.list.iter().filter(|candidate| candidate.configured).count() < MAX_CANDIDATES {
            self.make_room();
            self.list.push(Candidate {
                remote,
                socket: None,
                configured: true,
                proven: false,
                credit: 0,
                heard: None,
            });
        }
    }

    /// Replaces the configured endpoints. One that is not configured any more stays only if the peer was
    /// heard there. Returns those that are new.
    pub(super) fn set_configured(&mut self, remotes: &[SocketAddr]) -> Vec<SocketAddr> {
        for candidate in &mut self.list {
            candidate.configured &= remotes.contains(&candidate.remote);
        }
        self.list.retain(|candidate| candidate.configured || candidate.heard.is_some());
        let is_new = |remote: &SocketAddr| !self.remotes().any(|known| known == *remote);
        let new: Vec<_> = remotes.iter().copied().filter(is_new).collect();
        remotes.iter().for_each(|remote| self.add_configured(*remote));
        new
    }

    /// Notes that `bytes` came from there and seemed to be from this peer. `proven` says that whoever sent them
    /// receives there too. Earlier unspent credit does not add up.
    pub(super) fn heard(&mut self, meta: &RecvMeta, bytes: usize, proven: bool, now: Instant) {
        let remote = meta.remote;
        let at = match self.list.iter().position(|candidate| candidate.remote == remote) {
            Some(at) => at,
            None => {
                self.make_room();
                self.list.push(Candidate {
                    remote,
                    socket: None,
                    configured: false,
                    proven,
                    credit: 0,
                    heard: None,
                });
                self.list.len() - 1
            }
        };
        let candidate = &mut self.list[at];
        candidate.socket = Some(meta.socket);
        candidate.proven |= proven;
        candidate.credit = candidate.credit.max(bytes);
        candidate.heard = Some(now);
    }

    /// Whether the peer has shown that it receives somewhere.
    pub(super) fn any_proven(&self) -> bool {
        self.list.iter().any(|candidate| candidate.proven)
    }

    /// Whether the user configured that endpoint.
    pub(super) fn is_configured(&self, remote: &SocketAddr) -> bool {
        self.list.iter().any(|candidate| candidate.configured && candidate.remote == *remote)
    }

    /// Spends `bytes` on one candidate; false if that is not allowed.
    pub(super) fn spend(&mut self, remote: &SocketAddr, bytes: usize) -> bool {
        self.list.iter_mut().find(|candidate| candidate.remote == *remote).is_some_and(|c| c.spend(bytes))
    }

    /// Spends `bytes` on every candidate for which that is allowed and that a socket can reach. Returns where to send
    /// them: proven places first, then those heard from most recently.
    pub(super) fn spend_everywhere(&mut self, bytes: usize, sockets: &[SocketInfo]) -> Vec<RecvMeta> {
        self.list.sort_by_key(|c| (c.proven, c.heard, c.configured, c.remote));
        let target = |candidate: &mut Candidate| {
            let socket = socket_for(sockets, candidate.socket, &candidate.remote)?;
            let meta = RecvMeta { remote: candidate.remote, socket: socket.index, multicast: false };
            candidate.spend(bytes).then_some(meta)
        };
        self.list.iter_mut().rev().filter_map(target).collect()
    }

    pub(super) fn remotes(&self) -> impl Iterator<Item = SocketAddr> + Clone {
        self.list.iter().map(|candidate| candidate.remote)
    }

    fn make_room(&mut self) {
        if self.list.len() < MAX_CANDIDATES {
            return;
        }
        let evict = (0..self.list.len())
            .filter(|&at| !self.list[at].configured)
            .min_by_key(|&at| (self.list[at].proven, self.list[at].heard, self.list[at].remote));
        // With every place taken by configured endpoints, the last of them goes; `add_configured` admits no ninth.
        self.list.remove(evict.unwrap_or(self.list.len() - 1));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::instant;

    #[test]
    fn unproven_candidates_get_back_what_they_sent() {
        let now = instant();
        let mut candidates = Candidates::default();
        candidates.heard(&meta(1), 100, false, now);
        assert!(!candidates.spend(&remote(1), 101));
        assert!(candidates.spend(&remote(1), 60));
        assert!(!candidates.spend(&remote(1), 41));
        // Hearing from it again renews the credit, but saves nothing up.
        candidates.heard(&meta(1), 100, false, now);
        assert!(!candidates.spend(&remote(1), 101));
        candidates.heard(&meta(1), 1, true, now);
        assert!(candidates.spend(&remote(1), 100_000) && candidates.spend(&remote(1), 100_000));
    }

    #[test]
    fn strangers_push_out_strangers_only() {
        let now = instant();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut candidates = Candidates::default();
        candidates.add_configured(remote(1));
        candidates.heard(&meta(2), 1, true, at(0));
        for port in 3..100 {
            candidates.heard(&meta(port), 1, false, at(port.into()));
        }
        let targets = candidates.spend_everywhere(1, &[socket(0, true, false)]);
        let kept: Vec<_> = targets.iter().map(|meta| meta.remote.port()).collect();
        assert_eq!(kept, [2, 99, 98, 97, 96, 95, 94, 1]);
    }

    #[test]
    fn configured_endpoints_are_bounded_too() {
        let mut candidates = Candidates::default();
        (0..20).for_each(|port| candidates.add_configured(remote(port)));
        candidates.heard(&meta(99), 1, false, instant());
        assert_eq!(candidates.remotes().count(), MAX_CANDIDATES);
    }

    #[test]
    fn configured_endpoints_are_replaced_and_those_that_answered_stay() {
        let mut candidates = Candidates::default();
        assert_eq!(candidates.set_configured(&[remote(1), remote(2)]), [remote(1), remote(2)]);
        candidates.heard(&meta(2), 1, true, instant());
        candidates.heard(&meta(3), 1, false, instant());
        assert_eq!(candidates.set_configured(&[remote(4), remote(3)]), [remote(4)]);
        let mut kept: Vec<_> = candidates.remotes().map(|remote| remote.port()).collect();
        kept.sort_unstable();
        assert_eq!(kept, [2, 3, 4]);
        let many: Vec<_> = (0..20).map(remote).collect();
        candidates.set_configured(&many);
        assert_eq!(candidates.remotes().count(), MAX_CANDIDATES);
    }

    #[test]
    fn sockets_match_family_and_reach() {
        let sockets = [socket(0, true, false), socket(1, true, true), socket(2, false, true)];
        let find = |hint: Option<u16>, remote: &str| {
            socket_for(&sockets, hint.map(SocketIndex), &remote.parse().unwrap()).map(|s| s.index.0)
        };
        assert_eq!(find(None, "127.0.0.1:1"), Some(1));
        assert_eq!(find(Some(0), "127.0.0.1:1"), Some(0));
        assert_eq!(find(Some(1), "192.0.2.1:1"), Some(0));
        assert_eq!(find(None, "[::1]:1"), Some(2));
        assert_eq!(find(None, "[2001:db8::1]:1"), None);
    }

    fn socket(index: u16, ipv4: bool, loopback: bool) -> SocketInfo {
        let index = SocketIndex(index);
        SocketInfo { index, ipv4, loopback, max_datagram: 1472, beacon_targets: Vec::new() }
    }

    fn meta(port: u16) -> RecvMeta {
        RecvMeta { remote: remote(port), socket: SocketIndex(0), multicast: false }
    }

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }
}
