"""The end of events for who iterates over them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterator

import pytest

import peersock

from .background import background

FOREVER = 60
EVENT = json.dumps({"kind": "peer_found", "peer": "p", "relayed": None, "turn": None}).encode()


@pytest.fixture
def ends() -> Iterator[tuple[peersock.Events, socket.socket]]:
    """Events, and where they come from."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with peersock.Events(own.detach()) as events, other:
        yield events, other


def begun(events: peersock.Events) -> None:
    """Returns when somebody waits."""
    end = time.monotonic() + FOREVER
    while not getattr(events, "_users", 1):
        assert time.monotonic() < end
        time.sleep(0.001)
    # It may have yet to reach the system call, which makes no difference.
    time.sleep(0.02)


@pytest.mark.parametrize("which", ["next", "next_timeout"])
def test_closing_ends_who_iterates_in_another_thread(ends: tuple[peersock.Events, socket.socket], which: str) -> None:
    events, other = ends
    other.send(EVENT)
    assert next(events).kind == "peer_found"
    fd = events.fileno()
    told = background(lambda: next(events, None) if which == "next" else events.next_timeout(None))
    begun(events)
    events.close()
    assert told.result(FOREVER) is None
    assert events.fileno() == -1 and events.next_timeout(None) is None and [*events] == []
    with pytest.raises(OSError):
        os.fstat(fd)


async def test_closing_ends_who_iterates_in_a_task(ends: tuple[peersock.Events, socket.socket]) -> None:
    events, other = ends

    async def heard() -> list[peersock.Event]:
        return [event async for event in events]

    other.send(EVENT)
    fd = events.fileno()
    task = asyncio.create_task(heard())
    for _ in range(10):
        await asyncio.sleep(0)
    events.close()
    assert [event.kind for event in await asyncio.wait_for(task, FOREVER)] == ["peer_found"]
    assert not asyncio.get_running_loop().remove_reader(fd)
    with pytest.raises(OSError):
        os.fstat(fd)
    assert [event async for event in events] == []


def test_what_came_before_the_closing_is_not_told(ends: tuple[peersock.Events, socket.socket]) -> None:
    events, other = ends
    other.send(EVENT)
    events.close()
    events.close()
    assert [*events] == []


def test_a_forked_child_that_closes_its_copy_does_not_end_the_parent_s(
    ends: tuple[peersock.Events, socket.socket],
) -> None:
    events, other = ends
    told = background(lambda: next(events))
    begun(events)
    child = os.fork()
    if not child:
        try:
            events.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    other.send(EVENT)
    assert told.result(FOREVER).kind == "peer_found"
