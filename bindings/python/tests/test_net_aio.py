"""`peersock.net.aio`: the same, awaited, over the kernel and over the overlay."""

from __future__ import annotations

import asyncio
import errno
import os
import socket as std
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import peersock
from peersock import net
from peersock.net import aio

from .conftest import Network, Peer, fails

FOREVER = 60
LARGE = bytes(range(256)) * 10_000


@pytest.fixture(params=["127.0.0.1:0", "[::1]:0", "unix", "overlay"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """An address to listen at, and its network."""
    if request.param == "unix":
        return str(tmp_path / "s"), "unix"
    if request.param == "overlay":
        session: peersock.Session = request.getfixturevalue("session")
        return net.join_host_port(session.address, 0), "tcp"
    return request.param, "tcp"


@asynccontextmanager
async def ends(place: tuple[str, str]) -> AsyncIterator[tuple[Any, Any, Any]]:
    """A listener and both ends of a connection."""
    async with await aio.listen(*place) as listener:
        accepted = asyncio.create_task(listener.accept())
        async with await aio.dial(str(listener.addr()), place[1], timeout=FOREVER) as client:
            async with await accepted as server:
                yield listener, client, server


async def test_reads_and_writes(place: tuple[str, str]) -> None:
    async with ends(place) as (listener, client, server):
        assert client.remote_addr() == listener.addr()
        assert client.local_addr() == server.remote_addr()
        assert await client.write(b"one\ntwo\nrest") == 12
        assert await server.read_line() == b"one\n"
        assert [line async for line in _first(server, 1)] == [b"two\n"]
        assert await server.read(2) == b"re"
        room = bytearray(2)
        assert await server.read_into(room) == 2
        assert room == b"st"
        sent = asyncio.create_task(client.write(LARGE))
        sent.add_done_callback(lambda _: client.close_write())
        assert b"".join([chunk async for chunk in server.chunks()]) == LARGE
        assert await sent == len(LARGE)
        await server.write(b"x\ny")
        server.close_write()
        assert [line async for line in client] == [b"x\n", b"y"]
        assert await client.read() == b""


async def _first(lines: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    async for line in lines:
        yield line
        count -= 1
        if not count:
            return


async def test_close_and_deadlines_wake_what_waits(place: tuple[str, str]) -> None:
    for ending, kind in (("close", net.ClosedError), ("deadline", net.DeadlineError)):
        for which in range(3):
            async with ends(place) as (listener, client, server):
                endpoint, call = (
                    (client, client.read),
                    (server, lambda server=server: server.write(bytes(1 << 26))),
                    (listener, listener.accept),
                )[which]
                # The second one waits for the first.
                waiting = [asyncio.create_task(call()) for _ in range(2)]
                while not any(endpoint._wakers):
                    await asyncio.sleep(0)
                endpoint.close() if ending == "close" else endpoint.set_deadline(time.time() - 1)
                for one in waiting:
                    with pytest.raises(kind):
                        await one
                with pytest.raises(kind):
                    await call()


async def test_a_timeout_counts_while_another_call_has_the_turn(place: tuple[str, str]) -> None:
    async with ends(place) as (_, client, server):
        first = asyncio.create_task(client.read())
        while not client._wakers[0]:
            await asyncio.sleep(0)
        client.settimeout(0.05)
        with pytest.raises(net.DeadlineError):
            await client.read()
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            await client.read()
        await server.write(b"x")
        assert await first == b"x"
        with pytest.raises(BlockingIOError):
            await client.read()


async def test_a_new_deadline_does_not_end_a_connect(session: peersock.Session, network: Network) -> None:
    async with aio.TCPConn() as conn:
        # A member that is not there.
        connecting = asyncio.create_task(conn.connect(net.TCPAddr(network.v4["spare61"], 80)))
        woken: set[Any] = set()
        for deadline in (time.time() + FOREVER, None, time.time() - 1):
            # It has looked, and waits again.
            while conn._wakers[1] <= woken and not connecting.done():
                await asyncio.sleep(0)
            woken |= conn._wakers[1]
            conn.set_deadline(deadline)
        with pytest.raises(net.DeadlineError):
            await connecting
        assert conn.remote_addr() is None


async def test_deadlines_come_and_go(place: tuple[str, str]) -> None:
    async with ends(place) as (_, client, server):
        client.set_read_deadline(time.time() + 0.05)
        with pytest.raises(net.DeadlineError):
            await client.read()
        await server.write(b"there")
        with pytest.raises(net.DeadlineError):
            await client.read()
        client.set_deadline(None)
        assert await client.read() == b"there"
        client.settimeout(0.05)
        with pytest.raises(net.DeadlineError):
            await client.read()
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            await client.read()


async def test_a_cancelled_read_loses_nothing(place: tuple[str, str]) -> None:
    async with ends(place) as (_, client, server):
        for _ in range(3):
            waiting = asyncio.create_task(client.read())
            while not client._wakers[0]:
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await server.write(b"x")
        assert await client.read() == b"x"
        client.close_read()
        assert await client.read() == b""


async def test_listeners_are_iterated_until_they_are_closed(place: tuple[str, str]) -> None:
    async with await aio.listen(*place) as listener:

        async def serve() -> list[bytes]:
            words = []
            async for conn in listener:
                async with conn:
                    words.append(await conn.read())
            return words

        serving = asyncio.create_task(serve())
        for word in (b"a", b"b"):
            async with await aio.dial(str(listener.addr()), place[1]) as conn:
                await conn.write(word)
                assert await conn.read() == b""
        listener.close()
        assert await serving == [b"a", b"b"]
    if place[1] == "unix":
        assert not os.path.exists(place[0])


async def test_datagrams(session: peersock.Session, tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", session.address):
        async with aio.listen_udp(net.UDPAddr(host)) as server:
            async with await aio.dial_udp(None, server.local_addr()) as client:
                await client.write(b"hello")
                data, sender = await server.read_from()
                assert (data, sender) == (b"hello", client.local_addr())
                await server.write_to(b"back", sender)
                assert await client.read() == b"back"
                collected = asyncio.create_task(_collect(server))
                await asyncio.sleep(0)
                server.close()
                assert await collected == []
    there = net.UnixAddr(str(tmp_path / "there"), "unixgram")
    async with aio.listen_unixgram(there) as receiver, await aio.dial_unix(None, None, "unixgram") as unbound:
        sending = asyncio.gather(*(unbound.write_to(b"%d" % number, there) for number in range(100)))
        assert [int(await receiver.read()) for _ in range(100)] == list(range(100))
        await sending


async def _collect(conn: Any) -> list[bytes]:
    return [data async for data in conn]


async def test_members_have_names(peer: Peer) -> None:
    port = peer.port("echo", int(std.AF_INET6))
    assert await aio.resolve_tcp_addr(f"there:{port}", "tcp6") == net.TCPAddr(peer.v6, port)
    async with await aio.dial(f"there:{port}", timeout=FOREVER) as conn:
        await conn.write(b"x")
        assert await conn.read() == b"x"


async def test_the_other_functions(tmp_path: Path) -> None:
    path = net.UnixAddr(str(tmp_path / "s"))
    async with aio.listen_unix(path) as unix, await aio.dial_unix(None, path) as client:
        assert client.remote_addr() == unix.addr() == path
    async with aio.listen_tcp(net.TCPAddr("127.0.0.1")) as tcp:
        async with aio.TCPConn("tcp4") as made:
            made.bind(net.TCPAddr("127.0.0.2"))
            await made.connect(tcp.addr())
            assert made.remote_addr() == tcp.addr()
        async with await aio.dial_tcp(None, tcp.addr()) as second:
            assert second.remote_addr() == tcp.addr()
    assert await aio.resolve_udp_addr("127.0.0.1:ntp") == net.UDPAddr("127.0.0.1", 123)
    assert await aio.resolve_ip_addr("::1") == net.IPAddr("::1")
    assert await aio.resolve_addr("127.0.0.1:1", "tcp4") == net.TCPAddr("127.0.0.1", 1)


async def test_errors_are_the_same(session: peersock.Session, network: Network) -> None:
    async with await aio.listen("127.0.0.1:0") as listener:
        address = str(listener.addr())
        with fails(errno.EADDRINUSE, net.SocketError):
            await aio.listen(address)
    with pytest.raises(ConnectionRefusedError) as refused:
        await aio.dial(address)
    assert isinstance(refused.value, net.SocketError)
    for function in (aio.dial, aio.listen):
        with pytest.raises(net.UnknownNetworkError):
            await function("127.0.0.1:1", "sctp")
        with pytest.raises(net.AddressError):
            await function("127.0.0.1")
    # A member that is not there.
    with pytest.raises(net.DeadlineError):
        await aio.dial(f"{network.v4['spare58']}:80", timeout=0.1)


async def test_a_cancelled_dial_leaves_no_socket(session: peersock.Session, network: Network) -> None:
    await asyncio.to_thread(int)
    before = len(os.listdir("/proc/self/fd"))
    dialing = asyncio.create_task(aio.dial(f"{network.v4['spare57']}:80"))
    while len(os.listdir("/proc/self/fd")) == before:
        await asyncio.sleep(0.001)
    dialing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialing
    while len(os.listdir("/proc/self/fd")) > before:
        await asyncio.sleep(0.001)
