"""Servers of connections."""

from __future__ import annotations

import asyncio
import errno
import math
import socket as _std
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..interfaces import Route
from ._addresses import TCP, Tup, parse_tup, tup_of
from ._options import Options
from ._pipe import Pipe
from ._queue import Waiting, log
from ._tcp import TcpPipe, identity

#: Pause of a server while the system lacks resources for a connection, seconds.
_PAUSE = 1.0
#: Errors of connections that are gone before they were accepted.
_OF_CLIENTS = (errno.ECONNABORTED, errno.EPROTO, errno.ECONNRESET, errno.EPERM, errno.EINTR)
#: Errors of the listening socket itself.
_OF_SERVER = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.ENETDOWN, errno.EOPNOTSUPP)


class TcpServer(Pipe):
    """A server: awaiting it gives the pipe of the next client. Its callbacks are those of all clients."""

    def __init__(self, sock: _std.socket, route: Route | None, options: Options) -> None:
        super().__init__(TCP, sock, route, options)
        self._own_tup = tup_of(sock.getsockname())
        self._live: set[TcpPipe] = set()
        # The last one of an address and port: at several own addresses there may be several.
        self._by_tup: dict[Tup, TcpPipe] = {}
        # Clients that were not awaited. They may have ended, with messages in their queues.
        self._arrived: Waiting[TcpPipe] = Waiting()
        self._opening = 0
        self._opening_of: Counter[str] = Counter()
        self._room = asyncio.Event()
        self._openers: set[asyncio.Task[None]] = set()
        self._acceptor = self._loop.create_task(self._accept())

    @property
    def local_tup(self) -> Tup:
        """The own address and port."""
        return self._own_tup

    @property
    def clients(self) -> list[Pipe]:
        """The pipes of the clients that are connected."""
        return list(self._live)

    async def _next_client(self) -> Pipe:
        client = await self._arrived.take(math.inf)
        assert client is not None
        self._room.set()
        return client

    async def _send(self, data: bytes, dest_tup: Any) -> int:
        if dest_tup is None:
            raise ValueError("a server needs to be told to which client: send(data, client_tup)")
        client = self._by_tup.get(parse_tup(dest_tup))
        if client is None:
            raise LookupError(f"the server has no client {dest_tup!r}")
        return await client.send(data)

    async def _accept(self) -> None:
        """Accepts connections until the server is closed; who is too many waits in the system's queue."""
        while not self._is_closing:
            while self._is_crowded:
                self._room.clear()
                await self._room.wait()
            try:
                sock, _ = await self._loop.sock_accept(self.sock)
            except OSError as error:
                if error.errno in _OF_SERVER:
                    self._fail(error)
                    return
                if error.errno not in _OF_CLIENTS:
                    log.warning("no connection can be accepted: %s", error)
                    await asyncio.sleep(_PAUSE)
                continue
            self._opening += 1
            task = self._loop.create_task(self._open(sock))
            self._openers.add(task)
            task.add_done_callback(self._openers.discard)

    async def _open(self, sock: _std.socket) -> None:
        """Makes a connection a pipe."""
        tls = self.conf.ssl_context if self.conf.use_ssl else None
        patience = finite(self.conf.ssl_handshake) if tls is not None else None
        member: str | None = None
        try:
            peer, asked = await identity(sock)
            if asked is not None and self._has_share(asked):
                log.debug("the member %s has all the places that it may have", asked)
                # So that the client does not take it for the end of an answer.
                sock.setsockopt(_std.SOL_SOCKET, _std.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                return
            if asked is not None:
                member = asked
                self._opening_of[member] += 1
            client = TcpPipe(sock, self.route, self.conf, server=self)
            client._peer, client._member = peer, member
            if not self._is_served:
                client._subscribe_by_default()
            await self._loop.connect_accepted_socket(
                lambda: client._stream, sock, ssl=tls, ssl_handshake_timeout=patience
            )
        except (OSError, asyncio.TimeoutError) as error:
            log.debug("a connection has ended before it was open: %s", error)
            sock.close()
        except BaseException:
            sock.close()
            raise
        finally:
            self._opening -= 1
            if member is not None:
                self._opening_of[member] -= 1
                # Of those that are not here any more nothing is kept.
                self._opening_of += Counter()
            self._room.set()

    def _add(self, client: TcpPipe) -> None:
        self._live.add(client)
        self._by_tup[client.client_tup] = client
        self._arrived.append(client)

    def _remove_client(self, client: TcpPipe) -> None:
        self._live.discard(client)
        if self._by_tup.get(client.client_tup) is client:
            del self._by_tup[client.client_tup]
        if self._is_served or self._up_cbs:
            # Clients that a callback gets, or whose messages go elsewhere, need not be awaited.
            self._arrived.discard(client)
        self._room.set()

    @property
    def _is_served(self) -> bool:
        """Returns true if the messages of clients go elsewhere than to tasks that await the clients."""
        return bool(self._msg_cbs or self._pipes or len(self._subs))

    @property
    def _is_crowded(self) -> bool:
        return len(self._live) + self._opening + sum(1 for _ in self._over) >= self.conf.max_clients

    @property
    def _over(self) -> Iterator[TcpPipe]:
        """The clients that have ended and were not awaited. They still hold their places."""
        return (client for client in self._arrived if client not in self._live)

    def _has_share(self, member: str) -> bool:
        """Returns true if a member has all the connections that it may have."""
        clients = sum(client._member == member for client in self._live)
        clients += sum(client._member == member for client in self._over)
        return clients + self._opening_of[member] >= self.conf.max_clients_of_member

    def _flow(self) -> None:
        for client in list(self._live):
            client._flow()

    def _fail(self, error: OSError) -> None:
        if not self._is_closing:
            log.warning("the server accepts no more connections: %s", error)
            self.sock.close()
            self._end(error)
            self._arrived.end(self._closed())

    async def _close(self) -> None:
        self._acceptor.cancel()
        self._arrived.end(self._closed())
        for task in list(self._openers):
            task.cancel()
        try:
            await asyncio.wait((self._acceptor, *self._openers))
            await asyncio.gather(*(client.close() for client in list(self._live)))
        finally:
            self.sock.close()
            self._end(None)

    def _end_tup(self) -> Tup:
        return self._own_tup


def finite(seconds: float) -> float:
    """A time for asyncio, which knows no handshake that may take for ever."""
    return min(seconds, 1e9)
