"""Connections whose calls are awaited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from .._addr import Addr
from .._errors import ClosedError
from .._operations import CHUNK, Operations
from .._options import TCPOptions, UDPOptions, UnixOptions
from .._steps import READ, WRITE
from ._loop import Awaited

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self


class Conn(Awaited, Operations, ABC):
    """As `peersock.net.Conn`, for the tasks of one loop. In an ``async with`` statement it is closed at the end."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterates over received data, piece by piece."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def read(self, n: int = CHUNK) -> bytes:
        """As `peersock.net.Conn.read()`."""
        return await self._run("read", READ, self._reading(n))

    async def read_into(self, buffer: Buffer) -> int:
        """As `peersock.net.Conn.read_into()`."""
        return await self._run("read", READ, self._reading_into(buffer))

    async def write(self, buf: Buffer) -> int:
        """As `peersock.net.Conn.write()`. What a task that is cancelled had written by then stays written."""
        return await self._run("write", WRITE, self._writing(buf))

    async def connect(self, addr: Addr) -> None:
        """As `peersock.net.Conn.connect()`."""
        await self._run(f"connect {self._network} {addr}", WRITE, self._connecting(addr))


class StreamConn(Conn):
    """As `peersock.net.StreamConn`."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.lines()

    async def read_line(self, limit: int = CHUNK) -> bytes:
        """As `peersock.net.StreamConn.read_line()`."""
        return await self._run("read", READ, self._reading_line(limit))

    async def lines(self, limit: int = CHUNK) -> AsyncIterator[bytes]:
        """As `peersock.net.StreamConn.lines()`, for ``async for``."""
        while line := await self.read_line(limit):
            yield line

    async def chunks(self, n: int = CHUNK) -> AsyncIterator[bytes]:
        """As `peersock.net.StreamConn.chunks()`, for ``async for``."""
        while chunk := await self.read(n):
            yield chunk


class PacketConn(Conn):
    """As `peersock.net.PacketConn`."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.datagrams()

    async def datagrams(self) -> AsyncIterator[bytes]:
        """As `peersock.net.PacketConn.datagrams()`, for ``async for``."""
        try:
            while True:
                yield await self.read()
        except ClosedError:
            return

    async def read_from(self, n: int = CHUNK) -> tuple[bytes, Addr]:
        """As `peersock.net.PacketConn.read_from()`."""
        return await self._run("read", READ, self._reading_from(n))

    async def write_to(self, buf: Buffer, addr: Addr) -> int:
        """As `peersock.net.PacketConn.write_to()`."""
        return await self._run(f"write {self._network} {addr}", WRITE, self._writing_to(buf, addr))


class TCPConn(TCPOptions, StreamConn):
    """A TCP connection."""

    def __init__(self, network: str = "tcp", *made: Any) -> None:
        super().__init__(network, *made)


class UDPConn(UDPOptions, PacketConn):
    """A UDP socket, connected or not."""

    def __init__(self, network: str = "udp", *made: Any) -> None:
        super().__init__(network, *made)


class UnixConn(UnixOptions, StreamConn, PacketConn):
    """As `peersock.net.UnixConn`."""

    def __init__(self, network: str = "unix", *made: Any) -> None:
        super().__init__(network, *made)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.lines() if self._is_stream else self.datagrams()
