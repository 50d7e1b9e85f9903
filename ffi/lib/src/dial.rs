//! Sockets in one call, from texts: for short programs, and for languages without addresses in C's form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};

use libc::{c_char, c_int, sockaddr, socklen_t};
use peersock_bsd as bsd;
use peersock_bsd::{Errno, Socket};

use crate::boundary::{answer, posix_with_text};
use crate::networks::storage;
use crate::registry::{find, peersock_node};
use crate::result::{Answer, Failure, PEERSOCK_E_NOT_FOUND, PEERSOCK_E_SYSTEM, peersock_result};
use crate::text;

/// Resolves a text to addresses, in the order in which to try them, as texts separated by spaces. An address
/// resolves to itself, a name to the addresses of the member that has it in one of the node's networks. NULL
/// or an empty text means the node itself, which has no addresses before it joins a network. Only the node is
/// asked, so this function does not wait. Free the text with `peersock_string_free()`.
///
/// PEERSOCK_E_NOT_FOUND means that no member has this name.
///
/// # Safety
/// `host` is NULL or a C string; `addresses` is NULL or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_lookup(
    node: peersock_node,
    host: *const c_char,
    addresses: *mut *mut c_char,
) -> peersock_result {
    answer(|| {
        // SAFETY: the caller's.
        let found = look_up(node, unsafe { read_host(host) }?)?;
        let texts: Vec<String> = found.iter().map(IpAddr::to_string).collect();
        // SAFETY: the caller's.
        unsafe { text::give(texts.join(" "), addresses) }
    })
}

/// Opens a socket and connects it to a host and port. `kind` is SOCK_STREAM or SOCK_DGRAM, optionally with
/// SOCK_NONBLOCK and SOCK_CLOEXEC. `host` is resolved as by `peersock_lookup()`. `family` is AF_INET or
/// AF_INET6 for addresses of only that family, or AF_UNSPEC. The addresses are tried in turn; if all fail,
/// the first failure counts. With SOCK_NONBLOCK, a stream is returned while it connects to the first address:
/// wait until it is writable, then ask `peersock_connected()`.
///
/// The socket is an AF_INET6 socket, in which IPv4 addresses are mapped. A stream has TCP_NODELAY.
///
/// Returns -1 and `errno` on failure, with a text in `peersock_last_error()`: EHOSTUNREACH if no such address
/// exists, and the errors of socket(2) and connect(2).
///
/// # Safety
/// `host` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_dial(
    node: peersock_node,
    family: c_int,
    kind: c_int,
    host: *const c_char,
    port: u16,
) -> c_int {
    posix_with_text(|| {
        // SAFETY: the caller's.
        let found = of_family(look_up(node, unsafe { read_host(host) }?)?, family)?;
        let mut failed = None;
        for ip in found {
            let (fd, address) = (open(node, kind)?, SocketAddr::new(ip, port));
            match overlay(&fd)?.connect(Some(mapped(address))) {
                Ok(()) | Err(Errno::INPROGRESS) => return Ok(fd.into_raw_fd()),
                // Do not dial the other addresses.
                Err(Errno::INTR) => return Err(refused(address, Errno::INTR)),
                Err(error) => failed = failed.or(Some(refused(address, error))),
            }
        }
        Err(failed.unwrap_or_else(|| system(Errno::HOSTUNREACH, "the host has no address of this family")))
    })
}

/// Opens a socket that is bound to a host and port of the node; a stream listens, with a backlog of `backlog`
/// connections. `kind` is as for `peersock_dial()`. `host` is an address, the name of a member, or NULL or an
/// empty text for all addresses. `family` is AF_INET or AF_INET6 to accept only that family, or AF_UNSPEC; an
/// address as `host` already determines the family. Port 0 picks one that the networks allow, which
/// `peersock_getsockname()` returns.
///
/// The socket is an AF_INET6 socket, in which IPv4 addresses are mapped; with AF_INET6 it has IPV6_V6ONLY. A
/// stream has SO_REUSEADDR, and connections that it accepts have TCP_NODELAY.
///
/// Returns -1 and `errno` on failure, with a text in `peersock_last_error()`: EACCES if no network allows the
/// port, EADDRNOTAVAIL if no such address exists, and the errors of socket(2), bind(2) and listen(2).
///
/// # Safety
/// `host` is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_listen_at(
    node: peersock_node,
    family: c_int,
    kind: c_int,
    host: *const c_char,
    port: u16,
    backlog: c_int,
) -> c_int {
    posix_with_text(|| {
        // SAFETY: the caller's.
        let found = match (unsafe { read_host(host) }?, family) {
            ("", libc::AF_INET) => vec![Ipv4Addr::UNSPECIFIED.into()],
            ("", _) => vec![Ipv6Addr::UNSPECIFIED.into()],
            (host, _) => look_up(node, host)?,
        };
        let missing = || system(Errno::ADDRNOTAVAIL, "the host has no address of this family");
        let ip = of_family(found, family)?.into_iter().next().ok_or_else(missing)?;
        let (fd, address) = (open(node, kind)?, SocketAddr::new(ip, port));
        let listens = bind(&fd, mapped(address), family == libc::AF_INET6, backlog);
        let refusal = |error| match error {
            Errno::ACCESS => Ok(find(node)?.node.port_refusal(port)?),
            _ => Answer::Ok(None),
        };
        match listens {
            Ok(()) => Ok(fd.into_raw_fd()),
            Err(error) => Err(match refusal(error)? {
                Some(text) => system(error, text),
                None => refused(address, error),
            }),
        }
    })
}

/// Binds a socket, and makes a stream listen.
fn bind(fd: &OwnedFd, address: SocketAddr, only_v6: bool, backlog: c_int) -> Result<(), Errno> {
    let socket = Socket::of(fd.as_fd()).ok_or(Errno::NETDOWN)?;
    let is_stream = socket.kind() == peersock_fd::Kind::Stream;
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only_v6)?;
    if is_stream {
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, true)?;
    }
    let address = storage(address);
    // SAFETY: the address is as long as the given length.
    unsafe {
        bsd::bind(&socket, (&raw const address).cast::<sockaddr>(), size_of_val(&address) as socklen_t)
    }?;
    if is_stream {
        bsd::listen(&socket, backlog)?;
    }
    Ok(())
}

/// Opens an IPv6 socket.
fn open(node: peersock_node, kind: c_int) -> Answer<OwnedFd> {
    let fd = bsd::socket(&find(node)?.client, libc::AF_INET6, kind, 0)
        .map_err(|error| system(error, "the socket cannot be opened"))?;
    // SAFETY: it was just opened, and no other code knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let socket = overlay(&fd)?;
    if socket.kind() == peersock_fd::Kind::Stream {
        set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, true)
            .map_err(|error| system(error, "small writes cannot be sent at once"))?;
    }
    Ok(fd)
}

fn overlay(fd: &OwnedFd) -> Answer<Socket<'_>> {
    Socket::of(fd.as_fd()).ok_or_else(|| system(Errno::NETDOWN, "the node was stopped"))
}

fn set(socket: &Socket<'_>, level: c_int, name: c_int, on: bool) -> Result<(), Errno> {
    let value = c_int::from(on);
    let length = size_of_val(&value) as socklen_t;
    // SAFETY: the value is as long as the given length.
    unsafe { bsd::setsockopt(socket, level, name, (&raw const value).cast(), length) }.map(drop)
}

/// Returns the addresses of a host.
fn look_up(node: peersock_node, host: &str) -> Answer<Vec<IpAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![ip.to_canonical()]);
    }
    let node = find(node)?;
    if host.is_empty() {
        let mut own = Vec::new();
        for network in node.node.networks()? {
            own.extend(node.node.addresses(network)?.unwrap_or_default());
        }
        return Ok(own);
    }
    match node.client.resolve(host) {
        Ok(found) if !found.is_empty() => Ok(found),
        Err(Errno::NETDOWN) => Err(Failure::down()),
        Err(error) => Err(system(error, format!("the node was not asked about '{host}': {error}"))),
        Ok(_) => Err(Failure {
            errno: Some(libc::EHOSTUNREACH),
            ..Failure::new(
                PEERSOCK_E_NOT_FOUND,
                format!("no member of the joined networks is named '{host}'"),
            )
        }),
    }
}

/// Returns the addresses of a family, or all.
fn of_family(mut found: Vec<IpAddr>, family: c_int) -> Answer<Vec<IpAddr>> {
    match family {
        libc::AF_UNSPEC => {}
        libc::AF_INET => found.retain(IpAddr::is_ipv4),
        libc::AF_INET6 => found.retain(IpAddr::is_ipv6),
        _ => return Err(system(Errno::AFNOSUPPORT, "the family is neither IPv4 nor IPv6")),
    }
    Ok(found)
}

/// Returns the address in the form of IPv6 sockets.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn refused(address: SocketAddr, error: Errno) -> Failure {
    system(error, format!("{address}: {error}"))
}

fn system(error: Errno, text: impl Into<String>) -> Failure {
    Failure { errno: Some(error.raw_os_error()), ..Failure::new(PEERSOCK_E_SYSTEM, text) }
}

/// Reads a host of the caller, which may be NULL.
///
/// # Safety
/// `host` is null or a C string that stays for `'a`.
unsafe fn read_host<'a>(host: *const c_char) -> Answer<&'a str> {
    match host.is_null() {
        true => Ok(""),
        // SAFETY: the caller's.
        false => unsafe { text::read(host, "the host") },
    }
}
