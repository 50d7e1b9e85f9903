"""Copies of a descriptor: when the descriptor gets another socket, its copies in this process get it, too.

A socket that turns out to be the overlay's takes the place of the kernel's, under the same descriptor. A copy of that
descriptor, by dup(2), is the same socket to the program, so it has to stand for the new one as well. The kernel is
asked for copies (proc(5)) once a call has noted that there may be some. Copies in other processes cannot be replaced.
"""

from __future__ import annotations

import functools
import os
import re
import select
import socket as _std
import stat
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

_FOLDER = "/proc/self/fd"
_IS_SET = "anon_inode:[eventpoll]"
#: A line of proc(5) for a descriptor in an epoll set: its number, the events and their data.
_REGISTERED = re.compile(r"tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)\s+data:\s*([0-9a-f]+)")
_NUMBER = 0xFFFF_FFFF

_may_be_there = False


def note() -> None:
    """Says that a socket which is not connected yet may have a copy."""
    global _may_be_there
    _may_be_there = True


def noting(function: _F) -> _F:
    """A function that copies the descriptor that it is given first, and says so if that is a socket."""

    @functools.wraps(function)
    def copy(fd: int, *arguments: Any, **named: Any) -> Any:
        copied = function(fd, *arguments, **named)
        if stat.S_ISSOCK(os.fstat(copied).st_mode):
            note()
        return copied

    return copy  # type: ignore[return-value]


def following(call: Callable[..., _T], sock: _std.socket, *arguments: Any) -> _T:
    """Makes a call with the socket's descriptor, under which it may put another socket; copies of that follow."""
    fd = sock.fileno()
    if not _may_be_there:
        return call(fd, *arguments)
    before = _identity(fd)
    try:
        return call(fd, *arguments)
    finally:
        # Another thread may have closed it meanwhile, and the number may be another file's.
        if before is not None and _identity(fd) != before and sock.fileno() == fd:
            for copy in _numbers():
                if copy != fd and _identity(copy) == before:
                    _replace(copy, fd, before)


def _numbers() -> list[int]:
    """The descriptors of this process; none if there is none left to look with: copies stay what they are then."""
    try:
        return [int(name) for name in os.listdir(_FOLDER)]
    except OSError:
        return []


def _identity(fd: int) -> tuple[int, int] | None:
    """Returns a key that identifies an open socket; ``None`` if the number is not open."""
    try:
        status = os.fstat(fd)
    except (OSError, OverflowError):
        return None
    return status.st_dev, status.st_ino


def _replace(copy: int, fd: int, before: tuple[int, int]) -> None:
    """Has one descriptor stand for what another one stands for, also in the epoll sets that it is in."""
    registered = _registered(copy)
    try:
        inherits = os.get_inheritable(copy)
        # Another thread may have given the number to another file meanwhile.
        if _identity(copy) != before:
            return
        os.dup2(fd, copy, inherits)
    except OSError:
        return
    for number, events in registered:
        _register(number, copy, events)


def _registered(fd: int) -> list[tuple[int, int]]:
    """The epoll sets of this process that a descriptor is in, and for which events."""
    found = []
    for number in _numbers():
        try:
            if os.readlink(f"{_FOLDER}/{number}") != _IS_SET:
                continue
            with open(f"/proc/self/fdinfo/{number}") as file:
                lines = file.read()
        except OSError:
            continue
        for of, events, data in _REGISTERED.findall(lines):
            # Python's epoll sets keep the descriptor as the data of events. Another one's cannot be given again.
            if int(of) == fd == int(data, 16) & _NUMBER:
                found.append((number, int(events, 16)))
    return found


def _register(number: int, fd: int, events: int) -> None:
    """Puts a descriptor into an epoll set again."""
    try:
        # The object closes its descriptor in the end.
        with select.epoll.fromfd(os.dup(number)) as known:
            known.register(fd, events)
    except OSError:
        # The set was closed meanwhile, or another thread has put it in.
        pass
