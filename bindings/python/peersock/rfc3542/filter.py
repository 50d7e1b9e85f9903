"""Filters of the ICMPv6 messages that a raw socket receives (RFC 3542 3.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Protocol

from .constants import ICMP6_FILTER, IPPROTO_ICMPV6
from .sockaddr import Buffer, exactly

_WORDS = struct.Struct("=8I")


class _Socket(Protocol):
    def setsockopt(self, level: int, optname: int, value: bytes, /) -> None: ...
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


class icmp6_filter:
    """A set of ICMPv6 types, 0 to 255. A new one passes all of them, as a new socket does.

    ``bytes(filter)`` is the value of the socket option ICMP6_FILTER. In Linux's layout a bit that is set
    blocks; the RFC leaves that open.
    """

    __slots__ = ("_blocked",)
    SIZE = _WORDS.size

    def __init__(self, blocked: Iterable[int] = ()) -> None:
        self._blocked = 0
        for type in blocked:
            self.setblock(type)

    @classmethod
    def passing(cls, *types: int) -> icmp6_filter:
        """A filter that passes these types and blocks all others."""
        filter = cls()
        filter.setblockall()
        for type in types:
            filter.setpass(type)
        return filter

    def setpass(self, type: int) -> None:
        """Passes a type (ICMP6_FILTER_SETPASS)."""
        self._blocked &= ~_bit(type)

    def setblock(self, type: int) -> None:
        """Blocks a type (ICMP6_FILTER_SETBLOCK)."""
        self._blocked |= _bit(type)

    def setpassall(self) -> None:
        """Passes everything (ICMP6_FILTER_SETPASSALL)."""
        self._blocked = 0

    def setblockall(self) -> None:
        """Blocks everything (ICMP6_FILTER_SETBLOCKALL)."""
        self._blocked = (1 << 256) - 1

    def willpass(self, type: int) -> bool:
        """Returns true if a type passes (ICMP6_FILTER_WILLPASS)."""
        return not self._blocked & _bit(type)

    def willblock(self, type: int) -> bool:
        """Returns true if a type is blocked (ICMP6_FILTER_WILLBLOCK)."""
        return not self.willpass(type)

    def set_on(self, sock: _Socket) -> None:
        """Sets the filter of a raw ICMPv6 socket.

        Raises:
            OSError: If the socket is of another kind.
        """
        sock.setsockopt(IPPROTO_ICMPV6, ICMP6_FILTER, bytes(self))

    @classmethod
    def of(cls, sock: _Socket) -> icmp6_filter:
        """The filter of a raw ICMPv6 socket.

        Raises:
            OSError: If the socket is of another kind.
        """
        return cls.from_bytes(sock.getsockopt(IPPROTO_ICMPV6, ICMP6_FILTER, cls.SIZE))

    def __bytes__(self) -> bytes:
        return _WORDS.pack(*(self._blocked >> (32 * word) & 0xFFFF_FFFF for word in range(8)))

    @classmethod
    def from_bytes(cls, data: Buffer) -> icmp6_filter:
        """Parses the structure.

        Raises:
            ValueError: If it has another size than 32 bytes.
        """
        filter = cls()
        for word, bits in enumerate(_WORDS.unpack(exactly(data, cls.SIZE, "icmp6_filter"))):
            filter._blocked |= bits << (32 * word)
        return filter

    def __eq__(self, other: object) -> bool:
        return self._blocked == other._blocked if isinstance(other, icmp6_filter) else NotImplemented

    # It changes, so it cannot be the key of anything.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        passing = [type for type in range(256) if self.willpass(type)]
        if len(passing) <= 128:
            return f"icmp6_filter.passing({', '.join(map(str, passing))})"
        return f"icmp6_filter({[type for type in range(256) if self.willblock(type)]})"


def _bit(type: int) -> int:
    if not 0 <= type <= 255:
        raise ValueError(f"a type of ICMPv6 is 0 to 255, not {type}")
    return 1 << type


def ICMP6_FILTER_WILLPASS(type: int, filter: icmp6_filter) -> bool:
    """Returns true if a type passes."""
    return filter.willpass(type)


def ICMP6_FILTER_WILLBLOCK(type: int, filter: icmp6_filter) -> bool:
    """Returns true if a type is blocked."""
    return filter.willblock(type)


def ICMP6_FILTER_SETPASS(type: int, filter: icmp6_filter) -> None:
    """Passes a type."""
    filter.setpass(type)


def ICMP6_FILTER_SETBLOCK(type: int, filter: icmp6_filter) -> None:
    """Blocks a type."""
    filter.setblock(type)


def ICMP6_FILTER_SETPASSALL(filter: icmp6_filter) -> None:
    """Passes everything."""
    filter.setpassall()


def ICMP6_FILTER_SETBLOCKALL(filter: icmp6_filter) -> None:
    """Blocks everything."""
    filter.setblockall()
