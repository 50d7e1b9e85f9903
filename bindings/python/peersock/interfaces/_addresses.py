"""Addresses and blocks of them."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

#: The families, as the system numbers them.
IP4 = socket.AF_INET
IP6 = socket.AF_INET6

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def family(number: int) -> socket.AddressFamily:
    """The family of a number; other systems' numbers of IPv6 are known as well."""
    if number == 2:
        return IP4
    if number in (10, 23, 28, 30):
        return IP6
    raise ValueError(f"{number} is no family")


class IPRange:
    """An address, or a block of them, that can be counted, indexed and iterated.

    The network's own address is not counted, nor is the last one of an IPv4 block, unless there are two or fewer.
    """

    def __init__(self, ip: str | IPAddress, cidr: int | None = None) -> None:
        address = ipaddress.ip_address(ip)
        prefix = address.max_prefixlen if cidr is None else cidr
        self._network = ipaddress.ip_network((str(address), prefix), strict=False)

    @property
    def ip(self) -> str:
        """The first address; of a block the network's own."""
        return str(self._network.network_address)

    @property
    def cidr(self) -> int:
        """Bits of the network."""
        return self._network.prefixlen

    @property
    def af(self) -> socket.AddressFamily:
        """The family."""
        return IP4 if self._network.version == 4 else IP6

    @property
    def count(self) -> int:
        """Number of addresses. ``len`` gives at most `sys.maxsize`."""
        first, last = self._hosts()
        return last - first + 1

    def _hosts(self) -> tuple[int, int]:
        first, last = int(self._network.network_address), int(self._network.broadcast_address)
        if last - first < 2:
            return first, last
        return first + 1, last - 1 if self._network.version == 4 else last

    def __len__(self) -> int:
        return min(self.count, sys.maxsize)

    def __getitem__(self, index: int) -> IPAddress:
        first, last = self._hosts()
        at = (first if index >= 0 else last + 1) + index
        if not first <= at <= last:
            raise IndexError("the block has fewer addresses")
        return ipaddress.IPv4Address(at) if self._network.version == 4 else ipaddress.IPv6Address(at)

    def __iter__(self) -> Iterator[IPAddress]:
        return (self[index] for index in range(self.count))

    def __reversed__(self) -> Iterator[IPAddress]:
        return (self[index] for index in range(self.count - 1, -1, -1))

    def __contains__(self, ip: str | IPAddress) -> bool:
        return ipaddress.ip_address(ip) in self._network

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IPRange) and self._network == other._network

    def __hash__(self) -> int:
        return hash(self._network)

    def __str__(self) -> str:
        return str(self._network)

    def __repr__(self) -> str:
        return f"IPRange({self.ip!r}, {self.cidr})"

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that JSON can carry."""
        return {"ip": self.ip, "cidr": self.cidr, "af": int(self.af)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> IPRange:
        """Takes what `to_dict` gave."""
        return cls(value["ip"], value["cidr"])
