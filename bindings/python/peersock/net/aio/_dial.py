"""Dialing, listening and resolving, to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, overload

from .. import _resolve
from .._addr import Addr, IPAddr, TCPAddr, UDPAddr, UnixAddr
from .._errors import DeadlineError
from .._networks import TCP, UDP, UNIX, UNIXGRAM, Network
from .._plans import bound_udp, bound_unixgram, dialing, listening, listening_tcp, listening_unix, to_dial, to_listen
from ._conn import Conn, TCPConn, UDPConn, UnixConn
from ._listener import TCPListener, UnixListener
from ._loop import run

_CONNS: dict[str, type[Conn]] = {"tcp": TCPConn, "udp": UDPConn, "unix": UnixConn}
_LISTENERS: dict[str, Any] = {"tcp": TCPListener, "unix": UnixListener}


async def resolve_tcp_addr(address: str, network: str = "tcp") -> TCPAddr:
    """As `peersock.net.resolve_tcp_addr()`, in a thread."""
    return await asyncio.to_thread(_resolve.resolve_tcp_addr, address, network)


async def resolve_udp_addr(address: str, network: str = "udp") -> UDPAddr:
    """As `peersock.net.resolve_udp_addr()`, in a thread."""
    return await asyncio.to_thread(_resolve.resolve_udp_addr, address, network)


async def resolve_ip_addr(address: str, network: str = "ip") -> IPAddr:
    """As `peersock.net.resolve_ip_addr()`, in a thread."""
    return await asyncio.to_thread(_resolve.resolve_ip_addr, address, network)


async def resolve_addr(address: str, network: str = "tcp") -> Addr:
    """As `peersock.net.resolve_addr()`, in a thread."""
    return await asyncio.to_thread(_resolve.resolve_addr, address, network)


async def dial(
    address: str, network: str = "tcp", *, local: Addr | None = None, timeout: float | None = None
) -> TCPConn | UDPConn | UnixConn:
    """As `peersock.net.dial()`. Names are resolved in a thread, and the timeout counts that in, too."""
    found = to_dial(network)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        addresses = await asyncio.wait_for(asyncio.to_thread(_resolve.lookup, address, found), timeout)
    except asyncio.TimeoutError:
        raise DeadlineError.during(f"dial {network} {address}") from None
    if timeout is not None:
        timeout -= loop.time() - begun
    conn: TCPConn | UDPConn | UnixConn = await _dialed(address, found, addresses, local, timeout)
    return conn


async def dial_tcp(
    laddr: TCPAddr | None, raddr: TCPAddr, network: str = "tcp", *, timeout: float | None = None
) -> TCPConn:
    """As `peersock.net.dial_tcp()`."""
    conn: TCPConn = await _dialed(raddr, to_dial(network, "tcp"), [raddr], laddr, timeout)
    return conn


async def dial_udp(laddr: UDPAddr | None, raddr: UDPAddr | None, network: str = "udp") -> UDPConn:
    """As `peersock.net.dial_udp()`."""
    found = to_dial(network, "udp")
    if raddr is None:
        return listen_udp(laddr, network)
    conn: UDPConn = await _dialed(raddr, found, [raddr], laddr, None)
    return conn


async def dial_unix(
    laddr: UnixAddr | None, raddr: UnixAddr | None, network: str = "unix", *, timeout: float | None = None
) -> UnixConn:
    """As `peersock.net.dial_unix()`."""
    found = to_dial(network, "unix")
    if raddr is None:
        return UnixConn(network, bound_unixgram(laddr, network))
    conn: UnixConn = await _dialed(raddr, found, [raddr], laddr, timeout)
    return conn


@overload
async def listen(address: str, network: TCP = "tcp") -> TCPListener: ...
@overload
async def listen(address: str, network: UDP) -> UDPConn: ...
@overload
async def listen(address: str, network: UNIX) -> UnixListener: ...
@overload
async def listen(address: str, network: UNIXGRAM) -> UnixConn: ...
@overload
async def listen(address: str, network: str) -> TCPListener | UnixListener | Any: ...
async def listen(address: str, network: str = "tcp") -> Any:
    """As `peersock.net.listen()`. Names are resolved in a thread."""
    found = to_listen(network)
    sock = listening(found, await asyncio.to_thread(_resolve.lookup, address, found), address)
    kinds = _LISTENERS if found.is_stream else _CONNS
    return kinds[found.kind](network, sock)


def listen_tcp(laddr: TCPAddr | None, network: str = "tcp") -> TCPListener:
    """As `peersock.net.listen_tcp()`."""
    return TCPListener(network, listening_tcp(laddr, network))


def listen_udp(laddr: UDPAddr | None, network: str = "udp") -> UDPConn:
    """As `peersock.net.listen_udp()`."""
    return UDPConn(network, bound_udp(laddr, network))


def listen_unix(laddr: UnixAddr, network: str = "unix") -> UnixListener:
    """As `peersock.net.listen_unix()`."""
    return UnixListener(network, listening_unix(laddr, network))


def listen_unixgram(laddr: UnixAddr, network: str = "unixgram") -> UnixConn:
    """As `peersock.net.listen_unixgram()`."""
    return UnixConn(network, bound_unixgram(laddr, network))


async def _dialed(
    address: object, network: Network, addresses: Sequence[Addr], local: Addr | None, timeout: float | None
) -> Any:
    what = f"dial {network.name} {address}"
    sock, remote = await run(what, dialing(network, addresses, local), timeout)
    return _CONNS[network.kind](network.name, sock, remote)
