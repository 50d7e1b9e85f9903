"""Events of a node's peers, as an iterator."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import socket as _std
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

# The standard library's, also when its place was taken.
_socket = _std.socket
_LONGEST = 4096


class EventKind(str, enum.Enum):
    """A kind of event. Each is equal to its text, as ``"peer_lost"``; others may come."""

    #: It is known now.
    PEER_FOUND = "peer_found"
    #: There is an encrypted session with it.
    PEER_REACHABLE = "peer_reachable"
    #: Its packets take another path.
    PATH_CHANGED = "path_changed"
    #: It has said goodbye, or was not heard of for too long.
    PEER_LOST = "peer_lost"
    #: It cannot be reached.
    PEER_UNREACHABLE = "peer_unreachable"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Event:
    """Something that happened to a peer."""

    kind: EventKind
    #: The peer's node ID.
    peer: str
    #: Of `PEER_REACHABLE` and `PATH_CHANGED`: whether a root relays now. ``None`` for others.
    relayed: bool | None = None
    #: Of the same: whether a TURN server relays now, the node's own or, as far as it has said so, the peer's.
    turn: bool | None = None


class Events(Iterator[Event], AsyncIterator[Event]):
    """The events from its making on, in order. They end when the node is stopped.

    Unread events are lost when the kernel's buffer is full.
    """

    def __init__(self, fd: int) -> None:
        self._socket = _socket(_std.AF_UNIX, _std.SOCK_SEQPACKET, 0, fd)
        self._socket.setblocking(True)
        self._is_closed = False
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        # A signal's handler may close it.
        self._lock = threading.RLock()
        # Number of calls under way. After `close()` the last of them closes the descriptor.
        self._users = 0

    def _settle(self) -> None:
        """Forgets what threads of a parent process do with it."""
        if self._process != os.getpid():
            self._begin()

    def fileno(self) -> int:
        """A descriptor that is readable when there is an event; -1 once it is closed."""
        return -1 if self._is_closed else self._socket.fileno()

    def close(self) -> None:
        """Lets go of it. Who iterates is at the end, also who waits in another thread or task."""
        self._settle()
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if not self._users:
                self._socket.close()
                return
        with contextlib.suppress(OSError):
            self._socket.shutdown(_std.SHUT_RDWR)

    @contextlib.contextmanager
    def _used(self) -> Iterator[bool]:
        """Keeps the descriptor meanwhile. False if it is closed."""
        self._settle()
        with self._lock:
            is_open = not self._is_closed
            self._users += is_open
        try:
            yield is_open
        finally:
            with self._lock:
                self._users -= is_open
                if is_open and self._is_closed and not self._users:
                    self._socket.close()

    def next_timeout(self, timeout: float | None) -> Event | None:
        """The next event; ``None`` when the time, in seconds, is over, or at the end.

        A time of 0 gives an event that is there already.
        """
        with self._used() as is_open:
            if not is_open:
                return None
            self._socket.settimeout(timeout)
            try:
                return next(self, None)
            except (TimeoutError, BlockingIOError):
                # The second one is what a socket says whose time is 0.
                return None
            finally:
                self._socket.settimeout(None)

    def __next__(self) -> Event:
        with self._used() as is_open:
            while True:
                message = self._socket.recv(_LONGEST) if is_open else b""
                if not message or self._is_closed:
                    raise StopIteration
                event = _parse(message)
                if event is not None:
                    return event

    def __iter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        # It takes long to load, and few need it.
        import asyncio

        loop = asyncio.get_running_loop()
        with self._used() as is_open:
            if not is_open:
                raise StopAsyncIteration
            self._socket.setblocking(False)
            while True:
                message = await loop.sock_recv(self._socket, _LONGEST)
                if not message or self._is_closed:
                    raise StopAsyncIteration
                event = _parse(message)
                if event is not None:
                    return event

    def __aiter__(self) -> Events:
        return self

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parse(message: bytes) -> Event | None:
    """One event; ``None`` for a kind that is not known here."""
    fields = json.loads(message)
    if "kind" not in fields:
        return None
    return Event(EventKind(fields["kind"]), fields["peer"], fields["relayed"], fields["turn"])
