"""Waiting of threads: each waits in its own poll, from which other threads can wake it."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import threading
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from ._endpoint import Endpoint
from ._errors import DeadlineError, SocketError, would_wait
from ._sockets import opened
from ._steps import Steps, Wait, drive

_T = TypeVar("_T")


class _Alarm:
    """Wakes the one thread that it belongs to."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def wake(self) -> None:
        """Ends its poll, or the next one."""
        os.eventfd_write(self.fd, 1)

    def forget(self) -> None:
        """Clears an alarm that came after the wait."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass

    def __del__(self) -> None:
        os.close(self.fd)


_own = threading.local()


def _renew() -> None:
    # The parent's thread reads from the same one.
    global _own
    _own = threading.local()


os.register_at_fork(after_in_child=_renew)


def _alarm() -> _Alarm:
    """This thread's; another one for a signal's handler that waits while its thread waits."""
    kept: list[_Alarm] = vars(_own).setdefault("alarms", [])
    return kept.pop() if kept else _Alarm()


def _give_back(alarm: _Alarm) -> None:
    alarm.forget()
    vars(_own).setdefault("alarms", []).append(alarm)


def wait_for(wanted: Wait, until: float | None, alarm: _Alarm | None = None) -> Collection[int]:
    """Waits for descriptors, a time, or an alarm. Gives the descriptors that are ready."""
    poll = select.poll()
    for fd in wanted.readers:
        poll.register(fd, select.POLLIN)
    for fd in wanted.writers:
        poll.register(fd, select.POLLOUT)
    if alarm is not None:
        poll.register(alarm.fd, select.POLLIN)
    times = [at for at in (wanted.until, until) if at is not None]
    rest = min(times) - time.monotonic() if times else None
    # No more than poll's own number takes.
    ready = poll.poll(None if rest is None else min(max(math.ceil(rest * 1000), 0), 0x7FFFFFFF))
    return [fd for fd, _ in ready]


def run(what: str, steps: Steps[_T], timeout: float | None = None) -> _T:
    """Runs an operation that no endpoint has yet, within ``timeout`` seconds."""
    limit = None if timeout is None else time.monotonic() + timeout

    def wait(wanted: Wait) -> Collection[int]:
        ready = wait_for(wanted, limit)
        if not ready and limit is not None and time.monotonic() >= limit:
            raise DeadlineError.during(what)
        return ready

    with opened(what):
        return drive(steps, wait)


class _Turn:
    """Of the operations of one direction one runs at a time."""

    def __init__(self) -> None:
        # A signal's handler comes to the check below in any case, and may go on while there is nothing under way.
        self.lock = threading.RLock()
        self.is_taken = False


class Blocking(Endpoint):
    """An endpoint whose calls block the thread."""

    def _begin(self) -> None:
        super()._begin()
        self._turns = (_Turn(), _Turn())

    def _run(self, what: str, direction: int, steps: Steps[_T]) -> _T:
        """Runs an operation, after those of the same direction that other threads have begun."""
        # Of what is set while it is under way only deadlines count.
        timeout = self._timeout
        limit = None if timeout is None else time.monotonic() + timeout
        self._enter(what, direction)
        try:
            with self._turn(what, direction, timeout, limit), opened(what):
                self._check(what, direction)
                return drive(steps, lambda wanted: self._wait(what, direction, wanted, timeout, limit))
        finally:
            self._leave()

    @contextlib.contextmanager
    def _turn(self, what: str, direction: int, timeout: float | None, limit: float | None) -> Iterator[None]:
        turn = self._turns[direction]
        while not turn.lock.acquire(timeout=self._rest(direction, limit)):
            self._check(what, direction)
            if timeout == 0:
                raise would_wait(what)
            if limit is not None and time.monotonic() >= limit:
                raise DeadlineError.during(what)
        try:
            if turn.is_taken:
                raise SocketError(errno.EDEADLK, f"{what}: called by a signal's handler during another such call")
            turn.is_taken = True
            try:
                yield
            finally:
                turn.is_taken = False
        finally:
            turn.lock.release()

    def _rest(self, direction: int, limit: float | None) -> float:
        """Returns the time to wait for the turn, seconds; -1 for ever. A deadline or close wakes the turn's owner."""
        until = self._until(direction, limit)
        return -1 if until is None else min(max(until - time.monotonic(), 0), threading.TIMEOUT_MAX)

    def _wait(
        self, what: str, direction: int, wanted: Wait, timeout: float | None, limit: float | None
    ) -> Collection[int]:
        if timeout == 0:
            raise would_wait(what)
        alarm = _alarm()
        try:
            with self._lock:
                self._check(what, direction)
                self._wakers[direction].add(alarm)
                until = self._until(direction, limit)
            ready = wait_for(wanted, until, alarm)
        finally:
            with self._lock:
                self._wakers[direction].discard(alarm)
            _give_back(alarm)
        self._check(what, direction)
        if limit is not None and time.monotonic() >= limit and not ready:
            raise DeadlineError.during(what)
        return ready
