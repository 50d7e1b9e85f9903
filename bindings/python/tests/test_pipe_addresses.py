"""Addresses of pipes, and arguments that make no sense."""

from __future__ import annotations

import math
import socket
from typing import Any

import pytest

from peersock.interfaces import IP4, IP6, Interface, IPRange, Route
from peersock.pipe import TCP, UDP, Address, pipe_open

from .pipes import PATIENCE, close, echo


async def test_addresses() -> None:
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
async def test_wrong_addresses_are_refused(host: Any, port: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Address(host, port)
    with pytest.raises(error):
        await pipe_open(TCP, (host, port))
    async with await pipe_open(UDP, route=("127.0.0.1", 0)) as pipe:
        with pytest.raises(error):
            await pipe.send(b"data", (host, port))


async def test_wrong_arguments_are_refused() -> None:
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


async def test_nobody_there() -> None:
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
