"""The first steps of dialing and listening, for threads and asyncio."""

from __future__ import annotations

from collections.abc import Sequence

from .._class import socket
from ._addr import Addr, TCPAddr, UDPAddr, UnixAddr
from ._errors import UnknownNetworkError
from ._networks import Network, network_of, unixgram
from ._sockets import bound, dialed, family_of, here, opened
from ._steps import Steps


def to_dial(network: str, *kinds: str) -> Network:
    """The network by its name, if it is of one of these kinds, and one to dial."""
    return network_of(network, *(kinds or ("tcp", "udp", "unix")))


def to_listen(network: str) -> Network:
    """The network by its name, if it is one to listen in."""
    return network_of(network, "tcp", "udp", "unix")


def dialing(network: Network, addresses: Sequence[Addr], local: Addr | None) -> Steps[tuple[socket, Addr]]:
    """The steps to a connection to the first of these addresses that can be reached."""
    for address in addresses:
        family_of(network, address)
    return dialed(network, [here(network, address) for address in addresses], local)


def listening(network: Network, addresses: Sequence[Addr], text: str) -> socket:
    """A socket at the first of these addresses that can be had."""
    with opened(f"listen {network.name} {text}"):
        return bound(network, addresses)


def listening_tcp(laddr: TCPAddr | None, network: str) -> socket:
    """A socket that listens at a TCP address."""
    return listening(network_of(network, "tcp"), [laddr or TCPAddr()], str(laddr or ""))


def bound_udp(laddr: UDPAddr | None, network: str) -> socket:
    """A socket at a UDP address."""
    return listening(network_of(network, "udp"), [laddr or UDPAddr()], str(laddr or ""))


def listening_unix(laddr: UnixAddr, network: str) -> socket:
    """A socket that listens at a path."""
    found = network_of(network, "unix")
    if not found.is_stream:
        raise UnknownNetworkError(network)
    return listening(found, [laddr], str(laddr))


def bound_unixgram(laddr: UnixAddr | None, network: str) -> socket:
    """A socket for datagrams at a path, or at none."""
    found = unixgram(network)
    if laddr is not None:
        return listening(found, [laddr], str(laddr))
    with opened(f"listen {network}"):
        sock = socket(found.family, found.type)
    sock.setblocking(False)
    return sock
