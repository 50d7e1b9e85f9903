"""Functions that the tests of pipes share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from peersock.pipe import TCP, UDP, Pipe, pipe_open

#: Longest time of any operation, seconds. No test waits for it to pass.
PATIENCE = 30

PROTOS = pytest.mark.parametrize("proto", [TCP, UDP], ids=["tcp", "udp"])
IPS = pytest.mark.parametrize("ip", ["127.0.0.1", "::1"], ids=["v4", "v6"])


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that comes true."""
    while not condition():
        await asyncio.sleep(0.005)


async def echo(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
    """Sends back."""
    await pipe.send(msg, client_tup)


async def pair(proto: int = TCP, ip: str = "127.0.0.1", **conf: Any) -> tuple[Pipe, Pipe, Pipe]:
    """A server, a client of it, and the server's end of the client's connection; for UDP that is the server. The
    options are those of the client."""
    server = await pipe_open(proto, route=(ip, 0))
    client = await pipe_open(proto, server.local_tup, conf=conf)
    return server, client, await server


async def close(*pipes: Pipe) -> None:
    """Closes pipes."""
    for pipe in pipes:
        await pipe.close()


async def read(pipe: Pipe, count: int) -> bytes:
    """Reads `count` bytes, in any number of messages."""
    data = b""
    while len(data) < count:
        message = await pipe.recv(timeout=PATIENCE)
        assert message is not None
        data += message
    return data
