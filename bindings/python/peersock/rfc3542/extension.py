"""Extension headers as ancillary data (RFC 3542 7, 8, 9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TypeVar

from .ancillary import Ancillary
from .constants import IPV6_DSTOPTS, IPV6_HOPOPTS, IPV6_RTHDR, IPV6_RTHDR_TYPE_0, IPV6_RTHDRDSTOPTS
from .options import inet6_opt_append, inet6_opt_finish, inet6_opt_init, inet6_opt_next, inet6_opt_set_val
from .routing import inet6_rth_add, inet6_rth_getaddr, inet6_rth_init, inet6_rth_segments, inet6_rth_space
from .sockaddr import Address, Buffer

H = TypeVar("H", bound="_Header")
Opts = TypeVar("Opts", bound="_Options")


@dataclass(frozen=True)
class _Header(Ancillary):
    """A header in whole, as it is in the packet; the kernel fills its first byte in."""

    header: bytes

    def __post_init__(self) -> None:
        # RFC 8200 4: the length is in eights and does not count the first.
        if len(self.header) < 8 or len(self.header) != 8 * (self.header[1] + 1):
            raise ValueError(f"a header of {len(self.header)} bytes that says another length")

    def __bytes__(self) -> bytes:
        return self.header

    @classmethod
    def from_bytes(cls: type[H], data: Buffer) -> H:
        return cls(bytes(data))


class _Options(_Header):
    @classmethod
    def of(cls: type[Opts], options: Iterable[tuple[int, bytes, int]]) -> Opts:
        """Builds the header of options, each with type, data and the alignment of the data.

        Raises:
            ValueError: As :func:`inet6_opt_append`, or if they do not fit into 2048 bytes.
        """
        options = list(options)
        end = inet6_opt_init(None)
        for type, data, align in options:
            end, _ = inet6_opt_append(None, end, type, len(data), align)
        header = bytearray(inet6_opt_finish(None, end))
        end = inet6_opt_init(header)
        for type, data, align in options:
            end, view = inet6_opt_append(header, end, type, len(data), align)
            assert view is not None
            inet6_opt_set_val(view, 0, data)
        inet6_opt_finish(header, end)
        return cls(bytes(header))

    @property
    def options(self) -> list[tuple[int, bytes]]:
        """The options' types and data, padding left out.

        Raises:
            ValueError: If the header is malformed.
        """
        found = []
        option = inet6_opt_next(self.header)
        while option is not None:
            found.append((option.type, bytes(option.data)))
            option = inet6_opt_next(self.header, option.offset)
        return found


class hopopts(_Options):
    """Options for every node on the way (IPV6_HOPOPTS, RFC 3542 8). Linux wants CAP_NET_RAW for them."""

    cmsg_type = IPV6_HOPOPTS


class dstopts(_Options):
    """Options for the destination (IPV6_DSTOPTS, RFC 3542 9)."""

    cmsg_type = IPV6_DSTOPTS


class rthdrdstopts(_Options):
    """Options for every node that a routing header names (IPV6_RTHDRDSTOPTS, RFC 3542 9)."""

    cmsg_type = IPV6_RTHDRDSTOPTS


class rthdr(_Header):
    """A routing header (IPV6_RTHDR, RFC 3542 7). Type 0 is never sent, nor forwarded: RFC 5095 has abolished
    it."""

    cmsg_type = IPV6_RTHDR

    @classmethod
    def of(cls, addresses: Iterable[Address]) -> rthdr:
        """Builds one of type 0.

        Raises:
            ValueError: If there are more than 127 addresses.
        """
        addresses = list(addresses)
        header = bytearray(inet6_rth_space(IPV6_RTHDR_TYPE_0, len(addresses)))
        inet6_rth_init(header, IPV6_RTHDR_TYPE_0, len(addresses))
        for addr in addresses:
            inet6_rth_add(header, addr)
        return cls(bytes(header))

    @property
    def type(self) -> int:
        """The routing type."""
        return self.header[2]

    @property
    def segments_left(self) -> int:
        """Number of the addresses that are still to be visited."""
        return self.header[3]

    @property
    def addresses(self) -> list[IPv6Address]:
        """The addresses of type 0.

        Raises:
            ValueError: If it is of another type or malformed.
        """
        return [inet6_rth_getaddr(self.header, index) for index in range(inet6_rth_segments(self.header))]
