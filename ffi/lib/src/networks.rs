//! Joining networks, and waiting for addresses and peers.

use std::net::IpAddr;

use libc::{c_char, c_int, in6_addr, size_t, sockaddr, sockaddr_storage, socklen_t};
use peersock::overlay::Psk;
use peersock::{Network, NetworkId};

use crate::boundary::{answer, guarded_or};
use crate::node::timeout;
use crate::open::{by_invite, named_network};
use crate::registry::{find, peersock_node};
use crate::result::{Answer, Failure, PEERSOCK_E_NOT_FOUND, peersock_result};
use crate::text;

/// Returns the ID of the ad-hoc network that allows TCP and UDP ports `first` to `last`, or 0 if `first` is
/// greater.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_ad_hoc(first: u16, last: u16) -> u64 {
    guarded_or(0, || NetworkId::ad_hoc(first..=last).map_or(0, |id| id.as_u64()))
}

/// Joins the ad-hoc or managed network that has this ID. Sockets can be opened at once, while the node
/// searches for peers. With a passphrase, which may be NULL but not empty, only nodes that know it are
/// members of an ad-hoc network; stretching it takes some tens of milliseconds. A managed network has none:
/// other members are reached once a controller has admitted the node, see `peersock_status()`. Under
/// `peersock run`, a network of the launcher needs a secret here exactly if it has one there: otherwise the
/// result is `PEERSOCK_E_INVALID`.
///
/// # Safety
/// `passphrase` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_join(
    node: peersock_node,
    network: u64,
    passphrase: *const c_char,
) -> peersock_result {
    answer(|| {
        let network = Network::by_id(read_id(network)?)?;
        let network = match passphrase.is_null() {
            true => network,
            // SAFETY: the caller's.
            false => network.with_passphrase(unsafe { text::read(passphrase, "the passphrase") }?)?,
        };
        join(node, network)
    })
}

/// As `peersock_join()`, with a random key of 32 bytes instead of a passphrase.
///
/// # Safety
/// `key` is NULL or points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_join_key(
    node: peersock_node,
    network: u64,
    key: *const u8,
    size: size_t,
) -> peersock_result {
    answer(|| {
        if key.is_null() || size != 32 {
            return Err(Failure::invalid("a network's key has 32 bytes"));
        }
        // SAFETY: the caller says so.
        let key = Psk::new(unsafe { key.cast::<[u8; 32]>().read() });
        join(node, Network::by_id(read_id(network)?)?.with_psk(key))
    })
}

/// Joins the static network that a TOML file describes. `peersock network new` makes such a file, and
/// docs/use/NETWORKS.md describes its fields. If `network` is not NULL, `*network` becomes the network's ID.
///
/// # Safety
/// `path` is NULL or a C string; `network` is NULL or has room for an ID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_join_file(
    node: peersock_node,
    path: *const c_char,
    network: *mut u64,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let found = Network::from_file(unsafe { text::read(path, "the path") }?)?;
        let id = found.id().as_u64();
        join(node, found)?;
        if !network.is_null() {
            // SAFETY: the caller's.
            unsafe { network.write(id) };
        }
        Ok(())
    })
}

/// Joins a managed network by an invite, the text that `peersock network invite` prints. Other members are
/// reached once a controller has admitted the node, which `peersock_wait_ready()` waits for. The identity in
/// the node's state directory is the member; a node without one is a new machine each time. If `network` is
/// not NULL, `*network` becomes the network's ID.
///
/// # Safety
/// `invite` is NULL or a C string; `network` is NULL or has room for an ID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_join_invite(
    node: peersock_node,
    invite: *const c_char,
    network: *mut u64,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let found = by_invite(unsafe { text::read(invite, "the invite") }?)?;
        let id = found.id().as_u64();
        join(node, found)?;
        if !network.is_null() {
            // SAFETY: the caller's.
            unsafe { network.write(id) };
        }
        Ok(())
    })
}

/// Joins a network named as in the settings `network` and `secret` of `peersock_open()`. An ad-hoc network is
/// named by its ID, a text of 16 hexadecimal digits; its passphrase may be NULL. A managed network is named
/// by its ID or an invite, and a static one by the path of its file, without a passphrase. If `network` is
/// not NULL, `*network` becomes the network's ID.
///
/// # Safety
/// `name` and `passphrase` are NULL or C strings; `network` is NULL or has room for an ID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_join_named(
    node: peersock_node,
    name: *const c_char,
    passphrase: *const c_char,
    network: *mut u64,
) -> peersock_result {
    answer(|| {
        let secret = match passphrase.is_null() {
            true => None,
            // SAFETY: the caller's.
            false => Some(unsafe { text::read(passphrase, "the passphrase") }?),
        };
        // SAFETY: the caller's.
        let found = named_network(unsafe { text::read(name, "the network's name") }?, secret)?;
        let id = found.id().as_u64();
        join(node, found)?;
        if !network.is_null() {
            // SAFETY: the caller's.
            unsafe { network.write(id) };
        }
        Ok(())
    })
}

/// Leaves a network. Its connections are reset, and its sockets fail with ENETDOWN. If other programs use the
/// network on a shared node, its sockets stay open instead, and neither send nor receive anything.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_leave(node: peersock_node, network: u64) -> peersock_result {
    answer(|| {
        let id = read_id(network)?;
        match find(node)?.node.leave(id)? {
            true => Ok(()),
            false => Err(not_joined(id)),
        }
    })
}

/// Copies the IDs of the joined networks, in the order of joining, up to `capacity`. `*count` becomes the
/// number of joined networks.
///
/// # Safety
/// `networks` is NULL or has room for `capacity` IDs; `count` is NULL or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_networks(
    node: peersock_node,
    networks: *mut u64,
    capacity: size_t,
    count: *mut size_t,
) -> peersock_result {
    answer(|| {
        let ids = find(node)?.node.networks()?.into_iter().map(|id| id.as_u64()).collect();
        // SAFETY: the caller's.
        unsafe { text::put_all(ids, networks, capacity, count) }
    })
}

/// Waits until the node has its addresses in the network, up to `timeout_ms` milliseconds (negative: without
/// limit). Only in a managed network that takes time: until a controller has admitted the node; if it
/// refuses the node, the result is `PEERSOCK_E_SYSTEM` with EACCES.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_wait_ready(
    node: peersock_node,
    network: u64,
    timeout_ms: c_int,
) -> peersock_result {
    answer(|| {
        let id = read_id(network)?;
        find(node)?.node.wait_ready(id, timeout(timeout_ms))?.ok_or_else(|| not_joined(id))
    })
}

/// Waits until a session exists with the member that has this address, up to `timeout_ms` milliseconds
/// (negative: without limit). The port is ignored.
///
/// # Safety
/// `address` is NULL or points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_wait_peer(
    node: peersock_node,
    network: u64,
    address: *const sockaddr,
    length: socklen_t,
    timeout_ms: c_int,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let ip = unsafe { read_ip(address, length) }?;
        let id = read_id(network)?;
        find(node)?.node.wait_peer(id, ip, timeout(timeout_ms))?.ok_or_else(|| not_joined(id))
    })
}

/// Gets the IPv6 address of the node in a network, which follows from its key.
///
/// # Safety
/// `address` is NULL or has room for an address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_address(
    node: peersock_node,
    network: u64,
    address: *mut in6_addr,
) -> peersock_result {
    answer(|| {
        // The self-certifying one.
        let own = own_addresses(node, network)?.into_iter().find_map(|ip| match ip {
            IpAddr::V6(ip) => Some(ip.octets()),
            IpAddr::V4(_) => None,
        });
        let s6_addr = own.ok_or_else(Failure::down)?;
        // SAFETY: the caller's.
        unsafe { text::put(in6_addr { s6_addr }, address, "the place for the address") }
    })
}

/// Copies the addresses of the node in a network, up to `capacity`. `*count` becomes the number of addresses.
///
/// # Safety
/// `addresses` is NULL or has room for `capacity` addresses; `count` is NULL or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_addresses(
    node: peersock_node,
    network: u64,
    addresses: *mut sockaddr_storage,
    capacity: size_t,
    count: *mut size_t,
) -> peersock_result {
    answer(|| {
        let own = own_addresses(node, network)?.into_iter().map(|ip| storage((ip, 0).into())).collect();
        // SAFETY: the caller's.
        unsafe { text::put_all(own, addresses, capacity, count) }
    })
}

/// Checks a network's ID.
pub(crate) fn read_id(network: u64) -> Answer<NetworkId> {
    NetworkId::new(network).map_err(|error| Failure::invalid(error.to_string()))
}

/// Returns the node's addresses in a network.
fn own_addresses(node: peersock_node, network: u64) -> Answer<Vec<IpAddr>> {
    let id = read_id(network)?;
    find(node)?.node.addresses(id)?.ok_or_else(|| not_joined(id))
}

pub(crate) fn not_joined(id: NetworkId) -> Failure {
    Failure::new(PEERSOCK_E_NOT_FOUND, format!("network {id} is not joined"))
}

/// Converts an address to a structure with room for every family.
pub(crate) fn storage(address: std::net::SocketAddr) -> sockaddr_storage {
    // SAFETY: any bytes, zeros too, are a `sockaddr_storage`.
    let mut storage: sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<sockaddr_storage>() as socklen_t;
    // SAFETY: the storage is as long as the given length, and every address fits.
    let _ = unsafe { peersock_bsd::write_address(address, (&raw mut storage).cast(), &raw mut length) };
    storage
}

/// # Safety
/// `address` is null or points to `length` bytes.
pub(crate) unsafe fn read_ip(address: *const sockaddr, length: socklen_t) -> Answer<IpAddr> {
    // SAFETY: the caller's.
    match unsafe { peersock_bsd::read_address(address, length) } {
        Ok(Some(address)) => Ok(address.ip()),
        _ => Err(Failure::invalid("the address is neither IPv4 nor IPv6")),
    }
}

/// Joins a network, within the limits set by `peersock run`.
pub(crate) fn join(node: peersock_node, network: Network) -> Answer {
    Ok(find(node)?.node.join(network)?)
}
