"""``struct in6_addr`` and ``struct sockaddr_in6`` (RFC 3493 3.2, 3.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from socket import AF_INET6

Address = str | bytes | int | IPv6Address
"""An IPv6 address as callers may give it: text, 16 bytes, a number, or an ``IPv6Address``."""

Buffer = bytes | bytearray | memoryview


def address(value: Address) -> IPv6Address:
    """Returns an address without its zone, which is no part of ``struct in6_addr``."""
    return IPv6Address(IPv6Address(value).packed)


def exactly(data: Buffer, size: int, what: str) -> bytes:
    """Returns data as bytes.

    Raises:
        ValueError: If it has another size than the structure; such data is damaged or was cut (MSG_CTRUNC).
    """
    if len(data) != size:
        raise ValueError(f"{what} has {size} bytes, not {len(data)}")
    return bytes(data)


@dataclass(frozen=True, init=False)
class sockaddr_in6:
    """A socket address. All fields are numbers in the host's byte order."""

    sin6_port: int
    sin6_flowinfo: int
    sin6_addr: IPv6Address
    sin6_scope_id: int

    SIZE = 28

    def __init__(self, addr: Address, port: int = 0, flowinfo: int = 0, scope_id: int = 0) -> None:
        if not 0 <= port <= 0xFFFF:
            raise ValueError(f"a port is 0 to 65535, not {port}")
        # RFC 8200 3: 8 bits of traffic class and 20 of flow label.
        if not 0 <= flowinfo <= 0x0FFF_FFFF:
            raise ValueError(f"flow information has 28 bits: {flowinfo:#x}")
        if not 0 <= scope_id <= 0xFFFF_FFFF:
            raise ValueError(f"a scope has 32 bits: {scope_id:#x}")
        object.__setattr__(self, "sin6_port", port)
        object.__setattr__(self, "sin6_flowinfo", flowinfo)
        object.__setattr__(self, "sin6_addr", address(addr))
        object.__setattr__(self, "sin6_scope_id", scope_id)

    def __bytes__(self) -> bytes:
        head = struct.pack("=H", AF_INET6) + struct.pack("!HI", self.sin6_port, self.sin6_flowinfo)
        return head + self.sin6_addr.packed + struct.pack("=I", self.sin6_scope_id)

    @classmethod
    def from_bytes(cls, data: Buffer) -> sockaddr_in6:
        """Parses the structure.

        Raises:
            ValueError: If it has another size or another family than AF_INET6.
        """
        data = exactly(data, cls.SIZE, "sockaddr_in6")
        (family,) = struct.unpack_from("=H", data)
        if family != AF_INET6:
            raise ValueError(f"the family of a sockaddr_in6 is {int(AF_INET6)}, not {family}")
        port, flowinfo = struct.unpack_from("!HI", data, 2)
        (scope_id,) = struct.unpack_from("=I", data, 24)
        return cls(data[8:24], port, flowinfo & 0x0FFF_FFFF, scope_id)

    def to_tuple(self) -> tuple[str, int, int, int]:
        """The address as Python's sockets have it: ``(host, port, flowinfo, scope_id)``."""
        return (str(self.sin6_addr), self.sin6_port, self.sin6_flowinfo, self.sin6_scope_id)
