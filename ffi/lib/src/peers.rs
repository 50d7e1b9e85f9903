//! Peers and the paths to them.

use libc::{c_char, size_t, sockaddr_storage};
use peersock::overlay::NodeId;
use peersock::{Node, PeerStatus};

use crate::boundary::answer;
use crate::networks::{read_id, storage};
use crate::node::PEERSOCK_ID_SIZE;
use crate::registry::{find, peersock_node};
use crate::result::{Failure, PEERSOCK_E_NOT_FOUND, peersock_result};
use crate::text;

/// A peer in one network.
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
    /// Where its packets are sent now; `ss_family` is AF_UNSPEC if that is not known.
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
    /// Zeros.
    pub reserved: [u64; 8],
}

/// The peers known now in a network, or with 0 in all: as many as fit, and in `*count` how many there are.
///
/// # Safety
/// `peers` is NULL or has room for `capacity` peers; `count` is NULL or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_peers(
    node: peersock_node,
    network: u64,
    peers: *mut peersock_peer,
    capacity: size_t,
    count: *mut size_t,
) -> peersock_result {
    answer(|| {
        let wanted = if network == 0 { None } else { Some(read_id(network)?) };
        let known = find(node)?.run(Node::peers)?;
        let chosen = known.iter().filter(|peer| wanted.is_none_or(|wanted| peer.network == wanted));
        // SAFETY: the caller's.
        unsafe { text::put_all(chosen.map(describe).collect(), peers, capacity, count) }
    })
}

/// The addresses of a peer in a network: as many as fit, and in `*count` how many there are.
///
/// # Safety
/// `id` is NULL or a C string; `addresses` is NULL or has room for `capacity` addresses; `count` is NULL or has room for a
/// number.
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

/// The ways to a peer: the one that packets take now, if there is one, then where else it may be. As many as fit, and in
/// `*count` how many there are.
///
/// # Safety
/// `id` is NULL or a C string; `paths` is NULL or has room for `capacity` addresses; `count` is NULL or has room for a
/// number.
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
        reserved: [0; 8],
    }
}
