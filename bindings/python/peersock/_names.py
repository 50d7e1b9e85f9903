"""Names: those of members first, all others as the system resolves them."""

from __future__ import annotations

import contextlib
import socket as _std
from typing import Any

from . import _peersock

_getaddrinfo = _std.getaddrinfo
_getnameinfo = _std.getnameinfo
_gethostbyname = _std.gethostbyname
_gethostbyname_ex = _std.gethostbyname_ex
_gethostbyaddr = _std.gethostbyaddr
_if_nameindex = _std.if_nameindex
_if_nametoindex = _std.if_nametoindex
_if_indextoname = _std.if_indextoname


def _text(host: object) -> str:
    """A host's name as text; empty for what is none."""
    if isinstance(host, (bytes, bytearray)):
        return bytes(host).decode("ascii", "ignore")
    return host if isinstance(host, str) else ""


def getaddrinfo(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[tuple[Any, Any, int, str, Any]]:
    """Resolve host and port into list of address info entries.

    Names of members are resolved first, all others as by the standard library.
    """
    found: list[tuple[Any, Any, int, str, Any]] = []
    text = _text(host)
    ips = [text] if _peersock.is_overlays(text) else []
    if not ips and not flags & _std.AI_NUMERICHOST:
        ips = _peersock.resolve(text)
    # The C library looks at the machine's interfaces only, and the networks' addresses are configured ones, too.
    numeric = flags & ~_std.AI_ADDRCONFIG | _std.AI_NUMERICHOST
    for ip in _wanted(ips, family, flags):
        with contextlib.suppress(_std.gaierror):
            found += _getaddrinfo(ip, port, family, type, proto, numeric)
    return found or _getaddrinfo(host, port, family, type, proto, flags)


def _wanted(ips: list[str], family: int, flags: int) -> list[str]:
    """Those of a host's addresses that the flags leave (RFC 3493 6.1)."""
    if ips and flags & _std.AI_ADDRCONFIG:
        own = {":" in address for address in _peersock.own_addresses()}
        ips = [ip for ip in ips if (":" in ip) in own]
    is_mapped = family == _std.AF_INET6 and flags & _std.AI_V4MAPPED
    if is_mapped and not flags & _std.AI_ALL and any(":" in ip for ip in ips):
        ips = [ip for ip in ips if ":" in ip]
    return ips


def getnameinfo(sockaddr: Any, flags: int, /) -> tuple[str, str]:
    """getnameinfo(sockaddr, flags) --> (host, port)

    Get host and port for a sockaddr."""
    if isinstance(sockaddr, tuple) and len(sockaddr) >= 2 and not flags & _std.NI_NUMERICHOST:
        name = _peersock.name_of(_text(sockaddr[0]))
        if name is not None:
            return name, _getnameinfo(sockaddr, flags | _std.NI_NUMERICHOST)[1]
    return _getnameinfo(sockaddr, flags)


def _resolve4(hostname: object) -> list[str]:
    return [ip for ip in _peersock.resolve(_text(hostname)) if ":" not in ip]


def gethostbyname(hostname: str, /) -> str:
    """gethostbyname(host) -> address

    Return the IP address (a string of the form '255.255.255.255') for a host."""
    return next(iter(_resolve4(hostname)), None) or _gethostbyname(hostname)


def gethostbyname_ex(hostname: str, /) -> tuple[str, list[str], list[str]]:
    """gethostbyname_ex(host) -> (name, aliaslist, addresslist)

    Return the true host name, a list of aliases, and a list of IP addresses,
    for a host.  The host argument is a string giving a host name or IP number."""
    found = _resolve4(hostname)
    return (_text(hostname), [], found) if found else _gethostbyname_ex(hostname)


def gethostbyaddr(ip_address: str, /) -> tuple[str, list[str], list[str]]:
    """gethostbyaddr(host) -> (name, aliaslist, addresslist)

    Return the true host name, a list of aliases, and a list of IP addresses,
    for a host.  The host argument is a string giving a host name or IP number."""
    name = _peersock.name_of(_text(ip_address))
    if name is not None:
        return name, [], [ip_address]
    found = _peersock.resolve(_text(ip_address))
    return (_text(ip_address), [], found) if found else _gethostbyaddr(ip_address)


def if_nameindex() -> list[tuple[int, str]]:
    """if_nameindex()

    Returns a list of network interface information (index, name) tuples."""
    known = _if_nameindex()
    # Under `run` the preloaded library has them there already.
    return known + [own for own in _peersock.interfaces() if own not in known]


def if_nametoindex(oname: str, /) -> int:
    """Returns the interface index corresponding to the interface name if_name."""
    for index, name in _peersock.interfaces():
        if name == _text(oname):
            return index
    return _if_nametoindex(oname)


def if_indextoname(index: int, /) -> str:
    """if_indextoname(if_index)

    Returns the interface name corresponding to the interface index if_index."""
    try:
        return _if_indextoname(index)
    except OSError:
        for own, name in _peersock.interfaces():
            if own == index:
                return name
        raise
