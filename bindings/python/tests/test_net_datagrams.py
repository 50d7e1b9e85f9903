"""`peersock.net`: datagrams over the kernel."""

from __future__ import annotations

import errno
import threading

import pytest

from peersock import net

from .background import background
from .conftest import fails


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp(host: str) -> None:
    network = "udp6" if ":" in host else "udp4"
    with net.listen_udp(net.UDPAddr(host), network) as server:
        address = server.local_addr()
        with net.dial_udp(None, address, network) as client, net.dial(str(address), "udp") as other:
            assert isinstance(other, net.UDPConn)
            assert (client.remote_addr(), server.remote_addr()) == (address, None)
            assert client.write(b"hello") == 5
            data, sender = server.read_from()
            assert (data, sender) == (b"hello", client.local_addr())
            assert server.write_to(b"0123456789", sender) == 10
            # The rest of a datagram is cut off.
            assert client.read(4) == b"0123"
            server.write_to(b"", sender)
            server.write_to(b"next", sender)
            assert client.read() == b""
            assert client.read_from() == (b"next", address)
            with fails(errno.EISCONN, net.SocketError):
                client.write_to(b"x", address)
            with fails(errno.EDESTADDRREQ, net.SocketError):
                server.write(b"x")
            with fails(errno.EMSGSIZE, net.SocketError):
                client.write(bytes(70_000))


def test_udp_to_where_nobody_is() -> None:
    with net.listen_udp(net.UDPAddr("127.0.0.1")) as gone:
        address = gone.local_addr()
    with net.dial_udp(net.UDPAddr("127.0.0.1"), address) as client:
        client.write(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.read()


def test_iterating_over_datagrams_ends_when_it_is_closed() -> None:
    with net.listen_udp(net.UDPAddr("127.0.0.1")) as server, net.UDPConn() as client:
        read = threading.Semaphore(0)

        def collect() -> list[bytes]:
            received = []
            for data in server:
                received.append(data)
                read.release()
            return received

        told = background(collect)
        for word in (b"a", b"", b"b"):
            client.write_to(word, server.local_addr())
            assert read.acquire(timeout=20)
        server.close()
        assert told.result(20) == [b"a", b"", b"b"]
