"""The common base of connections and listeners, of threads and of asyncio: closing, deadlines, waiting calls."""

from __future__ import annotations

import datetime
import errno
import math
import os
import socket as _std
import threading
import time
from typing import Protocol

from .._class import socket
from . import _addr
from ._addr import Addr
from ._errors import ClosedError, DeadlineError, SocketError, socket_error
from ._steps import READ, WRITE

#: A point in time: seconds of `time.time()`, or a date.
Deadline = float | datetime.datetime

#: Longest time that `close()` waits for the calls that it has woken, seconds.
_PATIENCE = 1.0


class Waker(Protocol):
    """A waiting call."""

    def wake(self) -> None:
        """Has them look again."""


class Endpoint:
    """A socket that does not block, or none yet."""

    # True if waking the waiting calls ends them before `close()` returns, because all run in one thread.
    _is_alone = False

    def __init__(self, network: str, sock: socket | None = None) -> None:
        self._sock = sock
        self._network = network
        self._is_closed = False
        self._deadlines: list[float | None] = [None, None]
        self._timeout: float | None = None
        self._unlinks: str | None = None
        self._maker = os.getpid()
        self._begin()

    def _begin(self) -> None:
        """Resets the users and waiting calls, because a new process has none."""
        self._process = os.getpid()
        # A signal's handler may close what the thread that it interrupts uses.
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        # The threads that are in calls.
        self._users: list[int] = []
        self._wakers: tuple[set[Waker], set[Waker]] = (set(), set())

    def _settle(self) -> None:
        """Forgets what threads of a parent process do with it."""
        if self._process != os.getpid():
            self._begin()

    # The life of it.

    @property
    def closed(self) -> bool:
        """True if it was closed."""
        return self._is_closed

    def fileno(self) -> int:
        """The descriptor, for selectors; -1 if it is closed. It does not block."""
        return -1 if self._sock is None or self._is_closed else self._sock.fileno()

    def close(self) -> None:
        """Closes it. Calls that wait end with `ClosedError` at once. Closing it again does nothing."""
        self._settle()
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._unlink()
            for waker in (*self._wakers[READ], *self._wakers[WRITE]):
                waker.wake()
            is_over = not self._users or self._is_alone
            if not is_over and threading.get_ident() not in self._users:
                # The last of them closes it: then its address is free again. A signal's handler cannot wait for what
                # it has interrupted.
                self._idle.wait_for(lambda: not self._users, _PATIENCE)
        if is_over and self._sock is not None:
            self._sock.close()

    def _unlink(self) -> None:
        path, self._unlinks = self._unlinks, None
        # A forked child's copy is not the last.
        if path and self._maker == os.getpid():
            try:
                os.unlink(path)
            except OSError:
                pass

    def _opened(self, what: str) -> socket:
        """The socket, if there is one."""
        if self._is_closed:
            raise ClosedError.during(what)
        if self._sock is None:
            raise socket_error(what, OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN)))
        return self._sock

    def _enter(self, what: str, direction: int) -> None:
        """Begins a call: the descriptor lives until it has left."""
        self._settle()
        with self._lock:
            self._check(what, direction)
            self._users.append(threading.get_ident())

    def _leave(self) -> None:
        with self._lock:
            self._users.remove(threading.get_ident())
            if self._is_closed and not self._users:
                if self._sock is not None:
                    self._sock.close()
                self._idle.notify_all()

    def _check(self, what: str, direction: int) -> None:
        if self._is_closed:
            raise ClosedError.during(what)
        deadline = self._deadlines[direction]
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineError.during(what)

    def _until(self, direction: int, *others: float | None) -> float | None:
        """The earliest of these times and of the deadline."""
        known = [at for at in (self._deadlines[direction], *others) if at is not None]
        return min(known, default=None)

    # Deadlines.

    def _set_deadline(self, deadline: Deadline | None, *directions: int) -> None:
        if isinstance(deadline, datetime.datetime):
            deadline = deadline.timestamp()
        if deadline is not None and not math.isfinite(deadline):
            raise ValueError(f"a deadline is a time, not {deadline!r}")
        # The clock may be set while a call waits.
        until = None if deadline is None else time.monotonic() + (deadline - time.time())
        with self._lock:
            if self._is_closed:
                raise ClosedError.during("set deadline")
            for direction in directions:
                self._deadlines[direction] = until
                for waker in tuple(self._wakers[direction]):
                    waker.wake()

    # Addresses.

    def _own_address(self) -> Addr:
        sock = self._opened("local address")
        try:
            return _addr.of_system(self._network, sock.getsockname())
        except OSError as error:
            raise socket_error("local address", error) from error

    def __repr__(self) -> str:
        state = " [closed]" if self._is_closed else ""
        return f"<peersock.net.{type(self).__name__} {self._network}{state}>"


class Connection(Endpoint):
    """The common base of all connections: the operations that do not wait."""

    def __init__(self, network: str, sock: socket | None = None, remote: Addr | None = None) -> None:
        super().__init__(network, sock)
        self._remote = remote
        self._local: Addr | None = None
        self._reads_nothing = False

    def local_addr(self) -> Addr:
        """The own address. That of a connection that was asked for once can still be asked for when it is closed.

        Raises:
            ClosedError: It is closed.
            SocketError: It was not bound or connected yet (ENOTCONN).
        """
        if self._local is not None:
            return self._local
        own = self._own_address()
        if self._remote is not None:
            self._local = own
        return own

    def remote_addr(self) -> Addr | None:
        """The other end's address; ``None`` where it is not connected."""
        return self._remote

    def set_deadline(self, deadline: Deadline | None) -> None:
        """Sets until when reads and writes may wait: seconds of `time.time()`, or a date; ``None`` for ever.

        From then on they fail with `DeadlineError`, those that wait as well as later ones, whether or not there is
        something to read. A new deadline counts at once, for those that wait, too.

        Raises:
            ClosedError: It is closed.
        """
        self._set_deadline(deadline, READ, WRITE)

    def set_read_deadline(self, deadline: Deadline | None) -> None:
        """As `set_deadline()`, for reads only."""
        self._set_deadline(deadline, READ)

    def set_write_deadline(self, deadline: Deadline | None) -> None:
        """As `set_deadline()`, for writes only."""
        self._set_deadline(deadline, WRITE)

    def settimeout(self, timeout: float | None) -> None:
        """Sets how long each call may wait from its beginning, seconds; ``None`` for ever, 0 as `setblocking(False)`.

        A deadline that is earlier counts.

        Raises:
            ValueError: It is negative or no number.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"a timeout is a number of seconds from 0 on, not {timeout!r}")
        self._timeout = timeout

    def setblocking(self, flag: bool) -> None:
        """Sets if calls wait, which is the default. Without waiting, calls that would wait raise BlockingIOError."""
        self._timeout = None if flag else 0.0

    def gettimeout(self) -> float | None:
        """Returns the timeout that `settimeout()` has set."""
        return self._timeout

    def close_read(self) -> None:
        """Closes the direction from the other end: reads, also those that wait, give nothing from now on."""
        with self._lock:
            before, self._reads_nothing = self._reads_nothing, True
        try:
            # A waiting read sees the end by this flag, and must not take it for the end of the stream.
            self.shutdown(_std.SHUT_RD)
        except BaseException:
            self._reads_nothing = before
            raise
        with self._lock:
            for waker in tuple(self._wakers[READ]):
                waker.wake()

    def close_write(self) -> None:
        """Closes the direction to the other end, which comes to the end of the stream once it has read all."""
        self.shutdown(_std.SHUT_WR)

    def shutdown(self, how: int) -> None:
        """Closes directions, by the numbers of `socket`: ``SHUT_RD``, ``SHUT_WR`` or ``SHUT_RDWR``.

        Raises:
            SocketError: It is not connected (ENOTCONN).
        """
        sock = self._opened("shutdown")
        try:
            sock.shutdown(how)
        except OSError as error:
            raise socket_error("shutdown", error) from error

    def detach(self) -> socket:
        """The socket itself, blocking. The connection is closed then, but not the socket.

        Raises:
            SocketError: A call is waiting (EBUSY).
        """
        with self._lock:
            sock = self._opened("detach")
            if self._users:
                raise SocketError(errno.EBUSY, "detach: a call is under way")
            self._is_closed, self._sock, self._unlinks = True, None, None
        sock.setblocking(True)
        return sock
