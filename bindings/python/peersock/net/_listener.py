"""Listeners whose calls block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from ._addr import Addr
from ._conn import Conn, TCPConn, UnixConn
from ._errors import ClosedError
from ._listening import TCPListening, UnixListening
from ._steps import READ
from ._threads import Blocking

if TYPE_CHECKING:
    from typing_extensions import Self

_C = TypeVar("_C", bound=Conn, covariant=True)


class Listener(ABC, Generic[_C]):
    """The operations of all listeners. In a ``with`` statement they are closed at the end of the block;
    iterating over one gives connections until it is closed."""

    @abstractmethod
    def accept(self) -> _C:
        """Waits for the next connection.

        Raises:
            ClosedError: It is closed, or gets closed meanwhile.
            DeadlineError: The deadline is over.
            SocketError: The system has no room for one more (EMFILE, ENOBUFS).
        """

    @abstractmethod
    def addr(self) -> Addr:
        """Its own address."""

    @abstractmethod
    def close(self) -> None:
        """Closes it. Connections that it gave stay; `accept()` ends with `ClosedError`. Again it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[_C]:
        try:
            while True:
                yield self.accept()
        except ClosedError:
            return


class TCPListener(Blocking, TCPListening, Listener[TCPConn]):
    """Listens for TCP connections."""

    def accept(self) -> TCPConn:
        return self._run("accept", READ, self._accepting(TCPConn))


class UnixListener(Blocking, UnixListening, Listener[UnixConn]):
    """Listens for connections at a path, which is removed when it is closed."""

    def accept(self) -> UnixConn:
        return self._run("accept", READ, self._accepting(UnixConn))
