//! The driver's sockets, and which remote addresses they can reach.

use std::net::SocketAddr;

use super::place::{Place, SocketIndex, is_discarded};

/// UDP socket or TURN allocation of the driver, with what the endpoint must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketInfo {
    /// Index that the driver uses for the socket.
    pub index: SocketIndex,
    /// True if it sends to and receives from IPv4 addresses; otherwise IPv6.
    pub ipv4: bool,
    /// True if it reaches this machine only.
    pub loopback: bool,
    /// Largest UDP payload the socket can send without fragmentation, in bytes. The driver sets "don't
    /// fragment"; without it path MTU discovery finds sizes that are too large.
    pub max_datagram: usize,
    /// Multicast groups and broadcast addresses for beacons; empty turns local discovery off here.
    pub beacon_targets: Vec<SocketAddr>,
}

/// Largest datagram that a stream carries, in bytes.
const MAX_STREAM_DATAGRAM: usize = 16_384;

impl SocketInfo {
    /// Returns the entry for a stream to a root or to another node, whose end is the only remote it can
    /// reach.
    pub(crate) fn of_stream(index: SocketIndex) -> Self {
        let max_datagram = MAX_STREAM_DATAGRAM;
        Self { index, ipv4: false, loopback: false, max_datagram, beacon_targets: Vec::new() }
    }
}

/// Returns the socket that can reach `remote`: the one named by `hint` if it fits, else the first that does.
/// For a loopback address, sockets bound to loopback come first. A TURN allocation or an extra socket is
/// returned only if the hint names it, and such a hint excludes all other sockets.
pub(crate) fn socket_for<'a>(
    sockets: &'a [SocketInfo],
    hint: Option<SocketIndex>,
    remote: &SocketAddr,
) -> Option<&'a SocketInfo> {
    if let Some(only) = hint.filter(|hint| hint.makes_place()) {
        let fits = |socket: &&SocketInfo| socket.index == only && socket.ipv4 == remote.is_ipv4();
        return sockets.iter().find(fits);
    }
    let local = remote.ip().is_loopback();
    let fits = |socket: &&SocketInfo| match socket.index.stream_end() {
        Some(end) => end == *remote,
        None => {
            // Addresses in 100::/64 are ends of streams, which no UDP socket reaches.
            let is_possible = !socket.index.makes_place() && !is_discarded(&remote.ip());
            is_possible && socket.ipv4 == remote.is_ipv4() && (local || !socket.loopback)
        }
    };
    sockets
        .iter()
        .filter(fits)
        .find(|socket| Some(socket.index) == hint)
        .or_else(|| sockets.iter().filter(fits).find(|socket| socket.loopback == local))
        .or_else(|| sockets.iter().find(fits))
}

/// Returns the place of `remote`, from the socket that [`socket_for`] finds.
pub(crate) fn place_of(
    sockets: &[SocketInfo],
    hint: Option<SocketIndex>,
    remote: SocketAddr,
) -> Option<Place> {
    let socket = socket_for(sockets, hint, &remote)?.index;
    Some(Place::Direct { socket, remote })
}

/// Returns the same place from an existing socket.
pub(crate) fn usable(sockets: &[SocketInfo], place: &Place) -> Option<Place> {
    match *place {
        Place::Direct { socket, remote } => place_of(sockets, Some(socket), remote),
        // A root accepts frames only from the address under which it knows this node, so no other socket can
        // replace it.
        Place::Relayed { socket, .. } => sockets.iter().any(|one| one.index == socket).then_some(*place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

        let stream = SocketIndex::stream(3).0;
        let with_stream = [socket(0, true, false), socket(2, false, false), socket(stream, false, false)];
        let find = |remote: &str| socket_for(&with_stream, None, &remote.parse().unwrap()).map(|s| s.index.0);
        assert_eq!(find("[2001:db8::1]:1"), Some(2));
        assert_eq!((find("[100::3]:1"), find("[100::4]:1")), (Some(stream), None), "a stream has one end");

        let turn = SocketIndex::turn(0).0;
        let with_turn = [socket(turn, true, false), socket(0, true, false), socket(2, false, false)];
        let find = |hint: Option<u16>, remote: &str| {
            socket_for(&with_turn, hint.map(SocketIndex), &remote.parse().unwrap()).map(|s| s.index.0)
        };
        assert_eq!((find(None, "192.0.2.1:1"), find(Some(turn), "192.0.2.1:1")), (Some(0), Some(turn)));
        assert_eq!(find(Some(turn), "[2001:db8::1]:1"), None, "another family is no reason to go straight");
        assert_eq!(find(Some(turn + 1), "192.0.2.1:1"), None, "neither is an allocation that is gone");
    }

    fn socket(index: u16, ipv4: bool, loopback: bool) -> SocketInfo {
        let index = SocketIndex(index);
        SocketInfo { index, ipv4, loopback, max_datagram: 1472, beacon_targets: Vec::new() }
    }
}
