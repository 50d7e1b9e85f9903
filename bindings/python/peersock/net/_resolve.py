"""Addresses of texts: literals, names of members, all other names as the system resolves them."""

from __future__ import annotations

import socket as _std
from collections.abc import Sequence
from typing import TypeVar

from .. import _names
from ._addr import Addr, IPAddr, TCPAddr, UDPAddr, UnixAddr, parse_ip
from ._errors import AddressError
from ._hostport import port_number, split_host_port
from ._networks import Network, network_of, unixgram

_A = TypeVar("_A", bound=IPAddr)


def resolve_tcp_addr(address: str, network: str = "tcp") -> TCPAddr:
    """The TCP address of ``host:port``.

    The host is an IP address, a member's name or another one, or empty. The port is a number or a service's name. Of
    several addresses it is the first IPv4 one, unless the host is in brackets or the network says otherwise; `dial()`
    tries all.

    Raises:
        AddressError: The text is malformed, or the host or service is not known, or has no address of that network.
        UnknownNetworkError: The network is none of ``tcp``, ``tcp4``, ``tcp6``.
    """
    return _preferred(_tcp(address, network_of(network, "tcp")), "[" in address)


def resolve_udp_addr(address: str, network: str = "udp") -> UDPAddr:
    """The UDP address of ``host:port``: as `resolve_tcp_addr()`, of the networks ``udp``, ``udp4`` and ``udp6``."""
    return _preferred(_udp(address, network_of(network, "udp")), "[" in address)


def resolve_ip_addr(address: str, network: str = "ip") -> IPAddr:
    """The IP address of a host: as `resolve_tcp_addr()`, without a port, of ``ip``, ``ip4`` and ``ip6``."""
    return _preferred(_ip(address, network_of(network, "ip")), ":" in address)


def resolve_unix_addr(address: str, network: str = "unix") -> UnixAddr:
    """The address of a Unix domain socket by its path, of the networks ``unix`` and ``unixgram``.

    Raises:
        AddressError: The path has a NUL in it.
        UnknownNetworkError: The network is another one.
    """
    return _unix(address, network_of(network, "unix"))


def resolve_unixgram_addr(address: str, network: str = "unixgram") -> UnixAddr:
    """As `resolve_unix_addr()`, of the network ``unixgram`` alone."""
    return _unix(address, unixgram(network))


def resolve_addr(address: str, network: str = "tcp") -> Addr:
    """The address of a text, as the function for the network would find it.

    Raises:
        AddressError: The text is malformed, or something of it is not known.
        UnknownNetworkError: There is no such network.
    """
    found = network_of(network, "tcp", "udp", "ip", "unix")
    if found.kind == "tcp":
        return resolve_tcp_addr(address, network)
    if found.kind == "udp":
        return resolve_udp_addr(address, network)
    return resolve_ip_addr(address, network) if found.kind == "ip" else resolve_unix_addr(address, network)


def lookup(address: str, network: Network) -> Sequence[Addr]:
    """All addresses of a text, in the order in which the system would try them (RFC 6724)."""
    if network.kind == "unix":
        return [_unix(address, network)]
    return _tcp(address, network) if network.kind == "tcp" else _udp(address, network)


def _unix(address: str, network: Network) -> UnixAddr:
    return UnixAddr(address, network.name)


def _tcp(address: str, network: Network) -> list[TCPAddr]:
    host, service = split_host_port(address)
    port = port_number(service, "tcp")
    return [TCPAddr(ip.ip, port, ip.zone) for ip in _hosts(host, network, address)]


def _udp(address: str, network: Network) -> list[UDPAddr]:
    host, service = split_host_port(address)
    port = port_number(service, "udp")
    return [UDPAddr(ip.ip, port, ip.zone) for ip in _hosts(host, network, address)]


def _ip(address: str, network: Network) -> list[IPAddr]:
    return _hosts(address, network, address)


def _hosts(host: str, network: Network, address: str) -> list[IPAddr]:
    """The host's addresses that the network has."""
    if not host:
        return [IPAddr()]
    found = [IPAddr(host)] if _is_literal(host) else _names_of(host, network, address)
    families = (_std.AF_INET, _std.AF_INET6)
    fitting = [ip for ip in dict.fromkeys(found) if network.family in (0, families[ip.is_ipv6])]
    if not fitting:
        raise AddressError(f"no address of the network {network.name}", address)
    return fitting


def _is_literal(host: str) -> bool:
    """Returns true if the host is an IP address or, by its end, can be nothing else: the resolver is not asked then."""
    if ":" in host or "%" in host:
        return True
    last = host.rstrip(".").rpartition(".")[2]
    if last.isascii() and last.isdigit():
        return True
    try:
        parse_ip(host)
    except AddressError:
        return False
    return True


def _names_of(host: str, network: Network, address: str) -> list[IPAddr]:
    try:
        entries = _names.getaddrinfo(host, None, network.family, _std.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise AddressError(f"no such host: {reason}", address) from error
    found = []
    for family, _, _, _, place in entries:
        if family in (_std.AF_INET, _std.AF_INET6):
            scope = place[3] if len(place) == 4 else 0
            found.append(IPAddr(place[0], "" if "%" in place[0] or not scope else str(scope)))
    return found


def _preferred(found: list[_A], wants_v6: bool) -> _A:
    return next((address for address in found if address.is_ipv6 == wants_v6), found[0])
