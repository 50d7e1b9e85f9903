"""Encrypted peer-to-peer sockets.

A program joins a virtual network and opens ordinary sockets to the other members, wherever they are::

    import peersock
    from peersock import socket

    with peersock.Session("ff0001ffff000000") as session:
        print(session.address)
        server = socket.create_server(("", 8080))

`Session` is being a member, `peersock.socket` CPython's ``socket`` module for addresses of the networks. `install()`
and `patched()` put existing code on the overlay, as ``python -m peersock run`` does for whole programs.
`netcheck()` says what network the machine is in.
"""

from . import socket
from ._netcheck import Advice, Netcheck, netcheck
from ._node import stop
from ._patch import install, patched, uninstall
from ._peersock import __version__, generate_seed, public_key
from .events import Event, EventKind, Events
from .identity import PeerIdentity, peer_of
from .peers import Attempt, Peer
from .session import Session

__all__ = [
    "Advice",
    "Attempt",
    "Event",
    "EventKind",
    "Events",
    "Netcheck",
    "Peer",
    "PeerIdentity",
    "Session",
    "__version__",
    "generate_seed",
    "install",
    "netcheck",
    "patched",
    "peer_of",
    "public_key",
    "socket",
    "stop",
    "uninstall",
]
