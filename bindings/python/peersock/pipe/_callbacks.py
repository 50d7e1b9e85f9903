"""Running callbacks: in the order of the messages, a bounded number at once, and whatever they raise."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

from ._queue import Message, MessageQueue, log


def checked(callback: Any) -> Any:
    """A callback, as far as can be seen."""
    if not callable(callback):
        raise TypeError(f"a callback is a function, not {callback!r} ({type(callback).__name__})")
    return callback


def call(callbacks: Iterable[Callable[..., Any]], *arguments: Any) -> list[Awaitable[Any]]:
    """Calls functions, and gives what is still to be awaited. What one raises is logged."""
    awaited: list[Awaitable[Any]] = []
    for callback in callbacks:
        try:
            result = callback(*arguments)
        except Exception:
            log.exception("a callback has failed")
            continue
        if inspect.isawaitable(result):
            awaited.append(result)
    return awaited


#: Owners of the callbacks to which the running task and the tasks that began it belong.
_within: ContextVar[tuple[object, ...]] = ContextVar("_within", default=())


def is_within(owner: object) -> bool:
    """Returns true if the running task is a callback of the owner. There, nothing may wait for the callback."""
    return owner in _within.get()


async def finish(owner: object, awaited: list[Awaitable[Any]]) -> None:
    """Awaits what callbacks have left. What they raise is logged."""
    _within.set((*_within.get(), owner))
    for result in await asyncio.gather(*awaited, return_exceptions=True):
        if isinstance(result, Exception):
            log.error("a callback has failed", exc_info=result)


class Runner:
    """Gives messages to callbacks, at most ``at_once`` at the same time; the others wait in a queue.

    Args:
        owner: The owner of the callbacks.
        at_once: Messages that asynchronous callbacks may work on at the same time.
        queue: The queue in which the others wait.
        begin: Calls the callbacks for a message, and gives what is to be awaited.
        has_room: Called when the queue is shorter than it was.
    """

    def __init__(
        self,
        owner: object,
        at_once: int,
        queue: MessageQueue,
        begin: Callable[[Message], list[Awaitable[Any]]],
        has_room: Callable[[], None],
    ) -> None:
        self._owner, self._at_once, self._queue = owner, at_once, queue
        self._begin, self._has_room = begin, has_room
        self._tasks: set[asyncio.Task[None]] = set()
        self._when_idle: list[Callable[[], None]] = []

    @property
    def dropped(self) -> int:
        """Messages that no callback has had because the queue was full."""
        return self._queue.dropped

    @property
    def is_full(self) -> bool:
        """Returns true if there is no room for a message."""
        return self._queue.is_full

    def put(self, message: Message, drops: bool) -> None:
        """Has callbacks get the message, now or in its turn."""
        if len(self._queue) or len(self._tasks) >= self._at_once:
            self._queue.put(message, drops)
        else:
            self._start(message)

    def clear(self) -> None:
        """Forgets the messages that wait."""
        self._queue.clear()

    def when_idle(self, function: Callable[[], None]) -> None:
        """Calls a function once all messages have been worked on: now, if that is so."""
        self._when_idle.append(function)
        self._look()

    def _start(self, message: Message) -> None:
        awaited = self._begin(message)
        if awaited:
            # The event loop itself does not keep its tasks.
            task = asyncio.get_running_loop().create_task(finish(self._owner, awaited))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        while len(self._queue) and len(self._tasks) < self._at_once:
            self._start(self._queue.popleft())
        self._has_room()
        self._look()

    def _look(self) -> None:
        if not self._tasks and not len(self._queue):
            waiting, self._when_idle = self._when_idle, []
            for function in waiting:
                function()
