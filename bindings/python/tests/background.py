"""Calls in threads of their own, which keep no test from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def background(call: Callable[[], _T]) -> Future[_T]:
    """Runs a function in a thread; gives what it will have returned or raised."""
    told: Future[_T] = Future()

    def run() -> None:
        try:
            told.set_result(call())
        except BaseException as error:
            told.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return told
