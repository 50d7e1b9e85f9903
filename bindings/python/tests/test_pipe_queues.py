"""Subscriptions, bounded queues, slow receivers, and what is cancelled."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from typing import Any

import pytest

from peersock.interfaces import IPRange
from peersock.pipe import SUB_ALL, TCP, UDP, Pipe, PipeClosedError, Sub, pipe_open, send_recv_loop

from .pipes import PATIENCE, PROTOS, close, echo, pair, read, until


async def test_each_subscription_has_its_own_queue() -> None:
    server, client, other = await pair(UDP)
    greetings = other.subscribe(b"^[hH]ello")
    assert other.subscribe("^[hH]ello") is greetings and len(greetings) == 0
    digits = other.subscribe((re.compile(rb"\d+"), None))
    for message in (b"hello", b"Hello 5", b"6", b"well, hello"):
        await client.send(message)
    assert [await other.recv(timeout=PATIENCE) for _ in range(4)] == [b"hello", b"Hello 5", b"6", b"well, hello"]
    assert [await other.recv(greetings) for _ in range(2)] == [b"hello", b"Hello 5"]
    assert [await other.recv((rb"\d+", None)) for _ in range(2)] == [b"Hello 5", b"6"]
    assert await other.recv(digits, 0) is None and await other.recv("^[hH]ello", 0) is None
    assert other.unsubscribe(SUB_ALL).unsubscribe(SUB_ALL) is other
    await client.send(b"7")
    assert await other.recv(digits, PATIENCE) == b"7"
    with pytest.raises(LookupError, match="subscribe"):
        await other.recv()
    await close(client, server)


async def test_sources_are_subscribed_to() -> None:
    server = await pipe_open(UDP, route=("::1", 0))
    first, second = [await pipe_open(UDP, server.local_tup, ("::1", 0)) for _ in range(2)]
    one = first.local_tup
    sources: list[tuple[Any, bool, bool]] = [
        (one, True, False),
        ((one[0], 0), True, True),
        (("0:0::1", one[1]), True, False),
        (("::2", 0), False, False),
        (("127.0.0.1", 0), False, False),
        ("::1", True, True),
        ("::/64", True, True),
        (("fe80::%lo/64", 0), False, False),
        (IPRange("::1"), True, True),
        (re.compile(rf"^\[::1\]:{one[1]}$"), True, False),
    ]
    subscriptions = [server.subscribe(b"", source) for source, _, _ in sources]
    await first.send(b"first")
    await second.send(b"second")
    assert [await server.recv(timeout=PATIENCE) for _ in range(2)] == [b"first", b"second"]
    got: dict[int, list[bytes | None]] = {}
    for (source, of_first, of_second), subscription in zip(sources, subscriptions, strict=True):
        # Equal sources share a subscription.
        if id(subscription) not in got:
            got[id(subscription)] = [await server.recv(subscription, 0) for _ in range(3)]
        expected = [b"first"] * of_first + [b"second"] * of_second
        assert got[id(subscription)] == expected + [None] * (3 - len(expected)), source
    # The pattern of the message counts as well.
    both = server.subscribe(Sub(b"x", one))
    await first.send(b"y")
    await second.send(b"x")
    await first.send(b"x")
    assert await server.recv(both, PATIENCE) == b"x" and await server.recv(both, 0) is None
    await close(first, second, server)


@pytest.mark.parametrize(
    "sub, addr, error",
    [
        (b"(", None, ValueError),
        (5, None, TypeError),
        (re.compile("text"), None, TypeError),
        ((b"a", None, 1), None, ValueError),
        (b"a", ("name.example", 5), ValueError),
        (b"a", ("::1", 70_000), ValueError),
        (b"a", ("::1", "5"), TypeError),
        (b"a", 5, TypeError),
        (b"a", re.compile(rb"bytes"), TypeError),
        ((5, None), None, TypeError),
    ],
)
async def test_wrong_subscriptions_are_refused(sub: Any, addr: Any, error: type[Exception]) -> None:
    async with await pipe_open(UDP, route=("127.0.0.1", 0)) as pipe:
        with pytest.raises(error):
            pipe.subscribe(sub, addr)
        with pytest.raises((TypeError, ValueError, LookupError)):
            await pipe.recv((sub, addr))


async def test_a_subscriber_that_is_removed_while_it_waits_is_told() -> None:
    async with await pipe_open(UDP, route=("127.0.0.1", 0)) as pipe:
        pipe.subscribe(b"never")
        waiting = [asyncio.create_task(pipe.recv(b"never", math.inf)) for _ in range(3)]
        await until(lambda: pipe._subs.is_awaited)
        pipe.unsubscribe(b"never")
        for task in waiting:
            with pytest.raises(LookupError, match="removed"):
                await task


@PROTOS
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("moment", ["before", "woken", "same step"])
async def test_a_cancelled_recv_has_taken_nothing(proto: int, count: int, moment: str) -> None:
    server, client, other = await pair(proto)
    for number in range(20):
        waiting = [asyncio.create_task(other.recv(timeout=math.inf)) for _ in range(3)]
        queue = other._subs.find(SUB_ALL)._queue
        await until(lambda: len(queue._waiters) == 3)  # noqa: B023
        message = b"%02d" % number
        if moment == "before":
            for task in waiting[:count]:
                task.cancel()
            await client.send(message)
        else:
            # It comes in, and those are cancelled before they run.
            other._receive([(client.local_tup, message)])
            if moment == "woken":
                await asyncio.sleep(0)
            for task in waiting[:count]:
                task.cancel()
        if count == 3:
            await asyncio.wait(waiting)
            taken = [task.result() for task in waiting if not task.cancelled()]
            assert (taken or [await other.recv(timeout=PATIENCE)]) == [message]
            continue
        await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: any(task.done() and not task.cancelled() for task in waiting))  # noqa: B023
        for task in waiting:
            task.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [result for result in results if isinstance(result, bytes)] == [message]
    assert await other.recv(timeout=0) is None
    await close(client, server)


async def test_full_queues_of_datagrams_drop_the_oldest_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "peersock.pipe"):
        server = await pipe_open(UDP, route=("127.0.0.1", 0), conf={"max_qsize": 10})
        client = await pipe_open(UDP, server.local_tup)
        odd = server.subscribe(b"[13579]$")
        for number in range(30):
            await client.send(b"%02d" % number)
            await until(lambda: _starts(server, b"%02d" % number))  # noqa: B023
        assert [await server.recv(timeout=0) for _ in range(11)] == [b"%02d" % n for n in range(20, 30)] + [None]
        assert server.dropped == 20 + 5 and odd.dropped == 5
        server.unsubscribe(odd)
        assert server.dropped == 25
        await close(client, server)
    lines = [text for name, _, text in caplog.record_tuples if name == "peersock.pipe"]
    # The 1st, 2nd, 4th, 8th and 16th of the one queue, the 1st, 2nd and 4th of the other.
    assert len(lines) == 8 and all("dropped" in line and "127" not in line for line in lines)


async def test_queues_are_bounded_by_bytes_too() -> None:
    server = await pipe_open(UDP, route=("127.0.0.1", 0), conf={"max_qbytes": 1000})
    client = await pipe_open(UDP, server.local_tup)
    for number in range(5):
        await client.send(b"%02d" % number + bytes(398))
        await until(lambda: _starts(server, b"%02d" % number))  # noqa: B023
    assert server.dropped == 3
    # One is held, however large it is.
    await client.send(b"05" + bytes(5000))
    await until(lambda: _starts(server, b"05"))
    assert len(await server.recv() or b"") == 5002 and await server.recv(timeout=0) is None
    await close(client, server)


def _starts(pipe: Pipe, start: bytes) -> bool:
    queue = pipe._subs.find(SUB_ALL)._queue
    return len(queue) > 0 and queue._items[-1][1].startswith(start)


async def test_a_slow_receiver_of_a_stream_stops_the_sender_and_loses_nothing() -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0), conf={"max_qbytes": 100_000, "reader_limit": 5000})
    client = await pipe_open(TCP, server.local_tup)
    other = await server
    data = b"".join(b"%07d " % number for number in range(4_000_000 // 8))
    size = 40_000

    async def send() -> None:
        for at in range(0, len(data), size):
            await client.send(data[at : at + size])

    # More than what all buffers hold: the sender waits until somebody reads.
    sending = asyncio.create_task(send())
    await until(lambda: other._is_paused)  # type: ignore[attr-defined]
    held = other._subs.find(SUB_ALL)._queue
    assert held._bytes < 100_000 + (256 << 10) and all(len(message[1]) <= 5000 for message in held)
    assert await read(other, len(data)) == data
    await sending
    assert other.dropped == 0 and not other._is_paused  # type: ignore[attr-defined]
    await close(client, server)


async def test_who_does_not_read_does_not_stop_who_does() -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0), conf={"max_qsize": 4})
    client = await pipe_open(TCP, server.local_tup)
    other = await server
    # SUB_ALL is there and never read.
    wanted = other.subscribe(b"wanted")
    for number in range(20):
        await client.send(b"other %d" % number)
        await asyncio.sleep(0)
    waiting = asyncio.create_task(other.recv(wanted, math.inf))
    await until(lambda: not other._is_paused)  # type: ignore[attr-defined]
    for number in range(20):
        await client.send(b"other %d" % number)
        await asyncio.sleep(0)
    await client.send(b"wanted")
    assert b"wanted" in (await waiting or b"")
    await close(client, server)


async def test_slow_callbacks_are_bounded_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "peersock.pipe"):
        gate, begun, ended = asyncio.Event(), 0, []

        async def slow(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
            nonlocal begun
            begun += 1
            await gate.wait()
            ended.append(msg)

        server = await pipe_open(UDP, route=("127.0.0.1", 0), msg_cb=slow, conf={"max_qsize": 10})
        seen = server.subscribe()
        client = await pipe_open(UDP, server.local_tup)
        for number in range(100):
            await client.send(b"%02d" % number)
            assert await server.recv(seen, PATIENCE) == b"%02d" % number
        assert begun == 64 and server.dropped == 100 - 64 - 10
        gate.set()
        await until(lambda: len(ended) == 74)
        assert ended == [b"%02d" % number for number in (*range(64), *range(90, 100))]
        await close(client, server)
    assert any("callbacks" in record.getMessage() for record in caplog.records)


async def test_callbacks_of_a_stream_have_one_message_after_the_other() -> None:
    running, parts = 0, list[bytes]()

    async def slow(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        nonlocal running
        running += 1
        assert running == 1
        # Longer for what comes first.
        await asyncio.sleep(0.01 / (1 + len(parts)))
        running -= 1
        parts.append(msg)

    conf = {"max_qsize": 3, "reader_limit": 10}
    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=slow, conf=conf)
    client = await pipe_open(TCP, server.local_tup)
    data = bytes(range(250)) * 2
    for at in range(0, 500, 50):
        await client.send(data[at : at + 50])
    # The end does not overtake them.
    await client.close()
    await until(lambda: len(b"".join(parts)) == 500)
    assert b"".join(parts) == data and server.dropped == 0
    await server.close()


async def test_recv_waits_as_long_as_it_is_told() -> None:
    async with await pipe_open(UDP, route=("127.0.0.1", 0), conf={"recv_timeout": 0.01}) as pipe:
        assert await pipe.recv() is None
        waiting = asyncio.create_task(pipe.recv(timeout=math.inf))
        forever = asyncio.create_task(pipe.recv(SUB_ALL, math.inf, True))
        await until(lambda: len(pipe._subs.find(SUB_ALL)._queue._waiters) == 2)
        await pipe.send(b"a", pipe.local_tup)
        await pipe.send(b"b", pipe.local_tup)
        assert await waiting == b"a" and await forever == (pipe.local_tup, b"b")
        waiting = asyncio.create_task(pipe.recv(timeout=math.inf))
        await until(lambda: pipe._subs.is_awaited)
    with pytest.raises(PipeClosedError):
        await waiting


async def test_requests_are_repeated() -> None:
    asked = 0

    async def deaf(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            await pipe.send(b"at last", client_tup)

    server = await pipe_open(UDP, route=("127.0.0.1", 0), msg_cb=deaf)
    client = await pipe_open(UDP, server.local_tup, conf={"send_retry": 3})
    for number in (1, 2):
        await client.send(b"not answered")
        await until(lambda: asked == number)  # noqa: B023
    assert await send_recv_loop(None, client, b"request", timeout=PATIENCE) == b"at last"
    before = asked
    client2 = await pipe_open(UDP, server.local_tup, conf={"send_retry": 2})
    assert await send_recv_loop(server.local_tup, client2, b"request", timeout=0.01) is None
    await until(lambda: asked == before + 3)
    await close(client, client2, server)
    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo)
    stream = await pipe_open(TCP, server.local_tup)
    assert await send_recv_loop(None, stream, b"request", timeout=PATIENCE) == b"request"
    await close(stream, server)
