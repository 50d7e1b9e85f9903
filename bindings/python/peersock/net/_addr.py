"""Addresses of endpoints."""

from __future__ import annotations

import socket as _std
from abc import ABC, abstractmethod
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from .. import _names
from ._errors import AddressError
from ._hostport import join_host_port
from ._networks import network_of

IP = IPv4Address | IPv6Address

_V4, _V6 = int(_std.AF_INET), int(_std.AF_INET6)


class Addr(ABC):
    """The address of an endpoint. ``str()`` of it is the text that `dial()` and `listen()` take."""

    __slots__ = ()

    @property
    @abstractmethod
    def network(self) -> str:
        """The name of its network: ``tcp``, ``udp``, ``ip``, ``unix`` or ``unixgram``."""


@dataclass(frozen=True, init=False)
class IPAddr(Addr):
    """An IP address, with the zone of an IPv6 one.

    Args:
        ip: The address, as a text or an object of `ipaddress`; ``None`` is every own address to
            listeners, and this machine to those who dial. A text may have its zone behind a ``%``. An IPv4
            address in IPv6's form is the IPv4 address.
        zone: The interface that an IPv6 address belongs to: its name or its index.
        flowinfo: The flow label of an IPv6 address, from 0 to 0xFFFFF.

    Raises:
        AddressError: It is no IP address, or something of this does not fit it.
    """

    #: The address, without its zone.
    ip: IP | None
    #: The interface's name or index; empty if there is none.
    zone: str
    #: The flow label.
    flowinfo: int

    def __init__(self, ip: str | IP | None = None, zone: str = "", flowinfo: int = 0) -> None:
        found = parse_ip(ip) if isinstance(ip, str) else ip
        if isinstance(found, IPv6Address) and found.scope_id:
            zone, found = zone or found.scope_id, IPv6Address(int(found))
        if isinstance(found, IPv6Address) and found.ipv4_mapped and not zone:
            found = found.ipv4_mapped
        if zone and not isinstance(found, IPv6Address):
            raise AddressError("a zone goes with an IPv6 address", f"{ip}%{zone}")
        if not 0 <= flowinfo <= 0xFFFFF or (flowinfo and not isinstance(found, IPv6Address)):
            raise AddressError(f"flow label {flowinfo:#x} does not fit", str(ip))
        object.__setattr__(self, "ip", found)
        object.__setattr__(self, "zone", zone)
        object.__setattr__(self, "flowinfo", flowinfo)

    @property
    def network(self) -> str:
        return "ip"

    @property
    def is_ipv6(self) -> bool:
        """True if it is an IPv6 address."""
        return isinstance(self.ip, IPv6Address)

    @property
    def scope_id(self) -> int:
        """The index of the zone's interface; 0 without one.

        Raises:
            AddressError: There is no such interface.
        """
        if not self.zone or (self.zone.isascii() and self.zone.isdigit()):
            return int(self.zone or 0)
        try:
            return _names.if_nametoindex(self.zone)
        except (OSError, ValueError):
            raise AddressError(f"there is no interface {self.zone}", str(self)) from None

    def __str__(self) -> str:
        if self.ip is None:
            return ""
        return f"{self.ip}%{self.zone}" if self.zone else str(self.ip)


@dataclass(frozen=True, init=False)
class _Port(IPAddr):
    """An IP address and a port."""

    #: The port, from 0 to 65535.
    port: int

    def __init__(self, ip: str | IP | None = None, port: int = 0, zone: str = "", flowinfo: int = 0) -> None:
        super().__init__(ip, zone, flowinfo)
        if not 0 <= port <= 0xFFFF:
            raise AddressError("invalid port", str(port))
        object.__setattr__(self, "port", port)

    def __str__(self) -> str:
        return join_host_port(super().__str__(), self.port)


@dataclass(frozen=True, init=False)
class TCPAddr(_Port):
    """The address of a TCP endpoint: as `IPAddr`, and a port from 0 to 65535."""

    @property
    def network(self) -> str:
        return "tcp"


@dataclass(frozen=True, init=False)
class UDPAddr(_Port):
    """The address of a UDP endpoint: as `IPAddr`, and a port from 0 to 65535."""

    @property
    def network(self) -> str:
        return "udp"


@dataclass(frozen=True)
class UnixAddr(Addr):
    """The address of a Unix domain socket.

    Args:
        name: The path. With ``@`` before it it is a name in Linux's abstract namespace. Empty where an endpoint has no
            name.
        net: ``unix`` for streams, ``unixgram`` for datagrams.

    Raises:
        AddressError: The path has a NUL in it.
        UnknownNetworkError: The network is another one.
    """

    name: str
    net: str = "unix"

    def __post_init__(self) -> None:
        network_of(self.net, "unix")
        if "\0" in self.name and not self.name.startswith("@"):
            raise AddressError("a path has no NUL in it", repr(self.name))

    @property
    def network(self) -> str:
        return self.net

    def __str__(self) -> str:
        return self.name


def parse_ip(text: str) -> IP:
    """The IP address that a text is.

    Raises:
        AddressError: It is none. Abbreviations such as ``127.1`` are none, as a zone without a name.
    """
    try:
        return ip_address(text)
    except ValueError:
        raise AddressError("no IP address", text) from None


def to_system(address: Addr, family: int) -> Any:
    """The address in the form of the system's sockets, for one of this family."""
    if isinstance(address, UnixAddr):
        if address.name.startswith("@"):
            return b"\0" + address.name[1:].encode("utf-8", "surrogateescape")
        return address.name
    assert isinstance(address, _Port)
    if family == _V4:
        return str(address.ip or "0.0.0.0"), address.port
    if address.ip is None or isinstance(address.ip, IPv6Address):
        return str(address.ip or "::"), address.port, address.flowinfo, address.scope_id
    return f"::ffff:{address.ip}", address.port, 0, 0


def of_system(network: str, address: Any) -> Addr:
    """The address that the system's form is, in a network of this name."""
    if network.startswith("unix"):
        if isinstance(address, bytes):
            text = address.decode("utf-8", "surrogateescape")
            return UnixAddr("@" + text[1:] if text.startswith("\0") else text, network)
        return UnixAddr(address or "", network)
    host, port, *rest = address
    flowinfo, scope = rest if len(rest) == 2 else (0, 0)
    kind = TCPAddr if network.startswith("tcp") else UDPAddr
    # A name for the zone is in the host itself on some systems.
    host, _, zone = host.partition("%")
    if scope:
        try:
            zone = _names.if_indextoname(scope)
        except OSError:
            zone = str(scope)
    return kind(host, port, zone, flowinfo)
