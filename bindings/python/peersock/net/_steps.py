"""Operations on sockets that do not block, without the waiting: threads wait one way, asyncio another."""

from __future__ import annotations

import errno
import socket as _std
import time
from collections.abc import Callable, Collection, Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from .. import _peersock
from .._class import socket
from ._addr import Addr, UnixAddr, to_system

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")

#: The directions, each with its own deadline.
READ, WRITE = 0, 1
#: Pause where the system cannot report room, seconds.
_PAUSE = 0.002
#: Errors of getpeername(2) on a socket that is still connecting.
_PENDING = (errno.ENOTCONN, errno.EINVAL)


class Wait(NamedTuple):
    """A condition that an operation waits for: any of these descriptors, or a time of `time.monotonic()`."""

    readers: Sequence[int] = ()
    writers: Sequence[int] = ()
    until: float | None = None


#: An operation. It yields what it waits for, is sent the descriptors that are ready, and returns its result.
Steps = Generator[Wait, Collection[int], _T]


def receive(sock: socket, size: int, is_over: Callable[[], bool]) -> Steps[bytes]:
    """Something that has come; nothing at the end, or when it is over for this end."""
    return _attempt(lambda: b"" if is_over() else sock.recv(size), Wait(readers=(sock.fileno(),)))


def receive_from(sock: socket, size: int) -> Steps[tuple[bytes, object]]:
    """A datagram and its sender's address in the system's form."""
    return _attempt(lambda: sock.recvfrom(size), Wait(readers=(sock.fileno(),)))


def accept(sock: socket) -> Steps[tuple[socket, object]]:
    """The next connection, and the other end's address in the system's form. Those that have gone away are passed."""
    while True:
        try:
            connection, remote = yield from _attempt(sock.accept, Wait(readers=(sock.fileno(),)))
        except ConnectionAbortedError:
            continue
        connection.setblocking(False)
        return connection, remote


def send(sock: socket, data: Buffer) -> Steps[int]:
    """Sends what there is room for, once there is any."""
    return _attempt(lambda: sock.send(data), Wait(writers=(sock.fileno(),)))


def send_all(sock: socket, data: Buffer) -> Steps[int]:
    """Sends everything. An error says how much of it was sent."""
    sent = 0
    with memoryview(data) as view, view.cast("B") as rest:
        try:
            while sent < len(rest):
                with rest[sent:] as piece:
                    sent += yield from send(sock, piece)
        except OSError as error:
            # `SocketError` has this attribute, and takes it over from the system's errors.
            setattr(error, "characters_written" if isinstance(error, BlockingIOError) else "written", sent)
            raise
    return sent


def send_datagram(sock: socket, data: Buffer, address: Addr | None) -> Steps[int]:
    """Sends one datagram, to an address or where the socket is connected to."""
    target = None if address is None else to_system(address, sock.family)
    while True:
        try:
            return sock.send(data) if target is None else sock.sendto(data, target)
        except BlockingIOError:
            # To poll, a Unix domain socket that is not connected always has room.
            is_blind = isinstance(address, UnixAddr)
            yield Wait(until=time.monotonic() + _PAUSE) if is_blind else Wait(writers=(sock.fileno(),))


def connect(sock: socket, address: Addr) -> Steps[None]:
    """Connects a socket."""
    target = to_system(address, sock.family)
    while not begin_connect(sock, target):
        if not isinstance(address, UnixAddr):
            ready: Collection[int] = ()
            # A new deadline ends a wait, too.
            while not has_connected(sock, sock.fileno() in ready):
                ready = yield Wait(writers=(sock.fileno(),))
            return None
        # The listener's queue is full.
        yield Wait(until=time.monotonic() + _PAUSE)
    return None


def begin_connect(sock: socket, target: object) -> bool:
    """Begins to connect. True if it is done at once."""
    try:
        sock.connect(target)
    except BlockingIOError:
        return False
    return True


def has_connected(sock: socket, is_ready: bool = False) -> bool:
    """Returns true if the socket is connected. Raises its error instead; a ready socket has one or the other."""
    number = sock.getsockopt(_std.SOL_SOCKET, _std.SO_ERROR)
    if number:
        raise OSError(number, _peersock.strerror(number))
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno not in _PENDING or is_ready:
            raise
        return False
    return True


def drive(steps: Steps[_T], wait: Callable[[Wait], Collection[int]]) -> _T:
    """Runs an operation in this thread."""
    try:
        wanted = next(steps)
        while True:
            try:
                ready = wait(wanted)
            except BaseException as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(ready)
    except StopIteration as done:
        result: _T = done.value
        return result


def _attempt(call: Callable[[], _T], wanted: Wait) -> Steps[_T]:
    while True:
        try:
            return call()
        except BlockingIOError:
            yield wanted
