"""Listeners whose calls are awaited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Generic, TypeVar

from .._addr import Addr
from .._errors import ClosedError
from .._listening import TCPListening, UnixListening
from .._steps import READ
from ._conn import Conn, TCPConn, UnixConn
from ._loop import Awaited

if TYPE_CHECKING:
    from typing_extensions import Self

_C = TypeVar("_C", bound=Conn, covariant=True)


class Listener(ABC, Generic[_C]):
    """As `peersock.net.Listener`, with ``async with`` and ``async for``."""

    @abstractmethod
    async def accept(self) -> _C:
        """As `peersock.net.Listener.accept()`."""

    @abstractmethod
    def addr(self) -> Addr:
        """Its own address."""

    @abstractmethod
    def close(self) -> None:
        """As `peersock.net.Listener.close()`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[_C]:
        try:
            while True:
                yield await self.accept()
        except ClosedError:
            return


class TCPListener(Awaited, TCPListening, Listener[TCPConn]):
    """Listens for TCP connections."""

    async def accept(self) -> TCPConn:
        return await self._run("accept", READ, self._accepting(TCPConn))


class UnixListener(Awaited, UnixListening, Listener[UnixConn]):
    """Listens for connections at a path, which is removed when it is closed."""

    async def accept(self) -> UnixConn:
        return await self._run("accept", READ, self._accepting(UnixConn))
