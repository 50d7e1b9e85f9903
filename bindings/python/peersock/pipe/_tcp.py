"""Connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket as _std
import struct
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

from ..identity import PeerIdentity, peer_of
from ..interfaces import Route
from ._addresses import TCP, Tup, parse_tup, tup_of
from ._options import Options
from ._pipe import CLOSE_PATIENCE, Pipe
from ._queue import log
from ._sockets import is_overlay

if TYPE_CHECKING:
    from ._server import TcpServer


class TcpPipe(Pipe):
    """A connection. What comes in is a stream: a message is any piece of it."""

    def __init__(
        self,
        sock: _std.socket,
        route: Route | None,
        options: Options,
        name: Tup | None = None,
        server: TcpServer | None = None,
    ) -> None:
        super().__init__(TCP, sock, route, options)
        self._parent = self._server = server
        self._peer: PeerIdentity | None = None
        # The machine to which a server's client belongs, with all its programs; None outside of the overlay.
        self._member: str | None = None
        self.dest_tup = tup_of(sock.getpeername())
        self._own_tup = tup_of(sock.getsockname())
        # The destination as the program has named it.
        self._name = name
        self._stream = _Stream(self)
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._has_come_to_end = False
        # True if data came in after the last reader had gone.
        self._is_discarding = False
        # In the order of the calls.
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def local_tup(self) -> Tup:
        """The own address and port."""
        return self._own_tup

    def peer(self) -> PeerIdentity | None:
        return self._peer

    def _open(self, transport: asyncio.Transport) -> None:
        """The connection can be used."""
        self._transport = transport
        if self._server is not None:
            self._server._add(self)
        self._run([*(self._server._up_cbs if self._server is not None else ()), *self._up_cbs])

    def _finish(self) -> None:
        super()._finish()
        if self._server is not None:
            self._server._remove_client(self)

    async def _send(self, data: bytes, dest_tup: Any) -> int:
        if dest_tup is not None and not self._is_dest(dest_tup):
            raise ValueError(f"the connection leads to {self.dest_tup}, not to {dest_tup!r}")
        async with self._turn:
            await self._room.wait()
            if not self.is_running or self._transport is None or self._transport.is_closing():
                raise self._closed()
            self._transport.write(data)
            await self._room.wait()
            if self._ended is not None:
                raise self._closed()
        return len(data)

    def _is_dest(self, dest_tup: Any) -> bool:
        tup = parse_tup(dest_tup)
        return tup in (self.dest_tup, self._name)

    def _flow(self) -> None:
        transport = self._transport
        # A peer that waits until this end reads would not read itself.
        wanted = self._wants_pause and not self._is_closing
        if transport is None or transport.is_closing() or wanted == self._is_paused:
            return
        self._is_paused = not self._is_paused
        if self._is_paused:
            transport.pause_reading()
        else:
            transport.resume_reading()

    async def _close(self) -> None:
        if self._transport is None:
            self.sock.close()
            self._end(None)
            return
        transport = self._transport
        self._is_discarding = self._is_paused
        self._flow()
        try:
            if not await _within(CLOSE_PATIENCE, self._leave(transport)):
                log.warning("the other end has not taken all that was sent before the pipe was closed")
            elif not self._gone.is_set():
                await _within(CLOSE_PATIENCE, self._gone.wait())
        finally:
            # For who is cancelled as well.
            if not self._gone.is_set():
                if transport.get_write_buffer_size():
                    # The other end must not take the part that it has for the whole.
                    self._reset_on_close()
                transport.abort()
        await self._gone.wait()

    async def _leave(self, transport: asyncio.Transport) -> None:
        """Waits until all sent data has left, and then closes.

        Closing a connection with unread data resets it, and sent data is lost. So a connection that receives data goes
        on until the end, see `_Stream.eof_received`."""
        if self._has_come_to_end or transport.is_closing() or not transport.can_write_eof() or self._lingers():
            transport.close()
            await self._gone.wait()
            return
        # From now on there is room when nothing is left.
        transport.set_write_buffer_limits(0)
        await self._room.wait()
        try:
            transport.write_eof()
        except OSError:
            # It was reset.
            transport.close()
            return
        if not self._is_discarding and not self._has_unread():
            transport.close()

    def _lingers(self) -> bool:
        try:
            return bool(struct.unpack("ii", self.sock.getsockopt(_std.SOL_SOCKET, _std.SO_LINGER, 8))[0])
        except OSError:
            return False

    def _has_unread(self) -> bool:
        try:
            return bool(self.sock.recv(1, _std.MSG_PEEK))
        except OSError:
            return False

    def _reset_on_close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.setsockopt(_std.SOL_SOCKET, _std.SO_LINGER, struct.pack("ii", 1, 0))


async def identity(sock: _std.socket) -> tuple[PeerIdentity | None, str | None]:
    """Returns who is at the other end of a connection, and the machine that owns it: its address if nobody can tell.

    Both are None outside of the overlay."""
    address: str | None = None
    with contextlib.suppress(OSError):
        other = tup_of(sock.getpeername())[0]
        address = other if is_overlay(other) else None
        if address is not None:
            # A thread asks, because the node may have other work.
            peer = await asyncio.to_thread(peer_of, sock)
            return peer, peer.machine
    return None, address


async def _within(seconds: float, awaited: Coroutine[Any, Any, Any]) -> bool:
    """Returns true if it is done in time."""
    try:
        await asyncio.wait_for(awaited, seconds)
    except asyncio.TimeoutError:
        return False
    return True


class _Stream(asyncio.Protocol):
    """The event loop's callbacks for a connection."""

    def __init__(self, pipe: TcpPipe) -> None:
        self._pipe = pipe
        self._is_tls = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._pipe._open(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        pipe, limit = self._pipe, self._pipe.conf.reader_limit
        if pipe._is_closing:
            pipe._is_discarding = True
            return
        tup = pipe.client_tup
        pipe._receive([(tup, bytes(data[at : at + limit])) for at in range(0, len(data), limit)])

    def eof_received(self) -> bool:
        self._pipe._has_come_to_end = True
        if self._pipe._is_closing:
            self._close()
            return not self._is_tls
        # Callbacks may have to answer what came before.
        self._pipe._runner.when_idle(self._close)
        # TLS has no connections that are half open.
        return not self._is_tls

    def _close(self) -> None:
        if self._pipe._transport is not None:
            self._pipe._transport.close()

    def pause_writing(self) -> None:
        self._pipe._room.clear()

    def resume_writing(self) -> None:
        self._pipe._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipe._end(exc)
        self._pipe._room.set()
