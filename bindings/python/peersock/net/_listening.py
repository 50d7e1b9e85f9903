"""The common base of listeners, of threads and of asyncio."""

from __future__ import annotations

import contextlib
import socket as _std
from typing import TypeVar

from .._class import socket
from . import _addr, _steps
from ._addr import Addr, TCPAddr
from ._endpoint import Deadline, Endpoint
from ._operations import Operations
from ._options import UnixOptions
from ._steps import READ, Steps

_C = TypeVar("_C", bound=Operations)


class Listening(Endpoint):
    """A socket that listens."""

    def __init__(self, network: str, sock: socket) -> None:
        super().__init__(network, sock)
        self._own = self._own_address()

    def addr(self) -> Addr:
        """Its own address, also when it is closed."""
        return self._own

    def local_addr(self) -> Addr:
        """As `addr()`, by the name that connections have for it."""
        return self.addr()

    def set_deadline(self, deadline: Deadline | None) -> None:
        """Sets until when `accept()` may wait: seconds of `time.time()`, or a date; ``None`` for ever.

        Raises:
            ClosedError: It is closed.
        """
        self._set_deadline(deadline, READ)

    def _accepting(self, kind: type[_C]) -> Steps[_C]:
        sock, remote = yield from _steps.accept(self._opened("accept"))
        if sock.family != _std.AF_UNIX:
            # As dialed ones.
            with contextlib.suppress(OSError):
                sock.setsockopt(_std.IPPROTO_TCP, _std.TCP_NODELAY, 1)
        return kind(self._network, sock, _addr.of_system(self._network, remote))


class TCPListening(Listening):
    """A socket that listens for TCP connections."""

    def addr(self) -> TCPAddr:
        own = super().addr()
        assert isinstance(own, TCPAddr)
        return own


class UnixListening(UnixOptions, Listening):
    """A socket that listens at a path."""

    def __init__(self, network: str, sock: socket) -> None:
        super().__init__(network, sock)
        self.set_unlink_on_close(True)
