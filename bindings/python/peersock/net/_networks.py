"""The networks by their names."""

from __future__ import annotations

import socket as _std
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ._errors import UnknownNetworkError


@dataclass(frozen=True)
class Network:
    """A network, as its name describes it."""

    name: str
    #: ``tcp``, ``udp``, ``unix`` or ``ip``.
    kind: str
    #: A family of addresses; 0 where it may be any.
    family: int
    #: The type of sockets.
    type: int

    @property
    def is_stream(self) -> bool:
        """True if the network has connections."""
        return self.type == _std.SOCK_STREAM


#: Networks by what listening in them gives.
TCP: TypeAlias = Literal["tcp", "tcp4", "tcp6"]
UDP: TypeAlias = Literal["udp", "udp4", "udp6"]
UNIX: TypeAlias = Literal["unix"]
UNIXGRAM: TypeAlias = Literal["unixgram"]

_STREAM, _DGRAM = int(_std.SOCK_STREAM), int(_std.SOCK_DGRAM)
_V4, _V6, _UNIX = int(_std.AF_INET), int(_std.AF_INET6), int(_std.AF_UNIX)

_NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network("tcp", "tcp", 0, _STREAM),
        Network("tcp4", "tcp", _V4, _STREAM),
        Network("tcp6", "tcp", _V6, _STREAM),
        Network("udp", "udp", 0, _DGRAM),
        Network("udp4", "udp", _V4, _DGRAM),
        Network("udp6", "udp", _V6, _DGRAM),
        Network("unix", "unix", _UNIX, _STREAM),
        Network("unixgram", "unix", _UNIX, _DGRAM),
        Network("ip", "ip", 0, 0),
        Network("ip4", "ip", _V4, 0),
        Network("ip6", "ip", _V6, 0),
    )
}
# Programs dial Unix domain sockets by this name, too; those have no second family.
_NETWORKS["unix6"] = _NETWORKS["unix"]


def net_is_valid(network: str, net: str) -> bool:
    """Returns true if ``net`` names a network of the group ``network``: ``tcp``, ``udp``, ``unix`` or ``ip``."""
    found = _NETWORKS.get(net)
    return found is not None and found.kind == network


def network_of(name: str, *kinds: str) -> Network:
    """The network of this name, if it is of one of these kinds.

    Raises:
        UnknownNetworkError: It is not, or there is none.
    """
    found = _NETWORKS.get(name) if isinstance(name, str) else None
    if found is None or found.kind not in kinds:
        raise UnknownNetworkError(name)
    return found


def unixgram(name: str) -> Network:
    """The network of this name, if Unix domain sockets carry datagrams in it.

    Raises:
        UnknownNetworkError: They do not, or there is none.
    """
    found = network_of(name, "unix")
    if found.is_stream:
        raise UnknownNetworkError(name)
    return found
