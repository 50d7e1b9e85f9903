"""The operations of connections, as steps that threads and asyncio share."""

from __future__ import annotations

import errno
import os
import socket as _std
from typing import TYPE_CHECKING

from .._class import socket
from . import _addr, _steps
from ._addr import Addr
from ._endpoint import Connection
from ._errors import SocketError
from ._networks import network_of
from ._sockets import family_of, opened, remote_of
from ._steps import Steps

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Most bytes that `read()` returns; no datagram is longer.
CHUNK = 1 << 16


class Operations(Connection):
    """Reads and writes. In each direction one operation runs at a time."""

    def __init__(self, network: str, sock: socket | None = None, remote: Addr | None = None) -> None:
        super().__init__(network, sock, remote)
        self._is_stream = network_of(network, "tcp", "udp", "unix").is_stream
        # Bytes that were read ahead to find the end of a line.
        self._ahead = bytearray()

    def _reading(self, size: int) -> Steps[bytes]:
        if size < 0:
            raise ValueError(f"a size is a number of bytes from 0 on, not {size}")
        if self._reads_nothing:
            return b""
        if self._ahead:
            taken = bytes(self._ahead[:size])
            del self._ahead[: len(taken)]
            return taken
        if size == 0 and self._is_stream:
            return b""
        return (yield from _steps.receive(self._opened("read"), size, self._has_end))

    def _reading_into(self, buffer: Buffer) -> Steps[int]:
        with memoryview(buffer) as view, view.cast("B") as room:
            if room.readonly:
                raise TypeError("read-only buffer where a writable one is needed")
            data = yield from self._reading(len(room))
            room[: len(data)] = data
        return len(data)

    def _reading_line(self, limit: int) -> Steps[bytes]:
        if limit < 1:
            raise ValueError(f"a line has a limit of at least one byte, not {limit}")
        searched = 0
        while (end := self._ahead.find(b"\n", searched, limit)) < 0 and len(self._ahead) < limit:
            searched = len(self._ahead)
            data = yield from _steps.receive(self._opened("read"), CHUNK, self._has_end)
            if not data:
                break
            self._ahead += data
        if self._reads_nothing:
            return b""
        if end < 0 and len(self._ahead) >= limit:
            raise SocketError(errno.EMSGSIZE, f"read: a line is longer than {limit} bytes")
        line = bytes(self._ahead if end < 0 else self._ahead[: end + 1])
        del self._ahead[: len(line)]
        return line

    def _has_end(self) -> bool:
        return self._reads_nothing

    def _writing(self, data: Buffer) -> Steps[int]:
        sock = self._opened("write")
        if self._is_stream:
            return (yield from _steps.send_all(sock, data))
        return (yield from _steps.send_datagram(sock, data, None))

    def _writing_some(self, data: Buffer) -> Steps[int]:
        sock = self._opened("write")
        return (yield from (_steps.send(sock, data) if self._is_stream else _steps.send_datagram(sock, data, None)))

    def _reading_from(self, size: int) -> Steps[tuple[bytes, Addr]]:
        if self._is_stream:
            data = yield from self._reading(size)
            assert self._remote is not None
            return data, self._remote
        if size < 0:
            raise ValueError(f"a size is a number of bytes from 0 on, not {size}")
        data, sender = yield from _steps.receive_from(self._opened("read"), size)
        return data, _addr.of_system(self._network, sender)

    def _writing_to(self, data: Buffer, address: Addr) -> Steps[int]:
        sock = self._opened("write") if self._sock is not None else self._made(address)
        if self._is_stream or self._remote is not None:
            raise OSError(errno.EISCONN, os.strerror(errno.EISCONN))
        return (yield from _steps.send_datagram(sock, data, address))

    def _connecting(self, address: Addr) -> Steps[None]:
        sock = self._made(address)
        if self._is_stream and self._remote is not None:
            # The system tells only the next one who asks.
            raise OSError(errno.EISCONN, os.strerror(errno.EISCONN))
        yield from _steps.connect(sock, address)
        self._remote = remote_of(self._network, sock, address)
        self._local = None

    def bind(self, addr: Addr, reuse: bool = True) -> None:
        """Binds it to an own address. A connection that has no socket yet gets one.

        Args:
            addr: The address, of the connection's network.
            reuse: Whether the address may be one that was used until just now (SO_REUSEADDR).

        Raises:
            AddressError: The address is of another network.
            SocketError: The system refuses it, such as with EADDRINUSE.
        """
        sock = self._made(addr)
        with opened(f"bind {addr}"):
            if reuse:
                sock.setsockopt(_std.SOL_SOCKET, _std.SO_REUSEADDR, 1)
            sock.bind(_addr.to_system(addr, sock.family))

    def _made(self, address: Addr) -> socket:
        """The socket, made for this address if there is none yet."""
        network = network_of(self._network, "tcp", "udp", "unix")
        family = family_of(network, address)
        with self._lock:
            if self._sock is None and not self._is_closed:
                with opened("socket"):
                    self._sock = socket(family, network.type)
                    self._sock.setblocking(False)
            return self._opened("use")
