"""Addresses in the form that needs no more looking up."""

from __future__ import annotations

import operator
import socket as _std
from typing import Any

from . import _names

Address = tuple[Any, ...]

V4, V6 = int(_std.AF_INET), int(_std.AF_INET6)
_ANY = {V4: "0.0.0.0", V6: "::"}
#: Number of elements of each family's addresses.
_LENGTHS = {V4: (2,), V6: (2, 3, 4)}


def numeric(family: int, address: object) -> Address | None:
    """The address with a number for its host, as CPython's own sockets would resolve it.

    ``None`` for what makes no sense: CPython's own socket says best what is wrong with it.
    """
    if not isinstance(address, tuple) or len(address) not in _LENGTHS[family]:
        return None
    try:
        port, *rest = (operator.index(number) for number in address[1:])
    except TypeError:
        return None
    if not 0 <= port <= 0xFFFF or (rest and not 0 <= rest[0] <= 0xFFFFF):
        return None
    host = address[0]
    if isinstance(host, (bytes, bytearray)):
        try:
            host = host.decode("ascii")
        except UnicodeDecodeError:
            return None
    if not isinstance(host, str) or "\0" in host:
        return None
    if _is_numeric(family, host):
        return (host, port, *rest)
    found = _look_up(family, host)
    # A scope in the name of the host is one, too.
    scope = found[3] if len(found) == 4 and found[3] and len(rest) < 2 else None
    if scope is not None:
        rest = [rest[0] if rest else 0, scope]
    return (found[0], port, *rest)


def _is_numeric(family: int, host: str) -> bool:
    try:
        _std.inet_pton(family, host)
    except (OSError, UnicodeError):
        return False
    return True


def _look_up(family: int, host: str) -> Address:
    if host == "":
        return (_ANY[family],)
    if host == "<broadcast>" and family == V4:
        return ("255.255.255.255",)
    address: Address = _names.getaddrinfo(host, None, family)[0][4]
    return address
