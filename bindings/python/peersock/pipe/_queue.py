"""Queues with a bound, from which waiting takes nothing if it is cancelled."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ._addresses import Tup

T = TypeVar("T")

log = logging.getLogger("peersock.pipe")


class Waiting(Generic[T]):
    """Items, and tasks that wait for them. Items leave it in the step in which they are returned: a task that is
    cancelled has taken none."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    @property
    def is_awaited(self) -> bool:
        """True if a task waits for an item that is not there. A woken task has yet to take its item."""
        return not self._items and bool(self._waiters)

    def append(self, item: T) -> None:
        """Adds an item."""
        self._items.append(item)
        self._wake()

    def discard(self, item: T) -> None:
        """Removes an item, if it is there."""
        if item in self._items:
            self._items.remove(item)

    def end(self, error: Exception) -> None:
        """Has those raise an error who want more than there is."""
        self._error = self._error or error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def take(self, timeout: float, began_waiting: Callable[[], None] = lambda: None) -> T | None:
        """The next item; None after `timeout` seconds without one."""
        loop = asyncio.get_running_loop()
        if timeout <= 0:
            # A caller that asks in a loop lets others run.
            await asyncio.sleep(0)
        deadline = loop.time() + timeout
        while not self._items:
            if self._error is not None:
                # One that was raised before has the traceback of then.
                raise type(self._error)(*self._error.args)
            left = deadline - loop.time()
            if left <= 0:
                return None
            waiter = loop.create_future()
            self._waiters.append(waiter)
            began_waiting()
            try:
                await asyncio.wait((waiter,), timeout=None if left == math.inf else left)
            except asyncio.CancelledError:
                # The item that woke this task is for the next one.
                self._forget(waiter)
                self._wake()
                raise
            self._forget(waiter)
        return self._items.popleft()

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters if self._items else ():
            if not waiter.done():
                waiter.set_result(None)
                return


#: The sender, and the message.
Message = tuple[Tup, bytes]


class MessageQueue(Waiting[Message]):
    """Messages, as many and as large as the bounds allow. One is held in any case."""

    def __init__(self, most: int, most_bytes: int, what: str) -> None:
        super().__init__()
        self._most, self._most_bytes, self._what = most, most_bytes, what
        self._bytes = 0
        #: Messages that were dropped for want of room.
        self.dropped = 0

    @property
    def is_full(self) -> bool:
        """True if there is no room."""
        return len(self._items) >= self._most or self._bytes >= self._most_bytes

    def put(self, message: Message, drops: bool) -> None:
        """Adds a message; if there is no room and it `drops`, the oldest ones go."""
        while drops and self._items and (self.is_full or self._bytes + len(message[1]) > self._most_bytes):
            self._bytes -= len(self._items.popleft()[1])
            self._count()
        self._bytes += len(message[1])
        self.append(message)

    def popleft(self) -> Message:
        """Takes the oldest message."""
        message = self._items.popleft()
        self._bytes -= len(message[1])
        return message

    def clear(self) -> None:
        """Throws away what there is."""
        self._items.clear()
        self._bytes = 0

    async def receive(self, timeout: float, began_waiting: Callable[[], None]) -> Message | None:
        """The next message; None after `timeout` seconds without one."""
        message = await self.take(timeout, began_waiting)
        if message is not None:
            self._bytes -= len(message[1])
        return message

    def _count(self) -> None:
        self.dropped += 1
        # The 1st, 2nd, 4th, 8th…: a flood does not fill the log.
        if self.dropped & (self.dropped - 1) == 0:
            log.warning("%s is full: %d messages dropped so far, the oldest first", self._what, self.dropped)
