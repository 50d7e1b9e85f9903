"""Datagrams."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import socket as _std
from collections import OrderedDict
from typing import Any

from ..interfaces import Route
from ._addresses import UDP, Address, Tup, parse_ip, parse_tup, sockaddr_of, tup_of
from ._options import Options
from ._pipe import Pipe
from ._queue import Message, log

#: Datagrams that are taken before others have their turn in the event loop.
_AT_ONCE = 32
_LONGEST = 1 << 16
#: Errors of the socket itself. All others are about one datagram.
_OF_SOCKET = (errno.EBADF, errno.ENOTSOCK, errno.ENETDOWN, errno.ENODEV, errno.EINVAL, errno.ESHUTDOWN)


class UdpPipe(Pipe):
    """Datagrams to and from anybody. With a destination, that is where they go if nothing else is said.

    The socket is not connected: `Sub` chooses by sources where others must not be heard.
    """

    def __init__(self, sock: _std.socket, route: Route | None, options: Options, dest: Tup | None) -> None:
        super().__init__(UDP, sock, route, options)
        self.dest_tup = dest
        self._own_tup: Tup | None = None
        self._seen: OrderedDict[tuple[Tup, bytes], None] = OrderedDict()
        #: Datagrams that were dropped because they had come before; see the option ``enable_msg_ids``.
        self.repeated = 0
        # Those who wait until the socket takes a datagram.
        self._writers: list[asyncio.Future[None]] = []

    def _start(self) -> None:
        """Reads from now on."""
        self._loop.add_reader(self.sock.fileno(), self._read)

    @property
    def local_tup(self) -> Tup:
        """The own address and port. Without a route, the port is known once something was sent."""
        return tup_of(self.sock.getsockname()) if self._own_tup is None else self._own_tup

    def _end_tup(self) -> Tup:
        return self.client_tup

    def _read(self) -> None:
        messages: list[Message] = []
        try:
            for _ in range(_AT_ONCE):
                data, sender = self.sock.recvfrom(_LONGEST)
                message = (tup_of(sender), data)
                if not self.conf.enable_msg_ids or self._is_new(message):
                    messages.append(message)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            log.debug("a datagram was not received: %s", error)
            if error.errno in _OF_SOCKET:
                self._shut(error)
        self._receive(messages)

    def _is_new(self, message: Message) -> bool:
        tup, data = message
        key = tup, hashlib.blake2b(data, digest_size=16).digest()
        if key in self._seen:
            self.repeated += 1
            return False
        self._seen[key] = None
        if len(self._seen) > self.conf.max_msg_ids:
            self._seen.popitem(last=False)
        return True

    async def _send(self, data: bytes, dest_tup: Any) -> int:
        if dest_tup is None and self.dest_tup is None:
            raise ValueError("the pipe has no destination: send(data, dest_tup)")
        tup = self.dest_tup if dest_tup is None else parse_tup(dest_tup)
        assert tup is not None
        if parse_ip(tup[0]) is None:
            address = await Address(*tup, conf={"dns_timeout": self.conf.dns_timeout})
            tup = address.select_ip(_std.AF_UNSPEC if self.sock.family == _std.AF_INET6 else _std.AF_INET)
        sockaddr = sockaddr_of(tup, self.sock.family)
        while self.is_running:
            try:
                return self.sock.sendto(data, sockaddr)
            except InterruptedError:
                continue
            except BlockingIOError:
                await self._writable()
        raise self._closed()

    async def _writable(self) -> None:
        writer = self._loop.create_future()
        self._writers.append(writer)
        self._loop.add_writer(self.sock.fileno(), self._write)
        await writer

    def _write(self) -> None:
        self._loop.remove_writer(self.sock.fileno())
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)

    def _flow(self) -> None:
        # The queues drop datagrams, and say so. The system's would do it without a word.
        return

    async def _close(self) -> None:
        self._shut(None)

    def _shut(self, error: OSError | None) -> None:
        if self._ended is not None:
            return
        try:
            self._own_tup = self.local_tup
        except OSError:
            self._own_tup = ("", 0)
        fd = self.sock.fileno()
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._write()
        self.sock.close()
        self._end(error)
