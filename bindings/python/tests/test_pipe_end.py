"""Callbacks that fail, peers that vanish, closing, and the limits of servers."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import struct
from typing import Any

import pytest

import peersock
from peersock.pipe import TCP, UDP, Pipe, PipeClosedError, pipe_open
from peersock.pipe import _server as server_module

from .pipes import PATIENCE, PROTOS, close, echo, pair, read, until


@PROTOS
async def test_callbacks_that_raise_are_logged_and_the_pipe_goes_on(
    proto: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "peersock.pipe"):

        def plain(msg: bytes | None, client_tup: Any, pipe: Pipe) -> None:
            raise ValueError("plain")

        async def later(msg: bytes | None, client_tup: Any, pipe: Pipe) -> None:
            raise ValueError("later")

        server = await pipe_open(proto, route=("127.0.0.1", 0), msg_cb=plain, up_cb=later)
        server.add_msg_cb(later).add_msg_cb(echo).add_end_cb(plain).add_end_cb(later)
        client = await pipe_open(proto, server.local_tup, up_cb=plain)
        for _ in range(3):
            await client.send(b"hello")
            assert await client.recv(timeout=PATIENCE) == b"hello"
        await close(client, server)
    texts = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert texts.count("plain") >= 4 and texts.count("later") >= 4


async def test_a_peer_that_resets_ends_the_pipe_once() -> None:
    ends: list[Any] = []
    server, client, other = await pair()
    other.add_end_cb(lambda *arguments: ends.append(arguments))
    waiting = asyncio.create_task(other.recv(timeout=math.inf))
    await asyncio.sleep(0)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.close()
    with pytest.raises(PipeClosedError, match="failed"):
        await waiting
    await until(lambda: bool(ends))
    with pytest.raises(PipeClosedError):
        await other.send(b"data")
    assert not other.is_running
    await close(other, other, server)
    assert ends == [(None, client.local_tup, other)]


async def test_a_peer_that_vanishes_while_it_is_sent_to() -> None:
    server, client, other = await pair()
    client._transport.pause_reading()  # type: ignore[attr-defined]
    senders = [asyncio.create_task(other.send(bytes(8 << 20))) for _ in range(3)]
    await until(lambda: not other._room.is_set())  # type: ignore[attr-defined]
    client._transport.abort()  # type: ignore[attr-defined]
    for sender in senders:
        with pytest.raises(PipeClosedError):
            await sender
    await close(client, other, server)


async def test_a_cancelled_send_lets_the_others_go_on() -> None:
    server, client, other = await pair()
    other._transport.pause_reading()  # type: ignore[attr-defined]
    other._is_paused = True  # type: ignore[attr-defined]
    first = asyncio.create_task(client.send(b"1" * (8 << 20)))
    await until(lambda: not client._room.is_set())  # type: ignore[attr-defined]
    second, third = [asyncio.create_task(client.send(digit)) for digit in (b"2", b"3")]
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    other._flow()
    # The message that was begun is sent, the one that waited is not.
    assert await read(other, (8 << 20) + 1) == b"1" * (8 << 20) + b"3"
    assert await third == 1
    await close(client, server)


async def test_a_client_that_sends_no_more_still_gets_its_answers() -> None:
    async def slow(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        await asyncio.sleep(0.01)
        await pipe.send(msg[::-1])

    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=slow)
    reader, writer = await asyncio.open_connection(*server.local_tup)
    writer.write(b"abc")
    writer.write_eof()
    assert await reader.read() == b"cba"
    writer.close()
    await server.close()


@PROTOS
async def test_a_callback_may_close_its_pipe(proto: int) -> None:
    ended = asyncio.Event()

    async def closing(msg: bytes | None, client_tup: Any, pipe: Pipe) -> None:
        await pipe.close()
        await pipe.close()

    async def end(msg: bytes | None, client_tup: Any, pipe: Pipe) -> None:
        await closing(msg, client_tup, pipe)
        ended.set()

    server, client, other = await pair(proto)
    client.add_msg_cb(closing).add_end_cb(end)
    await client.send(b"where from")
    tup = (await other.recv(full=True, timeout=PATIENCE) or (("", 0), b""))[0]
    await other.send(b"close", tup)
    await ended.wait()
    await close(client, other, server)


async def test_closing_waits_for_the_callbacks_of_the_end() -> None:
    done = []

    async def end(msg: bytes | None, client_tup: Any, pipe: Pipe) -> None:
        await asyncio.sleep(0.01)
        done.append(pipe)

    server, client, other = await pair()
    client.add_end_cb(end)
    await client.close()
    assert done == [client]
    await close(other, server)


async def test_what_was_sent_is_delivered_before_the_end() -> None:
    server, client, other = await pair()
    data = bytes(range(256)) * 4096
    sending = asyncio.create_task(client.send(data))
    await asyncio.sleep(0)
    closing = asyncio.create_task(client.close())
    assert await read(other, len(data)) == data
    await closing
    await asyncio.gather(sending, return_exceptions=True)
    with pytest.raises(PipeClosedError):
        await other.recv(timeout=PATIENCE)
    await close(other, server)


@pytest.mark.parametrize("place", ["machine", "overlay"])
async def test_closing_with_something_unread_loses_nothing_that_was_sent(
    place: str, request: pytest.FixtureRequest
) -> None:
    session: peersock.Session | None = request.getfixturevalue("session") if place == "overlay" else None
    accepted: asyncio.Queue[Any] = asyncio.Queue()
    host = "127.0.0.1" if session is None else session.address
    listener = peersock.socket.create_server((host, 0), family=socket.AF_INET if session is None else socket.AF_INET6)
    server = await asyncio.start_server(lambda *streams: accepted.put_nowait(streams), sock=listener)
    client = await pipe_open(TCP, listener.getsockname()[:2], conf={"max_qsize": 1})
    reader, writer = await accepted.get()
    # More than fits anywhere: both ends would wait for each other.
    writer.write(bytes(16 << 20))
    await until(lambda: client._is_paused)  # type: ignore[attr-defined]
    data = bytes(range(256)) * (16 << 12)
    sending = asyncio.create_task(client.send(data))
    await until(lambda: not client._room.is_set())  # type: ignore[attr-defined]
    closing = asyncio.create_task(client.close())
    # It reads only when it has sent.
    await writer.drain()
    received = await reader.read(-1)
    assert (len(received), received == data) == (len(data), True)
    assert not closing.done()
    writer.close()
    await closing
    await asyncio.gather(sending, return_exceptions=True)
    server.close()


async def stuck() -> tuple[Pipe, Pipe, Pipe, asyncio.Task[int]]:
    """A server, the two ends of a connection, and what the first of these sends while the other one takes nothing."""
    server, client, other = await pair()
    other._transport.pause_reading()  # type: ignore[attr-defined]
    sending = asyncio.create_task(client.send(bytes(32 << 20)))
    await until(lambda: not client._room.is_set())  # type: ignore[attr-defined]
    return server, client, other, sending


async def test_what_was_sent_in_part_ends_with_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peersock.pipe._tcp.CLOSE_PATIENCE", 0.05)
    server, client, other, sending = await stuck()
    await client.close()
    await asyncio.gather(sending, return_exceptions=True)
    other._transport.resume_reading()  # type: ignore[attr-defined]
    with pytest.raises(PipeClosedError, match="failed"):
        while True:
            await other.recv(timeout=PATIENCE)
    await close(other, server)


async def test_who_takes_nothing_does_not_keep_a_pipe_from_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("peersock.pipe._tcp.CLOSE_PATIENCE", 0.05)
    with caplog.at_level(logging.WARNING, "peersock.pipe"):
        server, client, other, sending = await stuck()
        await client.close()
        with pytest.raises(PipeClosedError):
            await sending
        await close(other, server)
    assert ["not taken" in text for name, _, text in caplog.record_tuples if name == "peersock.pipe"] == [True]


async def test_a_close_that_is_cancelled_has_closed() -> None:
    server, client, other, sending = await stuck()
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(PipeClosedError):
        await sending
    await close(client, other, server)


async def test_too_many_clients_wait() -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo, conf={"max_clients": 2})
    clients = [await pipe_open(TCP, server.local_tup) for _ in range(4)]
    for client in clients:
        await client.send(b"hello")
    heard = [asyncio.create_task(client.recv(timeout=math.inf)) for client in clients]
    assert [await task for task in heard[:2]] == [b"hello"] * 2
    await until(lambda: len(server.clients) == 2)
    assert not heard[2].done()
    await clients[0].close()
    assert await heard[2] == b"hello"
    await clients[1].close()
    assert await heard[3] == b"hello"
    await close(*clients, server)


async def test_a_server_goes_on_when_a_connection_cannot_be_accepted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "_PAUSE", 0.01)
    with caplog.at_level(logging.WARNING, "peersock.pipe"):
        loop = asyncio.get_running_loop()
        accept = loop.sock_accept
        errors = [errno.EMFILE, errno.ECONNABORTED]

        async def failing(sock: socket.socket) -> Any:
            if errors:
                number = errors.pop()
                raise OSError(number, "made up")
            return await accept(sock)

        monkeypatch.setattr(loop, "sock_accept", failing)
        server, client, other = await pair()
        assert not errors and other.is_running
        # An error of the listening socket itself ends every wait.
        await close(client, other)
        errors.append(errno.ENETDOWN)
        again = await pipe_open(TCP, server.local_tup)
        await server
        with pytest.raises(PipeClosedError):
            await server
        assert not server.is_running
        await close(again, server)
    assert len([name for name, *_ in caplog.record_tuples if name == "peersock.pipe"]) == 2


async def test_a_datagram_socket_that_fails_ends_the_pipe() -> None:
    ends: list[Any] = []
    pipe = await pipe_open(UDP, route=("127.0.0.1", 0))
    pipe.add_end_cb(lambda *arguments: ends.append(arguments))
    tup = pipe.local_tup

    class Failing:
        family = socket.AF_INET
        number = errno.ECONNREFUSED

        def __getattr__(self, name: str) -> Any:
            return getattr(sock, name)

        def recvfrom(self, size: int) -> Any:
            sock.recvfrom(size)
            raise OSError(self.number, "made up")

    sock, failing = pipe.sock, Failing()
    pipe.sock = failing  # type: ignore[assignment]
    await pipe.send(b"one datagram", tup)
    await asyncio.sleep(0.01)
    assert pipe.is_running
    failing.number = errno.ENETDOWN
    await pipe.send(b"the socket", tup)
    with pytest.raises(PipeClosedError, match="made up"):
        await pipe.recv(timeout=PATIENCE)
    assert ends == [(None, tup, pipe)]
    await pipe.close()
    assert len(ends) == 1


async def test_a_sender_of_datagrams_waits_for_room() -> None:
    server, client, other = await pair(UDP)
    sock = client.sock

    class Full:
        family = socket.AF_INET
        refusals = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(sock, name)

        def sendto(self, data: bytes, address: Any) -> int:
            if self.refusals:
                self.refusals -= 1
                raise BlockingIOError
            return sock.sendto(data, address)

    client.sock = Full()  # type: ignore[assignment]
    await asyncio.gather(client.send(b"a"), client.send(b"b"))
    assert {await other.recv(timeout=PATIENCE), await other.recv(timeout=PATIENCE)} == {b"a", b"b"}
    client.sock.refusals = 1 << 60  # type: ignore[attr-defined]
    waiting = asyncio.create_task(client.send(b"never"))
    await asyncio.sleep(0.01)
    await client.close()
    with pytest.raises(PipeClosedError):
        await waiting
    await server.close()


@pytest.mark.parametrize("way", ["subscription", "up_cb"])
async def test_a_server_whose_clients_nobody_awaits_goes_on_after_many(way: str) -> None:
    heard: list[bytes | None] = []
    sent: list[bytes] = []

    async def up_cb(msg: None, client_tup: Any, pipe: Pipe) -> None:
        heard.append(await pipe.recv(timeout=PATIENCE))

    callback = up_cb if way == "up_cb" else None
    server = await pipe_open(TCP, route=("127.0.0.1", 0), up_cb=callback, conf={"max_clients": 2})
    if way == "subscription":
        server.subscribe()
    for _ in range(6):
        client = await pipe_open(TCP, server.local_tup)
        sent.append(b"hello")
        await client.send(sent[-1])
        if way == "subscription":
            heard.append(await server.recv(timeout=PATIENCE))
        await until(lambda: len(heard) == len(sent))
        await client.close()
    assert heard == sent
    await server.close()
