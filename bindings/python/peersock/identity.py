"""The other end of a connection, as its network describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

#: The socket option that tells who is at the other end, and the longest answer.
_SOL_PEERSOCK, _PEERSOCK_PEER, _MAX_JSON = 0x7073, 1, 1024


class _HasOptions(Protocol):
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


@dataclass(frozen=True)
class PeerIdentity:
    """Who is at the other end of a connection.

    It is taken from the encrypted session that carried the connection's handshake. In a managed network a controller
    has signed the name, the tags and the claims; the label is the machine's own choice for its program. A static
    network's file gives names. In an ad-hoc network only the node ID says who it is.
    """

    #: The network.
    network: int
    #: The node ID, which is the hash of the node's public keys.
    node: str
    #: The node ID of the machine: another one than ``node`` for a program with keys of its own.
    machine: str
    #: True if the other end is a machine without peersock, for which this member forwards packets.
    gateway: bool
    #: The name of the machine, if the network gives it one.
    name: str | None
    #: The label of such a program, as ``web`` in ``web.alpha``.
    label: str | None
    #: The tags of the machine.
    tags: frozenset[str]
    #: Up to 128 bytes for programs, which peersock does not read.
    claims: bytes

    @property
    def full_name(self) -> str | None:
        """The name of the other end: ``alpha``, or ``web.alpha`` for a program with a label."""
        return f"{self.label}.{self.name}" if self.label and self.name else self.name


def peer_of(sock: _HasOptions) -> PeerIdentity:
    """Returns who is at the other end of a connection, as of when it was established, also after its end.

    On a datagram socket it is about the address to which the socket is connected. The argument is a socket, or what
    has its ``getsockopt``, as ``transport.get_extra_info("socket")`` of asyncio. It works in programs under
    ``peersock run``, too.

    Raises:
        OSError: With ENOTCONN if it has never been connected, with EOPNOTSUPP or ENOPROTOOPT on a socket of the system.
    """
    told = json.loads(sock.getsockopt(_SOL_PEERSOCK, _PEERSOCK_PEER, _MAX_JSON))
    return PeerIdentity(
        network=int(told["network"], 16),
        node=told["node"],
        machine=told["machine"],
        gateway=told["gateway"],
        name=told["name"],
        label=told["label"],
        tags=frozenset(told["tags"]),
        claims=bytes.fromhex(told["claims"]),
    )
