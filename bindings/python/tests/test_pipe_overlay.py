"""Pipes over the overlay, between two processes."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

import peersock
from peersock import _peersock
from peersock.interfaces import IP4, IP6
from peersock.pipe import TCP, UDP, Address, Daemon, Pipe, PipeClosedError, overlay_route, pipe_open

from .conftest import Network, Peer
from .pipes import PATIENCE, PROTOS, close, echo, read, until

FAMILIES = pytest.mark.parametrize("af", [IP4, IP6], ids=["v4", "v6"])


@pytest.fixture(autouse=True)
def _reached(peer: Peer) -> None:
    pass


@PROTOS
@FAMILIES
async def test_both_ends_are_pipes(peer: Peer, session: peersock.Session, proto: int, af: int) -> None:
    there = peer.v4 if af == IP4 else peer.v6
    port = peer.port("pipe_echo", int(proto), there)
    conf = {"con_timeout": PATIENCE, "linger": 5} if proto == TCP else {}
    client = await pipe_open(proto, (there, port), conf=conf)
    for number in range(20):
        await client.send(b"%02d" % number)
        assert await client.recv(timeout=PATIENCE) == b"%02d" % number
    # The socket is the overlay's.
    assert _peersock.is_overlay(client.sock.fileno())
    assert proto == UDP or client.local_tup[0] in session.addresses
    assert client.dest_tup == (there, port)
    if proto == TCP:
        data = bytes(range(256)) * 4000
        sending = asyncio.create_task(client.send(data))
        assert await read(client, len(data)) == data
        await sending
    member = client.peer()
    assert (member.name if member is not None else None) == ("there" if proto == TCP else None)
    await client.send(b"end")
    await close(client)
    assert client.peer() == member, "it stays after the end"


@PROTOS
@FAMILIES
async def test_a_route_of_a_session_is_bound_to(session: peersock.Session, proto: int, af: int) -> None:
    server = await pipe_open(proto, route=await overlay_route(session, af).bind(), msg_cb=echo)
    assert server.local_tup[0] in session.addresses and server.local_tup[1] > 0
    # A client's, too.
    client = await pipe_open(proto, server.local_tup, overlay_route(session, af))
    assert client.local_tup[0] == server.local_tup[0]
    await client.send(b"hello")
    assert await client.recv(timeout=PATIENCE) == b"hello"
    await close(client, server)


async def test_names_of_members_lead_over_the_overlay(peer: Peer) -> None:
    port = peer.port("pipe_echo", int(UDP), peer.v6)
    address = await Address("there", port)
    assert peer.v4 == address.IP4 and peer.v6 == address.IP6
    async with await pipe_open(UDP, (peer.v6, port)) as client:
        await client.send(b"by name", ("there", port) if client.sock.family == IP4 else (peer.v6, port))
        assert await client.recv(timeout=PATIENCE) == b"by name"
    async with await pipe_open(UDP, ("there", port), ("::", 0)) as client:
        await client.send(b"end")


async def test_the_kernel_s_addresses_stay_the_kernel_s(peer: Peer, session: peersock.Session) -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo)
    client = await pipe_open(TCP, server.local_tup)
    assert not _peersock.is_overlay(client.sock.fileno())
    await client.send(b"hello")
    assert await client.recv(timeout=PATIENCE) == b"hello"
    assert client.peer() is None and server.peer() is None
    # One does not lead to the other.
    for dest, route in ((server.local_tup, overlay_route(session, IP4)), ((peer.v4, 9), ("127.0.0.1", 0))):
        for proto in (TCP, UDP):
            with pytest.raises(ValueError, match="overlay"):
                await pipe_open(proto, dest, route)
    await close(client, server)


async def test_an_accepted_client_is_a_pipe(peer: Peer, session: peersock.Session) -> None:
    async with await pipe_open(TCP, route=overlay_route(session)) as server:
        telling = asyncio.create_task(asyncio.to_thread(peer.start, "connect", *server.local_tup))
        client = await server
        assert client.client_tup[0] == peer.v6
        member = client.peer()
        assert member is not None and member.name == "there"
        assert await client.recv(timeout=PATIENCE) == b"from there\n"
        await client.send(b"heard\n")
        assert await telling == "done heard"
        with pytest.raises(PipeClosedError):
            await client.recv(timeout=math.inf)


@pytest.mark.parametrize(("conf", "share"), [({"max_clients": 70}, 64), ({"max_clients_of_member": 1}, 1)])
async def test_no_member_takes_all_places(
    peer: Peer, session: peersock.Session, conf: dict[str, int], share: int
) -> None:
    route = overlay_route(session)
    async with await pipe_open(TCP, route=route, msg_cb=echo, conf={**conf, "reuse_addr": True}) as server:
        for _ in range(2):
            crowd = await asyncio.to_thread(peer.start, "crowd", *server.local_tup, share + 2)
            assert crowd == f"{share} 2"
            # Places that are free again are the member's.
            await until(lambda: not server.clients)


async def test_a_relay_joins_both_networks(peer: Peer) -> None:
    port = peer.port("pipe_echo", int(TCP), peer.v6)

    async def splice(msg: None, client_tup: Any, client: Pipe) -> None:
        outer = await pipe_open(TCP, (peer.v6, port), conf={"con_timeout": PATIENCE})
        client.add_pipe(outer)
        outer.add_pipe(client)

    # Of the kernel's loopback into the overlay. What comes before the other pipe is open waits.
    server = await pipe_open(TCP, route=("127.0.0.1", 0), up_cb=splice)
    reader, writer = await asyncio.open_connection(*server.local_tup)
    writer.write(b"through the relay")
    assert await asyncio.wait_for(reader.readexactly(17), PATIENCE) == b"through the relay"
    writer.write(b"end")
    await writer.drain()
    assert await asyncio.wait_for(server.clients[0].pipes[0]._gone.wait(), PATIENCE)
    writer.close()
    await server.close()


async def test_a_daemon_listens_on_a_session(session: peersock.Session) -> None:
    class Echo(Daemon):
        async def msg_cb(self, msg: bytes, client_tup: Any, pipe: Pipe) -> None:
            await pipe.send(msg, client_tup)

    async with await Echo().listen_all([session], [0], [TCP, UDP]) as daemon:
        assert len(daemon.servers) == 4
        for server in daemon.servers:
            assert server.local_tup[0] in session.addresses
            async with await pipe_open(server.proto, server.local_tup) as client:
                await client.send(b"hello")
                assert await client.recv(timeout=PATIENCE) == b"hello"


def test_the_end_of_a_session_ends_its_pipes(network: Network) -> None:
    from .conftest import run_python

    text = run_python(_ENDING, str(network.path), network.spare().hex())
    failed = "the pipe has failed: [Errno 100] Network is down: the peersock node has ended, or it has left the network"
    assert text == f"server end\nudp end\n{failed}, so this session is over\nclosed\n"


_ENDING = """
import asyncio, sys, peersock
from peersock.pipe import *

async def main():
    session = peersock.Session(sys.argv[1], identity=bytes.fromhex(sys.argv[2]), interfaces="loopback", linger=0)
    server = await pipe_open(TCP, route=overlay_route(session))
    datagrams = await pipe_open(UDP, route=overlay_route(session))
    ends = []
    server.add_end_cb(lambda *_: ends.append("server end"))
    datagrams.add_end_cb(lambda *_: ends.append("udp end"))
    async def client():
        return await server
    waiting = asyncio.ensure_future(client())
    await asyncio.sleep(0)
    await asyncio.to_thread(session.close)
    for _ in range(2000):
        if len(ends) == 2:
            break
        await asyncio.sleep(0.005)
    print(*sorted(ends), sep="\\n")
    try:
        await waiting
    except PipeClosedError as error:
        print(error)
    for pipe in (server, datagrams):
        await pipe.close()
    print("closed")

asyncio.run(main())
"""
