"""Ancillary data: what travels beside a datagram (RFC 3542 4, 6, 20)."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from socket import CMSG_LEN, CMSG_SPACE
from typing import ClassVar, NamedTuple, TypeVar

from .constants import IPPROTO_IPV6, IPV6_HOPLIMIT, IPV6_NEXTHOP, IPV6_PKTINFO, IPV6_TCLASS
from .sockaddr import Address, Buffer, address, exactly, sockaddr_in6

__all__ = [
    "CMSG_LEN",
    "CMSG_SPACE",
    "Ancillary",
    "cmsg",
    "decode",
    "find",
    "hoplimit",
    "in6_pktinfo",
    "nexthop",
    "tclass",
]

A = TypeVar("A", bound="Ancillary")


class cmsg(NamedTuple):
    """A control message. It is a tuple, so ``sendmsg`` takes it as it is; ``cmsg(*item)`` makes one of what
    ``recvmsg`` returned."""

    cmsg_level: int
    cmsg_type: int
    cmsg_data: bytes

    @property
    def cmsg_len(self) -> int:
        """The message's size with its header, in bytes (CMSG_LEN)."""
        return CMSG_LEN(len(self.cmsg_data))

    @property
    def space(self) -> int:
        """Size in a buffer, with padding, in bytes (CMSG_SPACE)."""
        return CMSG_SPACE(len(self.cmsg_data))

    def decode(self) -> Ancillary | cmsg:
        """The object that this message carries, or the message itself if its kind is unknown.

        Raises:
            ValueError: If the data is not what its kind demands, for example because it was cut (MSG_CTRUNC).
        """
        kind = Ancillary.kinds.get((self.cmsg_level, self.cmsg_type))
        return self if kind is None else kind.from_bytes(self.cmsg_data)


class Ancillary(ABC):
    """The content of a control message. ``bytes(obj)`` is its data, ``from_bytes`` parses it."""

    cmsg_level: ClassVar[int] = IPPROTO_IPV6
    cmsg_type: ClassVar[int]
    kinds: ClassVar[dict[tuple[int, int], type[Ancillary]]] = {}

    def __init_subclass__(cls) -> None:
        if "cmsg_type" in cls.__dict__:
            Ancillary.kinds[cls.cmsg_level, cls.cmsg_type] = cls

    @abstractmethod
    def __bytes__(self) -> bytes: ...

    @classmethod
    @abstractmethod
    def from_bytes(cls: type[A], data: Buffer) -> A: ...

    def cmsg(self) -> cmsg:
        """The control message, which is a tuple as ``sendmsg`` takes it."""
        return cmsg(self.cmsg_level, self.cmsg_type, bytes(self))


def decode(ancillary: Iterable[tuple[int, int, bytes]]) -> list[Ancillary | cmsg]:
    """Objects of all that ``recvmsg`` returned. What is unknown or was cut stays a ``cmsg``."""
    objects: list[Ancillary | cmsg] = []
    for item in ancillary:
        message = cmsg(*item)
        try:
            objects.append(message.decode())
        except ValueError:
            objects.append(message)
    return objects


def find(ancillary: Iterable[tuple[int, int, bytes]], kind: type[A]) -> A | None:
    """The first object of one kind among what ``recvmsg`` returned."""
    return next((item for item in decode(ancillary) if isinstance(item, kind)), None)


@dataclass(frozen=True, init=False)
class in6_pktinfo(Ancillary):
    """The own address of a datagram and its interface (IPV6_PKTINFO, RFC 3542 6.1, 6.2).

    Received, it is the destination that the sender has used. Sent, it is the source; ``::`` and 0 leave the
    choice to the node.
    """

    ipi6_addr: IPv6Address
    ipi6_ifindex: int

    cmsg_type = IPV6_PKTINFO

    def __init__(self, addr: Address = "::", ifindex: int = 0) -> None:
        if not 0 <= ifindex <= 0x7FFF_FFFF:
            raise ValueError(f"no index of an interface: {ifindex}")
        object.__setattr__(self, "ipi6_addr", address(addr))
        object.__setattr__(self, "ipi6_ifindex", ifindex)

    def __bytes__(self) -> bytes:
        return self.ipi6_addr.packed + struct.pack("=I", self.ipi6_ifindex)

    @classmethod
    def from_bytes(cls, data: Buffer) -> in6_pktinfo:
        data = exactly(data, 20, "in6_pktinfo")
        return cls(data[:16], struct.unpack("=I", data[16:])[0])


class _Octet(Ancillary):
    """A field of eight bits of the IPv6 header, which travels as a C ``int``; -1 is the node's default."""

    value: int

    def __init__(self, value: int = -1) -> None:
        if not -1 <= value <= 255:
            raise ValueError(f"{type(self).__name__} is 0 to 255, or -1 for the default, not {value}")
        object.__setattr__(self, "value", value)

    def __int__(self) -> int:
        return self.value

    def __bytes__(self) -> bytes:
        return struct.pack("=i", self.value)

    @classmethod
    def from_bytes(cls: type[Octet], data: Buffer) -> Octet:
        return cls(struct.unpack("=i", exactly(data, 4, cls.__name__))[0])


Octet = TypeVar("Octet", bound=_Octet)


@dataclass(frozen=True, init=False)
class hoplimit(_Octet):
    """The hop limit of a datagram, 0 to 255, or -1 for the node's default (IPV6_HOPLIMIT, RFC 3542 6.3)."""

    value: int

    cmsg_type = IPV6_HOPLIMIT


@dataclass(frozen=True, init=False)
class tclass(_Octet):
    """The traffic class of a datagram, 0 to 255, or -1 for the node's default (IPV6_TCLASS, RFC 3542 6.5)."""

    value: int

    cmsg_type = IPV6_TCLASS


@dataclass(frozen=True, init=False)
class nexthop(Ancillary):
    """The neighbour to which a datagram goes first (IPV6_NEXTHOP, RFC 3542 6.4). Linux wants CAP_NET_RAW for
    it; in the overlay every member is a neighbour, and it is refused."""

    addr: sockaddr_in6

    cmsg_type = IPV6_NEXTHOP

    def __init__(self, addr: sockaddr_in6 | Address) -> None:
        object.__setattr__(self, "addr", addr if isinstance(addr, sockaddr_in6) else sockaddr_in6(addr))

    def __bytes__(self) -> bytes:
        return bytes(self.addr)

    @classmethod
    def from_bytes(cls, data: Buffer) -> nexthop:
        return cls(sockaddr_in6.from_bytes(data))
