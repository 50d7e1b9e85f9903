"""Options of single kinds of connections and listeners."""

from __future__ import annotations

import os
import socket as _std
import struct

from ..identity import PeerIdentity, peer_of
from ._addr import TCPAddr, UDPAddr, UnixAddr
from ._endpoint import Connection, Endpoint


class TCPOptions(Connection):
    """Options of TCP connections."""

    def local_addr(self) -> TCPAddr:
        own = super().local_addr()
        assert isinstance(own, TCPAddr)
        return own

    def remote_addr(self) -> TCPAddr | None:
        remote = super().remote_addr()
        assert remote is None or isinstance(remote, TCPAddr)
        return remote

    def peer(self) -> PeerIdentity:
        """Who is at the other end, as of when the connection was established: see `peersock.peer_of`.

        Raises:
            ClosedError: It is closed.
            OSError: It is a connection of the system (EOPNOTSUPP or ENOPROTOOPT).
        """
        return peer_of(self._opened("peer"))

    def set_no_delay(self, flag: bool) -> None:
        """Sets if small writes are sent at once (TCP_NODELAY), which is the default."""
        self._opened("set no delay").setsockopt(_std.IPPROTO_TCP, _std.TCP_NODELAY, int(flag))

    def set_keep_alive(self, flag: bool) -> None:
        """Sets if keepalives test an idle connection (SO_KEEPALIVE). By default they do not."""
        self._opened("set keep alive").setsockopt(_std.SOL_SOCKET, _std.SO_KEEPALIVE, int(flag))

    def set_linger(self, seconds: int) -> None:
        """Sets the treatment of unsent data by `close()`. Below 0, the default, sending goes on in the background.

        0 drops the data and resets the connection. Otherwise `close()` waits up to ``seconds``; in asyncio it blocks
        the event loop for that time."""
        value = struct.pack("ii", int(seconds >= 0), max(seconds, 0))
        self._opened("set linger").setsockopt(_std.SOL_SOCKET, _std.SO_LINGER, value)


class UDPOptions(Connection):
    """Options of UDP sockets."""

    def local_addr(self) -> UDPAddr:
        own = super().local_addr()
        assert isinstance(own, UDPAddr)
        return own

    def remote_addr(self) -> UDPAddr | None:
        remote = super().remote_addr()
        assert remote is None or isinstance(remote, UDPAddr)
        return remote


class UnixOptions(Endpoint):
    """Options of sockets that have a path."""

    def set_unlink_on_close(self, unlink: bool) -> None:
        """Sets if `close()` removes the path to which it is bound. By default listeners do, connections do not."""
        with self._lock:
            address = self._own_address()
            assert isinstance(address, UnixAddr)
            has_path = bool(address.name) and not address.name.startswith("@")
            self._unlinks = os.path.abspath(address.name) if unlink and has_path else None

    def unlink_on_close(self, unlink: bool) -> None:
        """As `set_unlink_on_close()`."""
        self.set_unlink_on_close(unlink)
