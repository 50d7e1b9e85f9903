"""Connections whose calls block."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._addr import Addr
from ._errors import ClosedError
from ._file import ConnFile
from ._operations import CHUNK, Operations
from ._options import TCPOptions, UDPOptions, UnixOptions
from ._steps import READ, WRITE
from ._threads import Blocking

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self


class Conn(Blocking, Operations, ABC):
    """A connection, as `dial()` and listeners give them.

    One that the program makes itself has no socket before its first `bind()` or `connect()`. Several threads may use
    it: reads wait for each other, as writes do, and `close()` ends them all. In a ``with`` statement it is closed at
    the end of the block.

    Args:
        network: The network, by its name.

    Raises:
        UnknownNetworkError: There is none of the name.
    """

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]:
        """Iterates over received data, piece by piece."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, n: int = CHUNK) -> bytes:
        """Reads up to ``n`` bytes of a stream, or one datagram, whose bytes over ``n`` are cut off.

        It waits only if nothing is there. At the end of a stream it returns nothing (``b""``).

        Raises:
            ClosedError: It is closed, or gets closed meanwhile.
            DeadlineError: The deadline or timeout is over.
            SocketError: The connection has failed.
        """
        return self._run("read", READ, self._reading(n))

    def read_into(self, buffer: Buffer) -> int:
        """As `read()`, into a buffer. Returns the number of bytes."""
        return self._run("read", READ, self._reading_into(buffer))

    def write(self, buf: Buffer) -> int:
        """Writes all of it to a stream, or as one datagram. Returns the number of bytes.

        Raises:
            ClosedError: It is closed, or gets closed meanwhile. As for all of these, ``written`` of the error says how
                many bytes went out.
            DeadlineError: The deadline or timeout is over.
            SocketError: The connection has failed, or it is not connected.
        """
        return self._run("write", WRITE, self._writing(buf))

    def _write_some(self, buf: Buffer) -> int:
        """Writes as much as there is room for, once there is any. Returns the number of bytes."""
        return self._run("write", WRITE, self._writing_some(buf))

    def connect(self, addr: Addr) -> None:
        """Connects it to an address of its network.

        Raises:
            AddressError: The address is of another network.
            DeadlineError: The write deadline or timeout is over.
            SocketError: It is refused, or fails.
        """
        self._run(f"connect {self._network} {addr}", WRITE, self._connecting(addr))


class StreamConn(Conn):
    """A connection that is a stream of bytes."""

    def __iter__(self) -> Iterator[bytes]:
        return self.lines()

    def read_line(self, limit: int = CHUNK) -> bytes:
        """Reads a line, with its newline if it has one. Nothing at the end.

        Raises:
            SocketError: The line is longer than ``limit`` bytes (EMSGSIZE). It can be read by `read()`.
        """
        return self._run("read", READ, self._reading_line(limit))

    def lines(self, limit: int = CHUNK) -> Iterator[bytes]:
        """The lines that come, as `read_line()` reads them, until the end. So does iterating over the connection."""
        while line := self.read_line(limit):
            yield line

    def chunks(self, n: int = CHUNK) -> Iterator[bytes]:
        """Iterates over received data, as `read()` returns it, until the end."""
        while chunk := self.read(n):
            yield chunk

    def file(self, mode: str = "rb", buffering: int = -1, **text: Any) -> Any:
        """A file object that reads from or writes to the connection; its own ``close`` leaves the connection open.

        It behaves as the files of `socket.socket.makefile()`. Once a read has timed out, all others of the file fail,
        because the bytes that came before are lost. Bytes that a write had left in the buffer go out with the next
        one. Without a buffer, a write may take a part, and returns its size.

        Args:
            mode: ``r``, ``w`` or ``rw``, with ``b`` for bytes.
            buffering: As for ``open()``.
            text: ``encoding``, ``errors`` and ``newline``, as for ``open()``.

        Raises:
            ValueError: There is no such mode, or text is to go without a buffer.
        """
        if not {*mode} <= {*"rwb"} or not {*mode} & {*"rw"} or len({*mode}) != len(mode):
            raise ValueError(f"a mode is of 'r', 'w' and 'b', not {mode!r}")
        raw = ConnFile(self, "r" in mode, "w" in mode)
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("text goes through a buffer")
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering < 2 else buffering
        if "r" in mode and "w" in mode:
            buffer: Any = io.BufferedRWPair(raw, raw, size)
        else:
            buffer = io.BufferedReader(raw, size) if "r" in mode else io.BufferedWriter(raw, size)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, line_buffering=buffering == 1, **text)


class PacketConn(Conn):
    """A connection that carries datagrams."""

    def __iter__(self) -> Iterator[bytes]:
        return self.datagrams()

    def datagrams(self) -> Iterator[bytes]:
        """The datagrams that come, until the connection is closed. So does iterating over the connection."""
        try:
            while True:
                yield self.read()
        except ClosedError:
            return

    def read_from(self, n: int = CHUNK) -> tuple[bytes, Addr]:
        """Reads one datagram, up to ``n`` bytes of it. Returns it with its sender's address.

        Raises:
            ClosedError: It is closed, or gets closed meanwhile.
            DeadlineError: The deadline or timeout is over.
        """
        return self._run("read", READ, self._reading_from(n))

    def write_to(self, buf: Buffer, addr: Addr) -> int:
        """Sends one datagram to an address. Returns the number of bytes.

        Raises:
            ClosedError: It is closed, or gets closed meanwhile.
            DeadlineError: The deadline or timeout is over.
            SocketError: It is connected (EISCONN), or the system refuses the datagram, as if too long (EMSGSIZE).
        """
        return self._run(f"write {self._network} {addr}", WRITE, self._writing_to(buf, addr))


class TCPConn(TCPOptions, StreamConn):
    """A TCP connection."""

    def __init__(self, network: str = "tcp", *made: Any) -> None:
        super().__init__(network, *made)


class UDPConn(UDPOptions, PacketConn):
    """A UDP socket, connected or not."""

    def __init__(self, network: str = "udp", *made: Any) -> None:
        super().__init__(network, *made)


class UnixConn(UnixOptions, StreamConn, PacketConn):
    """A Unix domain socket: a stream, or one for datagrams, connected or not.

    Iterating gives lines of a stream, or datagrams.
    """

    def __init__(self, network: str = "unix", *made: Any) -> None:
        super().__init__(network, *made)

    def __iter__(self) -> Iterator[bytes]:
        return self.lines() if self._is_stream else self.datagrams()
