"""Hop-by-hop and destination options (RFC 3542 10, RFC 8200 4.2).

A header is built twice over: first without a buffer, to learn its size, then in a buffer of that size::

    size = inet6_opt_init(None)
    size, _ = inet6_opt_append(None, size, TYPE, len(value), 4)
    header = bytearray(inet6_opt_finish(None, size))
    end = inet6_opt_init(header)
    end, data = inet6_opt_append(header, end, TYPE, len(value), 4)
    inet6_opt_set_val(data, 0, value)
    inet6_opt_finish(header, end)

:class:`~peersock.rfc3542.hopopts` and :class:`~peersock.rfc3542.dstopts` do that in one call. Where C returns
-1, these functions raise ``ValueError``.
"""

from __future__ import annotations

from typing import NamedTuple

from .constants import IP6OPT_PAD1, IP6OPT_PADN
from .sockaddr import Buffer

_FIXED = 2
"""A header begins with the next header's protocol, which the kernel fills in, and its length; an option with
its type and length."""
_LONGEST = 256 * 8


class ip6_opt(NamedTuple):
    """An option that was found."""

    offset: int
    """Where the next option begins."""
    type: int
    data: memoryview


def inet6_opt_init(extbuf: bytearray | None) -> int:
    """Begins a header (RFC 3542 10.1) and returns the size of an empty one, 2 bytes. Its length is the
    buffer's.

    Raises:
        ValueError: If the buffer's length is not a multiple of 8 from 8 to 2048.
    """
    if extbuf is not None:
        if not extbuf or len(extbuf) % 8 or len(extbuf) > _LONGEST:
            raise ValueError(f"a header has 8 to {_LONGEST} bytes, in eights, not {len(extbuf)}")
        extbuf[1] = len(extbuf) // 8 - 1
    return _FIXED


def inet6_opt_append(
    extbuf: bytearray | None, offset: int, type: int, len: int, align: int = 1
) -> tuple[int, memoryview | None]:
    """Appends an option of ``len`` bytes (RFC 3542 10.2), after the padding that aligns its data to
    ``align``.

    Returns where the next option begins, and a view of the data, which is to be filled; none without a
    buffer.

    Raises:
        ValueError: If the type is one of padding, ``len`` is over 255, ``align`` is not 1, 2, 4 or 8 or is
            greater than ``len``, or the buffer has no room.
    """
    _check_offset(offset)
    if not 2 <= type <= 255:
        raise ValueError(f"the type of an option is 2 to 255, not {type}")
    if not 0 <= len <= 255:
        raise ValueError(f"an option has at most 255 bytes, not {len}")
    if align not in (1, 2, 4, 8) or align > len:
        raise ValueError(f"alignment is 1, 2, 4 or 8, and not more than the {len} bytes: {align}")
    padding = -(offset + _FIXED) % align
    start = offset + padding + _FIXED
    if extbuf is None:
        return start + len, None
    view = memoryview(extbuf)
    if start + len > view.nbytes:
        raise ValueError(f"an option needs {start + len - offset} bytes, {max(view.nbytes - offset, 0)} are left")
    _pad(extbuf, offset, padding)
    extbuf[start - 2] = type
    extbuf[start - 1] = len
    return start + len, view[start : start + len]


def inet6_opt_finish(extbuf: bytearray | None, offset: int) -> int:
    """Pads a header to a multiple of 8 bytes (RFC 3542 10.3) and returns its size.

    Raises:
        ValueError: If the buffer has no room.
    """
    _check_offset(offset)
    padding = -offset % 8
    if extbuf is not None:
        if offset + padding > len(extbuf):
            raise ValueError(f"the header needs {offset + padding} bytes, not {len(extbuf)}")
        _pad(extbuf, offset, padding)
    return offset + padding


def inet6_opt_set_val(databuf: memoryview, offset: int, val: Buffer) -> int:
    """Writes a part of an option's data (RFC 3542 10.4) and returns where it ends. The bytes are taken as
    they are, so numbers have to be in network byte order.

    Raises:
        ValueError: If it does not fit.
    """
    _check_part(databuf, offset, len(val))
    databuf[offset : offset + len(val)] = val
    return offset + len(val)


def inet6_opt_next(extbuf: Buffer, offset: int = 0) -> ip6_opt | None:
    """The option at an offset, padding left out (RFC 3542 10.5), or None after the last. The first is at 0;
    the next at the ``offset`` of the last.

    Raises:
        ValueError: If the header is malformed.
    """
    return _next(extbuf, offset, None)


def inet6_opt_find(extbuf: Buffer, offset: int, type: int) -> ip6_opt | None:
    """As :func:`inet6_opt_next`, but the next option of one type (RFC 3542 10.6), which may be one of
    padding.

    Raises:
        ValueError: If the header is malformed.
    """
    return _next(extbuf, offset, type)


def inet6_opt_get_val(databuf: Buffer, offset: int, vallen: int) -> tuple[bytes, int]:
    """A part of an option's data (RFC 3542 10.7), and where it ends.

    Raises:
        ValueError: If the data is shorter.
    """
    _check_part(databuf, offset, vallen)
    return bytes(databuf[offset : offset + vallen]), offset + vallen


def _next(extbuf: Buffer, offset: int, wanted: int | None) -> ip6_opt | None:
    view = memoryview(extbuf)
    offset = offset or _FIXED
    _check_offset(offset)
    while offset < len(view):
        type = view[offset]
        # RFC 8200 4.2: Pad1 alone has neither length nor data.
        if type == IP6OPT_PAD1:
            offset += 1
            if wanted == IP6OPT_PAD1:
                return ip6_opt(offset, type, view[offset:offset])
            continue
        start = offset + _FIXED
        offset = start + view[start - 1] if start <= len(view) else start
        if offset > len(view):
            raise ValueError("an option goes beyond its header")
        if type == wanted or (wanted is None and type != IP6OPT_PADN):
            return ip6_opt(offset, type, view[start:offset])
    return None


def _pad(extbuf: bytearray, offset: int, padding: int) -> None:
    if padding == 1:
        extbuf[offset] = IP6OPT_PAD1
    elif padding:
        extbuf[offset : offset + padding] = bytes((IP6OPT_PADN, padding - 2)) + bytes(padding - 2)


def _check_offset(offset: int) -> None:
    if offset < _FIXED:
        raise ValueError(f"the first option is at {_FIXED}, not at {offset}")


def _check_part(databuf: Buffer, offset: int, size: int) -> None:
    if not 0 <= offset <= offset + size <= len(databuf):
        raise ValueError(f"bytes {offset} to {offset + size} of {len(databuf)}")
