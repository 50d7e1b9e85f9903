"""Names: those of members first, all others as the system resolves them.

The system is not asked about names and addresses that the node cannot be asked about, because they may be members'."""

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

#: Numbers of ``herror`` (``h_errno``).
_HOST_NOT_FOUND, _TRY_AGAIN = 1, 2
_UNANSWERED = "The node does not answer, and no other server is asked for what may be a member's name"
_ABSENT = "No member of the network has this name"


def resolve(name: str) -> list[str]:
    """The addresses of a member; none for what the system must resolve."""
    try:
        return _peersock.resolve(name)
    except FileNotFoundError as error:
        raise _std.gaierror(_std.EAI_NONAME, _ABSENT) from error
    except OSError as error:
        raise _std.gaierror(_std.EAI_AGAIN, _UNANSWERED) from error


def literal(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[tuple[Any, Any, int, str, Any]]:
    """As ``getaddrinfo``, without asking a resolver."""
    return _getaddrinfo(host, port, family, type, proto, flags | _std.AI_NUMERICHOST)


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
        try:
            ips = resolve(text)
        except _std.gaierror as unanswered:
            try:
                return literal(host, port, family, type, proto, flags)
            except _std.gaierror as error:
                raise (unanswered if error.errno == _std.EAI_NONAME else error) from None
    # The C library looks at the machine's interfaces only, and the networks' addresses are configured ones, too.
    numeric = flags & ~_std.AI_ADDRCONFIG | _std.AI_NUMERICHOST
    for ip in _wanted(ips, family, flags):
        with contextlib.suppress(_std.gaierror):
            found += _getaddrinfo(ip, port, family, type, proto, numeric)
    if found:
        return found
    # A member without such an address may be another host to the system.
    return (literal if ips else _getaddrinfo)(host, port, family, type, proto, flags)


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
        host, failure = _text(sockaddr[0]), _std.gaierror(_std.EAI_NONAME, "Name or service not known")
        try:
            name, is_systems = _peersock.name_of(host), not _peersock.is_overlays(host)
        except OSError:
            name, is_systems, failure = None, False, _std.gaierror(_std.EAI_AGAIN, _UNANSWERED)
        if name is not None:
            return name, _getnameinfo(sockaddr, flags | _std.NI_NUMERICHOST)[1]
        if not is_systems:
            if flags & _std.NI_NAMEREQD:
                raise failure
            flags |= _std.NI_NUMERICHOST
    return _getnameinfo(sockaddr, flags)


def _resolve4(hostname: object) -> list[str]:
    ips = resolve(_text(hostname))
    found = [ip for ip in ips if ":" not in ip]
    if ips and not found:
        raise _std.gaierror(_std.EAI_NONAME, "The member has no IPv4 address")
    return found


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
    text = _text(ip_address)
    try:
        name = _peersock.name_of(text)
    except OSError as error:
        raise _std.herror(_TRY_AGAIN, _UNANSWERED) from error
    if name is not None:
        return name, [], [ip_address]
    if _peersock.is_overlays(text):
        raise _std.herror(_HOST_NOT_FOUND, "Unknown host")
    found = resolve(text)
    return (text, [], found) if found else _gethostbyaddr(ip_address)


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
