"""`peersock.net` for asyncio: the same functions and kinds of connection, to be awaited.

::

    from peersock.net import aio

    async with await aio.dial("there:7000") as connection:
        await connection.write(b"hello")
        print(await connection.read())

Addresses and errors are those of `peersock.net`. What does not wait is no coroutine: ``close()``, ``local_addr()``, the
deadlines and options, and the functions that make sockets of addresses without connecting them.
"""

from ._conn import Conn, PacketConn, StreamConn, TCPConn, UDPConn, UnixConn
from ._dial import (
    dial,
    dial_tcp,
    dial_udp,
    dial_unix,
    listen,
    listen_tcp,
    listen_udp,
    listen_unix,
    listen_unixgram,
    resolve_addr,
    resolve_ip_addr,
    resolve_tcp_addr,
    resolve_udp_addr,
)
from ._listener import Listener, TCPListener, UnixListener

__all__ = [
    "Conn",
    "Listener",
    "PacketConn",
    "StreamConn",
    "TCPConn",
    "TCPListener",
    "UDPConn",
    "UnixConn",
    "UnixListener",
    "dial",
    "dial_tcp",
    "dial_udp",
    "dial_unix",
    "listen",
    "listen_tcp",
    "listen_udp",
    "listen_unix",
    "listen_unixgram",
    "resolve_addr",
    "resolve_ip_addr",
    "resolve_tcp_addr",
    "resolve_udp_addr",
]
