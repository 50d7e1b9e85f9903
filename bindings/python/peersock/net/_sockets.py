"""Sockets for networks and addresses."""

from __future__ import annotations

import contextlib
import errno
import os
import socket as _std
from collections.abc import Iterator, Sequence

from .._class import socket
from ._addr import Addr, IPAddr, TCPAddr, UDPAddr, UnixAddr, of_system, to_system
from ._errors import AddressError, socket_error
from ._networks import Network
from ._race import Failures, first_connected
from ._steps import Steps, begin_connect, connect, has_connected

_KINDS: dict[str, type[Addr]] = {"tcp": TCPAddr, "udp": UDPAddr, "unix": UnixAddr}


@contextlib.contextmanager
def opened(what: str) -> Iterator[None]:
    """Errors of the system within are ours."""
    try:
        yield
    except OSError as error:
        told = socket_error(what, error)
        if told is error:
            raise
        raise told from error


def family_of(network: Network, address: Addr) -> int:
    """The family of sockets for an address in a network.

    Raises:
        AddressError: The address is none of the network's.
    """
    if not isinstance(address, _KINDS[network.kind]):
        raise AddressError(f"a {type(address).__name__} is no address of the network {network.name}", str(address))
    if not isinstance(address, IPAddr):
        return int(_std.AF_UNIX)
    family = network.family or int(_std.AF_INET6 if address.is_ipv6 else _std.AF_INET)
    if address.ip is not None and address.is_ipv6 != (family == _std.AF_INET6):
        raise AddressError(f"no address of the network {network.name}", str(address))
    return family


class Dialing:
    """A socket that connects to an internet address."""

    def __init__(self, network: Network, remote: Addr, local: Addr | None) -> None:
        self.remote = remote
        self._may_meet = isinstance(local, TCPAddr) and local.port != 0
        family = family_of(network, remote)
        self.socket = socket(family, network.type)
        try:
            self.socket.setblocking(False)
            if local is not None:
                if network.is_stream:
                    self.socket.setsockopt(_std.SOL_SOCKET, _std.SO_REUSEADDR, 1)
                self.socket.bind(to_system(local, family))
            if network.kind == "tcp":
                self.socket.setsockopt(_std.IPPROTO_TCP, _std.TCP_NODELAY, 1)
            self._is_done = begin_connect(self.socket, to_system(remote, family))
        except BaseException:
            self.socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor."""
        return self.socket.fileno()

    def close(self) -> None:
        """Ends the attempt."""
        self.socket.close()

    def finish(self) -> bool:
        """Returns true if it is connected. Raises OSError if connecting has failed."""
        if not self._is_done and not has_connected(self.socket):
            return False
        # The system may give a connecting socket the very port that it dials: without a listener it meets itself.
        is_stream = self.socket.type == _std.SOCK_STREAM
        if is_stream and not self._may_meet and self.socket.getsockname() == self.socket.getpeername():
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return True


def dialed(network: Network, addresses: Sequence[Addr], local: Addr | None) -> Steps[tuple[socket, Addr]]:
    """A connection to one of these addresses, from an own one if that is given."""
    if network.kind == "unix":
        return (yield from _dialed_unix(network, addresses[0], local))
    if local is not None:
        family_of(network, local)
        if isinstance(local, IPAddr) and local.ip is not None:
            addresses = [one for one in addresses if isinstance(one, IPAddr) and one.is_ipv6 == local.is_ipv6]
    if not addresses:
        raise AddressError("no address of the family of the own one", str(local))
    done = yield from first_connected(addresses, lambda address: Dialing(network, address, local))
    return done.socket, remote_of(network.name, done.socket, done.remote)


def _dialed_unix(network: Network, remote: Addr, local: Addr | None) -> Steps[tuple[socket, Addr]]:
    sock = socket(family_of(network, remote), network.type)
    path = None
    try:
        sock.setblocking(False)
        if local is not None:
            sock.bind(to_system(local, family_of(network, local)))
            path = str(local)
        yield from connect(sock, remote)
    except BaseException:
        sock.close()
        if path and not path.startswith("@"):
            # Otherwise who tries again would find it taken.
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
    return sock, remote


def remote_of(network: str, sock: socket, address: Addr) -> Addr:
    """Returns the address that a socket is connected to: for a wildcard the one that the system took."""
    if not isinstance(address, (TCPAddr, UDPAddr)) or not (address.ip is None or address.ip.is_unspecified):
        return address
    try:
        return of_system(network, sock.getpeername())
    except OSError:
        # It was reset already.
        return address


def here(network: Network, address: Addr) -> Addr:
    """The address to dial for one without a host, which is this machine."""
    if isinstance(address, (TCPAddr, UDPAddr)) and address.ip is None:
        return type(address)("::1" if network.family == _std.AF_INET6 else "127.0.0.1", address.port)
    return address


def bound(network: Network, addresses: Sequence[Addr]) -> socket:
    """A socket bound to the first of these addresses that can be had; a listening one if the network has streams."""
    failures: Failures[Addr] = Failures()
    for address in addresses:
        family = family_of(network, address)
        # A wildcard of both families is one socket where the machine has IPv6.
        is_any = isinstance(address, IPAddr) and address.ip is None and network.family == 0
        for choice in (int(_std.AF_INET6), int(_std.AF_INET)) if is_any else (family,):
            try:
                return _bound(network, address, choice, is_any)
            except OSError as error:
                failures.add(address, error)
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    break
    raise failures.error()


def _bound(network: Network, address: Addr, family: int, is_dual: bool) -> socket:
    sock = socket(family, network.type)
    try:
        sock.setblocking(False)
        if network.kind == "tcp":
            sock.setsockopt(_std.SOL_SOCKET, _std.SO_REUSEADDR, 1)
        if family == _std.AF_INET6:
            sock.setsockopt(_std.IPPROTO_IPV6, _std.IPV6_V6ONLY, int(not is_dual))
        sock.bind(to_system(address, family))
        if network.is_stream:
            sock.listen()
    except BaseException:
        sock.close()
        raise
    return sock
