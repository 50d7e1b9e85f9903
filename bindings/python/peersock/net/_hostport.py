"""Hosts and ports in one text, and ports by their services' names."""

from __future__ import annotations

import socket as _std

from ._errors import AddressError

_MOST = 0xFFFF


def split_host_port(address: str) -> tuple[str, str]:
    """Splits ``host:port``, ``[host]:port`` or ``[host%zone]:port`` into host and port.

    Both are texts, and either may be empty. An IPv6 address needs its brackets.

    Raises:
        AddressError: There is no port, there are too many colons, or brackets are missing or out of place.
    """
    before, colon, port = address.rpartition(":")
    if not colon:
        raise AddressError("missing port in address", address)
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket:
            raise AddressError("missing ']' in address", address)
        if not rest.startswith(":"):
            raise AddressError("missing port in address", address)
        if rest != f":{port}":
            raise AddressError("too many colons in address", address)
    else:
        host = before
        if ":" in host:
            raise AddressError("too many colons in address", address)
    for part in (host, port):
        for bracket in "[]":
            if bracket in part:
                raise AddressError(f"unexpected '{bracket}' in address", address)
    return host, port


def join_host_port(host: str, port: str | int) -> str:
    """The text of which `split_host_port()` makes this host and port: with brackets if the host has a colon."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_number(service: str, protocol: str) -> int:
    """The number of a port: of its decimal text, of a service's name, or 0 for nothing.

    Raises:
        AddressError: It is out of range, or no service of the protocol has the name.
    """
    if not service:
        return 0
    digits = service[1:] if service[0] in "+-" else service
    if digits.isascii() and digits.isdigit():
        # Of a few thousand digits Python would not make a number.
        number = _MOST + 1 if len(digits.lstrip("0")) > 5 else int(digits)
        if number > _MOST or (number and service[0] == "-"):
            raise AddressError("invalid port", service)
        return number
    try:
        return _std.getservbyname(service.lower(), protocol)
    except (OSError, ValueError):
        raise AddressError(f"unknown port of {protocol}", service) from None
