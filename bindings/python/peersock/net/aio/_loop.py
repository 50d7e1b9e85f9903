"""Waiting as asyncio does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TypeVar

from .._endpoint import Endpoint
from .._errors import DeadlineError, would_wait
from .._sockets import opened
from .._steps import Steps, Wait

_T = TypeVar("_T")


class _Waiting:
    """One wait for descriptors, until it is over or is ended by `wake`."""

    def __init__(self, wanted: Wait) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._readers, self._writers = list(wanted.readers), list(wanted.writers)
        self._ready: list[int] = []
        for fd in self._readers:
            self._loop.add_reader(fd, self._is_ready, fd)
        for fd in self._writers:
            self._loop.add_writer(fd, self._is_ready, fd)

    async def ready(self, until: float | None) -> Collection[int]:
        """The descriptors that are ready, at the latest at this time of `time.monotonic()`."""
        timer = None
        if until is not None:
            timer = self._loop.call_later(max(until - time.monotonic(), 0), self.wake)
        try:
            await self._over
        finally:
            self._forget()
            if timer is not None:
                timer.cancel()
        return self._ready

    def wake(self) -> None:
        """Ends it. Its descriptors may be closed from now on."""
        self._forget()
        if not self._over.done():
            self._over.set_result(None)

    def _is_ready(self, fd: int) -> None:
        self._ready.append(fd)
        self.wake()

    def _forget(self) -> None:
        while self._readers:
            self._loop.remove_reader(self._readers.pop())
        while self._writers:
            self._loop.remove_writer(self._writers.pop())


async def drive(steps: Steps[_T], wait: Callable[[Wait], Awaitable[Collection[int]]]) -> _T:
    """Runs an operation in this task."""
    try:
        wanted = next(steps)
        while True:
            try:
                ready = await wait(wanted)
            except BaseException as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(ready)
    except StopIteration as done:
        result: _T = done.value
        return result


def _earliest(*times: float | None) -> float | None:
    return min((at for at in times if at is not None), default=None)


async def run(what: str, steps: Steps[_T], timeout: float | None = None) -> _T:
    """Runs an operation that no endpoint has yet, within ``timeout`` seconds."""
    limit = None if timeout is None else time.monotonic() + timeout

    async def wait(wanted: Wait) -> Collection[int]:
        ready = await _Waiting(wanted).ready(_earliest(wanted.until, limit))
        if not ready and limit is not None and time.monotonic() >= limit:
            raise DeadlineError.during(what)
        return ready

    with opened(what):
        return await drive(steps, wait)


class Awaited(Endpoint):
    """An endpoint whose calls are awaited. All of them belong to one loop."""

    _is_alone = True

    def _begin(self) -> None:
        super()._begin()
        self._turns = (asyncio.Lock(), asyncio.Lock())

    async def _run(self, what: str, direction: int, steps: Steps[_T]) -> _T:
        """Runs an operation, after those of the same direction that other tasks have begun."""
        limit = None if self._timeout is None else time.monotonic() + self._timeout
        self._enter(what, direction)
        try:
            turn = self._turns[direction]
            await self._take(turn, what, direction, limit)
            try:
                with opened(what):
                    self._check(what, direction)
                    return await drive(steps, partial(self._wait, what, direction, limit))
            finally:
                turn.release()
        finally:
            self._leave()

    async def _take(self, turn: asyncio.Lock, what: str, direction: int, limit: float | None) -> None:
        """Waits for the turn. Who has it is woken by a new deadline and by the end."""
        while turn.locked():
            if self._timeout == 0:
                self._check(what, direction)
                raise would_wait(what)
            until = self._until(direction, limit)
            try:
                await asyncio.wait_for(turn.acquire(), None if until is None else max(until - time.monotonic(), 0))
                return
            except asyncio.TimeoutError:
                self._check(what, direction)
                if limit is not None and time.monotonic() >= limit:
                    raise DeadlineError.during(what) from None
        await turn.acquire()

    async def _wait(self, what: str, direction: int, limit: float | None, wanted: Wait) -> Collection[int]:
        if self._timeout == 0:
            raise would_wait(what)
        self._check(what, direction)
        waiting = _Waiting(wanted)
        self._wakers[direction].add(waiting)
        try:
            ready = await waiting.ready(_earliest(wanted.until, self._until(direction, limit)))
        finally:
            self._wakers[direction].discard(waiting)
        self._check(what, direction)
        if limit is not None and time.monotonic() >= limit and not ready:
            raise DeadlineError.during(what)
        return ready
