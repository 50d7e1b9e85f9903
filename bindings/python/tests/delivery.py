"""The table of deliveries that all faces share, `tests/delivery/scenarios.txt`: its receiver and its sender."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import select
import signal
import struct
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from peersock import socket

TABLE = Path(__file__).resolve().parents[3] / "tests/delivery/scenarios.txt"

#: Time without an answer after which a stopped receiver is given up, seconds.
SILENCE = 3


class Scenario(NamedTuple):
    """One row: what the sender has to be told, and what the receiver does."""

    name: str
    outcome: str
    steps: list[str]

    def ends_process(self) -> bool:
        """Returns true if the scenario ends the receiver's process, which then must be a separate one."""
        return self.steps[-1] in ("killed", "stopped")


def _read_table() -> tuple[list[Scenario], list[int]]:
    rows, sizes = [], []
    for line in TABLE.read_text().splitlines():
        match line.split():
            case [] | ["#", *_]:
                pass
            case ["sizes", *numbers]:
                sizes = [int(number) for number in numbers]
            case [name, outcome, *steps]:
                rows.append(Scenario(name, outcome, " ".join(steps).split(", ")))
    return rows, sizes


SCENARIOS, SIZES = _read_table()


@cache
def content(size: int) -> bytes:
    """The bytes that a sender writes."""
    return hashlib.shake_128(b"delivery").digest(size)


def listening(host: str) -> socket.socket:
    """A server with a buffer that holds less than half of the largest size: buffers grow with what is read."""
    server = socket.socket(socket.AF_INET6)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
    server.bind((host, 0))
    server.listen()
    return server


def receive(server: socket.socket, name: str, size: int) -> int:
    """Does the steps of a scenario; gives how much was read, all of it as it was sent."""
    steps = next(scenario.steps for scenario in SCENARIOS if scenario.name == name)
    if steps == ["unlisten"]:
        select.select([server], [], [])
        server.close()
        return 0
    connection, _ = server.accept()
    amounts = {"read half": size // 2, "read but-one": size - 1, "read all": size}
    got = bytearray()
    for step in steps:
        match step:
            case "accept":
                pass
            case "see":
                assert connection.recv(1, socket.MSG_PEEK)
            case "end":
                while data := connection.recv(1 << 16):
                    got += data
            case "shutdown write":
                connection.shutdown(socket.SHUT_WR)
            case "shutdown read":
                connection.shutdown(socket.SHUT_RD)
            case "reset" | "close":
                if step == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            case "killed" | "stopped":
                os.kill(os.getpid(), signal.SIGKILL if step == "killed" else signal.SIGSTOP)
                # The signal may meet other threads first, and the connection shall not be closed meanwhile.
                threading.Event().wait()
            case _:
                while len(got) < amounts[step]:
                    data = connection.recv(min(amounts[step] - len(got), 1 << 16))
                    assert data
                    got += data
    server.close()
    assert got == content(size)[: len(got)]
    return len(got)


def _sender(silence: int) -> socket.socket:
    """A socket that gives a silent receiver up, and waits as it is closed until all is acknowledged."""
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("KEEPIDLE", silence // 3), ("KEEPINTVL", silence // 3), ("KEEPCNT", 2)):
        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{option}"), value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence * 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    return sock


def _check(error: OSError) -> None:
    """Errors of connections, and no others."""
    assert isinstance(error, (ConnectionError, TimeoutError)) or error.errno == errno.ENOTCONN, error


def is_delivered(address: tuple[str, int], size: int, silence: int = 60) -> bool:
    """Sends, ends, reads to the end, and waits until all is acknowledged; whether all that went well."""
    sock = _sender(silence)
    try:
        sock.connect(address)
        sock.sendall(content(size))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass
        sock.close()
    except OSError as error:
        _check(error)
        with suppress(OSError):
            sock.close()
        return False
    return True


def _is_unfinished(sock: socket.socket) -> bool:
    """Returns true if data is unsent or unacknowledged: ESTABLISHED, FIN-WAIT-1, CLOSE-WAIT, LAST-ACK, CLOSING."""
    return sock.fileno() >= 0 and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in (1, 4, 8, 9, 11)


def _acknowledged(sock: socket.socket) -> int:
    """Returns the number of bytes that the receiver has acknowledged: `tcpi_bytes_acked`. Linux counts the SYN."""
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)[120:128], sys.byteorder)


async def is_streamed(address: tuple[str, int], size: int, silence: int = 60) -> bool:
    """As `is_delivered`, by the streams of asyncio, to the overlay or the kernel.

    Streams know nothing of acknowledgements, so the socket is asked, also before the stream is ended: a peer that has
    ended its direction may reset it later, and no call reports that. It is closed here, because asyncio gives errors
    of closing to the loop's exception handler alone.
    """
    sock = _sender(silence)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except OSError as error:
        _check(error)
        sock.close()
        return False
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(content(size))
        await writer.drain()
        while _is_unfinished(sock) and _acknowledged(sock) < size:
            await asyncio.sleep(0.001)
        writer.write_eof()
        while await reader.read(1 << 16):
            pass
        while _is_unfinished(sock):
            await asyncio.sleep(0.001)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        sock.close()
    except OSError as error:
        _check(error)
        return False
    finally:
        writer.transport.abort()
    return True
