"""Connections as Python's files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Conn(Protocol):
    def read_into(self, buffer: Buffer) -> int: ...

    def write(self, buf: Buffer) -> int: ...

    def fileno(self) -> int: ...


class ConnFile(io.RawIOBase):
    """Reads from and writes to a connection, with its deadlines."""

    def __init__(self, conn: _Conn, reads: bool, writes: bool) -> None:
        self._conn, self._reads, self._writes = conn, reads, writes

    def readable(self) -> bool:
        return self._reads and not self.closed

    def writable(self) -> bool:
        return self._writes and not self.closed

    def fileno(self) -> int:
        return self._conn.fileno()

    def readinto(self, buffer: Buffer, /) -> int:
        if not self._reads:
            raise io.UnsupportedOperation("read")
        return self._conn.read_into(buffer)

    def write(self, data: Buffer, /) -> int:
        if not self._writes:
            raise io.UnsupportedOperation("write")
        return self._conn.write(data)
