"""asyncio on overlay sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator

import pytest

import peersock
from peersock import socket

from .conftest import Network, Peer, run_python
from .peer import CERTIFICATE


@pytest.fixture(autouse=True)
def _patched(session: peersock.Session) -> Iterator[None]:
    with peersock.patched():
        yield


async def test_many_streams_at_once(peer: Peer) -> None:
    port = peer.port("echo_many", 20)

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection(peer.v6, port)
        assert writer.get_extra_info("peername")[0] == peer.v6
        for _ in range(10):
            writer.write(b"%d\n" % number)
            await writer.drain()
            assert await reader.readline() == b"%d\n" % number
        writer.close()
        await writer.wait_closed()

    await asyncio.wait_for(asyncio.gather(*map(one, range(20))), 30)


async def test_a_server_accepts(peer: Peer, session: peersock.Session) -> None:
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(b"heard\n")
        await writer.drain()
        writer.close()
        heard.set_result(line.decode())

    async with await asyncio.start_server(serve, session.address, 0) as server:
        port = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(asyncio.to_thread(peer.start, "connect", session.address, port))
        assert await asyncio.wait_for(heard, 20) == "from there\n"
        await task


async def test_refusals_are_exceptions(peer: Peer) -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(peer.v6, 9)


class Echo(asyncio.DatagramProtocol):
    """Notes the first datagram."""

    def __init__(self) -> None:
        self.received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.received.set_result(data)


@pytest.mark.parametrize("connected", [True, False])
async def test_datagram_endpoints_whose_socket_becomes_the_overlay_s_stay_watched(peer: Peer, connected: bool) -> None:
    address = (peer.v4, peer.port("datagrams", int(socket.AF_INET), 1))
    loop = asyncio.get_running_loop()
    if connected:
        transport, protocol = await loop.create_datagram_endpoint(Echo, remote_addr=address)
    else:
        transport, protocol = await loop.create_datagram_endpoint(Echo, family=socket.AF_INET)
    # The loop watches the socket before the first datagram is sent.
    await asyncio.sleep(0)
    transport.sendto(b"hello", None if connected else address)
    assert await asyncio.wait_for(protocol.received, 10) == b"hello"
    transport.close()


async def test_low_level_calls(peer: Peer) -> None:
    port = peer.port("echo", int(socket.AF_INET6))
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (peer.v6, port))
        await loop.sock_sendall(sock, b"hello")
        assert await loop.sock_recv(sock, 100) == b"hello"


async def test_tls(peer: Peer) -> None:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    reader, writer = await asyncio.open_connection(peer.v6, peer.port("tls"), ssl=context, server_hostname="there")
    writer.write(b"secret")
    assert await reader.readexactly(6) == b"secret"
    writer.close()


async def test_waiting_for_a_peer(peer: Peer, session: peersock.Session) -> None:
    assert await session.wait_ready_async(5)
    assert await session.wait_peer_async(peer.v6, 5)
    # A member that the list of a static network does not have cannot come.
    with pytest.raises(OSError):
        await session.wait_peer_async(session.address[: session.address.rindex(":")] + ":1", 0.05)


_WAITING = """
import asyncio, sys, peersock

async def main():
    async with peersock.Session(sys.argv[1], identity=bytes.fromhex(sys.argv[2]), interfaces="loopback") as session:
        print(await session.wait_peer_async(sys.argv[3], 20))

asyncio.run(main())
"""


def test_waiting_for_a_peer_to_which_nothing_was_sent(peer: Peer, network: Network) -> None:
    assert run_python(_WAITING, str(network.path), network.spare().hex(), peer.v6) == "True\n"
