//! Peers and the paths to them.

use libc::{c_char, size_t, sockaddr_storage};
use peersock::overlay::NodeId;
use peersock::{PeerStatus, Presence};

use crate::boundary::answer;
use crate::networks::{read_id, storage};
use crate::node::PEERSOCK_ID_SIZE;
use crate::registry::{find, peersock_node};
use crate::result::{Failure, PEERSOCK_E_NOT_FOUND, peersock_result};
use crate::text;

/// Peer in one network. Later versions may add members at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct peersock_peer {
    /// ID of the network.
    pub network: u64,
    /// Node ID of the peer.
    pub id: [c_char; PEERSOCK_ID_SIZE],
    /// True if a session with the peer exists: packets flow.
    pub connected: bool,
    /// First address of the peer in the network.
    pub address: sockaddr_storage,
    /// Current destination of packets to the peer, which is a root's address if a root relays. `ss_family` is
    /// AF_UNSPEC if it is unknown.
    pub path: sockaddr_storage,
    /// Number of addresses of the peer in the network.
    pub addresses: u32,
    /// Number of other possible addresses of the peer; see `peersock_paths()`.
    pub candidates: u32,
    /// Largest UDP payload known to pass on the path, in bytes; 0 if unknown.
    pub datagram_size: u32,
    /// Smoothed round-trip time of the path in microseconds; 0 if unknown.
    pub rtt_us: u32,
    /// Age of the session in milliseconds.
    pub session_age_ms: u64,
    /// Packets sent in the session.
    pub sent_packets: u64,
    /// Bytes sent in the session.
    pub sent_bytes: u64,
    /// Packets received in the session.
    pub received_packets: u64,
    /// Bytes received in the session.
    pub received_bytes: u64,
    /// State of the peer: one of the `PEERSOCK_PEER_` constants; later versions may add some.
    pub state: u32,
    /// Flags: `PEERSOCK_PEER_CONFLICT`, `PEERSOCK_PEER_RELAYED`, `PEERSOCK_PEER_TURN`; later versions may add
    /// some.
    pub flags: u32,
    /// Milliseconds since the peer last proved its presence, by an authentic packet or handshake; UINT64_MAX
    /// if never.
    pub last_seen_ms: u64,
    /// Milliseconds since local discovery last heard of the peer, which proves nothing; UINT64_MAX if never.
    pub last_heard_ms: u64,
    /// Packets sent in all sessions with the peer since the node learned of it.
    pub total_sent_packets: u64,
    /// Bytes sent in all these sessions.
    pub total_sent_bytes: u64,
    /// Packets received in all these sessions.
    pub total_received_packets: u64,
    /// Bytes received in all these sessions.
    pub total_received_bytes: u64,
    /// Packets from the peer that are missing although later ones have arrived: lost or late.
    pub total_lost_packets: u64,
}

/// Size of a peer in the first version of the library that had one, bytes.
const FIRST_PEER: size_t = 456;

/// A session with the peer exists.
pub const PEERSOCK_PEER_CONNECTED: u32 = 1;

/// No session with the peer exists; sending something starts one.
pub const PEERSOCK_PEER_KNOWN: u32 = 2;

/// The peer has said goodbye or, in an ad-hoc network, was silent for two minutes.
pub const PEERSOCK_PEER_GONE: u32 = 3;

/// Two nodes run with the peer's identity, and a connection reaches either of them.
pub const PEERSOCK_PEER_CONFLICT: u32 = 1;

/// A root relays packets to and from the peer.
pub const PEERSOCK_PEER_RELAYED: u32 = 2;

/// A TURN server relays: this node's, or the peer's if the peer has announced it.
pub const PEERSOCK_PEER_TURN: u32 = 4;

/// Copies the peers known in a network, or in all networks if `network` is 0, up to `capacity`. `*count`
/// becomes the number of known peers. `size` is `sizeof(peersock_peer)`, which tells the library the version
/// that the program was built with. Members that this library does not know are zeros.
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
        let known = find(node)?.node.peers()?;
        let chosen = known.iter().filter(|peer| wanted.is_none_or(|wanted| peer.network == wanted));
        let chosen: Vec<_> = chosen.map(describe).collect();
        // SAFETY: the caller's.
        unsafe { text::put_sized(&chosen, peers, (size, FIRST_PEER), capacity, count) }
    })
}

/// Copies the addresses of a peer in a network, up to `capacity`. `*count` becomes the number of addresses.
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

/// Copies the name of a peer with a final zero, as the file of its static network gives it.
/// PEERSOCK_E_NOT_FOUND means that the peer has no name.
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

/// Copies the addresses of the paths to a peer, up to `capacity`: the current path first, if one exists, then
/// other possible addresses. `*count` becomes the number of paths.
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
    let peers = find(node)?.node.peers()?;
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
