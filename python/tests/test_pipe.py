"""Pipes over the kernel: opening, sending, receiving, callbacks, relays, accepting."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import math
import socket
from typing import Any

import pytest

from peersock.interfaces import IP4, IP6, Interface, IPRange, Route
from peersock.pipe import SUB_ALL, TCP, UDP, Address, Pipe, PipeClosedError, pipe_open

from .pipes import IPS, PATIENCE, PROTOS, close, echo, pair, read, run, until


@PROTOS
@IPS
def test_one_object_for_all_by_await(proto: int, ip: str) -> None:
    async def main() -> None:
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

    run(main())


@PROTOS
@IPS
@pytest.mark.parametrize("kind", ["plain", "async", "partial"])
def test_one_object_for_all_by_callbacks(proto: int, ip: str, kind: str) -> None:
    async def main() -> None:
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

    run(main())


def test_streams_are_whole_and_in_order_whatever_their_size() -> None:
    async def main() -> None:
        server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo)
        client = await pipe_open(TCP, server.local_tup)
        data = bytes(range(256)) * 20_000
        sending = asyncio.create_task(client.send(data))
        assert await read(client, len(data)) == data
        assert await sending == len(data)
        await close(client, server)

    run(main())


def test_datagrams_may_be_empty_and_go_to_several() -> None:
    async def main() -> None:
        first, second = [await pipe_open(UDP, route=("127.0.0.1", 0)) for _ in range(2)]
        client = await pipe_open(UDP, first.local_tup)
        assert await client.send(b"") == 0
        assert await first.recv(timeout=PATIENCE) == b""
        await client.send(b"there", second.local_tup)
        assert await second.recv(timeout=PATIENCE) == b"there"
        await client.send(b"by name", ("localhost", first.local_tup[1]))
        assert await first.recv(timeout=PATIENCE) == b"by name"
        await close(client, first, second)

    run(main())


@PROTOS
def test_a_server_without_a_route_takes_both_families(proto: int) -> None:
    async def main() -> None:
        server = await pipe_open(proto, msg_cb=echo)
        for ip in ("127.0.0.1", "::1"):
            async with await pipe_open(proto, (ip, server.local_tup[1])) as client:
                await client.send(b"hello")
                assert await client.recv(timeout=PATIENCE) == b"hello"
        # As P2PD's programs do it: the wildcard stands for this machine.
        async with await pipe_open(proto, server.sock.getsockname()[0:2]) as client:
            await client.send(b"hello")
            assert await client.recv(timeout=PATIENCE) == b"hello"
        await server.close()

    run(main())


@PROTOS
@pytest.mark.parametrize("af", [IP4, IP6])
def test_routes_and_interfaces_are_bound_to(proto: int, af: int) -> None:
    async def main() -> None:
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

    run(main())


def test_ports_are_taken_as_the_route_is_bound() -> None:
    async def main() -> None:
        async with await pipe_open(UDP, route=("127.0.0.1", 0)) as first:
            port = first.local_tup[1]
            with pytest.raises(OSError):
                await pipe_open(UDP, route=("127.0.0.1", port))
        async with await pipe_open(UDP, ("127.0.0.1", 9), ("127.0.0.1", port)) as again:
            assert again.local_tup == ("127.0.0.1", port)

    run(main())


def test_sockets_become_pipes() -> None:
    async def main() -> None:
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

    run(main())


def test_awaiting_a_server_gives_one_client_after_the_other() -> None:
    async def main() -> None:
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

    run(main())


def test_a_client_that_is_gone_before_it_was_awaited_has_not_been_lost() -> None:
    async def main() -> None:
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

    run(main())


def test_a_server_of_streams_can_be_subscribed_to_as_one_of_datagrams() -> None:
    async def main() -> None:
        server = await pipe_open(TCP, route=("127.0.0.1", 0))
        server.subscribe(SUB_ALL)
        client = await pipe_open(TCP, server.local_tup)
        await client.send(b"ping")
        client_tup, message = await server.recv(timeout=PATIENCE, full=True) or (("", 0), b"")
        assert (client_tup, message) == (client.local_tup, b"ping")
        await server.send(b"pong", client_tup)
        assert await client.recv(timeout=PATIENCE) == b"pong"
        await close(client, server)

    run(main())


def test_up_callbacks_come_first_and_end_callbacks_last_and_once() -> None:
    async def main() -> None:
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
        # Who comes later is told at once.
        client.add_end_cb(note("late"))
        await until(lambda: "late" in events)
        await server.close()
        assert events.count("end") == 2

    run(main())


@PROTOS
def test_two_pipes_become_a_relay(proto: int) -> None:
    async def main() -> None:
        target = await pipe_open(proto, route=("127.0.0.1", 0), msg_cb=echo)
        relay, client, inner = await pair(proto)
        # What was queued before goes first.
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

    run(main())


def test_addresses() -> None:
    async def main() -> None:
        address = Address("localhost", 8080)
        assert not address.resolved
        with pytest.raises(ValueError, match="await"):
            _ = address.tup
        await address
        assert address.resolved and address.tup in (("127.0.0.1", 8080), ("::1", 8080))
        assert (await Address("0.0.0.0", 1)).tup == ("127.0.0.1", 1)
        assert (await Address(b"::", 65535)).tup == ("::1", 65535)
        assert (await Address("::ffff:192.0.2.1", 5)).tup == ("192.0.2.1", 5)
        route = Route(IP6, [IPRange("::1")], interface=await Interface("lo"))
        assert (await Address("fe80::1", 5, route)).tup == ("fe80::1%1", 5)
        six = await Address("2001:0db8:0::1", 5).res(route)
        assert six.tup == six.select_ip(IP6) == ("2001:db8::1", 5) and six.IP4 is None
        with pytest.raises(ValueError, match="family"):
            six.select_ip(IP4)
        with pytest.raises(ValueError, match="family"):
            _ = (await Address("192.0.2.1", 5, route)).tup
        server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo)
        async with await pipe_open(TCP, Address("localhost", server.local_tup[1])) as client:
            await client.send(b"hello")
            assert await client.recv(timeout=PATIENCE) == b"hello"
            await client.send(b"hello", ("localhost", server.local_tup[1]))
        await server.close()

    run(main())


@pytest.mark.parametrize(
    "host, port, error",
    [
        ("", 1, ValueError),
        ("a\0b", 1, ValueError),
        (None, 1, TypeError),
        (4, 1, TypeError),
        ("::1", 0, ValueError),
        ("::1", -1, ValueError),
        ("::1", 65536, ValueError),
        ("::1", "80", TypeError),
        ("::1", True, TypeError),
        ("::1", 80.0, TypeError),
    ],
)
def test_wrong_addresses_are_refused(host: Any, port: Any, error: type[Exception]) -> None:
    async def main() -> None:
        with pytest.raises(error):
            Address(host, port)
        with pytest.raises(error):
            await pipe_open(TCP, (host, port))
        async with await pipe_open(UDP, route=("127.0.0.1", 0)) as pipe:
            with pytest.raises(error):
                await pipe.send(b"data", (host, port))

    run(main())


def test_wrong_arguments_are_refused() -> None:
    async def main() -> None:
        proto: Any
        dest: Any
        for proto in ("tcp", socket.SOCK_RAW, True, None):
            with pytest.raises(ValueError, match="TCP or UDP"):
                await pipe_open(proto, ("127.0.0.1", 9))
        for dest in ("127.0.0.1:9", 9, {"host": 1}):
            with pytest.raises(TypeError, match="destination"):
                await pipe_open(TCP, dest)
        for dest in (("127.0.0.1",), ("127.0.0.1", 9, 0), ()):
            with pytest.raises(ValueError):
                await pipe_open(TCP, dest)
        with pytest.raises(TypeError, match="callback"):
            await pipe_open(UDP, route=("127.0.0.1", 0), msg_cb=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="route"):
            await pipe_open(UDP, route="127.0.0.1")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="bind"):
            await pipe_open(UDP, route=("localhost", 0))
        with pytest.raises(ValueError, match="family"):
            await pipe_open(TCP, ("::1", 9), ("127.0.0.1", 0))
        with pytest.raises(OSError):
            await pipe_open(TCP, ("no-such-name.invalid", 9))
        with pytest.raises(OSError):
            await pipe_open(TCP, ("a" * 300, 9))
        with pytest.raises(TypeError, match="socket"):
            await pipe_open(TCP, sock=5)  # type: ignore[arg-type]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="protocol"):
            await pipe_open(TCP, ("127.0.0.1", 9), sock=sock)
        server = await pipe_open(TCP, route=("127.0.0.1", 0))
        client = await pipe_open(TCP, server.local_tup)
        with pytest.raises(TypeError, match="bytes"):
            await client.send("text")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="leads to"):
            await client.send(b"data", ("127.0.0.1", 9))
        with pytest.raises(ValueError, match="which client"):
            await server.send(b"data")
        with pytest.raises(LookupError, match="no client"):
            await server.send(b"data", ("127.0.0.1", 9))
        with pytest.raises(ValueError, match="destination"):
            client.add_pipe(server)
        with pytest.raises(TypeError, match="pipe"):
            client.add_pipe(5)  # type: ignore[arg-type]
        for add in (client.add_msg_cb, client.add_end_cb, client.add_up_cb):
            with pytest.raises(TypeError, match="callback"):
                add(None)  # type: ignore[arg-type]
        for timeout, error in (("1", TypeError), (True, TypeError), (-1, ValueError), (math.nan, ValueError)):
            with pytest.raises(error):
                await client.recv(timeout=timeout)  # type: ignore[arg-type]
        async with await pipe_open(UDP, route=("127.0.0.1", 0)) as pipe:
            with pytest.raises(ValueError, match="destination"):
                await pipe.send(b"data")
            with pytest.raises(ValueError, match="IPv4"):
                await pipe.send(b"data", ("::1", 9))
            with pytest.raises(OSError):
                await pipe.send(bytes(70_000), ("127.0.0.1", 9))
            assert pipe.is_running
        await close(client, server)

    run(main())


def test_nobody_there() -> None:
    async def main() -> None:
        async with await pipe_open(TCP, route=("127.0.0.1", 0)) as server:
            nobody = server.local_tup
        with pytest.raises(ConnectionRefusedError):
            await pipe_open(TCP, nobody)
        # An address that answers is found behind one that does not.
        async with await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo) as server:
            address = await Address("localhost", server.local_tup[1])
            address._found = [("::1", address.port), ("127.0.0.1", address.port)]
            async with await pipe_open(TCP, address) as client:
                assert client.dest_tup == server.local_tup

    run(main())


def test_closed_pipes_say_so(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        for proto in (TCP, UDP):
            server, client, other = await pair(proto)
            await close(client, other, server)
            for pipe in (client, other, server):
                with pytest.raises(PipeClosedError, match="closed"):
                    await pipe.send(b"data", ("127.0.0.1", 9))
                assert "closed" in repr(pipe) and isinstance(pipe.client_tup[1], int)
            for pipe in (client, other):
                with pytest.raises(PipeClosedError, match="closed"):
                    await pipe.recv(timeout=PATIENCE)

    with caplog.at_level(logging.WARNING):
        run(main())
        gc.collect()
    assert not [record for record in caplog.records if record.name == "peersock.pipe"]
