//! Peers and the paths to them.

use libc::{c_char, size_t, sockaddr_storage};
use peersock::overlay::NodeId;
use peersock::{Node, PeerStatus, Presence};

use crate::boundary::answer;
use crate::networks::{read_id, storage};
use crate::node::PEERSOCK_ID_SIZE;
use crate::registry::{find, peersock_node};
use crate::result::{Failure, PEERSOCK_E_NOT_FOUND, peersock_result};
use crate::text;

/// A peer in one network. Later versions may add members at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct peersock_peer {
    /// The network.
    pub network: u64,
    /// Its node ID.
    pub id: [c_char; PEERSOCK_ID_SIZE],
    /// Whether there is a session with it: packets flow.
    pub connected: bool,
    /// Its first address in the network.
    pub address: sockaddr_storage,
    /// Where its packets are sent now, which is a root's address if one relays; `ss_family` is AF_UNSPEC if
    /// that is not known.
    pub path: sockaddr_storage,
    /// How many addresses it has in the network.
    pub addresses: u32,
    /// Where else it may be: how many, see `peersock_paths()`.
    pub candidates: u32,
    /// The largest UDP payload known to pass on the path, bytes; 0 if unknown.
    pub datagram_size: u32,
    /// The path's smoothed round-trip time, microseconds; 0 if unknown.
    pub rtt_us: u32,
    /// The session's age, milliseconds.
    pub session_age_ms: u64,
    /// Packets sent in the session.
    pub sent_packets: u64,
    /// Bytes sent in the session.
    pub sent_bytes: u64,
    /// Packets received in the session.
    pub received_packets: u64,
    /// Bytes received in the session.
    pub received_bytes: u64,
    /// Whether it is there: one of the `PEERSOCK_PEER_` constants; later versions may add some.
    pub state: u32,
    /// Bits: `PEERSOCK_PEER_CONFLICT`, `PEERSOCK_PEER_RELAYED`, `PEERSOCK_PEER_TURN`; later versions may add
    /// some.
    pub flags: u32,
    /// How long ago it last proved to be there, by an authentic packet or handshake, milliseconds; UINT64_MAX
    /// if never.
    pub last_seen_ms: u64,
    /// How long ago local discovery last heard of it, which proves nothing, milliseconds; UINT64_MAX if
    /// never.
    pub last_heard_ms: u64,
    /// Packets sent in all sessions with it since the node learned of it.
    pub total_sent_packets: u64,
    /// Bytes sent in all of them.
    pub total_sent_bytes: u64,
    /// Packets received in all of them.
    pub total_received_packets: u64,
    /// Bytes received in all of them.
    pub total_received_bytes: u64,
    /// Packets of the peer that have not come though later ones have: lost on the way, or late.
    pub total_lost_packets: u64,
}

/// Size of a peer in the first version of the library that had one, bytes.
const FIRST_PEER: size_t = 456;

/// There is a session with the peer.
pub const PEERSOCK_PEER_CONNECTED: u32 = 1;

/// There is no session with the peer; one is made when something is sent.
pub const PEERSOCK_PEER_KNOWN: u32 = 2;

/// The peer has said goodbye; or, in an ad-hoc network, nothing was heard of it for two minutes.
pub const PEERSOCK_PEER_GONE: u32 = 3;

/// Two nodes run with the peer's identity, and connections reach the one or the other.
pub const PEERSOCK_PEER_CONFLICT: u32 = 1;

/// A root relays what goes to the peer and comes from it.
pub const PEERSOCK_PEER_RELAYED: u32 = 2;

/// A TURN server relays: this node's, or the peer's as far as it has said so.
pub const PEERSOCK_PEER_TURN: u32 = 4;

/// The peers known now in a network, or with 0 in all: as many as fit, and in `*count` how many there are.
/// `size` is `sizeof(peersock_peer)`, which tells the library with which version of it the program was built:
/// members that this library does not know are zeros.
///
/// # Safety
/// `peers` is NULL or has room for `capacity` peers; `count` is NULL or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_peers(
    node: peersock_node,
    network: u64,
    peers: *mut peersock_peer,
    size: size_t,
    capacity: size_t,
    count: *mut size_t,
) -> peersock_result {
    answer(|| {
        let wanted = if network == 0 { None } else { Some(read_id(network)?) };
        let known = find(node)?.run(Node::peers)?;
        let chosen = known.iter().filter(|peer| wanted.is_none_or(|wanted| peer.network == wanted));
        let chosen: Vec<_> = chosen.map(describe).collect();
        // SAFETY: the caller's.
        unsafe { text::put_sized(&chosen, peers, (size, FIRST_PEER), capacity, count) }
    })
}

/// The addresses of a peer in a network: as many as fit, and in `*count` how many there are.
///
/// # Safety
/// `id` is NULL or a C string; `addresses` is NULL or has room for `capacity` addresses; `count` is NULL or
/// has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_peer_addresses(
    node: peersock_node,
    network: u64,
    id: *const c_char,
    addresses: *mut sockaddr_storage,
    capacity: size_t,
    count: *mut size_t,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let peer = unsafe { find_peer(node, network, id) }?;
        let found = peer.addresses.iter().map(|ip| storage((*ip, 0).into())).collect();
        // SAFETY: the caller's.
        unsafe { text::put_all(found, addresses, capacity, count) }
    })
}

/// The name of a peer, as the file of its static network gives it, with a final zero. PEERSOCK_E_NOT_FOUND if
/// it has none.
///
/// # Safety
/// `id` is NULL or a C string; `name` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_peer_name(
    node: peersock_node,
    network: u64,
    id: *const c_char,
    name: *mut c_char,
    size: size_t,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let peer = unsafe { find_peer(node, network, id) }?;
        let missing = || Failure::new(PEERSOCK_E_NOT_FOUND, format!("peer {} has no name", peer.id));
        // SAFETY: the caller's.
        unsafe { text::write(peer.name.as_deref().ok_or_else(missing)?, name, size) }
    })
}

/// The ways to a peer: the one that packets take now, if there is one, then where else it may be. As many as
/// fit, and in `*count` how many there are.
///
/// # Safety
/// `id` is NULL or a C string; `paths` is NULL or has room for `capacity` addresses; `count` is NULL or has
/// room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_paths(
    node: peersock_node,
    network: u64,
    id: *const c_char,
    paths: *mut sockaddr_storage,
    capacity: size_t,
    count: *mut size_t,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let peer = unsafe { find_peer(node, network, id) }?;
        let others = peer.candidates.iter().filter(|candidate| Some(**candidate) != peer.path);
        let found = peer.path.iter().chain(others).map(|path| storage(*path)).collect();
        // SAFETY: the caller's.
        unsafe { text::put_all(found, paths, capacity, count) }
    })
}

/// # Safety
/// `id` is null or a C string.
unsafe fn find_peer(node: peersock_node, network: u64, id: *const c_char) -> Result<PeerStatus, Failure> {
    let network = read_id(network)?;
    // SAFETY: the caller's.
    let id: NodeId = unsafe { text::read(id, "the node ID") }?
        .parse()
        .map_err(|error: peersock::overlay::ParseNodeIdError| Failure::invalid(error.to_string()))?;
    let peers = find(node)?.run(Node::peers)?;
    peers
        .into_iter()
        .find(|peer| peer.network == network && peer.id == id)
        .ok_or_else(|| Failure::new(PEERSOCK_E_NOT_FOUND, format!("no peer {id} in network {network}")))
}

fn describe(peer: &PeerStatus) -> peersock_peer {
    // SAFETY: any bytes, zeros too, are a `sockaddr_storage`, whose family then is AF_UNSPEC.
    let nowhere: sockaddr_storage = unsafe { std::mem::zeroed() };
    let traffic = peer.traffic.as_ref();
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let ago = |seconds: Option<f64>| seconds.map_or(u64::MAX, |seconds| (seconds * 1e3) as u64);
    peersock_peer {
        network: peer.network.as_u64(),
        id: text::fixed(&peer.id.to_string()),
        connected: peer.connected,
        address: peer.addresses.first().map_or(nowhere, |ip| storage((*ip, 0).into())),
        path: peer.path.map_or(nowhere, storage),
        addresses: count(peer.addresses.len()),
        candidates: count(peer.candidates.len()),
        datagram_size: count(peer.datagram_size.unwrap_or(0)),
        rtt_us: peer.rtt_ms.map_or(0, |rtt| (rtt * 1e3) as u32),
        session_age_ms: peer.session_age_s.map_or(0, |age| (age * 1e3) as u64),
        sent_packets: traffic.map_or(0, |traffic| traffic.sent_packets),
        sent_bytes: traffic.map_or(0, |traffic| traffic.sent_bytes),
        received_packets: traffic.map_or(0, |traffic| traffic.received_packets),
        received_bytes: traffic.map_or(0, |traffic| traffic.received_bytes),
        state: match peer.state {
            Presence::Connected => PEERSOCK_PEER_CONNECTED,
            Presence::Gone => PEERSOCK_PEER_GONE,
            _ => PEERSOCK_PEER_KNOWN,
        },
        flags: [
            (peer.conflict.is_some(), PEERSOCK_PEER_CONFLICT),
            (peer.root.is_some(), PEERSOCK_PEER_RELAYED),
            (peer.turn, PEERSOCK_PEER_TURN),
        ]
        .into_iter()
        .filter_map(|(is_set, flag)| is_set.then_some(flag))
        .sum(),
        last_seen_ms: ago(peer.last_seen_s),
        last_heard_ms: ago(peer.last_heard_s),
        total_sent_packets: peer.total_traffic.sent_packets,
        total_sent_bytes: peer.total_traffic.sent_bytes,
        total_received_packets: peer.total_traffic.received_packets,
        total_received_bytes: peer.total_traffic.received_bytes,
        total_lost_packets: peer.total_traffic.lost_packets,
    }
}
