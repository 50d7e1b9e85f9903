"""Pipes: one object for TCP and UDP, IPv4 and IPv6, client and server, in asyncio.

The names are those of P2PD. A pipe is awaited, or has callbacks, or both::

    from peersock.pipe import TCP, pipe_open

    async def echo(msg, client_tup, pipe):
        await pipe.send(msg, client_tup)

    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo)
    client = await pipe_open(TCP, server.local_tup)
    await client.send(b"hello")
    print(await client.recv())
    await client.close()
    await server.close()

Addresses and names of the overlay's members lead over the overlay, as long as there is a `peersock.Session`; all others
over the system's network, by the interfaces and routes of `peersock.interfaces`.
"""

from ..interfaces import IP4, IP6
from ._addresses import AF_ANY, TCP, UDP, Address
from ._daemon import DAEMON_CONF, Daemon
from ._errors import PipeClosedError, PipeOptionWarning
from ._node import (
    NODE_PORT,
    P2P_DIRECT,
    P2P_PUNCH,
    P2P_RELAY,
    P2P_REVERSE,
    SIGNAL_PIPE_NO,
    P2PNode,
    init_p2pd,
    start_p2p_node,
)
from ._node_text import NodeAddress
from ._open import pipe_open, send_recv_loop
from ._options import NET_CONF, Options, dict_child
from ._pipe import Pipe
from ._sockets import overlay_route
from ._subscriptions import SUB_ALL, Sub, Subscription

__all__ = [
    "AF_ANY",
    "DAEMON_CONF",
    "IP4",
    "IP6",
    "NET_CONF",
    "NODE_PORT",
    "P2P_DIRECT",
    "P2P_PUNCH",
    "P2P_RELAY",
    "P2P_REVERSE",
    "SIGNAL_PIPE_NO",
    "SUB_ALL",
    "TCP",
    "UDP",
    "Address",
    "Daemon",
    "NodeAddress",
    "Options",
    "P2PNode",
    "Pipe",
    "PipeClosedError",
    "PipeOptionWarning",
    "Sub",
    "Subscription",
    "dict_child",
    "init_p2pd",
    "overlay_route",
    "pipe_open",
    "send_recv_loop",
    "start_p2p_node",
]
