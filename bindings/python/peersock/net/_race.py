"""The first connection of several addresses (RFC 8305, "happy eyeballs")."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from ._addr import Addr, IPAddr
from ._steps import Steps, Wait

#: RFC 8305 (8): how long an attempt has before the next one begins beside it, seconds.
DELAY = 0.25

_A = TypeVar("_A", bound=Addr)


class Attempt(Protocol):
    """A socket that connects."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...

    def finish(self) -> bool:
        """Returns true if it is connected; raises OSError if connecting has failed."""


_T = TypeVar("_T", bound=Attempt)


class Failures(Generic[_A]):
    """Errors of all addresses."""

    def __init__(self) -> None:
        self._errors: list[tuple[_A, OSError]] = []

    def add(self, address: _A, error: OSError) -> None:
        """Notes it."""
        self._errors.append((address, error))

    def error(self) -> OSError:
        """The first one, which names all addresses if there are several."""
        first = self._errors[0][1]
        if len(self._errors) == 1 or first.errno is None:
            return first
        texts = ", ".join(f"{address}: {error.strerror or error}" for address, error in self._errors)
        return OSError(first.errno, texts)


def interleaved(addresses: Sequence[_A]) -> list[_A]:
    """RFC 8305 (4): in their order, but with families in turn, the first address's one first."""
    families: dict[bool, deque[_A]] = {}
    for address in addresses:
        families.setdefault(isinstance(address, IPAddr) and address.is_ipv6, deque()).append(address)
    order: list[_A] = []
    while any(families.values()):
        order += [waiting.popleft() for waiting in families.values() if waiting]
    return order


def first_connected(
    addresses: Sequence[_A], begin: Callable[[_A], _T], now: Callable[[], float] = time.monotonic
) -> Steps[_T]:
    """Begins attempts, one every `DELAY` and at once when one has failed. Closes all but the first that succeeds."""
    waiting = deque(interleaved(addresses))
    attempts: dict[int, tuple[_A, _T]] = {}
    failures: Failures[_A] = Failures()
    due = now()

    def take(fd: int) -> _T | None:
        """The attempt if it has succeeded. One that has failed is closed."""
        nonlocal due
        address, attempt = attempts[fd]
        try:
            if not attempt.finish():
                return None
        except OSError as error:
            failures.add(address, error)
            del attempts[fd]
            attempt.close()
            due = now()
            return None
        del attempts[fd]
        return attempt

    try:
        while waiting or attempts:
            if waiting and (not attempts or now() >= due):
                address = waiting.popleft()
                try:
                    attempt = begin(address)
                except OSError as error:
                    failures.add(address, error)
                    continue
                attempts[attempt.fileno()] = address, attempt
                due = now() + DELAY
                ready: Sequence[int] = (attempt.fileno(),)
            else:
                ready = tuple((yield Wait(writers=tuple(attempts), until=due if waiting else None)))
            for fd in ready:
                if fd in attempts and (done := take(fd)) is not None:
                    return done
        raise failures.error()
    finally:
        for _, attempt in attempts.values():
            attempt.close()
