"""Pipes over the kernel: opening, sending, receiving, callbacks, relays, accepting."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import socket
from typing import Any

import pytest

from peersock.interfaces import IP4, IP6, Interface
from peersock.pipe import SUB_ALL, TCP, UDP, Pipe, PipeClosedError, pipe_open

from .conftest import run_python
from .pipes import IPS, PATIENCE, PROTOS, close, echo, pair, read, until


@PROTOS
@IPS
async def test_one_object_for_all_by_await(proto: int, ip: str) -> None:
    server, client, other = await pair(proto, ip)
    assert isinstance(server, Pipe) and isinstance(client, Pipe) and client.proto == proto
    assert await client.send(b"ping") == 4
    asker, message = await other.recv(full=True, timeout=PATIENCE) or (("", 0), b"")
    assert message == b"ping" and asker == (ip, client.local_tup[1])
    await other.send(b"pong", asker)
    assert await client.recv(timeout=PATIENCE) == b"pong"
    assert await client.recv(SUB_ALL, 0.01) is None
    assert await client.recv(timeout=0) is None
    await close(client, server)
    assert not client.is_running and not server.is_running


@PROTOS
@IPS
@pytest.mark.parametrize("kind", ["plain", "async", "partial"])
async def test_one_object_for_all_by_callbacks(proto: int, ip: str, kind: str) -> None:
    def plain(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        tasks.append(asyncio.ensure_future(echo(msg, client_tup, pipe)))

    def heard(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        got.append((msg, client_tup, pipe))

    tasks: list[Any] = []
    got: list[Any] = []
    callback: Any = {"plain": plain, "async": echo, "partial": functools.partial(echo)}[kind]
    server = await pipe_open(proto, route=(ip, 0), msg_cb=callback)
    client = await pipe_open(proto, server.local_tup, msg_cb=heard)
    await client.send(b"ping")
    await until(lambda: bool(got))
    assert got == [(b"ping", server.local_tup, client)]
    client.del_msg_cb(heard).del_msg_cb(heard)
    client.subscribe()
    await client.send(b"again")
    assert await client.recv(timeout=PATIENCE) == b"again" and len(got) == 1
    await close(client, server)


async def test_streams_are_whole_and_in_order_whatever_their_size() -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo)
    client = await pipe_open(TCP, server.local_tup)
    data = bytes(range(256)) * 20_000
    sending = asyncio.create_task(client.send(data))
    assert await read(client, len(data)) == data
    assert await sending == len(data)
    await close(client, server)


async def test_datagrams_may_be_empty_and_go_to_several() -> None:
    first, second = [await pipe_open(UDP, route=("127.0.0.1", 0)) for _ in range(2)]
    client = await pipe_open(UDP, first.local_tup)
    assert await client.send(b"") == 0
    assert await first.recv(timeout=PATIENCE) == b""
    await client.send(b"there", second.local_tup)
    assert await second.recv(timeout=PATIENCE) == b"there"
    await client.send(b"by name", ("localhost", first.local_tup[1]))
    assert await first.recv(timeout=PATIENCE) == b"by name"
    await close(client, first, second)


async def both_families(proto: int) -> None:
    """Meets a server without a route by both families."""
    server = await pipe_open(proto, msg_cb=echo)
    # P2PD's programs connect to the wildcard address, which stands for this machine.
    for address in (("127.0.0.1", server.local_tup[1]), ("::1", server.local_tup[1]), server.sock.getsockname()[:2]):
        async with await pipe_open(proto, address) as client:
            await client.send(b"hello")
            assert await client.recv(timeout=PATIENCE) == b"hello"
    await server.close()


@PROTOS
def test_a_server_without_a_route_takes_both_families(proto: int) -> None:
    # With a session it would listen on the overlay. Other tests leave one to this process, and children inherit it.
    code = f"import asyncio; from tests.test_pipe import both_families; asyncio.run(both_families({int(proto)}))"
    run_python(code, PEERSOCK_NODE="")


@PROTOS
@pytest.mark.parametrize("af", [IP4, IP6])
async def test_routes_and_interfaces_are_bound_to(proto: int, af: int) -> None:
    nic = await Interface("lo")
    own = {IP4: "127.0.0.1", IP6: "::1"}[IP4 if af == IP4 else IP6]
    route = await nic.route(af).bind(0, own)
    server = await pipe_open(proto, route=route, msg_cb=echo)
    assert server.local_tup[0] == own
    # An interface and a route that are not bound are bound; those of the program are left as they are.
    unbound = nic.route(af)
    for by in (nic, unbound):
        client = await pipe_open(proto, server.local_tup, by)
        assert client.local_tup[0] == own and client.route is not by
        await client.send(b"hello")
        assert await client.recv(timeout=PATIENCE) == b"hello"
        await client.close()
    assert unbound._bound is None
    await server.close()


async def test_ports_are_taken_as_the_route_is_bound() -> None:
    async with await pipe_open(UDP, route=("127.0.0.1", 0)) as first:
        port = first.local_tup[1]
        with pytest.raises(OSError):
            await pipe_open(UDP, route=("127.0.0.1", port))
    async with await pipe_open(UDP, ("127.0.0.1", 9), ("127.0.0.1", port)) as again:
        assert again.local_tup == ("127.0.0.1", port)


async def test_sockets_become_pipes() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = await pipe_open(TCP, sock=listener, msg_cb=echo)
    connected = socket.create_connection(server.local_tup)
    client = await pipe_open(TCP, server.local_tup, sock=connected)
    assert client.sock is connected
    await client.send(b"hello")
    assert await client.recv(timeout=PATIENCE) == b"hello"
    await close(client, server)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    pipe = await pipe_open(UDP, sock=datagrams)
    await pipe.send(b"to itself", pipe.local_tup)
    assert await pipe.recv(timeout=PATIENCE) == b"to itself"
    await pipe.close()


async def test_awaiting_a_server_gives_one_client_after_the_other() -> None:
    server = await pipe_open(TCP, route=("::1", 0))
    waiting = asyncio.ensure_future(server._next_client())
    cancelled = asyncio.ensure_future(server._next_client())
    await asyncio.sleep(0)
    cancelled.cancel()
    clients = [await pipe_open(TCP, server.local_tup) for _ in range(3)]
    accepted = [await waiting, await server, await server]
    assert {pipe.client_tup for pipe in accepted} == {client.local_tup for client in clients}
    assert sorted(map(id, server.clients)) == sorted(map(id, accepted))
    for number, client in enumerate(clients):
        await client.send(b"%d" % number)
        (theirs,) = [pipe for pipe in accepted if pipe.client_tup == client.local_tup]
        assert await theirs.recv(timeout=PATIENCE) == b"%d" % number
        # The server answers as those of datagrams do.
        await server.send(b"heard", theirs.client_tup)
        assert await client.recv(timeout=PATIENCE) == b"heard"
        assert await client is client
    waiting = asyncio.ensure_future(server._next_client())
    await asyncio.sleep(0)
    await server.close()
    with pytest.raises(PipeClosedError):
        await waiting
    with pytest.raises(PipeClosedError):
        await server
    await until(lambda: not any(client.is_running for client in clients))
    await close(*clients)


async def test_a_client_that_is_gone_before_it_was_awaited_has_not_been_lost() -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0))
    client = await pipe_open(TCP, server.local_tup)
    await client.send(b"last words")
    await client.close()
    await until(lambda: not server.clients)
    gone = await server
    assert await gone.recv(timeout=PATIENCE) == b"last words"
    with pytest.raises(PipeClosedError):
        await gone.recv()
    await close(gone, server)


async def test_a_server_of_streams_can_be_subscribed_to_as_one_of_datagrams() -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0))
    server.subscribe(SUB_ALL)
    client = await pipe_open(TCP, server.local_tup)
    await client.send(b"ping")
    client_tup, message = await server.recv(timeout=PATIENCE, full=True) or (("", 0), b"")
    assert (client_tup, message) == (client.local_tup, b"ping")
    await server.send(b"pong", client_tup)
    assert await client.recv(timeout=PATIENCE) == b"pong"
    await close(client, server)


async def test_up_callbacks_come_first_and_end_callbacks_last_and_once() -> None:
    events: list[str] = []

    def note(what: str) -> Any:
        async def callback(msg: bytes | None, client_tup: Any, pipe: Pipe) -> None:
            assert (msg is None) == (what != "message") and isinstance(client_tup[1], int)
            events.append(what)

        return callback

    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=note("message"), up_cb=note("up"))
    server.add_end_cb(note("end"))
    client = await pipe_open(TCP, server.local_tup, up_cb=note("client up"))
    client.add_end_cb(note("client end"))
    never = note("never")
    client.add_end_cb(never).del_end_cb(never).del_end_cb(never)
    await client.send(b"message")
    await until(lambda: "message" in events)
    await client.close()
    await client.close()
    await until(lambda: "end" in events)
    assert [event for event in events if "client" not in event] == ["up", "message", "end"]
    assert [event for event in events if "client" in event] == ["client up", "client end"]
    # A callback that is added later is called at once.
    client.add_end_cb(note("late"))
    await until(lambda: "late" in events)
    await server.close()
    assert events.count("end") == 2


@PROTOS
async def test_two_pipes_become_a_relay(proto: int) -> None:
    target = await pipe_open(proto, route=("127.0.0.1", 0), msg_cb=echo)
    relay, client, inner = await pair(proto)
    # Messages that were queued before go first.
    await client.send(b"1")
    await until(lambda: len(inner._subs.find(SUB_ALL)) == 1)
    if proto == UDP:
        inner.dest_tup = (await inner.recv(full=True, timeout=PATIENCE) or (("", 0), b""))[0]
        await client.send(b"1")
    outer = await pipe_open(proto, target.local_tup)
    assert inner.add_pipe(outer) is inner and outer.add_pipe(inner).pipes == [inner]
    for number in range(2, 10):
        await client.send(b"%d" % number)
    assert await read(client, 9) == b"123456789"
    inner.del_pipe(outer).del_pipe(outer)
    await client.send(b"here")
    assert await inner.recv(timeout=PATIENCE) == b"here"
    await outer.close()
    assert inner.pipes == [] and inner.is_running
    with pytest.raises(PipeClosedError):
        inner.add_pipe(outer)
    await close(client, inner, relay, target)


@PROTOS
async def test_closed_pipes_say_so(proto: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        server, client, other = await pair(proto)
        await close(client, other, server)
        for pipe in (client, other, server):
            with pytest.raises(PipeClosedError, match="closed"):
                await pipe.send(b"data", ("127.0.0.1", 9))
            assert "closed" in repr(pipe) and isinstance(pipe.client_tup[1], int)
        for pipe in (client, other):
            with pytest.raises(PipeClosedError, match="closed"):
                await pipe.recv(timeout=PATIENCE)
        del server, client, other, pipe
        gc.collect()
    assert not [record for record in caplog.records if record.name == "peersock.pipe"]
