"""Routing headers (RFC 3542 7).

Only type 0 is known here, as in C. It exists to read and to test, because RFC 5095 has abolished it. Linux
refuses to send it, and no node of the overlay sends, follows or forwards it.
"""

from __future__ import annotations

from ipaddress import IPv6Address

from .constants import IPV6_RTHDR_TYPE_0
from .sockaddr import Address, Buffer, address

_FIXED = 8
"""Next header, length in eights without the first, type, segments left; four bytes that are reserved."""
_MOST = 127


def inet6_rth_space(type: int, segments: int) -> int:
    """Returns the size of a routing header with ``segments`` addresses, in bytes (RFC 3542 7.1).

    Raises:
        ValueError: If the type is not 0, or there are more than 127 addresses.
    """
    if type != IPV6_RTHDR_TYPE_0:
        raise ValueError(f"a routing header of type {type} cannot be built")
    if not 0 <= segments <= _MOST:
        raise ValueError(f"a routing header has 0 to {_MOST} addresses, not {segments}")
    return _FIXED + 16 * segments


def inet6_rth_init(bp: bytearray, type: int, segments: int) -> bytearray:
    """Begins a routing header in a buffer (RFC 3542 7.2), which is returned. What it had there is gone.

    Raises:
        ValueError: If the buffer is too small, or as for :func:`inet6_rth_space`.
    """
    size = inet6_rth_space(type, segments)
    if len(bp) < size:
        raise ValueError(f"the header needs {size} bytes, not {len(bp)}")
    bp[:size] = bytes(size)
    bp[1] = 2 * segments
    bp[2] = type
    return bp


def inet6_rth_add(bp: bytearray, addr: Address) -> None:
    """Adds an address at the end (RFC 3542 7.3).

    Raises:
        ValueError: If there are as many as the header was made for, or it is not of type 0.
    """
    added = bp[3] if len(bp) >= _FIXED else 0
    if added >= inet6_rth_segments(bp):
        raise ValueError("the routing header is full")
    bp[_FIXED + 16 * added : _FIXED + 16 * (added + 1)] = address(addr).packed
    bp[3] = added + 1


def inet6_rth_reverse(source: Buffer, target: bytearray) -> None:
    """Writes a routing header for the way back (RFC 3542 7.4); target may be the source.

    Raises:
        ValueError: If the source is no routing header of type 0, or the target is too small.
    """
    segments = inet6_rth_segments(source)
    size = inet6_rth_space(IPV6_RTHDR_TYPE_0, segments)
    if len(target) < size:
        raise ValueError(f"the header needs {size} bytes, not {len(target)}")
    addresses = [inet6_rth_getaddr(source, index).packed for index in reversed(range(segments))]
    # RFC 3542 7.4: all are to be visited again.
    target[:size] = bytes(source[:3]) + bytes((segments,)) + bytes(source[4:_FIXED]) + b"".join(addresses)


def inet6_rth_segments(bp: Buffer) -> int:
    """Returns the number of addresses that a routing header has room for (RFC 3542 7.5).

    Raises:
        ValueError: If it is not of type 0, its length is odd, or it is longer than the buffer.
    """
    if len(bp) < _FIXED:
        raise ValueError(f"a routing header has at least {_FIXED} bytes, not {len(bp)}")
    if bp[2] != IPV6_RTHDR_TYPE_0:
        raise ValueError(f"a routing header of type {bp[2]} has no list of addresses")
    if bp[1] % 2:
        raise ValueError(f"{bp[1]} times 8 bytes are no whole addresses")
    if _FIXED + 8 * bp[1] > len(bp):
        raise ValueError(f"the header says that it has {_FIXED + 8 * bp[1]} bytes, not {len(bp)}")
    return bp[1] // 2


def inet6_rth_getaddr(bp: Buffer, index: int) -> IPv6Address:
    """An address by its index, from 0 (RFC 3542 7.6).

    Raises:
        ValueError: If it has no such address, or as for :func:`inet6_rth_segments`.
    """
    if not 0 <= index < inet6_rth_segments(bp):
        raise ValueError(f"the routing header has no address {index}")
    return IPv6Address(bytes(bp[_FIXED + 16 * index : _FIXED + 16 * (index + 1)]))
