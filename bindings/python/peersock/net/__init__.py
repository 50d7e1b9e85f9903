"""Networks as Go's package ``net`` has them: dial and listen by texts, connections with deadlines.

::

    from peersock import net

    with net.listen("127.0.0.1:0") as listener:
        for connection in listener:
            with connection:
                for chunk in connection.chunks():
                    connection.write(chunk)

Addresses and names of members go over the overlay while there is a `peersock.Session`, all others to the kernel; no
session is needed for those. Addresses come before networks: ``dial("there:7000", "tcp")``. `peersock.net.aio` has the
same for asyncio.
"""

from ._addr import Addr, IPAddr, TCPAddr, UDPAddr, UnixAddr
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
)
from ._errors import AddressError, ClosedError, DeadlineError, SocketError, UnknownNetworkError
from ._hostport import join_host_port, split_host_port
from ._listener import Listener, TCPListener, UnixListener
from ._networks import net_is_valid
from ._resolve import (
    resolve_addr,
    resolve_ip_addr,
    resolve_tcp_addr,
    resolve_udp_addr,
    resolve_unix_addr,
    resolve_unixgram_addr,
)

__all__ = [
    "Addr",
    "AddressError",
    "ClosedError",
    "Conn",
    "DeadlineError",
    "IPAddr",
    "Listener",
    "PacketConn",
    "SocketError",
    "StreamConn",
    "TCPAddr",
    "TCPConn",
    "TCPListener",
    "UDPAddr",
    "UDPConn",
    "UnixAddr",
    "UnixConn",
    "UnixListener",
    "UnknownNetworkError",
    "dial",
    "dial_tcp",
    "dial_udp",
    "dial_unix",
    "join_host_port",
    "listen",
    "listen_tcp",
    "listen_udp",
    "listen_unix",
    "listen_unixgram",
    "net_is_valid",
    "resolve_addr",
    "resolve_ip_addr",
    "resolve_tcp_addr",
    "resolve_udp_addr",
    "resolve_unix_addr",
    "resolve_unixgram_addr",
    "split_host_port",
]
