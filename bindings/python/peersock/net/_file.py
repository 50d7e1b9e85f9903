"""Connections as Python's files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Conn(Protocol):
    def read_into(self, buffer: Buffer) -> int: ...

    def _write_some(self, buf: Buffer) -> int: ...

    def fileno(self) -> int: ...


class ConnFile(io.RawIOBase):
    """Reads from and writes to a connection, with its deadlines, as CPython's `socket.SocketIO` does.

    Buffers above it count on that. After an error they lose the bytes that they had read, and would send again the
    bytes that a write had sent before it.
    """

    def __init__(self, conn: _Conn, reads: bool, writes: bool) -> None:
        self._conn, self._reads, self._writes = conn, reads, writes
        self._has_timed_out = False

    def readable(self) -> bool:
        return self._reads and not self.closed

    def writable(self) -> bool:
        return self._writes and not self.closed

    def fileno(self) -> int:
        return self._conn.fileno()

    def readinto(self, buffer: Buffer, /) -> int | None:
        if not self._reads:
            raise io.UnsupportedOperation("read")
        if self._has_timed_out:
            raise OSError("cannot read from timed out object")
        try:
            return self._conn.read_into(buffer)
        except BlockingIOError:
            return None
        except TimeoutError:
            self._has_timed_out = True
            raise

    def write(self, data: Buffer, /) -> int | None:
        if not self._writes:
            raise io.UnsupportedOperation("write")
        try:
            return self._conn._write_some(data)
        except BlockingIOError:
            return None
