"""The MTU of a path (RFC 3542 11)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from .ancillary import Ancillary
from .constants import IPPROTO_IPV6, IPV6_PATHMTU
from .sockaddr import Buffer, exactly, sockaddr_in6


class _Socket(Protocol):
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


@dataclass(frozen=True)
class ip6_mtuinfo(Ancillary):
    """The MTU of the path to an address, in bytes: the value of the option IPV6_PATHMTU, and what
    IPV6_RECVPATHMTU brings.

    ``ip6m_addr`` is the other end's; None where Linux leaves it out (AF_UNSPEC), as in the answer to
    ``getsockopt``.
    """

    ip6m_addr: sockaddr_in6 | None
    ip6m_mtu: int

    cmsg_type = IPV6_PATHMTU
    SIZE = sockaddr_in6.SIZE + 4

    def __bytes__(self) -> bytes:
        addr = bytes(sockaddr_in6.SIZE) if self.ip6m_addr is None else bytes(self.ip6m_addr)
        return addr + struct.pack("=I", self.ip6m_mtu)

    @classmethod
    def from_bytes(cls, data: Buffer) -> ip6_mtuinfo:
        data = exactly(data, cls.SIZE, "ip6_mtuinfo")
        addr = sockaddr_in6.from_bytes(data[:28]) if any(data[:28]) else None
        return cls(addr, struct.unpack("=I", data[28:])[0])

    @classmethod
    def of(cls, sock: _Socket) -> ip6_mtuinfo:
        """Asks a connected socket.

        Raises:
            OSError: ENOTCONN if it is not connected.
        """
        return cls.from_bytes(sock.getsockopt(IPPROTO_IPV6, IPV6_PATHMTU, cls.SIZE))
