"""Dialing and listening, with calls that block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from ._addr import Addr, TCPAddr, UDPAddr, UnixAddr
from ._conn import Conn, TCPConn, UDPConn, UnixConn
from ._listener import TCPListener, UnixListener
from ._networks import TCP, UDP, UNIX, UNIXGRAM, Network
from ._plans import bound_udp, bound_unixgram, dialing, listening, listening_tcp, listening_unix, to_dial, to_listen
from ._resolve import lookup
from ._threads import run

_CONNS: dict[str, type[Conn]] = {"tcp": TCPConn, "udp": UDPConn, "unix": UnixConn}
_LISTENERS: dict[str, Any] = {"tcp": TCPListener, "unix": UnixListener}


def dial(
    address: str, network: str = "tcp", *, local: Addr | None = None, timeout: float | None = None
) -> TCPConn | UDPConn | UnixConn:
    """Connects to an address, such as ``"example.org:https"``, ``"[fd00::1]:80"`` or the path of a Unix domain socket.

    Addresses and names of members are reached over the overlay, all others by the kernel. If a name has several
    addresses, all are tried: every 250 ms and at each failure one more, IPv4 and IPv6 in turn. The first that connects
    is taken (RFC 8305). An empty host is this machine.

    Args:
        address: The address.
        network: One of ``tcp``, ``tcp4``, ``tcp6``, ``udp``, ``udp4``, ``udp6``, ``unix`` and ``unixgram``.
        local: The own address to connect from.
        timeout: How long it may take, once the name is resolved, seconds; ``None`` is as long as the system tries.

    Raises:
        AddressError: The address is malformed, or something of it is not known.
        UnknownNetworkError: There is no such network, or it is none to dial.
        DeadlineError: The timeout is over.
        SocketError: All addresses failed. It is the first one's error.
    """
    found = to_dial(network)
    conn: TCPConn | UDPConn | UnixConn = _dialed(address, found, lookup(address, found), local, timeout)
    return conn


def dial_tcp(laddr: TCPAddr | None, raddr: TCPAddr, network: str = "tcp", *, timeout: float | None = None) -> TCPConn:
    """Connects to a TCP address, from ``laddr`` if that is given. The rest is as for `dial()`."""
    conn: TCPConn = _dialed(raddr, to_dial(network, "tcp"), [raddr], laddr, timeout)
    return conn


def dial_udp(laddr: UDPAddr | None, raddr: UDPAddr | None, network: str = "udp") -> UDPConn:
    """A UDP socket, connected to ``raddr`` and bound to ``laddr``. Without ``raddr`` it is not connected, as
    `listen_udp()` makes it; without ``laddr`` the system chooses the own address.

    Raises:
        AddressError: An address does not fit the network, or the other one.
        UnknownNetworkError: The network is none of ``udp``, ``udp4``, ``udp6``.
        SocketError: The system refuses an address.
    """
    found = to_dial(network, "udp")
    if raddr is None:
        return listen_udp(laddr, network)
    conn: UDPConn = _dialed(raddr, found, [raddr], laddr, None)
    return conn


def dial_unix(
    laddr: UnixAddr | None, raddr: UnixAddr | None, network: str = "unix", *, timeout: float | None = None
) -> UnixConn:
    """Connects to a path, from that of ``laddr`` if that is given: as a stream (``unix``) or for datagrams
    (``unixgram``), which need no ``raddr``. Who sends datagrams gets answers only with a ``laddr``.

    The path of ``laddr`` stays when the connection is closed, unless `UnixConn.set_unlink_on_close()` says otherwise.

    Raises:
        AddressError: An address is missing, or it is too long.
        UnknownNetworkError: The network is another one.
        DeadlineError: The timeout is over.
        SocketError: It is refused, or the system refuses an address.
    """
    found = to_dial(network, "unix")
    if raddr is None:
        return UnixConn(network, bound_unixgram(laddr, network))
    conn: UnixConn = _dialed(raddr, found, [raddr], laddr, timeout)
    return conn


@overload
def listen(address: str, network: TCP = "tcp") -> TCPListener: ...
@overload
def listen(address: str, network: UDP) -> UDPConn: ...
@overload
def listen(address: str, network: UNIX) -> UnixListener: ...
@overload
def listen(address: str, network: UNIXGRAM) -> UnixConn: ...
@overload
def listen(address: str, network: str) -> TCPListener | UnixListener | Any: ...
def listen(address: str, network: str = "tcp") -> Any:
    """Listens at an address: ``host:port`` or the path of a Unix domain socket. For datagrams (``udp``, ``unixgram``)
    it gives the socket that receives them, as `listen_udp()` and `listen_unixgram()` do.

    An empty host is every own address, of IPv4 and IPv6 if the network is ``tcp``. The session's ``bind`` chooses the
    overlay, the machine's networks or both. Port 0 or none lets the system choose. If a name has several
    addresses, it is the first one that can be had.

    Raises:
        AddressError: The address is malformed, or something of it is not known.
        UnknownNetworkError: There is no such network, or it is none to listen in.
        SocketError: No address can be had, such as with EADDRINUSE.
    """
    found = to_listen(network)
    sock = listening(found, lookup(address, found), address)
    kinds = _LISTENERS if found.is_stream else _CONNS
    return kinds[found.kind](network, sock)


def listen_tcp(laddr: TCPAddr | None, network: str = "tcp") -> TCPListener:
    """Listens at a TCP address; without one at a port that the system chooses, of every own address."""
    return TCPListener(network, listening_tcp(laddr, network))


def listen_udp(laddr: UDPAddr | None, network: str = "udp") -> UDPConn:
    """A UDP socket at an address; without one at a port that the system chooses, of every own address."""
    return UDPConn(network, bound_udp(laddr, network))


def listen_unix(laddr: UnixAddr, network: str = "unix") -> UnixListener:
    """Listens at the path of a Unix domain socket. The path must not be there yet; it is removed by ``close()``."""
    return UnixListener(network, listening_unix(laddr, network))


def listen_unixgram(laddr: UnixAddr, network: str = "unixgram") -> UnixConn:
    """A Unix domain socket for datagrams at a path, which must not be there yet. It stays when the socket is closed,
    unless `UnixConn.set_unlink_on_close()` says otherwise."""
    return UnixConn(network, bound_unixgram(laddr, network))


def _dialed(
    address: object, network: Network, addresses: Sequence[Addr], local: Addr | None, timeout: float | None
) -> Any:
    what = f"dial {network.name} {address}"
    sock, remote = run(what, dialing(network, addresses, local), timeout)
    return _CONNS[network.kind](network.name, sock, remote)
