"""Addresses: as programs write them, as sockets have them, and of names."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket as _std
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import _names
from ..interfaces import IP4, IP6, Interface, IPRange, Route

if TYPE_CHECKING:
    from ._options import Options

#: The protocols.
TCP = _std.SOCK_STREAM
UDP = _std.SOCK_DGRAM
#: Every address family that there is.
AF_ANY = _std.AF_UNSPEC

#: An address and a port. The address of a link in IPv6 has its interface behind a ``%``.
Tup: TypeAlias = tuple[str, int]

_IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
LOOPBACK = {IP4: "127.0.0.1", IP6: "::1"}


def parse_ip(host: object) -> _IPAddress | None:
    """The address that a text, a block or an object is; None for names and everything else."""
    if isinstance(host, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return host
    if isinstance(host, IPRange):
        return host[0]
    try:
        return ipaddress.ip_address(host) if isinstance(host, str) else None
    except ValueError:
        return None


def plain(ip: _IPAddress) -> _IPAddress:
    """The address without what only a socket adds: IPv4 in IPv6."""
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def tup_of(sockaddr: Any) -> Tup:
    """The address and port of what a socket gives. IPv4 in IPv6 becomes IPv4."""
    host, port = str(sockaddr[0]), int(sockaddr[1])
    ip = parse_ip(host)
    if ip is None:
        return host, port
    if len(sockaddr) == 4 and sockaddr[3] and "%" not in host:
        ip = ipaddress.IPv6Address(f"{ip}%{sockaddr[3]}")
    return str(plain(ip)), port


def sockaddr_of(tup: Tup, family: int) -> tuple[Any, ...]:
    """The form that a socket of the family takes.

    Raises:
        ValueError: It takes no such address.
    """
    host, port = tup
    ip = parse_ip(host)
    if ip is None:
        raise ValueError(f"{host!r} is no IPv4 or IPv6 address")
    if isinstance(ip, ipaddress.IPv4Address):
        return (str(ip), port) if family == IP4 else (f"::ffff:{ip}", port, 0, 0)
    if family == IP4:
        raise ValueError(f"a pipe of IPv4 cannot reach {host}")
    return (str(ip).partition("%")[0], port, 0, _scope(ip.scope_id))


def _scope(text: str | None) -> int:
    if not text:
        return 0
    return int(text) if text.isdecimal() else _names.if_nametoindex(text)


def parse_port(port: object, least: int = 0) -> int:
    """A port.

    Raises:
        TypeError, ValueError: It is none.
    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"a port is an int, not {port!r} ({type(port).__name__})")
    if not least <= port <= 0xFFFF:
        raise ValueError(f"a port is from {least} to 65535, not {port}")
    return port


def parse_tup(value: object) -> tuple[str, int]:
    """A destination: a host and a port, as a tuple or list; what sockets have in IPv6 behind them is taken, too.

    Raises:
        TypeError, ValueError: It is none.
    """
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"a destination is a tuple of a host and a port, not {value!r} ({type(value).__name__})")
    if len(value) == 4 and isinstance(value[3], int) and isinstance(value[0], str):
        return tup_of(value)[0], parse_port(value[1], 1)
    if len(value) != 2:
        raise ValueError(f"a destination is a host and a port, not {value!r}")
    return _host(value[0]), parse_port(value[1], 1)


def _host(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        # Text, not the four or sixteen bytes of an address.
        value = bytes(value).decode("ascii")
    ip = parse_ip(value)
    if ip is not None:
        return str(ip)
    if not isinstance(value, str):
        raise TypeError(f"a host is a name or an address, not {value!r} ({type(value).__name__})")
    if not value or "\0" in value:
        raise ValueError(f"{value!r} is no name of a host")
    return value


class Address:
    """A host, by its name or address, and a port. Awaiting it resolves the name.

    Names of the overlay's members are resolved first. The wildcard addresses stand for this machine::

        address = await Address("localhost", 8080)
        pipe = await pipe_open(TCP, address)

    Args:
        host: A name, or an address of IPv4 or IPv6, which may have its interface behind a ``%``.
        port: 1 to 65535.
        route: A route or interface: `tup` is then of its family.
        conf: Options, of which ``dns_timeout`` is used.

    Raises:
        TypeError: The host, the port or an option is not of the right type.
        ValueError: They make no sense.
    """

    def __init__(
        self,
        host: Any,
        port: int,
        route: Route | Interface | None = None,
        conf: Mapping[str, Any] | None = None,
    ) -> None:
        from ._options import Options

        self.host, self.port = parse_tup((host, port))
        self.route = route
        #: The first address of each family, once it is resolved.
        self.IP4: str | None = None
        self.IP6: str | None = None
        #: True if the address is resolved.
        self.resolved = False
        self._found: list[Tup] = []
        self._options: Options = Options.parse(conf)

    def __await__(self) -> Generator[Any, None, Address]:
        return self.res().__await__()

    def __repr__(self) -> str:
        return f"Address({self.host!r}, {self.port})"

    async def res(self, route: Route | Interface | None = None) -> Address:
        """Resolves the host, and gives the address itself.

        Raises:
            TimeoutError: It took longer than the option ``dns_timeout``.
            OSError: There is no such name.
        """
        self.route = route or self.route
        found = await _resolve(self.host, self._options.dns_timeout)
        self._found = [(str(self._local(ip)), self.port) for ip in found]
        self.IP4 = next((host for host, _ in self._found if ":" not in host), None)
        self.IP6 = next((host for host, _ in self._found if ":" in host), None)
        self.resolved = True
        return self

    def _local(self, ip: _IPAddress) -> _IPAddress:
        """The address with what it lacks to be connected to."""
        if ip.is_unspecified:
            return ipaddress.ip_address(LOOPBACK[IP4 if ip.version == 4 else IP6])
        interface = self.route.interface if isinstance(self.route, Route) else self.route
        if isinstance(ip, ipaddress.IPv6Address) and ip.is_link_local and not ip.scope_id and interface:
            return ipaddress.IPv6Address(f"{ip}%{interface.index}")
        return ip

    @property
    def tups(self) -> list[Tup]:
        """All addresses of the route's family, or else of both, the one to try first at the front.

        Raises:
            ValueError: The address is not resolved: await it first.
        """
        if not self.resolved:
            raise ValueError(f"{self.host} is not resolved: await the address first")
        if isinstance(self.route, Interface):
            families = self.route.supported()
        else:
            families = [IP4, IP6] if self.route is None else [self.route.af]
        return [tup for tup in self._found if family_of(tup) in families]

    @property
    def tup(self) -> Tup:
        """The address and port to try first.

        Raises:
            ValueError: The address is not resolved, or has none of the route's family.
        """
        return self._first(self.tups)

    def select_ip(self, af: int) -> Tup:
        """The first address of a family, and the port.

        Raises:
            ValueError: The address is not resolved, or has none of the family.
        """
        return self._first([tup for tup in self.tups if af == AF_ANY or family_of(tup) == af])

    def _first(self, tups: list[Tup]) -> Tup:
        if not tups:
            raise ValueError(f"{self.host} has no address of that family")
        return tups[0]


def family_of(tup: Tup) -> int:
    """The family of an address that is a number."""
    return IP6 if ":" in tup[0] else IP4


async def _resolve(host: str, timeout: float) -> list[_IPAddress]:
    ip = parse_ip(host)
    if ip is not None:
        return [plain(ip)]
    try:
        found = await asyncio.wait_for(
            asyncio.to_thread(_names.getaddrinfo, host, None, 0, TCP),
            None if timeout == math.inf else timeout,
        )
    except asyncio.TimeoutError:
        raise TimeoutError(f"{host} was not resolved in {timeout:g} s") from None
    except UnicodeError:
        raise OSError(_std.EAI_NONAME, f"{host!r} is no name of a host") from None
    hosts = dict.fromkeys(tup_of(entry[4])[0] for entry in found)
    return [ip for ip in map(parse_ip, hosts) if ip is not None]
