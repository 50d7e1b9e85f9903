"""Results that are awaited or waited for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
    """Work that begins when its result is wanted: by ``await``, in a thread, or by `wait`, which blocks."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, None, T]:
        # It takes long to load, and few need it.
        import asyncio

        return asyncio.to_thread(self._work).__await__()

    def wait(self) -> T:
        """Does it and gives the result."""
        return self._work()
